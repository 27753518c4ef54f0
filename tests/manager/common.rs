//! What the tests have in common.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use testkit::{Invocation, OnTerm, Probe, Process, Running, Sandbox, Stat, probe, wait_for};

/// Every signal that asks the manager to stop.
pub const STOPS: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];
/// Every signal that asks the manager for anything.
pub const REQUESTS: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP];
/// Every signal that is meant for the server.
pub const PASSED_ON: [i32; 3] = [SIGUSR1, SIGUSR2, SIGWINCH];
/// Handlers that write nothing down.
pub const CONSENT: &str = "/bin/true";
pub const REFUSAL: &str = "/bin/false";
/// What "at once" may take on a machine that does other things too.
pub const AT_ONCE: Duration = Duration::from_secs(1);

pub fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))
}

/// One of several managers in a sandbox.
pub fn managed_as<'a>(
    sandbox: &'a Sandbox,
    name: &str,
    handler: impl AsRef<OsStr>,
) -> Invocation<'a> {
    let pidfile = |of| sandbox.path(format!("{name}{of}.pid"));
    sandbox.vsrun().pidfile(pidfile("server")).manager(pidfile("manager"), handler)
}

/// A server that logs its signals and stays, whatever they are, until there is a file `end`; in
/// later lives it stays.
pub fn stubborn_probe(sandbox: &Sandbox) -> Probe {
    let log = sandbox.path("signals");
    let stubborn = probe(sandbox).log_signals(log).on_term(OnTerm::Ignore);
    stubborn.until(sandbox.path("end")).exit(0).only_first(1)
}

/// The delays that the manager has announced so far by lines with `words` before them.
pub fn delays(manager: &Running<'_>, words: &str) -> Vec<String> {
    let text = manager.stderr();
    text.lines().filter_map(|line| Some(line.split_once(words)?.1.trim().to_owned())).collect()
}

/// Sends a signal without a look at all processes first: for moments that must not take long. The
/// process must be a child of the test that was not waited for, or be held by one that is.
#[track_caller]
pub fn strike(pid: i32, signal: i32) {
    let signal = Signal::try_from(signal).expect("a signal with a name");
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// How many dead children a process has not reaped.
pub fn zombies(of: Process) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let stats = entries.filter_map(|entry| {
        let digits = entry.file_name().to_str()?.parse::<i32>().is_ok();
        let content = digits.then(|| fs::read(entry.path().join("stat")).ok())??;
        (!content.is_empty()).then(|| Stat::parse(&content))
    });
    stats.filter(|stat| stat.ppid == of.pid() && stat.state == 'Z').count()
}

/// The manager's descriptors once it is at rest: the channel to a child that it has just started is
/// closed.
#[track_caller]
pub fn files_at_rest(manager: Process) -> BTreeMap<i32, PathBuf> {
    let mut last = None;
    wait_for("the manager to be at rest", || {
        let files = manager.open_files()?;
        let busy = files.values().any(|target| target.to_string_lossy().starts_with("socket:"));
        let asleep = manager.stat()?.state == 'S';
        let same = last.replace(files.clone()).is_some_and(|last| last == files);
        (same && asleep && !busy).then_some(files)
    })
}
