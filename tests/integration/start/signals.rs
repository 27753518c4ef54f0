//! Signal dispositions of a server, and signals to one in the foreground.

use std::fs;

use super::*;
use crate::prelude::*;

#[test]
fn every_signal_has_its_default_action_and_none_is_blocked() {
    let every_signal = || (1..=64).filter(|it| ![9, 19].contains(it));
    let reports = in_every_way(|start| start.ignoring(every_signal()).blocking_all_signals());
    for report in reports {
        assert!(report.ignored.is_empty(), "ignored: {:?}", report.ignored);
        assert!(report.blocked.is_empty(), "blocked: {:?}", report.blocked);
    }
}

#[test]
fn with_sigchld_ignored_the_background_reports_the_outcome() {
    let sandbox = sandbox();
    let start = || sandbox.vsrun().ignoring([SIGCHLD]).background();
    start().command(["/no/such/server"]).run().expect_code(127);
    start().command(["/bin/true"]).run().expect_code(0);
}

#[test]
fn in_the_foreground_vsrun_becomes_the_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report);
    let running = sandbox.vsrun().command(server).spawn();
    let report = Report::wait(&report);
    assert_eq!(report.pid, running.pid());
    assert_eq!(report.ppid, std::process::id() as i32);
    assert_eq!(sandbox.processes(), [running.process()]);
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).expect("a process");
    assert_eq!(tasks.count(), 1);
}

#[test]
fn signals_to_vsrun_in_the_foreground_are_signals_to_the_server() {
    let sandbox = sandbox();
    let log = sandbox.path("signals");
    let running = sandbox
        .vsrun()
        .command(sandbox.probe().log_signals(&log))
        .spawn();
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.signal(SIGUSR1);
    wait_for("the signal", || {
        sandbox.lines("signals") == ["READY", "USR1"]
    });
}
