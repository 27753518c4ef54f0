//! What `/proc` tells about a process, distinguished from a later one with the same id.
//!
//! Every answer is an `Option`: the process may be gone at any time. A zombie counts as gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::proc_files::{Stat, Status, links_by_number, nul_separated};

/// A process, by id and kernel start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    started: Option<u64>,
}

impl Process {
    /// Returns the process that has this id now; if there is none, one that is gone.
    pub fn of(pid: i32) -> Process {
        Process {
            pid,
            started: Stat::of(pid).map(|stat| stat.started),
        }
    }

    pub(crate) fn known(pid: i32, started: u64) -> Process {
        Process {
            pid,
            started: Some(started),
        }
    }

    /// Returns the id.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Tells whether the process runs: a zombie does not, nor does another with the same id.
    pub fn exists(self) -> bool {
        self.stat()
            .is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    /// Returns `/proc/PID/stat`, of a zombie as well.
    pub fn stat(self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| Some(stat.started) == self.started)
    }

    /// Returns `/proc/PID/status`.
    pub fn status(self) -> Option<Status> {
        self.stat()?;
        fs::read_to_string(self.proc("status"))
            .ok()
            .map(|text| Status::parse(&text))
    }

    /// Returns the working directory.
    pub fn cwd(self) -> Option<PathBuf> {
        self.link("cwd")
    }

    /// Returns the root directory.
    pub fn root(self) -> Option<PathBuf> {
        self.link("root")
    }

    /// Returns the file that it executes.
    pub fn exe(self) -> Option<PathBuf> {
        self.link("exe")
    }

    /// Returns where `path` of the process's own root and mount namespace is found from here.
    pub fn path_inside(self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.proc("root")
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns the open descriptors and what they lead to.
    pub fn open_files(self) -> Option<BTreeMap<i32, PathBuf>> {
        self.stat()?;
        Some(links_by_number(&self.proc("fd")))
    }

    /// Returns the arguments, the program's name first.
    pub fn cmdline(self) -> Option<Vec<OsString>> {
        self.stat()?;
        fs::read(self.proc("cmdline"))
            .ok()
            .map(|bytes| nul_separated(&bytes))
    }

    /// Returns the environment that it was started with, as `NAME=value`.
    pub fn environ(self) -> Option<Vec<OsString>> {
        self.stat()?;
        fs::read(self.proc("environ"))
            .ok()
            .map(|bytes| nul_separated(&bytes))
    }

    /// Returns the value of a variable that it was started with.
    pub fn env(self, name: &str) -> Option<OsString> {
        self.environ()?.into_iter().find_map(|variable| {
            let value = variable
                .as_bytes()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value).to_owned())
        })
    }

    /// Returns the soft and hard limit of a row of `/proc/PID/limits`, such as `Max open files`.
    pub fn limit(self, row: &str) -> Option<(String, String)> {
        self.stat()?;
        let limits = fs::read_to_string(self.proc("limits")).ok()?;
        let mut values = limits
            .lines()
            .find_map(|line| line.strip_prefix(row))?
            .split_whitespace();
        Some((values.next()?.to_owned(), values.next()?.to_owned()))
    }

    /// Returns the children that are not zombies.
    pub fn children(self) -> Vec<Process> {
        let alive = |stat: &&Stat| stat.ppid == self.pid && !matches!(stat.state, 'Z' | 'X');
        Stat::all()
            .iter()
            .filter(alive)
            .map(Stat::process)
            .collect()
    }

    /// Returns the children, their children and so on, zombies left out.
    pub fn descendants(self) -> Vec<Process> {
        let stats = Stat::all();
        let mut family = BTreeSet::from([self.pid]);
        // Ids may have wrapped around, so one pass in order of ids would not do.
        while stats
            .iter()
            .any(|stat| family.contains(&stat.ppid) && family.insert(stat.pid))
        {}
        let alive = stats.iter().filter(|stat| !matches!(stat.state, 'Z' | 'X'));
        let below = alive.filter(|stat| stat.pid != self.pid && family.contains(&stat.pid));
        below.map(Stat::process).collect()
    }

    fn link(self, name: &str) -> Option<PathBuf> {
        self.stat()?;
        fs::read_link(self.proc(name)).ok()
    }

    fn proc(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = Process::of(std::process::id() as i32);
        assert!(me.exists());
        assert_eq!(me.cwd(), std::env::current_dir().ok());
        assert_eq!(me.exe(), std::env::current_exe().ok());
        assert_eq!(
            me.path_inside("/etc"),
            Path::new(&format!("/proc/{}/root/etc", me.pid()))
        );
    }

    #[test]
    fn an_id_that_nobody_has_is_a_process_that_is_gone() {
        let gone = Process::of(i32::MAX);
        assert!(!gone.exists());
        assert_eq!(gone.status(), None);
    }
}
