//! `cargo xtask guard`: measures a start and a manager at rest, and compares the figures with
//! ceilings. Only figures that are the same in each run are measured.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::instructions_of;
use crate::process::memory;
use crate::scratch::{Scratch, write_program};
use xtask::steps::{Failure, cargo, cargo_target, root, run as step};

const CEILINGS: &str = "lab/ceilings";
/// How far a new ceiling is above the figure, in percent.
const MARGIN: u64 = 5;

#[derive(Args)]
pub struct Settings {
    /// Write new ceilings, five percent above what is measured
    #[arg(long)]
    write: bool,
}

/// Measures, then compares with the ceilings or writes new ones.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    step(&mut cargo("build --locked --release --bin vsrun"))?;
    let scratch = Scratch::new("guard")?;
    let vsrun = scratch.path().join("vsrun");
    fs::copy(cargo_target().join("release/vsrun"), &vsrun)
        .map_err(|error| format!("cannot copy vsrun: {error}"))?;
    // Pages of a file that was just written count as dirty.
    nix::unistd::sync();
    let plain = Start {
        vsrun: &vsrun,
        scratch: scratch.path(),
        options: &[],
        wrapper: Vec::new(),
    };
    let names = with_own_names(scratch.path())?;
    let as_user = Start {
        options: &["-u", "nobody"],
        wrapper: names,
        ..plain
    };
    let figures = [
        ("bytes", fs::metadata(&vsrun).ok().map(|about| about.len())),
        ("instructions-of-a-start", plain.instructions()),
        ("system-calls-of-a-start", plain.calls()),
        ("instructions-of-a-start-as-a-user", as_user.instructions()),
        ("system-calls-of-a-start-as-a-user", as_user.calls()),
        // The stack needs one page more in some runs.
        (
            "private-dirty-kib-of-a-manager",
            (0..9).filter_map(|_| dirty(&vsrun, scratch.path())).min(),
        ),
    ];
    if settings.write {
        let lines = figures.iter().filter_map(|(name, figure)| {
            Some(format!("{name} {}\n", (*figure)? * (100 + MARGIN) / 100))
        });
        return fs::write(root().join(CEILINGS), lines.collect::<String>())
            .map_err(|error| format!("cannot write {CEILINGS}: {error}").into());
    }
    compare(&figures)
}

fn compare(figures: &[(&str, Option<u64>)]) -> Result<(), Failure> {
    let ceilings = fs::read_to_string(root().join(CEILINGS))
        .map_err(|error| format!("cannot read {CEILINGS}: {error}"))?;
    let ceiling = |name: &str| {
        let line = ceilings
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse::<u64>().ok())
    };
    let mut above = Vec::new();
    for (name, figure) in figures {
        match (figure, ceiling(name)) {
            (Some(figure), Some(ceiling)) => {
                println!("xtask: {name}: {figure}, at most {ceiling}");
                if *figure > ceiling {
                    above.push(*name);
                }
            }
            (None, _) => println!("xtask: {name}: cannot be measured here"),
            (_, None) => above.push(*name),
        }
    }
    if above.is_empty() {
        return Ok(());
    }
    let above = above.join(", ");
    Err(Failure::Message(format!(
        "above its ceiling: {above}; `cargo xtask guard --write` raises it"
    )))
}

/// A start that ends when its exec fails, so that valgrind counts nothing else.
struct Start<'a> {
    vsrun: &'a Path,
    scratch: &'a Path,
    options: &'a [&'a str],
    /// A command that executes its arguments.
    wrapper: Vec<String>,
}

impl Start<'_> {
    fn words(&self) -> Option<Vec<String>> {
        let text = self.scratch.join("text");
        write_program(&text, "no program\n").ok()?;
        let pidfile = self.scratch.join("pid");
        let text_of = |path: &Path| path.display().to_string();
        let options = self.options.iter().map(|option| (*option).to_owned());
        let mut words = vec![text_of(self.vsrun), "-p".to_owned(), text_of(&pidfile)];
        words.extend(options.chain(["--".to_owned(), text_of(&text)]));
        Some(words)
    }

    /// A tool, run by the wrapper.
    fn tool(&self, name: &str) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str).chain([name]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    fn instructions(&self) -> Option<u64> {
        let mut valgrind = self.tool("valgrind");
        valgrind
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        instructions_of(valgrind, &self.words()?)
    }

    fn calls(&self) -> Option<u64> {
        let log = self.scratch.join("calls");
        let mut strace = self.tool("strace");
        strace
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .arg("env")
            .arg("-i")
            .args(self.words()?);
        strace
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        strace
            .status()
            .ok()
            .filter(|status| status.code() == Some(126))?;
        let lines = fs::read_to_string(log).ok()?;
        // The first execve is that of env(1).
        let own = lines
            .split_once("execve(")
            .and_then(|(_, rest)| rest.split_once("execve("))?
            .1;
        Some(own.lines().filter(|line| line.contains('(')).count() as u64)
    }
}

/// A command that executes its arguments with name service files that are the same on all machines.
fn with_own_names(scratch: &Path) -> Result<Vec<String>, Failure> {
    const SCRIPT: &str = "for name in nsswitch.conf passwd group; do \
                         mount --bind \"$0/$name\" \"/etc/$name\" || exit; done; exec \"$@\"";
    let files = [
        ("nsswitch.conf", "passwd: files\ngroup: files\n"),
        (
            "passwd",
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        ),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ];
    for (name, text) in files {
        fs::write(scratch.join(name), text)
            .map_err(|error| format!("cannot write {name}: {error}"))?;
    }
    let words = ["unshare", "--mount", "sh", "-c", SCRIPT].map(str::to_owned);
    Ok(words
        .into_iter()
        .chain([scratch.display().to_string()])
        .collect())
}

fn dirty(vsrun: &Path, scratch: &Path) -> Option<u64> {
    let pidfile = scratch.join("pid");
    let mut command = Command::new(vsrun);
    command
        .arg("-p")
        .arg(&pidfile)
        .arg("-m")
        .arg(scratch.join("manager"))
        .arg("/bin/true");
    command.args(["--", "/bin/sleep", "100"]).env_clear();
    let mut manager = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !pidfile.exists() && Instant::now() < deadline {
        sleep(Duration::from_millis(10));
    }
    // Until the server is executed, it shares the manager's pages.
    sleep(Duration::from_millis(500));
    let memory = memory(manager.id() as i32);
    kill(Pid::from_raw(manager.id() as i32), Signal::SIGTERM).ok()?;
    manager.wait().ok()?;
    memory.map(|memory| memory.private_dirty)
}
