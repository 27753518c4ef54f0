//! Requests and deaths at the same time.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::prelude::*;

/// Makes a request and a death while the manager is stopped: it sees both when it continues.
#[track_caller]
fn strike_both(manager: &Running<'_>, request: i32, server: Process, signal: i32) {
    strike(manager.pid(), SIGSTOP);
    wait_for("the manager to be stopped", || {
        // Lower case under strace(1).
        manager
            .process()
            .stat()
            .is_some_and(|it| matches!(it.state, 'T' | 't'))
    });
    strike(server.pid(), signal);
    wait_for("the death of the server", || !server.exists());
    strike(manager.pid(), request);
    strike(manager.pid(), SIGCONT);
}

#[test]
fn a_request_in_the_same_instant_as_a_death_wins_and_no_handler_runs() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (serial, death) in [SIGKILL, SIGSEGV, SIGTERM].into_iter().enumerate() {
        let manager = managed(&sandbox, &handler)
            .limit(Resource::RLIMIT_CORE, 0, 0)
            .command(probe(&sandbox))
            .spawn();
        let first = started(&sandbox, 2 * serial + 1);
        strike_both(&manager, SIGHUP, first, death);
        let second = started(&sandbox, 2 * serial + 2);
        strike_both(&manager, SIGTERM, second, death);
        manager.wait().expect_code(0);
        assert!(handler.runs().is_empty());
        expect_nothing_left(&sandbox);
    }
    assert_eq!(starts(&sandbox), 6);
}

#[test]
fn a_restart_request_in_the_same_instant_as_a_voluntary_exit_wins() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .command(stubborn_probe(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    manager.signal(SIGSTOP);
    sandbox.file("end", "");
    wait_for("the end of the server", || !first.exists());
    strike(manager.pid(), SIGHUP);
    strike(manager.pid(), SIGCONT);
    assert!(started(&sandbox, 2).exists());
    assert!(handler.runs().is_empty());
}

#[test]
fn a_hup_and_a_term_in_the_same_instant_are_an_exit() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    manager.signal(SIGSTOP);
    manager.signal(SIGTERM);
    manager.signal(SIGHUP);
    manager.signal(SIGCONT);
    manager.wait().expect_code(0);
    assert_eq!(starts(&sandbox), 1);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_stop_signal_to_manager_and_server_at_once_runs_no_handler_whichever_is_seen_first() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let mut count = 0;
    for round in 0..10 {
        for signal in REQUESTS {
            let manager = managed(&sandbox, &handler)
                .limit(Resource::RLIMIT_CORE, 0, 0)
                .command(probe(&sandbox))
                .spawn();
            count += 1;
            let server = started(&sandbox, count);
            let (first, second) = match round % 2 {
                0 => (server.pid(), manager.pid()),
                _ => (manager.pid(), server.pid()),
            };
            strike(first, signal);
            if round % 2 == 0 {
                strike(second, signal);
            } else if let Ok(signal) = Signal::try_from(signal) {
                // The manager may have ended and reaped it already.
                let _ = kill(Pid::from_raw(second), signal);
            }
            if signal == SIGHUP {
                count += 1;
                started(&sandbox, count);
                manager.signal(SIGTERM);
            }
            manager.wait().expect_code(0);
            assert!(handler.runs().is_empty(), "signal {signal}, round {round}");
        }
    }
    assert_eq!(starts(&sandbox), count);
}

/// Kills a server by a signal that stops one, and signals the manager once it has seen that death.
/// A machine so slow that the 100 ms may have been over gets another try.
fn request_after_death(death: i32, request: i32, restarts: usize) {
    for _ in 0..20 {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler)
            .limit(Resource::RLIMIT_CORE, 0, 0)
            .command(probe(&sandbox))
            .spawn();
        let server = started(&sandbox, 1);
        let died = Instant::now();
        strike(server.pid(), death);
        wait_for("the death to be seen", || {
            !sandbox.path("server.pid").exists()
        });
        manager.signal(request);
        if died.elapsed() > Duration::from_millis(80) {
            continue;
        }
        if restarts > 0 {
            assert!(started(&sandbox, 2).exists());
            manager.signal(SIGTERM);
        }
        manager.wait().expect_code(0);
        assert!(handler.runs().is_empty());
        assert_eq!(starts(&sandbox), 1 + restarts);
        return;
    }
    panic!("the machine is too slow for this test");
}

#[test]
fn a_stop_request_within_100_ms_after_a_death_by_a_stop_signal_runs_no_handler() {
    for (death, request) in [
        (SIGTERM, SIGTERM),
        (SIGINT, SIGINT),
        (SIGQUIT, SIGTERM),
        (SIGHUP, SIGQUIT),
    ] {
        request_after_death(death, request, 0);
    }
}

#[test]
fn a_restart_request_within_100_ms_after_a_death_by_a_stop_signal_runs_no_handler() {
    request_after_death(SIGTERM, SIGHUP, 1);
    request_after_death(SIGHUP, SIGHUP, 1);
}

#[test]
fn a_death_by_a_stop_signal_without_a_request_is_handled_after_100_ms() {
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler)
            .limit(Resource::RLIMIT_CORE, 0, 0)
            .command(probe(&sandbox))
            .spawn();
        let server = started(&sandbox, 1);
        let died = Instant::now();
        sandbox.signal(server, signal);
        started(&sandbox, 2);
        let back = died.elapsed();
        assert!(back >= Duration::from_millis(100), "after {back:?}");
        assert_eq!(handler.runs().len(), 1);
        stop(manager);
    }
}

#[test]
fn no_signal_goes_to_a_server_that_is_gone() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let tracer = traced(
        &sandbox,
        manager.process(),
        &["-e", "trace=kill,tkill,tgkill"],
    );
    // The death and the requests are there together.
    strike_both(&manager, SIGHUP, first, SIGKILL);
    let second = started(&sandbox, 2);
    sandbox.signal(second, SIGKILL);
    handler.wait_for_run(1);
    PASSED_ON.iter().for_each(|signal| manager.signal(*signal));
    stop(manager);
    tracer.wait();
    for server in [first, second] {
        let trace = sandbox.lines("trace");
        let to_server = format!("kill({},", server.pid());
        assert!(
            !trace.iter().any(|call| call.contains(&to_server)),
            "{trace:?}"
        );
    }
}
