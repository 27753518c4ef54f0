//! What the tests have in common.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use testkit::{
    Invocation, OnTerm, Probe, Process, Running, Sandbox, Stat, wait_for, wait_for_within,
};

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

/// The command line of a manager up to the server's, with pidfiles `server.pid` and `manager.pid`.
pub fn managed(sandbox: &Sandbox, handler: impl AsRef<OsStr>) -> Invocation<'_> {
    managed_as(sandbox, "", handler)
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

/// A server that leaves a line for each start in the file `starts`.
pub fn probe(sandbox: &Sandbox) -> Probe {
    sandbox.probe().append(sandbox.path("starts"))
}

/// A server that logs its signals and stays, whatever they are, until there is a file `end`; in
/// later lives it stays.
pub fn stubborn_probe(sandbox: &Sandbox) -> Probe {
    let log = sandbox.path("signals");
    let stubborn = probe(sandbox).log_signals(log).on_term(OnTerm::Ignore);
    stubborn.until(sandbox.path("end")).exit(0).only_first(1)
}

/// Waits for the start number `count` and returns the server of it.
#[track_caller]
pub fn started(sandbox: &Sandbox, count: usize) -> Process {
    let pids = wait_for(&format!("start {count} of the server"), || {
        let pids = sandbox.lines("starts");
        if pids.len() >= count { Ok(pids) } else { Err(pids) }
    });
    Process::of(pids[count - 1].parse().expect("an id for each start"))
}

pub fn starts(sandbox: &Sandbox) -> usize {
    sandbox.lines("starts").len()
}

/// Waits until the manager has written `text`.
#[track_caller]
pub fn said(manager: &Running<'_>, text: &str) {
    wait_for(&format!("the words '{text}'"), || {
        let said = manager.stderr();
        if said.contains(text) { Ok(()) } else { Err(said) }
    });
}

/// The delays that the manager has announced so far by lines with `words` before them.
pub fn delays(manager: &Running<'_>, words: &str) -> Vec<String> {
    let text = manager.stderr();
    text.lines().filter_map(|line| Some(line.split_once(words)?.1.trim().to_owned())).collect()
}

/// Waits until the server has noted these signals.
#[track_caller]
pub fn noted(sandbox: &Sandbox, signals: &[&str]) {
    wait_for(&format!("the signals {signals:?}"), || {
        let log = sandbox.lines("signals");
        if log == signals { Ok(()) } else { Err(log) }
    });
}

/// Sends a signal without a look at all processes first: for moments that must not take long. The
/// process must be a child of the test that was not waited for, or be held by one that is.
#[track_caller]
pub fn strike(pid: i32, signal: i32) {
    let signal = Signal::try_from(signal).expect("a signal with a name");
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// Checks that neither a process nor a file of the manager is left.
#[track_caller]
pub fn expect_nothing_left(sandbox: &Sandbox) {
    expect_no_files(sandbox);
    // What was told to end with a handler may not have had the processor yet.
    wait_for_within(Duration::from_secs(5), "the end of every process", || {
        let left: Vec<_> = sandbox.processes().iter().map(|it| it.cmdline()).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[track_caller]
pub fn expect_no_files(sandbox: &Sandbox) {
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!sandbox.path(name).exists(), "{name} is left");
    }
}

/// Ends a manager by SIGTERM, and checks that this is what ends it.
#[track_caller]
pub fn stop(manager: Running<'_>) {
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
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

/// Attaches strace(1) with these options to the manager alone, its children excluded.
#[track_caller]
pub fn traced<'a>(sandbox: &'a Sandbox, manager: Process, options: &[&str]) -> Running<'a> {
    let tracer = sandbox
        .program("/usr/bin/strace")
        .arg("-o")
        .arg(sandbox.path("trace"))
        .args(["-p", &manager.pid().to_string()])
        .args(options)
        .spawn();
    wait_for("strace to be attached", || {
        let said = tracer.stderr();
        if said.contains("attached") { Ok(()) } else { Err(said) }
    });
    tracer
}

/// Makes the system refuse these calls of the manager for this reason, `when` strace(1) says.
#[track_caller]
pub fn refusing<'a>(
    sandbox: &'a Sandbox,
    manager: Process,
    calls: &str,
    error: &str,
    when: &str,
) -> Running<'a> {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:error={error}:when={when}");
    traced(sandbox, manager, &["-e", &trace, "-e", &inject])
}

/// Lets go of a traced process.
pub fn released(tracer: Running<'_>) {
    tracer.signal(SIGINT);
    // It dies of the signal that it was told to end by.
    tracer.wait();
}
