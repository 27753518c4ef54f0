//! Stops: storms of requests, servers and handlers that cannot react, children that stay.

use std::fs;
use std::time::Duration;

use crate::prelude::*;

#[test]
fn a_server_or_handler_that_a_tracer_keeps_from_being_reaped_holds_a_stop_up_for_5_s() {
    needs!(root, "strace");
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
        stop(manager);
        expect_no_files(&sandbox);
        tracer.signal(SIGCONT);
        tracer.wait();
    }
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
