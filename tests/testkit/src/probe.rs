//! The command line of the probe server, and where its program comes from.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::libc::c_int;

/// What the probe does when SIGTERM reaches it. By default it dies of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTerm {
    /// It exits with this status.
    Exit(u8),
    /// It ignores it.
    Ignore,
    /// It takes this long, then exits with status 0.
    Slow(Duration),
}

/// The words of a probe server's command line.
///
/// The probe writes its report, then the line of [`Probe::append`], then its output; forks or
/// stays where that is asked for; and then ends. Without an end it stays until it is killed.
#[derive(Clone, Debug)]
pub struct Probe(Vec<OsString>);

impl Probe {
    /// Returns the command line of the probe at `program`, a path as vsrun will see it.
    pub fn at(program: impl Into<OsString>) -> Probe {
        Probe(vec![program.into()])
    }

    /// It writes a [`crate::Report`] of its very first instruction to `path`.
    pub fn report(self, path: impl AsRef<OsStr>) -> Probe {
        self.word("report=", path)
    }

    /// Its report has what the file `path` holds.
    pub fn pidfile(self, path: impl AsRef<OsStr>) -> Probe {
        self.word("pidfile=", path)
    }

    /// It appends a line with its id to `path`: a line for each start, written once the signals of
    /// [`Probe::log_signals`] and [`Probe::on_term`] are handled.
    pub fn append(self, path: impl AsRef<OsStr>) -> Probe {
        self.word("append=", path)
    }

    /// It writes `text` and a newline to standard output.
    pub fn out(self, text: impl AsRef<OsStr>) -> Probe {
        self.word("out=", text)
    }

    /// It writes `text` and a newline to standard error.
    pub fn err(self, text: impl AsRef<OsStr>) -> Probe {
        self.word("err=", text)
    }

    /// It writes `line 1` to `line N` to standard output, each by one write(2).
    pub fn lines(self, count: u64) -> Probe {
        self.word("lines=", count.to_string())
    }

    /// It writes `tick 1`, `tick 2` and so on to standard output while it stays.
    pub fn ticks(self, every: Duration) -> Probe {
        self.word("ticks=", every.as_millis().to_string())
    }

    /// It appends the name of each HUP, INT, QUIT, USR1, USR2, WINCH and TERM to `path` and, but
    /// for TERM, continues. A line `READY` stands for each start.
    pub fn log_signals(self, path: impl AsRef<OsStr>) -> Probe {
        self.word("log-signals=", path)
    }

    /// What SIGTERM does.
    pub fn on_term(self, behaviour: OnTerm) -> Probe {
        let behaviour = match behaviour {
            OnTerm::Exit(status) => format!("exit:{status}"),
            OnTerm::Ignore => "ignore".to_owned(),
            OnTerm::Slow(duration) => format!("slow:{}", duration.as_millis()),
        };
        self.word("term=", behaviour)
    }

    /// It leaves a child that stays for ever, in its own process group and session.
    pub fn with_child(self) -> Probe {
        self.word("fork=", "child")
    }

    /// It leaves a child that stays for ever, in a session of its own.
    pub fn with_session_child(self) -> Probe {
        self.word("fork=", "session")
    }

    /// It daemonizes: a child in its own session continues, the parent exits with status 0.
    pub fn daemonizing(self) -> Probe {
        self.word("fork=", "away")
    }

    /// It stays until the file `path` exists, and then comes to its end.
    pub fn until(self, path: impl AsRef<OsStr>) -> Probe {
        self.word("until=", path)
    }

    /// Its end is an exit with this status.
    pub fn exit(self, status: u8) -> Probe {
        self.word("exit=", status.to_string())
    }

    /// Its end is this signal, real-time signals included.
    pub fn kill(self, signal: c_int) -> Probe {
        self.word("kill=", signal.to_string())
    }

    /// It comes to its end only in its first `count` starts, counted in the file of
    /// [`Probe::append`]; later ones stay.
    pub fn only_first(self, count: u64) -> Probe {
        self.word("first=", count.to_string())
    }

    /// It raises its soft limit for core files to the hard one.
    pub fn dumping_core(self) -> Probe {
        self.word("core=", "max")
    }

    /// It is given these words, any bytes, and does nothing with them. Comes last.
    pub fn carrying<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Probe {
        self.0.push("--".into());
        self.0
            .extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Returns the words, the program first.
    pub fn words(&self) -> &[OsString] {
        &self.0
    }

    fn word(mut self, name: &str, value: impl AsRef<OsStr>) -> Probe {
        let mut word = OsString::from(name);
        word.push(value);
        self.0.push(word);
        self
    }
}

impl IntoIterator for Probe {
    type Item = OsString;
    type IntoIter = std::vec::IntoIter<OsString>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Returns the path of the probe server's program.
///
/// Cargo builds a package's programs for that package's own tests only, and `probe` must be linked
/// statically to run in a bare chroot. So cargo is asked for it once per test process, in a target
/// directory of its own: a moment's check if it is fresh, and cargo's lock keeps test processes
/// that ask at once apart. A static glibc comes with Debian's libc6-dev.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

fn build() -> PathBuf {
    let target = target_directory();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "rustc",
            "--quiet",
            "--package",
            "testkit",
            "--bin",
            "probe",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .args([
            "--",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
        ])
        // It would put the program into another directory.
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .unwrap_or_else(|error| panic!("cannot run cargo for the probe server: {error}"));
    let output = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "cannot build the probe server: {output}"
    );
    target.join("debug/probe")
}

/// A directory in the one that this test program was built in: `target/debug/deps/name-hash`.
fn target_directory() -> PathBuf {
    let test = env::current_exe().expect("a test program has a path");
    let deps = test.ancestors().find(|path| path.ends_with("deps"));
    let profile = deps
        .and_then(Path::parent)
        .expect("a test program is in a directory 'deps'");
    profile.join("static-probe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_in_the_order_of_the_calls() {
        let probe = Probe::at("/bin/probe")
            .exit(3)
            .on_term(OnTerm::Exit(4))
            .carrying(["a b"]);
        assert_eq!(
            probe.words(),
            ["/bin/probe", "exit=3", "term=exit:4", "--", "a b"]
        );
    }
}
