//! Stops of servers and handlers that are stopped or traced, or whose children stay.

use std::fs;
use std::time::Duration;

use crate::prelude::*;

#[test]
fn a_traced_server_or_handler_delays_a_stop_by_5_s() {
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
        wait_for("a stopped tracer", || {
            tracer.process().stat().is_some_and(|it| it.state == 'T')
        });
        sandbox.signal(kept, SIGKILL);
        stop(manager);
        expect_no_files(&sandbox);
        tracer.signal(SIGCONT);
        tracer.wait();
    }
}

#[test]
fn a_stop_waits_for_a_stopped_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (serial, goes_on) in [SIGCONT, SIGKILL].into_iter().enumerate() {
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let server = started(&sandbox, serial + 1);
        sandbox.signal(server, SIGSTOP);
        wait_for("a stop", || {
            server.stat().is_some_and(|stat| stat.state == 'T')
        });
        manager.signal(SIGTERM);
        wait_for_message(&manager, "asked to stop");
        holds_for("waited for", Duration::from_millis(200), || {
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
fn a_stopped_manager_obeys_a_stop_request_when_it_continues() {
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
fn a_stop_leaves_the_servers_children_and_does_not_wait_for_them() {
    let sandbox = sandbox();
    for (serial, server) in [
        probe(&sandbox).with_child(),
        probe(&sandbox).with_session_child(),
    ]
    .into_iter()
    .enumerate()
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
fn a_stop_request_while_the_exec_fails_is_obeyed() {
    let sandbox = sandbox();
    let original = sandbox.copy_of(&sandbox.probe().words()[0], "program");
    let server = || Probe::at(&original).append(sandbox.path("starts"));
    let manager = managed(&sandbox, CONSENT).command(server()).spawn();
    let first = started(&sandbox, 1);
    fs::rename(&original, sandbox.path("moved")).expect("the sandbox can be written");
    sandbox.signal(first, SIGKILL);
    wait_for_message(&manager, "restarting the server in 1.6s");
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
