//! Restarts that follow each other, servers that cannot be executed, the pidfile.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::*;
use crate::prelude::*;

#[test]
fn a_server_that_is_killed_is_back_at_once() {
    let best = (0..5).map(|_| {
        let sandbox = sandbox();
        let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let died = Instant::now();
        strike(first.pid(), SIGKILL);
        started(&sandbox, 2);
        let back = died.elapsed();
        stop(manager);
        back
    });
    // The best of several, because the machine does other things too.
    assert!(best.min() < Some(Duration::from_millis(60)));
}

#[test]
fn restarts_are_spaced_at_once_then_twice_as_long_each_time() {
    let sandbox = sandbox();
    let times = sandbox.path("times");
    let handler = format!("#!/bin/sh\ndate +%s%3N >>'{}'\n", times.display());
    let handler = sandbox.executable("handler", handler);
    let manager = managed(&sandbox, &handler)
        .command(sandbox.probe().exit(1))
        .spawn();
    wait_for("six deaths", || sandbox.lines("times").len() >= 6);
    let times: Vec<u64> = sandbox
        .lines("times")
        .iter()
        .map(|time| time.parse().expect("milliseconds"))
        .collect();
    let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    for (gap, delay) in gaps.iter().zip([0, 100, 200, 400, 800]) {
        assert!((delay..delay + 1000).contains(gap), "gaps {gaps:?} ms");
    }
    let announced = delays(&manager, "restarting the server in");
    assert_eq!(announced[..4], ["100ms", "200ms", "400ms", "800ms"]);
}

#[test]
fn a_stop_request_in_a_delay_ends_the_manager_at_once() {
    // All at once, because each takes seconds.
    let sandboxes = STOPS.map(|_| sandbox());
    let managers = sandboxes.each_ref().map(|sandbox| {
        managed(sandbox, CONSENT)
            .command(probe(sandbox).exit(1))
            .spawn()
    });
    for ((request, sandbox), manager) in STOPS.into_iter().zip(&sandboxes).zip(managers) {
        wait_for_message(&manager, "restarting the server in 1.6s");
        let (before, count) = (Instant::now(), starts(sandbox));
        manager.signal(request);
        let outcome = manager.wait();
        outcome.expect_code(0);
        assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
        assert!(outcome.stderr_text().ends_with("vsrun: asked to stop\n"));
        assert_eq!(starts(sandbox), count);
        expect_nothing_left(sandbox);
    }
}

#[test]
fn a_hup_in_a_delay_starts_the_server_at_once_and_resets_the_delay() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .command(probe(&sandbox).exit(1))
        .spawn();
    let words = "restarting the server in";
    wait_for_message(&manager, "restarting the server in 1.6s");
    let (before, count) = (Instant::now(), starts(&sandbox));
    manager.signal(SIGHUP);
    started(&sandbox, count + 1);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    wait_for("two more delays", || delays(&manager, words).len() >= 7);
    let expected = ["100ms", "200ms", "400ms", "800ms", "1.6s", "100ms", "200ms"];
    assert_eq!(delays(&manager, words)[..7], expected);
    stop(manager);
}

#[test]
fn a_life_of_10_s_resets_the_delay() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .command(probe(&sandbox).exit(1).only_first(3))
        .spawn();
    let fourth = started(&sandbox, 4);
    let words = "restarting the server in";
    assert_eq!(delays(&manager, words), ["100ms", "200ms"]);
    let born = Instant::now();
    wait_for("10 s to pass", || born.elapsed() >= Duration::from_secs(10));
    sandbox.signal(fourth, SIGKILL);
    sandbox.signal(started(&sandbox, 5), SIGKILL);
    assert!(started(&sandbox, 6).exists());
    assert_eq!(delays(&manager, words), ["100ms", "200ms", "100ms"]);
    stop(manager);
}

// A server that cannot be executed.

/// A server whose program can be broken while it runs, as a file `program` of its own.
fn breakable(sandbox: &Sandbox) -> Probe {
    let program = sandbox.copy_of(&sandbox.probe().words()[0], "program");
    Probe::at(program).append(sandbox.path("starts"))
}

fn remove(sandbox: &Sandbox) {
    fs::remove_file(sandbox.path("program")).expect("the program is there");
}

fn mend(sandbox: &Sandbox) {
    let program = sandbox.path("program");
    if program.is_dir() {
        fs::remove_dir(&program).expect("an empty directory");
    }
    sandbox.copy_of(&sandbox.probe().words()[0], "program");
}

fn take_permission(sandbox: &Sandbox) {
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(sandbox.path("program"), mode).expect("the owner may set a mode");
}

fn take_first_line(sandbox: &Sandbox) {
    // A file of its own, because a running program cannot be written to.
    sandbox.executable(
        "program",
        format!("touch '{}'\n", sandbox.path("ran").display()),
    );
}

fn write_to(sandbox: &Sandbox) {
    mend(sandbox);
    let writer = fs::OpenOptions::new()
        .append(true)
        .open(sandbox.path("program"));
    // It is never closed.
    std::mem::forget(writer.expect("a file"));
}

fn take_interpreter(sandbox: &Sandbox) {
    remove(sandbox);
    sandbox.executable("program", "#!/nonexistent/interpreter\n");
}

fn replace_by_directory(sandbox: &Sandbox) {
    remove(sandbox);
    sandbox.dir("program");
}

/// How a program is broken, the status that stands for it, and the words for it: what cannot be
/// done with the command, and why.
type Breakage = (fn(&Sandbox), &'static str, [&'static str; 2]);

const EXECUTE: &str = "execute";

const BREAKAGES: [Breakage; 6] = [
    (remove, "127", [EXECUTE, "No such file or directory"]),
    (take_permission, "126", [EXECUTE, "Permission denied"]),
    (take_first_line, "126", [EXECUTE, "Exec format error"]),
    (write_to, "126", [EXECUTE, "Text file busy"]),
    (
        take_interpreter,
        "127",
        ["find the interpreter of", "No such file or directory"],
    ),
    (replace_by_directory, "126", [EXECUTE, "Is a directory"]),
];

#[test]
fn an_exec_that_fails_at_a_restart_is_an_unexpected_termination_and_the_handler_decides() {
    for (break_it, status, [doing, reason]) in BREAKAGES {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler)
            .command(breakable(&sandbox))
            .spawn();
        let first = started(&sandbox, 1);
        break_it(&sandbox);
        sandbox.signal(first, SIGKILL);
        let run = handler.wait_for_run(2);
        let variable = |name: &str| {
            let value = run.env(&format!("VSRUN_SERVER_{name}"));
            value.and_then(OsStr::to_str).map(str::to_owned)
        };
        assert_eq!(variable("EXITED").as_deref(), Some("1"));
        assert_eq!(variable("EXITSTATUS").as_deref(), Some(status));
        assert_eq!(variable("UPTIME").as_deref(), Some("0"));
        assert_eq!(
            (variable("TERMSIG"), variable("COREDUMP")),
            (None, Some("0".into()))
        );
        let explained = variable("EXPLAIN").unwrap_or_default();
        let expected = format!("cannot {doing} command: {reason}");
        assert!(explained.ends_with(&expected), "{explained}");
        assert!(!sandbox.path("server.pid").exists());
        let mended = Instant::now();
        mend(&sandbox);
        assert!(started(&sandbox, 2).exists());
        let back = mended.elapsed();
        assert!(back < Duration::from_secs(2), "back after {back:?}");
        assert!(!sandbox.path("ran").exists(), "a shell was given the file");
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_server_that_cannot_be_executed_again_is_tried_less_and_less_often() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .command(breakable(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    remove(&sandbox);
    sandbox.signal(first, SIGKILL);
    wait_for_message(&manager, "restarting the server in 800ms");
    assert_eq!(handler.runs().len(), 5);
    let before = Instant::now();
    stop(manager);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    expect_nothing_left(&sandbox);
}

#[test]
fn a_refusal_after_an_exec_that_failed_ends_the_manager_with_the_status_for_that() {
    for (break_it, status, [doing, reason]) in BREAKAGES {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(1).create();
        let manager = managed(&sandbox, &handler)
            .command(breakable(&sandbox))
            .spawn();
        started(&sandbox, 1);
        break_it(&sandbox);
        manager.signal(SIGHUP);
        let outcome = manager.wait();
        outcome.expect_code(status.parse().expect("a number"));
        let line = format!(
            "cannot {doing} command '{}': {reason}",
            sandbox.path("program").display()
        );
        assert!(outcome.stderr_text().contains(&line));
        assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn an_exec_that_fails_at_the_first_start_is_an_error_without_a_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (break_it, status, [doing, reason]) in BREAKAGES {
        let server = breakable(&sandbox);
        break_it(&sandbox);
        let program = sandbox.path("program");
        let outcome = managed(&sandbox, &handler).command(server).run();
        let message = format!(
            "vsrun: cannot {doing} command '{}': {reason}",
            program.display()
        );
        outcome.expect_error(status.parse().expect("a number"), &message);
        assert_eq!((starts(&sandbox), handler.runs().len()), (0, 0));
        expect_nothing_left(&sandbox);
        mend(&sandbox);
    }
}

// The pidfile.

#[test]
fn there_is_no_pidfile_in_a_delay() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .command(probe(&sandbox).exit(1))
        .spawn();
    wait_for_message(&manager, "restarting the server in 800ms");
    assert!(!sandbox.path("server.pid").exists());
    stop(manager);
}

#[test]
fn a_server_that_is_killed_twenty_times_comes_back_twenty_times() {
    let sandbox = sandbox();
    // A hundred seconds in one: the later delays are half a minute each.
    let Some(clock) = Clock::new(&sandbox, "+0 x100") else {
        return;
    };
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .clock(&clock)
        .command(probe(&sandbox).kill(SIGKILL).only_first(20))
        .spawn();
    let last = started(&sandbox, 21);
    wait_for("the line of the last start", || {
        manager.stderr().matches("started server").count() == 21
    });
    assert_eq!(handler.runs().len(), 20);
    assert!(last.exists() && starts(&sandbox) == 21);
    assert_eq!(manager.process().children(), [last]);
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("server.pid")),
        Some(last.pid())
    );
    stop(manager);
}

#[test]
fn ten_seconds_of_a_crash_loop_are_eight_tries_and_hardly_any_processor_time() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .command(probe(&sandbox).exit(1))
        .spawn();
    // The delays before this one are 6.3 s together, so 12.7 s are over at the next start.
    wait_for_message(&manager, "restarting the server in 6.4s");
    assert_eq!(starts(&sandbox), 8);
    let ticks = manager
        .process()
        .stat()
        .expect("a running manager")
        .cpu_ticks;
    // 0.1 s. A manager that turned in a loop would have used up all the time there was: 630 of
    // them.
    assert!(ticks < 10, "{ticks} clock ticks");
    stop(manager);
}
