//! The manager: what each death, request and shortage leads to, in every state it can be in.

mod children;
mod clocks;
mod costs;
mod deaths;
mod environments;
mod failures;
mod many_signals;
mod races;
mod requests;
mod restarts;
mod shortages;
mod stops;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::prelude::*;

/// Every signal that asks the manager to stop.
pub const STOPS: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];
/// Every signal that is a request to the manager.
pub const REQUESTS: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP];
/// Every signal that is meant for the server.
pub const PASSED_ON: [i32; 3] = [SIGUSR1, SIGUSR2, SIGWINCH];
/// One of several managers in a sandbox.
pub fn managed_as<'a>(
    sandbox: &'a Sandbox,
    name: &str,
    handler: impl AsRef<OsStr>,
) -> Invocation<'a> {
    let pidfile = |of| sandbox.path(format!("{name}{of}.pid"));
    sandbox
        .vsrun()
        .pidfile(pidfile("server"))
        .manager(pidfile("manager"), handler)
}

/// The delays that the manager has announced so far by lines with `words` before them.
pub fn delays(manager: &Running<'_>, words: &str) -> Vec<String> {
    let text = manager.stderr();
    text.lines()
        .filter_map(|line| Some(line.split_once(words)?.1.trim().to_owned()))
        .collect()
}

/// Sends a signal at once, without a search for the process first. The
/// process must be a child of the test that was not waited for, or be held by one that is.
#[track_caller]
pub fn strike(pid: i32, signal: i32) {
    let signal = Signal::try_from(signal).expect("a signal with a name");
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// The manager's descriptors once it is at rest: the channel to a child that it has just started is
/// closed.
#[track_caller]
pub fn files_at_rest(manager: Process) -> BTreeMap<i32, PathBuf> {
    let mut last = None;
    wait_for("the manager to be at rest", || {
        let files = manager.open_files()?;
        let busy = files
            .values()
            .any(|target| target.to_string_lossy().starts_with("socket:"));
        let asleep = manager.stat()?.state == 'S';
        let same = last
            .replace(files.clone())
            .is_some_and(|last| last == files);
        (same && asleep && !busy).then_some(files)
    })
}

/// The one process that a manager has for a server.
pub trait Servers {
    fn wait_for_server(&self, manager: &Running<'_>) -> Process;
}

impl Servers for Sandbox {
    #[track_caller]
    fn wait_for_server(&self, manager: &Running<'_>) -> Process {
        wait_for("the server", || {
            let children = manager.process().children();
            let server = children.iter().find(|child| {
                let words = child.cmdline().unwrap_or_default();
                words
                    .first()
                    .is_some_and(|word| word.to_string_lossy().ends_with("probe"))
            });
            server.copied()
        })
    }
}
