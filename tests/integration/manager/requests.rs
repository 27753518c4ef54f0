//! Requests to a manager: while the server runs, while it is stopping, while a handler runs.

use std::time::{Duration, Instant};

use super::*;
use crate::prelude::*;

/// The requests that a manager reported, in turn.
fn requests(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("vsrun: "))
        .filter(|it| it.starts_with("asked"))
        .collect()
}

#[test]
fn a_stop_request_sends_the_server_sigterm_and_ends_the_manager_with_0_when_it_is_gone() {
    for request in STOPS {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let slow = OnTerm::Slow(Duration::from_millis(200));
        let server = probe(&sandbox).log_signals(sandbox.path("signals"));
        let manager = managed(&sandbox, &handler)
            .command(server.on_term(slow))
            .spawn();
        started(&sandbox, 1);
        manager.signal(request);
        let outcome = manager.wait();
        outcome.expect_code(0);
        // The server was not killed while it took its time.
        assert!(outcome.stderr_text().contains("exited with status 0"));
        assert_eq!(sandbox.lines("signals"), ["READY", "TERM"]);
        assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_requested_stop_ends_with_0_however_the_server_ends() {
    let sandbox = sandbox();
    for (name, behaviour) in [("exit", Some(OnTerm::Exit(3))), ("signal", None)] {
        let handler = sandbox.handler(name).create();
        let starts = sandbox.path(format!("{name}.starts"));
        let server = sandbox.probe().append(&starts);
        let server = match behaviour {
            Some(behaviour) => server.on_term(behaviour),
            None => server,
        };
        let manager = managed_as(&sandbox, name, &handler).command(server).spawn();
        wait_for("the start", || starts.exists());
        stop(manager);
        assert!(handler.runs().is_empty());
    }
}

#[test]
fn a_restart_request_sends_the_server_sigterm_and_starts_it_again_without_a_handler() {
    for behaviour in [OnTerm::Exit(0), OnTerm::Exit(3)] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let server = probe(&sandbox).log_signals(sandbox.path("signals"));
        let manager = managed(&sandbox, &handler)
            .command(server.on_term(behaviour))
            .spawn();
        let first = started(&sandbox, 1);
        manager.signal(SIGHUP);
        let second = started(&sandbox, 2);
        assert!(second.exists() && second != first && !first.exists());
        wait_for_signals(&sandbox, &["READY", "TERM", "READY"]);
        stop(manager);
        assert_eq!((starts(&sandbox), handler.runs().len()), (2, 0));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn the_new_server_is_not_started_before_the_old_one_is_gone() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .command(stubborn_probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    manager.signal(SIGHUP);
    wait_for_signals(&sandbox, &["READY", "TERM"]);
    holds_for("one server", Duration::from_millis(200), || {
        starts(&sandbox) == 1 && manager.process().children().len() == 1
    });
    sandbox.file("end", "");
    started(&sandbox, 2);
    manager.signal(SIGTERM);
    wait_for_signals(&sandbox, &["READY", "TERM", "READY", "TERM"]);
}

#[test]
fn usr1_usr2_and_winch_are_passed_on_to_the_server() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .command(stubborn_probe(&sandbox))
        .spawn();
    let server = started(&sandbox, 1);
    let mut expected = vec!["READY"];
    for (signal, name) in PASSED_ON.into_iter().zip(["USR1", "USR2", "WINCH"]) {
        manager.signal(signal);
        expected.push(name);
        wait_for_signals(&sandbox, &expected);
    }
    // Signals are passed on to a server that is stopping.
    manager.signal(SIGTERM);
    expected.push("TERM");
    wait_for_signals(&sandbox, &expected);
    manager.signal(SIGUSR1);
    expected.push("USR1");
    wait_for_signals(&sandbox, &expected);
    assert_eq!(started(&sandbox, 1), server);
    sandbox.file("end", "");
    manager.wait().expect_code(0);
}

#[test]
fn no_other_signal_ends_or_stops_the_manager_or_reaches_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .command(stubborn_probe(&sandbox))
        .spawn();
    let server = started(&sandbox, 1);
    send_strays(&manager);
    wait_for("what is passed on", || {
        let mut log = sandbox.lines("signals");
        log.sort();
        log.dedup();
        if log == ["READY", "USR1", "USR2", "WINCH"] {
            Ok(())
        } else {
            Err(log)
        }
    });
    holds_for("as it was", Duration::from_millis(200), || {
        let stopped = manager.process().stat().map(|stat| stat.state);
        server.exists() && matches!(stopped, Some('S' | 'R')) && starts(&sandbox) == 1
    });
    assert!(handler.runs().is_empty());
    sandbox.file("end", "");
    manager.wait().expect_code(0);
}

#[test]
fn while_a_handler_runs_stray_signals_change_nothing_and_reach_no_later_server() {
    let sandbox = sandbox();
    let hold = format!(
        "until test -e '{}'; do sleep 0.02; done",
        sandbox.path("go").display()
    );
    let handler = sandbox.handler("handler").line(hold).create();
    let server = probe(&sandbox).log_signals(sandbox.path("signals"));
    let manager = managed(&sandbox, &handler)
        .command(server.only_first(1).exit(3))
        .spawn();
    handler.wait_for_run(1);
    send_strays(&manager);
    holds_for("being handled", Duration::from_millis(200), || {
        manager.process().exists() && starts(&sandbox) == 1
    });
    sandbox.file("go", "");
    started(&sandbox, 2);
    wait_for_signals(&sandbox, &["READY", "READY"]);
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

fn send_strays(manager: &Running<'_>) {
    let strays = (1..=64)
        .filter(|signal| !REQUESTS.contains(signal) && ![SIGKILL, SIGSTOP].contains(signal));
    for signal in strays {
        manager.signal(signal);
        manager.signal(signal);
    }
}

#[test]
fn a_manager_started_with_signals_ignored_or_blocked_handles_deaths_and_requests() {
    for stop in STOPS {
        let sandbox = sandbox();
        let manager = managed(&sandbox, CONSENT)
            .ignoring([SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT])
            .blocking_all_signals()
            .command(probe(&sandbox))
            .spawn();
        sandbox.signal(started(&sandbox, 1), SIGKILL);
        started(&sandbox, 2);
        manager.signal(SIGHUP);
        started(&sandbox, 3);
        manager.signal(stop);
        manager.wait().expect_code(0);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_manager_in_the_background_handles_deaths_and_requests() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let outcome = managed(&sandbox, &handler)
        .background()
        .command(probe(&sandbox))
        .run();
    outcome.expect_code(0);
    let manager = sandbox.wait_for_pidfile(sandbox.path("manager.pid"));
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    sandbox.signal(manager, SIGHUP);
    started(&sandbox, 3);
    sandbox.signal(manager, SIGTERM);
    wait_for("the end of the manager", || !manager.exists());
    assert_eq!(handler.runs().len(), 1);
    expect_nothing_left(&sandbox);
}

// Requests while the server is stopping.

#[test]
fn a_term_while_restarting_turns_the_restart_into_an_exit() {
    for request in STOPS {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler)
            .command(stubborn_probe(&sandbox))
            .spawn();
        started(&sandbox, 1);
        manager.signal(SIGHUP);
        wait_for_signals(&sandbox, &["READY", "TERM"]);
        manager.signal(request);
        sandbox.file("end", "");
        let outcome = manager.wait();
        outcome.expect_code(0);
        assert_eq!(
            requests(&outcome.stderr_text()),
            ["asked to restart the server", "asked to stop"]
        );
        assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_hup_while_stopping_to_exit_is_ignored() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .command(stubborn_probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    manager.signal(SIGTERM);
    wait_for_signals(&sandbox, &["READY", "TERM"]);
    for _ in 0..20 {
        manager.signal(SIGHUP);
    }
    sandbox.file("end", "");
    let outcome = manager.wait();
    outcome.expect_code(0);
    assert_eq!(requests(&outcome.stderr_text()), ["asked to stop"]);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_nothing_left(&sandbox);
}

#[test]
fn several_hups_are_one() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .command(stubborn_probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    manager.signal(SIGHUP);
    wait_for_signals(&sandbox, &["READY", "TERM"]);
    for _ in 0..500 {
        manager.signal(SIGHUP);
    }
    // It is passed on after all the others have been read, or with the last of them.
    manager.signal(SIGUSR1);
    wait_for("the last signal", || {
        sandbox
            .lines("signals")
            .last()
            .is_some_and(|it| it == "USR1")
    });
    sandbox.file("end", "");
    let second = started(&sandbox, 2);
    holds_for("one restart", Duration::from_millis(300), || {
        second.exists() && starts(&sandbox) == 2
    });
    assert_eq!(
        sandbox.lines("signals").last().map(String::as_str),
        Some("READY")
    );
    assert_eq!(requests(&manager.stderr()), ["asked to restart the server"]);
}

#[test]
fn each_repeated_request_sends_the_server_sigterm_again() {
    for (first, again) in [(SIGTERM, SIGTERM), (SIGTERM, SIGHUP), (SIGHUP, SIGHUP)] {
        let sandbox = sandbox();
        let manager = managed(&sandbox, REFUSAL)
            .command(stubborn_probe(&sandbox))
            .spawn();
        started(&sandbox, 1);
        manager.signal(first);
        wait_for_signals(&sandbox, &["READY", "TERM"]);
        manager.signal(again);
        wait_for_signals(&sandbox, &["READY", "TERM", "TERM"]);
    }
}

#[test]
fn a_server_that_ignores_sigterm_is_reported_once_after_10_s() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .command(stubborn_probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    let before = Instant::now();
    manager.signal(SIGTERM);
    wait_for_signals(&sandbox, &["READY", "TERM"]);
    let remarks = || manager.stderr().matches("SIGTERM").count();
    let remarks_before = remarks();
    wait_for("the remark", || remarks() > remarks_before);
    let after = before.elapsed();
    assert!(
        (9_900..15_000).contains(&after.as_millis()),
        "after {after:?}"
    );
    // It stays responsive.
    manager.signal(SIGUSR1);
    wait_for_signals(&sandbox, &["READY", "TERM", "USR1"]);
    holds_for("one remark", Duration::from_secs(1), || {
        remarks() == remarks_before + 1
    });
    sandbox.file("end", "");
    manager.wait().expect_code(0);
    expect_nothing_left(&sandbox);
}

// Requests while a handler runs.

#[test]
fn a_stop_request_while_a_handler_runs_terminates_it_and_ends_the_manager_with_0() {
    for request in STOPS {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").line("sleep 1000").create();
        let manager = managed(&sandbox, &handler)
            .command(probe(&sandbox).exit(3))
            .spawn();
        handler.wait_for_run(1);
        manager.signal(request);
        manager.wait().expect_code(0);
        assert_eq!(starts(&sandbox), 1);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_hup_while_a_handler_runs_terminates_it_and_restarts_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    handler.wait_for_run(1);
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    assert_eq!(
        manager.process().children(),
        [second],
        "the handler is gone"
    );
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
    expect_nothing_left(&sandbox);
}

/// A handler that makes the file `terminated` at SIGTERM, and runs until there is a file `go`.
fn stubborn_handler(sandbox: &Sandbox) -> HandlerScript<'_> {
    let directory = sandbox.directory().display();
    let wait = format!("until test -e '{directory}/go'; do sleep 0.02; done");
    sandbox
        .handler("handler")
        .on_term(format_args!(": >{directory}/terminated"))
        .line(wait)
}

#[test]
fn a_term_while_a_handler_is_terminated_for_a_restart_turns_that_into_an_exit() {
    let sandbox = sandbox();
    let handler = stubborn_handler(&sandbox).create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3))
        .spawn();
    handler.wait_for_run(1);
    manager.signal(SIGHUP);
    wait_for("SIGTERM to the handler", || {
        sandbox.path("terminated").exists()
    });
    manager.signal(SIGTERM);
    sandbox.file("go", "");
    let outcome = manager.wait();
    outcome.expect_code(0);
    assert_eq!(
        requests(&outcome.stderr_text()),
        ["asked to restart the server", "asked to stop"]
    );
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_hup_while_a_handler_is_terminated_for_an_exit_is_ignored() {
    let sandbox = sandbox();
    let handler = stubborn_handler(&sandbox).create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3))
        .spawn();
    handler.wait_for_run(1);
    manager.signal(SIGTERM);
    wait_for("SIGTERM to the handler", || {
        sandbox.path("terminated").exists()
    });
    manager.signal(SIGHUP);
    sandbox.file("go", "");
    let outcome = manager.wait();
    outcome.expect_code(0);
    assert_eq!(requests(&outcome.stderr_text()), ["asked to stop"]);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_restart_request_while_a_handler_runs_needs_no_consent() {
    let sandbox = sandbox();
    let handler = stubborn_handler(&sandbox).exits(1).create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    handler.wait_for_run(1);
    manager.signal(SIGHUP);
    wait_for("SIGTERM to the handler", || {
        sandbox.path("terminated").exists()
    });
    sandbox.file("go", "");
    assert!(started(&sandbox, 2).exists());
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}
