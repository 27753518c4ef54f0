//! Faults while a server is to end or its end is being handled: storms of requests, a server that
//! cannot react, children that stay, handlers that misbehave. Those that the tests of each subject
//! prove already are not repeated.

use std::fs;
use std::time::Duration;

use crate::prelude::*;

// Stops.

#[test]
fn a_server_or_handler_that_a_tracer_keeps_from_being_reaped_holds_a_stop_up_for_5_s() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for keeps_handler in [false, true] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").line("sleep 1000").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let mut kept = started(&sandbox, 1);
        if keeps_handler {
            sandbox.signal(kept, SIGKILL);
            kept = Process::of(handler.wait_for_run(1).stat.pid);
        }
        let tracer = traced(&sandbox, kept, &[]);
        tracer.signal(SIGSTOP);
        wait_for("a stopped tracer", || tracer.process().stat().is_some_and(|it| it.state == 'T'));
        sandbox.signal(kept, SIGKILL);
        manager.signal(SIGTERM);
        manager.wait().expect_code(0);
        expect_no_files(&sandbox);
        tracer.signal(SIGCONT);
        tracer.wait();
    }
}

#[test]
fn five_hundred_stop_requests_are_one_and_the_server_takes_its_time() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(stubborn_probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    manager.signal(SIGTERM);
    noted(&sandbox, &["READY", "TERM"]);
    for _ in 1..500 {
        manager.signal(SIGTERM);
    }
    // It is passed on after all the others have been read, or with the last of them.
    manager.signal(SIGUSR1);
    wait_for("the last signal", || sandbox.lines("signals").last().is_some_and(|it| it == "USR1"));
    assert!(server.exists());
    sandbox.file("end", "");
    manager.wait().expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_no_files(&sandbox);
}

#[test]
fn five_hundred_restart_requests_while_the_server_ends_are_one() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(stubborn_probe(&sandbox)).spawn();
    started(&sandbox, 1);
    manager.signal(SIGHUP);
    noted(&sandbox, &["READY", "TERM"]);
    for _ in 1..500 {
        manager.signal(SIGHUP);
    }
    manager.signal(SIGUSR1);
    wait_for("the last signal", || sandbox.lines("signals").last().is_some_and(|it| it == "USR1"));
    sandbox.file("end", "");
    let second = started(&sandbox, 2);
    stays("one restart", Duration::from_millis(300), || second.exists() && starts(&sandbox) == 2);
    assert_eq!(sandbox.lines("signals").last().map(String::as_str), Some("READY"));
    assert!(handler.runs().is_empty());
}

#[test]
fn a_stopped_server_that_is_asked_to_end_is_waited_for_and_ends_when_it_goes_on() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (serial, goes_on) in [SIGCONT, SIGKILL].into_iter().enumerate() {
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let server = started(&sandbox, serial + 1);
        sandbox.signal(server, SIGSTOP);
        wait_for("a stop", || server.stat().is_some_and(|stat| stat.state == 'T'));
        manager.signal(SIGTERM);
        said(&manager, "asked to stop");
        stays("waited for", Duration::from_millis(200), || {
            server.exists() && manager.process().exists()
        });
        sandbox.signal(server, goes_on);
        manager.wait().expect_code(0);
        assert!(!server.exists());
        expect_no_files(&sandbox);
    }
    assert!(handler.runs().is_empty());
}

#[test]
fn a_stop_request_to_a_manager_that_is_stopped_is_obeyed_when_it_goes_on() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    manager.signal(SIGSTOP);
    for request in [SIGHUP, SIGTERM, SIGHUP] {
        manager.signal(request);
    }
    manager.signal(SIGCONT);
    manager.wait().expect_code(0);
    assert!(!server.exists());
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_no_files(&sandbox);
}

#[test]
fn what_the_server_has_started_is_left_alone_by_a_stop_and_holds_nothing_up() {
    let sandbox = sandbox();
    for (serial, server) in
        [probe(&sandbox).with_child(), probe(&sandbox).with_session_child()].into_iter().enumerate()
    {
        let manager = managed(&sandbox, CONSENT).command(server).spawn();
        let server = started(&sandbox, serial + 1);
        let child = wait_for("the child", || server.children().first().copied());
        stop(manager);
        assert!(child.exists() && !server.exists());
        expect_no_files(&sandbox);
        sandbox.signal(child, SIGKILL);
    }
}

#[test]
fn a_stop_request_while_the_server_cannot_be_executed_is_obeyed_though_it_could_be_again() {
    let sandbox = sandbox();
    let original = sandbox.copy_of(&sandbox.probe().words()[0], "program");
    let server = || Probe::at(&original).append(sandbox.path("starts"));
    let manager = managed(&sandbox, CONSENT).command(server()).spawn();
    let first = started(&sandbox, 1);
    fs::rename(&original, sandbox.path("moved")).expect("the sandbox can be written");
    sandbox.signal(first, SIGKILL);
    said(&manager, "restarting the server in 1.6s");
    // Stopped, so that the request comes first for sure.
    manager.signal(SIGSTOP);
    manager.signal(SIGTERM);
    fs::rename(sandbox.path("moved"), &original).expect("the sandbox can be written");
    manager.signal(SIGCONT);
    manager.wait().expect_code(0);
    assert_eq!(starts(&sandbox), 1);
    assert!(sandbox.processes().is_empty());
    expect_no_files(&sandbox);
}

// Handlers.

#[test]
fn a_handler_that_hangs_is_waited_for_and_that_is_said_once_after_60_s() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let Some(clock) = Clock::new(&sandbox, "+0") else {
        return;
    };
    let manager =
        managed(&sandbox, &handler).clock(&clock).command(probe(&sandbox).exit(3)).spawn();
    handler.wait_for_run(1);
    let remark = "the handler is still running";
    let remarks = || manager.stderr().matches(remark).count();
    // A signal that nobody is there for makes the manager look at the clock.
    clock.set("+50");
    manager.signal(SIGUSR1);
    stays("too early for a remark", Duration::from_millis(200), || remarks() == 0);
    clock.set("+70");
    manager.signal(SIGUSR1);
    wait_for("the remark", || remarks() == 1);
    clock.set("+1000");
    manager.signal(SIGUSR1);
    stays("said once", Duration::from_millis(200), || remarks() == 1 && manager.process().exists());
    stop(manager);
    assert_eq!(starts(&sandbox), 1);
}

#[test]
fn a_handler_that_wants_input_gets_none_and_does_not_hang() {
    let sandbox = sandbox();
    let asks = "if read -r line; then exit 9; fi; cat; [ -z \"$(head -c 1 </dev/stdin)\" ]";
    let handler = sandbox.handler("handler").line(asks).create();
    let (reader, _writer) = nix::unistd::pipe().expect("a pipe");
    let manager = managed(&sandbox, &handler)
        .stdin(reader)
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    started(&sandbox, 2);
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

#[test]
fn a_handler_that_opens_all_it_can_costs_the_next_server_nothing() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let opens = "ulimit -n 1000
        bash -c 'while exec {fd}</dev/null; do :; done; sleep 1000 & exit 0' 2>/dev/null";
    let handler = sandbox.handler("handler").line(opens).create();
    let server = probe(&sandbox).report(&report).exit(3).only_first(1);
    let manager = managed(&sandbox, &handler).command(server).spawn();
    started(&sandbox, 2);
    let second = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
    let seen = wait_for("the report of the second life", || {
        Report::read(&report).filter(|report| report.pid == second.pid())
    });
    assert_eq!(seen.fd_numbers(), [0, 1, 2]);
    // Among them is what the handler left behind.
    let left = sandbox.processes().into_iter().find(|it| {
        it.cmdline().is_some_and(|words| words.first().is_some_and(|word| word == "sleep"))
    });
    assert!(left.and_then(|it| it.open_files()).is_some_and(|files| files.len() > 900));
    stop(manager);
}

#[test]
fn a_handler_that_eats_memory_dies_alone() {
    let sandbox = sandbox();
    // As much as doubling gives, in 64 MiB of its own.
    let eats = "ulimit -v 65536; x=xxxxxxxx; while :; do x=$x$x; done";
    let handler = sandbox.handler("handler").line(eats).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox).exit(3)).spawn();
    let outcome = manager.wait();
    outcome.expect_code(3);
    let said = outcome.stderr_text();
    assert!(said.contains("the server is not restarted"), "{said}");
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    assert!(sandbox.processes().is_empty());
    expect_no_files(&sandbox);
}

#[test]
fn a_handler_that_is_killed_while_it_is_being_terminated_changes_nothing() {
    for (request, status) in [(SIGTERM, Some(0)), (SIGHUP, None)] {
        let sandbox = sandbox();
        let told = sandbox.path("told");
        let tell = format!(": >{}", told.display());
        let handler =
            sandbox.handler("handler").on_term(tell).line("while :; do sleep 0.02; done").create();
        let server = probe(&sandbox).exit(3).only_first(1);
        let manager = managed(&sandbox, &handler).command(server).spawn();
        let run = handler.wait_for_run(1);
        manager.signal(request);
        wait_for("the handler to be told", || told.exists());
        sandbox.signal(Process::of(run.stat.pid), SIGKILL);
        match status {
            Some(status) => _ = manager.wait().expect_code(status),
            None => {
                started(&sandbox, 2);
                stop(manager);
            }
        }
        assert_eq!(handler.runs().len(), 1);
        expect_no_files(&sandbox);
    }
}
