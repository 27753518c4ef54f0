//! Starts that share a pidfile and fail.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::{F_RDLCK, F_WRLCK};

use super::*;
use crate::prelude::*;

/// Failing starts at a time.
const RIVALS: usize = 4;
const ROUNDS: usize = 25;

/// A start with the pidfile `run/pid`, in one of the four ways. `number` is different for each.
fn start(sandbox: &Sandbox, number: usize) -> Invocation<'_> {
    let start = sandbox.vsrun().pidfile("run/pid");
    let start = if number % 2 == 0 {
        start.background()
    } else {
        start
    };
    match number % 4 {
        0 | 1 => start,
        _ => start.manager(format!("manager{number}"), handler(sandbox)),
    }
}

fn failing(sandbox: &Sandbox, number: usize) -> Running<'_> {
    start(sandbox, number).command(["/nonexistent"]).spawn()
}

/// Waits until this many starts have failed.
fn all_fail(starts: Vec<Running<'_>>) {
    for start in starts {
        start.wait().expect_code(127);
    }
}

#[test]
fn of_starts_that_fail_at_once_none_leaves_a_dead_id() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    for round in 0..ROUNDS {
        // All in the background, where the race is closest, or each in another way.
        let ways = (0..RIVALS).map(|number| if round % 2 == 0 { number * 4 } else { number });
        all_fail(ways.map(|way| failing(&sandbox, way)).collect());
        assert_eq!(run.names(), [""; 0], "round {round}");
    }
}

#[test]
fn starts_that_fail_leave_the_id_of_one_that_succeeds() {
    for round in 0..ROUNDS {
        let sandbox = sandbox();
        let run = run_dir(&sandbox);
        let first = failing(&sandbox, round);
        let server = sandbox.probe().append(sandbox.path("starts"));
        let good = start(&sandbox, RIVALS + round).command(server).spawn();
        let others = (1..RIVALS - 1).map(|number| failing(&sandbox, round + number));
        all_fail(others.chain([first]).collect());
        started(&sandbox, 1);
        if (RIVALS + round) % 2 == 0 {
            // In the background its start is over when it returns.
            good.wait().expect_code(0);
        }
        assert_eq!(
            sandbox.lines("run/pid"),
            sandbox.lines("starts"),
            "round {round}"
        );
        assert_eq!(run.names(), ["pid"], "round {round}");
    }
}

#[test]
fn starts_that_fail_leave_the_id_of_a_server_that_was_there() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    start(&sandbox, 0).command(server).run().expect_code(0);
    for round in 0..ROUNDS {
        all_fail(
            (0..RIVALS)
                .map(|number| failing(&sandbox, number))
                .collect(),
        );
        assert_eq!(
            sandbox.lines("run/pid"),
            sandbox.lines("starts"),
            "round {round}"
        );
        assert_eq!(run.names(), ["pid"], "round {round}");
    }
}

/// The pidfile of a start whose outcome is unknown: this process stands for it.
fn pending(sandbox: &Sandbox) -> (File, u64) {
    let mut file = File::create_new(sandbox.path("run/pid")).expect("a new file");
    lock(&file, F_WRLCK).expect("a lock");
    writeln!(file, "{}", std::process::id()).expect("an id");
    let inode = file.metadata().expect("a file").ino();
    (file, inode)
}

fn has_inode(path: &Path, inode: u64) -> bool {
    fs::metadata(path).is_ok_and(|about| about.ino() == inode)
}

#[test]
fn a_start_that_fails_waits_for_the_outcome_of_the_one_whose_pidfile_it_replaced() {
    for succeeds in [true, false] {
        for way in 0..4 {
            let sandbox = sandbox();
            let run = run_dir(&sandbox);
            let pidfile = run.path().join("pid");
            let (file, inode) = pending(&sandbox);
            let start = failing(&sandbox, way);
            wait_for("its pidfile, or that it is gone", || {
                !has_inode(&pidfile, inode)
            });
            wait_for("the end of its attempt", || run.names().is_empty());
            holds_for("it waits", Duration::from_millis(60), || {
                start.process().exists()
            });
            if !succeeds {
                file.set_len(0).expect("an empty file");
            }
            drop(file);
            start.wait().expect_code(127);
            let id = succeeds.then_some(std::process::id() as i32);
            assert_eq!(sandbox.read_pidfile(&pidfile), id, "way {way}");
        }
    }
}

#[test]
fn a_start_that_fails_leaves_the_file_of_one_that_has_begun_since() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let (first, inode) = pending(&sandbox);
    let start = failing(&sandbox, 0);
    wait_for("the replacement", || {
        !has_inode(&run.path().join("pid"), inode)
    });
    wait_for("the end of its attempt", || run.names().is_empty());
    let (second, inode) = pending(&sandbox);
    // The first is a live server now, but the second may be one soon.
    drop(first);
    holds_for("it waits", Duration::from_millis(60), || {
        start.process().exists()
    });
    drop(second);
    start.wait().expect_code(127);
    assert!(has_inode(&run.path().join("pid"), inode));
    assert_eq!(run.names(), ["pid"]);
}

#[test]
fn a_start_that_fails_waits_for_five_seconds_at_most() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let (file, _) = pending(&sandbox);
    let begun = Instant::now();
    failing(&sandbox, 0).wait().expect_code(127);
    assert!(begun.elapsed() >= Duration::from_secs(5));
    // It may still succeed, and the process lives.
    assert_eq!(
        sandbox.read_pidfile(run.path().join("pid")),
        Some(std::process::id() as i32)
    );
    drop(file);
}

#[test]
fn a_read_lock_of_a_stranger_holds_up_no_start() {
    let sandbox = sandbox();
    let id = std::process::id();
    run_dir(&sandbox);
    let pidfile = sandbox.file("run/pid", format!("{id}\n"));
    let file = File::open(&pidfile).expect("everyone may read it");
    lock(&file, F_RDLCK).expect("a lock");
    // Long before its time limit.
    let start = start(&sandbox, 0)
        .deadline(Duration::from_secs(4))
        .command(["/nonexistent"]);
    start.run().expect_code(127);
    assert_eq!(sandbox.read_pidfile(pidfile), Some(id as i32));
}
