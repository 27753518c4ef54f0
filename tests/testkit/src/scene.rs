//! What most tests of a manager need: one server that counts its starts, under a manager with two
//! pidfiles, and what is waited for.

use std::ffi::OsStr;
use std::time::Duration;

use crate::signal::{SIGINT, SIGTERM};
use crate::{Invocation, Probe, Process, Running, Sandbox, wait_for, wait_for_within};

/// Returns a server that leaves a line with its id for each start in the file `starts`.
pub fn probe(sandbox: &Sandbox) -> Probe {
    sandbox.probe().append(sandbox.path("starts"))
}

/// Returns the command line of a manager up to the server's, with pidfiles `server.pid` and
/// `manager.pid`.
pub fn managed(sandbox: &Sandbox, handler: impl AsRef<OsStr>) -> Invocation<'_> {
    let manager = sandbox.path("manager.pid");
    sandbox
        .vsrun()
        .pidfile(sandbox.path("server.pid"))
        .manager(manager, handler)
}

/// Returns how often the [`probe`] has been started.
pub fn starts(sandbox: &Sandbox) -> usize {
    sandbox.lines("starts").len()
}

/// Waits for a start of the [`probe`], the first being 1, and returns its process.
#[track_caller]
pub fn started(sandbox: &Sandbox, count: usize) -> Process {
    let pids = wait_for(&format!("start {count} of the server"), || {
        let pids = sandbox.lines("starts");
        if pids.len() >= count {
            Ok(pids)
        } else {
            Err(pids)
        }
    });
    Process::of(pids[count - 1].parse().expect("an id for each start"))
}

/// Waits until exactly these signals are in the file `signals` of a probe that logs them there.
#[track_caller]
pub fn wait_for_signals(sandbox: &Sandbox, signals: &[&str]) {
    wait_for(&format!("the signals {signals:?}"), || {
        let log = sandbox.lines("signals");
        if log == signals { Ok(()) } else { Err(log) }
    });
}

/// Waits until standard error has these words.
#[track_caller]
pub fn wait_for_message(process: &Running<'_>, text: &str) {
    wait_for(&format!("the words '{text}'"), || {
        let output = process.stderr();
        if output.contains(text) {
            Ok(())
        } else {
            Err(output)
        }
    });
}

/// Asks a manager to stop, which must end it with 0.
#[track_caller]
pub fn stop(manager: Running<'_>) {
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
}

/// Expects no pidfile of [`managed`], and no lock.
#[track_caller]
pub fn expect_no_files(sandbox: &Sandbox) {
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!sandbox.path(name).exists(), "{name} is left");
    }
}

/// Expects no such file and the end of every process.
#[track_caller]
pub fn expect_nothing_left(sandbox: &Sandbox) {
    expect_no_files(sandbox);
    // A process that was signalled may not have had the processor yet.
    wait_for_within(Duration::from_secs(5), "the end of every process", || {
        let left: Vec<_> = sandbox.processes().iter().map(|it| it.cmdline()).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// Attaches strace(1) with these options to one process, its children excluded; its output is the
/// file `trace`.
#[track_caller]
pub fn traced<'a>(sandbox: &'a Sandbox, process: Process, options: &[&str]) -> Running<'a> {
    let strace = sandbox
        .program("/usr/bin/strace")
        .arg("-o")
        .arg(sandbox.path("trace"));
    let tracer = strace
        .args(["-p", &process.pid().to_string()])
        .args(options)
        .spawn();
    wait_for_message(&tracer, "attached");
    tracer
}

/// Makes the system refuse these calls of one process for this reason, `when` strace(1) says.
#[track_caller]
pub fn refusing<'a>(
    sandbox: &'a Sandbox,
    process: Process,
    calls: &str,
    error: &str,
    when: &str,
) -> Running<'a> {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:error={error}:when={when}");
    traced(sandbox, process, &["-e", &trace, "-e", &inject])
}

/// Detaches strace(1) from a process.
pub fn detach(tracer: Running<'_>) {
    tracer.signal(SIGINT);
    // It dies of that signal.
    tracer.wait();
}
