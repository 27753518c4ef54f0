//! Many signals, and signals at random moments.

use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::prelude::*;

/// Signals a manager 500 times a second as long as `goes_on`, and returns how often.
fn storm(manager: &Running<'_>, signal: i32, goes_on: impl Fn(Duration) -> bool) -> u32 {
    let (begin, mut count) = (Instant::now(), 0);
    while goes_on(begin.elapsed()) {
        // Its id is not used again before it has been waited for.
        strike(manager.pid(), signal);
        count += 1;
        thread::sleep(Duration::from_millis(2));
    }
    count
}

#[test]
fn many_terms_are_one_stop() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let slow = OnTerm::Slow(Duration::from_millis(500));
    let server = probe(&sandbox).log_signals(sandbox.path("signals"));
    let manager = managed(&sandbox, &handler)
        .command(server.on_term(slow))
        .spawn();
    started(&sandbox, 1);
    let count = storm(&manager, SIGTERM, |_| manager.process().exists());
    let outcome = manager.wait();
    outcome.expect_code(0);
    assert!(outcome.stderr_text().contains("exited with status 0"));
    assert!(count > 10, "{count} signals");
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_nothing_left(&sandbox);
}

#[test]
fn many_hups_leave_one_server_and_run_no_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    storm(&manager, SIGHUP, |so_far| {
        assert!(manager.process().children().len() <= 1);
        so_far < Duration::from_secs(2)
    });
    // The last of them may still have to be obeyed.
    let (mut seen, mut since) = (Vec::new(), Instant::now());
    wait_for("one server that stays", || {
        let children = manager.process().children();
        if children != seen || children.len() != 1 {
            (seen, since) = (children, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("server.pid")),
        Some(seen[0].pid())
    );
    assert!(starts(&sandbox) > 2 && handler.runs().is_empty());
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn many_hups_in_a_crash_loop_leave_the_manager_responsive() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .command(probe(&sandbox).exit(1))
        .spawn();
    started(&sandbox, 2);
    storm(&manager, SIGHUP, |so_far| so_far < Duration::from_secs(1));
    let count = starts(&sandbox);
    started(&sandbox, count + 1);
    let before = Instant::now();
    stop(manager);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    expect_nothing_left(&sandbox);
}

// Random moments.

/// Numbers that are different enough (see rand(3)).
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (self.0 >> 8) % bound
    }

    fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(u64::from(self.below(longest.as_micros() as u32)))
    }
}

/// Repeats a cycle, in threads beside each other. Each has a sandbox of its own, in which nothing
/// may be left.
fn repeat(times: u32, cycle: impl Fn(&Sandbox, &mut Dice) + Sync) {
    const THREADS: u32 = 6;
    let cycle = &cycle;
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            scope.spawn(move || {
                let (sandbox, mut dice) = (sandbox(), Dice(seed));
                for count in 1..=times / THREADS {
                    cycle(&sandbox, &mut dice);
                    expect_no_files(&sandbox);
                    if count % 50 == 0 {
                        expect_nothing_left(&sandbox);
                    }
                }
                expect_nothing_left(&sandbox);
            });
        }
    });
}

#[test]
fn a_stop_request_at_any_moment_of_a_start_is_obeyed_and_leaves_nothing() {
    repeat(2_000, |sandbox, dice| {
        let manager = managed(sandbox, REFUSAL)
            .command(["/bin/sleep", "1000"])
            .spawn();
        thread::sleep(dice.moment(Duration::from_millis(6)));
        manager.signal(STOPS[dice.below(3) as usize]);
        let outcome = manager.wait();
        // Before its first instruction it is a process like any other.
        let unborn = outcome
            .signal()
            .is_some_and(|signal| STOPS.contains(&signal));
        assert!(unborn || outcome.code() == Some(0), "{outcome:?}");
    });
}

#[test]
fn a_stop_request_at_any_moment_of_a_restart_is_obeyed_and_leaves_nothing() {
    repeat(3_000, |sandbox, dice| {
        let _ = fs::remove_file(sandbox.path("starts"));
        let manager = managed(sandbox, CONSENT).command(probe(sandbox)).spawn();
        let server = started(sandbox, 1);
        match dice.below(3) {
            0 => manager.signal(SIGHUP),
            1 => strike(server.pid(), SIGKILL),
            _ => strike(server.pid(), SIGTERM),
        }
        thread::sleep(dice.moment(Duration::from_millis(4)));
        stop(manager);
    });
}

/// Waits until the manager has one child, and the pidfile its id.
#[track_caller]
fn wait_for_one_server(sandbox: &Sandbox, manager: &Running<'_>) {
    wait_for("one server", || {
        let children = manager.process().children();
        let pid = sandbox.read_pidfile(sandbox.path("server.pid"));
        let is_one = children.len() == 1 && Some(children[0].pid()) == pid;
        if is_one { Ok(()) } else { Err((children, pid)) }
    });
}

#[test]
fn a_restart_request_at_any_moment_leaves_one_server() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    let mut dice = Dice(3);
    for _ in 0..200 {
        let server = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
        // The request before may have ended it, and the manager may have reaped it.
        if dice.below(2) == 0 && server.exists() {
            let _ = kill(Pid::from_raw(server.pid()), Signal::SIGKILL);
        }
        thread::sleep(dice.moment(Duration::from_millis(3)));
        manager.signal(SIGHUP);
    }
    wait_for_one_server(&sandbox, &manager);
    stop(manager);
    expect_nothing_left(&sandbox);
}

/// The children of a process, read at once.
fn children(of: i32) -> Vec<Process> {
    let listed = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    let listed = listed.expect("a manager, on a kernel with CONFIG_PROC_CHILDREN");
    let ids = listed
        .split_whitespace()
        .map(|id| id.parse().expect("an id"));
    ids.map(Process::of).collect()
}

#[test]
fn a_restart_request_at_any_moment_of_a_start_is_never_lost() {
    thread::scope(|scope| {
        for seed in 1..=4_u32 {
            scope.spawn(move || {
                let sandbox = sandbox();
                // A refusal: a death that is taken for an unexpected one ends the manager.
                let manager = managed(&sandbox, REFUSAL).command(sandbox.probe()).spawn();
                wait_for("the first server", || sandbox.path("server.pid").exists());
                let mut dice = Dice(seed);
                for _ in 0..1_500 {
                    // Moments of the start that the last request led to: one or two milliseconds.
                    thread::sleep(dice.moment(Duration::from_micros(2500)));
                    let there = children(manager.pid());
                    manager.signal(SIGHUP);
                    wait_for("the end of what was there", || {
                        there.iter().all(|child| !child.exists())
                    });
                }
                wait_for_one_server(&sandbox, &manager);
                stop(manager);
            });
        }
    });
}

#[test]
fn a_full_signal_queue_loses_no_death_and_no_request() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .limit(Resource::RLIMIT_SIGPENDING, 8, 8)
        .command(probe(&sandbox))
        .spawn();
    let flood = |death: Option<Process>, request: Option<i32>| {
        manager.signal(SIGSTOP);
        for _ in 0..20 {
            (SIGRTMIN()..=SIGRTMAX()).for_each(|signal| manager.signal(signal));
        }
        if let Some(server) = death {
            sandbox.signal(server, SIGKILL);
        }
        if let Some(request) = request {
            manager.signal(request);
        }
        manager.signal(SIGCONT);
    };
    flood(Some(started(&sandbox, 1)), None);
    started(&sandbox, 2);
    assert_eq!(handler.runs().len(), 1);
    flood(None, Some(SIGHUP));
    let third = started(&sandbox, 3);
    flood(Some(third), Some(SIGTERM));
    manager.wait().expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (3, 1));
}
