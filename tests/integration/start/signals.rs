//! Signals: their dispositions in what is started, and where they go.

use std::fs::{self};

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
fn the_handler_ignores_and_blocks_no_signal_either() {
    let sandbox = sandbox();
    // While a shell waits for a command it may block signals; a loop of its own needs none.
    let show = "while read -r line; do case $line in Sig[BI]*) echo \"$line\";; esac; done";
    let line = format!("{show} </proc/$$/status >\"${{0%/*}}/sets\"");
    let handler = sandbox.handler("handler").line(line).exits(1).create();
    let start = sandbox
        .vsrun()
        .ignoring([SIGPIPE, SIGCHLD, SIGHUP, SIGTERM, SIGINT, SIGRTMIN() + 2])
        .blocking_all_signals()
        .manager(sandbox.path("manager"), &handler);
    start.command(sandbox.probe().exit(1)).run().expect_code(1);
    let none = "0000000000000000";
    assert_eq!(sandbox.lines("sets"), [format!("SigBlk:\t{none}"), format!("SigIgn:\t{none}")]);
}

#[test]
fn an_ignored_sigchld_hides_no_death_from_the_manager() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox.vsrun().ignoring([SIGCHLD]).manager(sandbox.path("manager"), &handler);
    start.command(sandbox.probe().exit(6)).run().expect_code(6);
    assert_eq!(handler.runs().len(), 1);
}

#[test]
fn an_ignored_sigchld_hides_no_outcome_from_the_background() {
    let sandbox = sandbox();
    let start = || sandbox.vsrun().ignoring([SIGCHLD]).background();
    start().command(["/no/such/server"]).run().expect_code(127);
    start().command(["/bin/true"]).run().expect_code(0);
}

#[test]
fn a_manager_obeys_signals_that_its_caller_ignored_or_blocked() {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let running = sandbox
            .vsrun()
            .ignoring([SIGTERM, SIGINT, SIGQUIT, SIGHUP])
            .blocking_all_signals()
            .manager(sandbox.path("manager"), &handler)
            .command(sandbox.probe().append(sandbox.path("starts")))
            .spawn();
        wait_for("the server", || sandbox.lines("starts").len() == 1);
        running.signal(signal);
        running.wait().expect_code(0);
    }
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
    let running = sandbox.vsrun().command(sandbox.probe().log_signals(&log)).spawn();
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.signal(SIGUSR1);
    wait_for("the signal", || sandbox.lines("signals") == ["READY", "USR1"]);
}
