//! What the probe server saw at its very first instruction, written by it and read by the test.
//!
//! The file is text: `name value` lines, bytes escaped as in a Rust byte string.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::proc_files::{Capabilities, Ids};
use crate::signals::SignalSet;
use crate::wait::wait_for;

/// The state that a server was started in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its id.
    pub pid: i32,
    /// Its parent.
    pub ppid: i32,
    /// Its session.
    pub sid: i32,
    /// Its process group.
    pub pgid: i32,
    /// User ids.
    pub uids: Ids,
    /// Group ids.
    pub gids: Ids,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// The working directory, as seen from the server's root.
    pub cwd: Option<PathBuf>,
    /// `/proc/self/root`; none where there is no `/proc`.
    pub root: Option<PathBuf>,
    /// The file mode creation mask.
    pub umask: u32,
    /// All arguments, the program's name first.
    pub args: Vec<OsString>,
    /// The environment as `NAME=value`, in its order.
    pub env: Vec<OsString>,
    /// Open descriptors and what they lead to. Without `/proc` that is `/dev/null`, or
    /// `device:inode`.
    pub fds: BTreeMap<i32, PathBuf>,
    /// Blocked signals.
    pub blocked: SignalSet,
    /// Ignored signals.
    pub ignored: SignalSet,
    /// Whether `/dev/tty` could be opened: there is a controlling terminal.
    pub terminal: bool,
    /// What the pidfile of [`crate::Probe::pidfile`] held; none if it could not be read.
    pub pidfile: Option<OsString>,
    /// Soft and hard limits by prlimit(1)'s names; `u64::MAX` means unlimited.
    pub limits: BTreeMap<String, (u64, u64)>,
    /// The capability sets; none where there is no `/proc`.
    pub capabilities: Option<Capabilities>,
    /// Whether execve can no longer grant privileges; none where there is no `/proc`.
    pub no_new_privs: Option<bool>,
}

impl Report {
    /// Reads a report that may not have been written yet.
    pub fn read(path: impl AsRef<Path>) -> Option<Report> {
        fs::read(path).ok().map(|content| Report::parse(&content))
    }

    /// Waits until the probe has written its report, and reads it.
    #[track_caller]
    pub fn wait(path: impl AsRef<Path>) -> Report {
        let path = path.as_ref();
        wait_for(&format!("the report {}", path.display()), || {
            Report::read(path)
        })
    }

    /// Writes the report beside `path` and renames it: a reader sees all of it or nothing.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", self.pid));
        fs::write(&beside, self.to_text())?;
        fs::rename(&beside, path)
    }

    /// Returns the value of an environment variable.
    pub fn env(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find_map(|variable| {
            let value = variable
                .as_bytes()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value))
        })
    }

    /// Returns the numbers of the open descriptors, lowest first.
    pub fn fd_numbers(&self) -> Vec<i32> {
        self.fds.keys().copied().collect()
    }

    fn to_text(&self) -> String {
        let mut text = Text(String::new());
        for (name, number) in [
            ("pid", self.pid),
            ("ppid", self.ppid),
            ("sid", self.sid),
            ("pgid", self.pgid),
        ] {
            text.line(name, number.to_string());
        }
        for (name, ids) in [("uids", self.uids), ("gids", self.gids)] {
            text.line(
                name,
                format!("{} {} {}", ids.real, ids.effective, ids.saved),
            );
        }
        self.groups
            .iter()
            .for_each(|group| text.line("group", group.to_string()));
        self.cwd.iter().for_each(|path| text.line("cwd", path));
        self.root.iter().for_each(|path| text.line("root", path));
        text.line("umask", self.umask.to_string());
        self.args.iter().for_each(|word| text.line("arg", word));
        self.env
            .iter()
            .for_each(|variable| text.line("env", variable));
        for (number, target) in &self.fds {
            text.line(
                "fd",
                joined_by(" ", number.to_string().into(), target.as_os_str()),
            );
        }
        text.line("blocked", self.blocked.0.to_string());
        text.line("ignored", self.ignored.0.to_string());
        text.line("terminal", self.terminal.to_string());
        self.pidfile
            .iter()
            .for_each(|content| text.line("pidfile", content));
        for (name, (soft, hard)) in &self.limits {
            text.line("limit", format!("{name} {soft} {hard}"));
        }
        if let Some(sets) = &self.capabilities {
            let Capabilities {
                inheritable,
                permitted,
                effective,
                bounding,
                ambient,
            } = sets;
            let sets = format!("{inheritable} {permitted} {effective} {bounding} {ambient}");
            text.line("capabilities", sets);
        }
        self.no_new_privs
            .iter()
            .for_each(|it| text.line("no_new_privs", it.to_string()));
        text.0
    }

    fn parse(content: &[u8]) -> Report {
        let text = std::str::from_utf8(content).expect("a report is text");
        let mut report = Report::default();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').expect("a name and a value");
            report.take(name, unescape(value));
        }
        report
    }

    fn take(&mut self, name: &str, value: OsString) {
        match name {
            "pid" => self.pid = number(&value),
            "ppid" => self.ppid = number(&value),
            "sid" => self.sid = number(&value),
            "pgid" => self.pgid = number(&value),
            "uids" => self.uids = ids(&value),
            "gids" => self.gids = ids(&value),
            "group" => self.groups.push(number(&value)),
            "cwd" => self.cwd = Some(value.into()),
            "root" => self.root = Some(value.into()),
            "umask" => self.umask = number(&value),
            "arg" => self.args.push(value),
            "env" => self.env.push(value),
            "fd" => {
                let blank = value.as_bytes().iter().position(|byte| *byte == b' ');
                let (fd, target) = value
                    .as_bytes()
                    .split_at(blank.expect("a number and a target"));
                let target = PathBuf::from(OsStr::from_bytes(&target[1..]));
                self.fds.insert(number(OsStr::from_bytes(fd)), target);
            }
            "blocked" => self.blocked = SignalSet(number(&value)),
            "ignored" => self.ignored = SignalSet(number(&value)),
            "terminal" => self.terminal = number(&value),
            "pidfile" => self.pidfile = Some(value),
            "limit" => {
                let text = value.to_str().expect("text");
                let (name, values) = text.split_once(' ').expect("a limit's name and values");
                let [soft, hard] = numbers(OsStr::new(values));
                self.limits.insert(name.to_owned(), (soft, hard));
            }
            "capabilities" => {
                let [inheritable, permitted, effective, bounding, ambient] = numbers(&value);
                self.capabilities = Some(Capabilities {
                    inheritable,
                    permitted,
                    effective,
                    bounding,
                    ambient,
                });
            }
            "no_new_privs" => self.no_new_privs = Some(number(&value)),
            other => panic!("a report has no field '{other}'"),
        }
    }
}

struct Text(String);

impl Text {
    fn line(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref().as_bytes().escape_ascii();
        self.0.push_str(&format!("{name} {value}\n"));
    }
}

fn joined_by(between: &str, mut first: OsString, second: &OsStr) -> OsString {
    first.push(between);
    first.push(second);
    first
}

fn number<T: std::str::FromStr>(value: &OsStr) -> T {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| panic!("'{}' in a report", value.to_string_lossy()))
}

fn numbers<const N: usize>(value: &OsStr) -> [u64; N] {
    let words = value.to_str().expect("text").split(' ');
    let numbers: Vec<u64> = words.map(|word| number(OsStr::new(word))).collect();
    numbers.try_into().expect("as many numbers as were written")
}

fn ids(value: &OsStr) -> Ids {
    let [real, effective, saved] = numbers(value).map(|id| id as u32);
    Ids {
        real,
        effective,
        saved,
    }
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let plain = if byte != b'\\' {
            byte
        } else {
            match rest.next().expect("something behind a backslash") {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let mut digit = || rest.next().and_then(|it| char::from(it).to_digit(16));
                    let high = digit().expect("a hex digit");
                    (high * 16 + digit().expect("a hex digit")) as u8
                }
                itself => itself,
            }
        };
        bytes.push(plain);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_being_written_and_read() {
        let mut report = Report::observe(None);
        report.args = vec![OsString::from_vec((0..=255).collect()), OsString::new()];
        report.env = vec!["NAME=two\nlines = \\x41".into()];
        report.fds.insert(33, "/a b/c\n".into());
        report.pidfile = Some("1\n".into());
        assert_eq!(Report::parse(report.to_text().as_bytes()), report);
    }

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let env = vec!["HOMER=1".into(), "HOME=/a=b".into()];
        let report = Report {
            env,
            ..Report::default()
        };
        assert_eq!(report.env("HOME"), Some(OsStr::new("/a=b")));
        assert_eq!(report.env("HOM"), None);
    }
}
