//! Deaths of the server, and what a handler makes of them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::*;
use crate::prelude::*;

/// The signals that do not end a process by default (see signal(7)); 23 is SIGURG.
const HARMLESS: [i32; 8] = [
    SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH, 23,
];

#[test]
fn a_voluntary_exit_ends_the_manager_with_0_without_a_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let outcome = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(0))
        .run();
    outcome.expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_nothing_left(&sandbox);
}

#[test]
fn an_exit_with_any_other_status_is_unexpected_and_becomes_the_managers() {
    let sandbox = sandbox();
    let statuses = [1, 2, 3, 42, 63, 64, 125, 126, 127, 128, 143, 254, 255];
    let managers = statuses.map(|status| {
        let manager = managed_as(&sandbox, &status.to_string(), REFUSAL);
        let manager = manager.command(sandbox.probe().exit(status));
        (status, manager.spawn())
    });
    for (status, manager) in managers {
        let outcome = manager.wait();
        outcome.expect_code(status.into());
        assert!(outcome.stderr_text().contains("handler"), "{status}");
    }
}

#[test]
fn a_death_by_any_signal_is_unexpected_and_becomes_128_and_its_number() {
    let sandbox = sandbox();
    let deadly = (1..=64).filter(|signal| !HARMLESS.contains(signal));
    let managers: Vec<_> = deadly
        .map(|signal| {
            let starts = sandbox.path(format!("{signal}.starts"));
            let manager = managed_as(&sandbox, &signal.to_string(), REFUSAL)
                .limit(Resource::RLIMIT_CORE, 0, 0)
                .command(sandbox.probe().append(starts));
            (signal, manager.spawn())
        })
        .collect();
    for (signal, manager) in managers {
        wait_for("the start", || {
            sandbox.lines(format!("{signal}.starts")).len() == 1
        });
        let server = sandbox.wait_for_pidfile(sandbox.path(format!("{signal}server.pid")));
        sandbox.signal(server, signal);
        let outcome = manager.wait();
        outcome.expect_code(128 + signal);
        assert!(outcome.stderr_text().contains("handler"), "{signal}");
    }
}

#[test]
fn the_handlers_0_restarts_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    assert!(second.exists() && second != first);
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("server.pid")),
        Some(second.pid())
    );
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
    assert_eq!(starts(&sandbox), 2);
    expect_nothing_left(&sandbox);
}

#[test]
fn the_handlers_refusal_ends_the_manager_and_nothing_is_started() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    manager.wait().expect_code(128 + SIGKILL);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_server_that_daemonizes_has_exited_voluntarily_with_a_hint() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let outcome = managed(&sandbox, &handler)
        .command(probe(&sandbox).daemonizing())
        .run();
    outcome.expect_code(0);
    assert!(outcome.stderr_text().contains("background"));
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    assert_eq!(sandbox.processes().len(), 1, "what went away lives on");
    expect_no_files(&sandbox);
}

#[test]
fn a_server_without_children_gets_no_hint_about_daemonizing() {
    let sandbox = sandbox();
    let outcome = managed(&sandbox, REFUSAL)
        .command(probe(&sandbox).exit(0))
        .run();
    outcome.expect_code(0);
    assert!(!outcome.stderr_text().contains("background"), "{outcome:?}");
}

#[test]
fn a_stopped_server_is_alive() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    sandbox.signal(server, SIGSTOP);
    wait_for("the server to be stopped", || {
        server.stat().is_some_and(|stat| stat.state == 'T')
    });
    holds_for("managed", Duration::from_millis(200), || {
        manager.process().exists() && sandbox.path("server.pid").exists()
    });
    sandbox.signal(server, SIGCONT);
    stop(manager);
}

#[test]
fn a_stopped_manager_sees_a_death_when_it_continues() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    manager.signal(SIGSTOP);
    sandbox.signal(server, SIGKILL);
    wait_for("the death of the server", || !server.exists());
    manager.signal(SIGCONT);
    assert!(started(&sandbox, 2).exists());
    stop(manager);
}

#[test]
fn children_of_a_dead_server_do_not_delay_the_next_one() {
    let sandbox = sandbox();
    let path = path_with_logger(&sandbox, "exec cat >/dev/null");
    for (name, options) in [
        ("plain", [].as_slice()),
        ("files", &["--logdir", "logs", "1d"]),
        ("logger", &["--syslog", "tag"]),
    ] {
        let starts = sandbox.path(name);
        let manager = sandbox
            .vsrun()
            .manager(sandbox.path(format!("{name}.pid")), CONSENT)
            .env("PATH", &path)
            .args(options)
            .command(sandbox.probe().append(&starts).with_session_child())
            .spawn();
        let servers = |count| {
            let ids = wait_for("a start", || {
                let ids = sandbox.lines(&starts);
                if ids.len() == count {
                    Ok(ids)
                } else {
                    Err(ids)
                }
            });
            Process::of(ids[count - 1].parse().expect("an id"))
        };
        let first = servers(1);
        let left = wait_for("the server's child", || first.children().first().copied());
        sandbox.signal(first, SIGKILL);
        let second = servers(2);
        manager.signal(SIGHUP);
        let third = servers(3);
        assert!(
            left.exists() && !first.exists() && !second.exists() && third.exists(),
            "{name}"
        );
    }
}

#[test]
fn a_traced_server_is_alive_until_it_is_reaped() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let tracer = traced(&sandbox, server, &[]);
    sandbox.signal(server, SIGSTOP);
    wait_for("a traced stop", || {
        server.stat().is_some_and(|stat| stat.state == 't')
    });
    holds_for("managed", Duration::from_millis(200), || {
        starts(&sandbox) == 1 && server.exists()
    });
    // What was killed is not gone before its tracer has looked at it.
    tracer.signal(SIGSTOP);
    wait_for("a stopped tracer", || {
        tracer.process().stat().is_some_and(|it| it.state == 'T')
    });
    let ticks = || {
        manager
            .process()
            .stat()
            .expect("a running manager")
            .cpu_ticks
    };
    let before = ticks();
    sandbox.signal(server, SIGKILL);
    holds_for(
        "a death that is not over",
        Duration::from_millis(300),
        || starts(&sandbox) == 1,
    );
    assert!(ticks() - before < 10, "the manager turns in a loop");
    tracer.signal(SIGCONT);
    assert!(started(&sandbox, 2).exists());
    let run = handler.wait_for_run(1);
    assert_eq!(run.env("VSRUN_SERVER_TERMSIG"), Some(OsStr::new("9")));
    stop(manager);
    tracer.wait();
}

/// A program's name that looks like fields of /proc/PID/stat: CVE-2017-1000367 of sudo; and one
/// that looks like a line of the log: CVE-2023-28486 of sudo.
#[test]
fn a_server_may_have_a_name_that_looks_like_proc_fields_or_a_log_line() {
    let sandbox = sandbox();
    let name = "a) R 1 (b\n";
    let original = sandbox.probe().words()[0].clone();
    let program = sandbox.copy_of(original, name);
    let handler = sandbox.handler("handler").create();
    let start = sandbox
        .vsrun()
        .pidfile("pid")
        .logdir("logs", "1")
        .manager("manager", &handler);
    let server = Probe::at(&program).append(sandbox.path("starts"));
    let manager = start.command(server).spawn();
    let first = started(&sandbox, 1);
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/comm", first.pid())).ok(),
        Some(format!("{name}\n"))
    );
    assert_eq!(manager.process().children(), [first]);
    sandbox.signal(first, SIGKILL);
    let run = handler.wait_for_run(1);
    assert_eq!(
        run.env("VSRUN_SERVER_PID"),
        Some(OsStr::new(&first.pid().to_string()))
    );
    let command = run.env("VSRUN_SERVER_COMMAND").expect("a command");
    assert!(
        command
            .as_bytes()
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    );
    let second = started(&sandbox, 2);
    manager.signal(SIGHUP);
    let third = started(&sandbox, 3);
    assert!(!second.exists());
    assert_eq!(sandbox.read_pidfile(sandbox.path("pid")), Some(third.pid()));
    let own = format!(" vsrun[{}]: ", manager.pid());
    stop(manager);
    assert!(!third.exists());
    let log = LogDirectory::at(sandbox.path("logs")).vsrun();
    assert!(log.lines().all(|line| line.contains(&own)), "{log}");
    assert!(log.contains(r"a) R 1 (b\n"), "{log}");
}
