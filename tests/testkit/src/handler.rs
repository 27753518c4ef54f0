//! Termination handlers: scripts that record everything about each of their runs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::proc_files::{Stat, Status, links_by_number, nul_separated};
use crate::sandbox::Sandbox;
use crate::wait::wait_for;

/// A handler script to be made; see [`Sandbox::handler`].
#[derive(Debug)]
pub struct HandlerScript<'a> {
    sandbox: &'a Sandbox,
    name: String,
    status: u8,
    trap: String,
    lines: Vec<String>,
}

/// A handler script that records its runs. Every user may run it.
#[derive(Clone, Debug)]
pub struct Handler {
    path: PathBuf,
    runs: PathBuf,
    status: PathBuf,
}

/// The state that a run of a handler was started in.
#[derive(Clone, Debug)]
pub struct HandlerRun {
    /// The environment as `NAME=value`.
    pub env: Vec<OsString>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The root directory.
    pub root: PathBuf,
    /// Open descriptors and what they led to; 0 is the standard input.
    pub fds: BTreeMap<i32, PathBuf>,
    /// The arguments, without the shell and the script.
    pub args: Vec<OsString>,
    /// Ids, process group and session.
    pub stat: Stat,
    /// User, groups, signals, capabilities.
    pub status: Status,
}

impl<'a> HandlerScript<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, name: &str) -> Self {
        HandlerScript {
            sandbox,
            name: name.to_owned(),
            status: 0,
            trap: String::new(),
            lines: Vec::new(),
        }
    }

    /// Sets the exit status; without this it is 0.
    pub fn exits(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// What it does when it gets SIGTERM, as a line of sh, from before the run is recorded.
    pub fn on_term(mut self, action: impl Display) -> Self {
        self.trap = format!("trap '{action}' TERM");
        self
    }

    /// Adds a line of sh, run after the run is recorded: `kill -9 $$`, `sleep 1000`, `sleep 1000
    /// &`.
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Writes the script.
    pub fn create(self) -> Handler {
        let sandbox = self.sandbox;
        let runs = sandbox.open_dir(format!("{}.runs", self.name));
        let status = sandbox.path(format!("{}.status", self.name));
        let script = script(&runs, &status, &self.trap, &self.lines);
        let handler = Handler {
            path: sandbox.executable(&self.name, script),
            runs,
            status,
        };
        handler.set_exit(self.status);
        handler
    }
}

impl Handler {
    /// Returns the script's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the exit status of later runs.
    pub fn set_exit(&self, status: u8) {
        let beside = self.status.with_extension("new");
        fs::write(&beside, format!("{status}\n")).expect("the sandbox can be written");
        fs::rename(&beside, &self.status).expect("the sandbox can be written");
    }

    /// Returns all runs so far, the first one first.
    pub fn runs(&self) -> Vec<HandlerRun> {
        let recorded = |run: &PathBuf| run.join("recorded").exists();
        let paths = (1..).map(|number: u32| self.runs.join(number.to_string()));
        paths
            .take_while(recorded)
            .map(|run| HandlerRun::read(&run, &self.path))
            .collect()
    }

    /// Waits until it has been run `count` times and returns the last of those runs.
    #[track_caller]
    pub fn wait_for_run(&self, count: usize) -> HandlerRun {
        let runs = wait_for(&format!("run {count} of the handler"), || {
            let runs = self.runs();
            if runs.len() >= count {
                Ok(runs)
            } else {
                Err(format!("{} runs", runs.len()))
            }
        });
        runs.into_iter()
            .nth(count - 1)
            .expect("as many runs as were waited for")
    }
}

impl AsRef<OsStr> for Handler {
    fn as_ref(&self) -> &OsStr {
        self.path.as_os_str()
    }
}

impl HandlerRun {
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

    fn read(run: &Path, script: &Path) -> HandlerRun {
        let bytes = |name| fs::read(run.join(name)).expect("a recorded run is complete");
        let target = |name| fs::read_link(run.join(name)).expect("a recorded run is complete");
        let mut fds = links_by_number(&run.join("fd"));
        // The shell's own, on which it reads the script.
        fds.retain(|_, target| target != script);
        let words = nul_separated(&bytes("cmdline"));
        HandlerRun {
            env: nul_separated(&bytes("environ")),
            cwd: target("cwd"),
            root: target("root"),
            fds,
            args: words.into_iter().skip(2).collect(),
            stat: Stat::parse(&bytes("stat")),
            status: Status::parse(&String::from_utf8_lossy(&bytes("status"))),
        }
    }
}

/// A POSIX sh script. What /proc shows of the shell is what the handler was started with, as long
/// as the shell opens nothing: so there is no command substitution and no loop that reads.
fn script(runs: &Path, status: &Path, trap: &str, lines: &[String]) -> String {
    let (runs, status, lines) = (quoted(runs), quoted(status), lines.join("\n"));
    format!(
        "#!/bin/sh
n=1
until mkdir {runs}/$n 2>/dev/null; do n=$((n + 1)); done
run={runs}/$n
mkdir \"$run/fd\"
# In a subshell: some shells redirect their own descriptors for the time of a command.
(cp -P /proc/$$/fd/* \"$run/fd/\" 2>/dev/null)
cp -P /proc/$$/cwd /proc/$$/root \"$run/\"
for file in environ cmdline stat status; do
    cat /proc/$$/$file >\"$run/$file\"
done
{trap}
: >\"$run/recorded\"
{lines}
read -r status <{status}
exit \"$status\"
"
    )
}

fn quoted(path: &Path) -> String {
    format!(
        "'{}'",
        path.to_str()
            .expect("sandboxes have plain names")
            .replace('\'', r"'\''")
    )
}
