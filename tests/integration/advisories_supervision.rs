//! What has gone wrong in other supervisors, tried here: lost requests, signals for the wrong process,
//! leaks, output that cannot be written. docs/advisories-supervision.md tells which test stands for
//! which, most of them being tests of the subject itself.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nix::unistd::pipe;

use crate::prelude::*;

// Signals between fork and exec.

/// The children of a process, read at once.
fn children(of: i32) -> Vec<Process> {
    let listed = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    let listed = listed.expect("a manager, on a kernel with CONFIG_PROC_CHILDREN");
    let ids = listed.split_whitespace().map(|id| id.parse().expect("an id"));
    ids.map(Process::of).collect()
}

#[test]
fn a_restart_request_at_any_moment_of_a_start_ends_what_there_was_and_is_never_lost() {
    thread::scope(|scope| {
        for seed in 1..=4_u32 {
            scope.spawn(move || {
                let sandbox = sandbox();
                // A refusal: a death that is taken for an unexpected one ends the manager.
                let manager = managed(&sandbox, REFUSAL).command(sandbox.probe()).spawn();
                wait_for("the first server", || sandbox.path("server.pid").exists());
                let mut dice = seed;
                for _ in 0..1_500 {
                    // Different enough moments (see rand(3)) of the start that the last request led
                    // to, which takes one or two milliseconds.
                    dice = dice.wrapping_mul(1_103_515_245).wrapping_add(12345);
                    thread::sleep(Duration::from_micros(u64::from((dice >> 8) % 2500)));
                    let there = children(manager.pid());
                    manager.signal(SIGHUP);
                    wait_for("the end of what was there", || {
                        there.iter().all(|child| !child.exists())
                    });
                }
                wait_for("one server", || {
                    let children = manager.process().children();
                    let pid = sandbox.read_pidfile(sandbox.path("server.pid"));
                    if children.len() == 1 && Some(children[0].pid()) == pid {
                        Ok(())
                    } else {
                        Err((children, pid))
                    }
                });
                stop(manager);
            });
        }
    });
}

// Leaks.

/// The manager's descriptors once it is at rest, and its dead children.
#[track_caller]
fn belongings(manager: Process) -> (usize, usize) {
    wait_for("the manager to be at rest", || {
        let files = manager.open_files()?;
        let busy = files.values().any(|target| target.to_string_lossy().starts_with("socket:"));
        let asleep = manager.stat()?.state == 'S';
        let listed = fs::read_to_string(format!("/proc/{0}/task/{0}/children", manager.pid()));
        let ids = listed.ok()?;
        let dead = ids
            .split_whitespace()
            .filter_map(|id| fs::read(format!("/proc/{id}/stat")).ok())
            .filter(|stat| !stat.is_empty() && Stat::parse(stat).state == 'Z');
        (asleep && !busy).then_some((files.len(), dead.count()))
    })
}

#[test]
fn deaths_and_handlers_leave_no_descriptor_and_no_zombie_behind() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let handler = sandbox.executable("handler", "#!/bin/sh\nsleep 0.01 &\nexit 0\n");
    let server = sandbox.probe().append(sandbox.path("starts")).with_child();
    let manager = managed(&sandbox, handler).logdir(&logs, "1d").command(server).spawn();
    let mut before = None;
    for round in 0..60 {
        let server = started(&sandbox, 2 * round + 1);
        // What it left is no business of the manager's.
        let child = wait_for("its child", || server.children().first().copied());
        sandbox.signal(child, SIGKILL);
        sandbox.signal(server, SIGKILL);
        started(&sandbox, 2 * round + 2);
        if round == 5 {
            before = Some(belongings(manager.process()));
        }
        // A request makes the next death the first of its kind, which is followed by no delay.
        manager.signal(SIGHUP);
    }
    started(&sandbox, 121);
    assert_eq!(Some(belongings(manager.process())), before);
    assert_eq!(before.map(|(_, dead)| dead), Some(0));
    stop(manager);
}

// Output that cannot be written.

/// A standard error that takes nothing.
#[derive(Clone, Copy, Debug)]
enum Mute {
    Closed,
    Full,
    BrokenPipe,
    BrokenSocket,
}

impl Mute {
    const ALL: [Mute; 4] = [Mute::Closed, Mute::Full, Mute::BrokenPipe, Mute::BrokenSocket];

    fn apply(self, start: Invocation<'_>) -> Invocation<'_> {
        match self {
            Mute::Closed => start.closed([2]),
            Mute::Full => start.stderr(File::create("/dev/full").expect("a device")),
            Mute::BrokenPipe => {
                let (_, writer) = pipe().expect("a pipe");
                start.stderr(writer)
            }
            Mute::BrokenSocket => {
                let (_, writer) = UnixStream::pair().expect("a socket");
                start.stderr(OwnedFd::from(writer))
            }
        }
    }
}

#[test]
fn where_nothing_can_be_said_every_status_is_what_it_is_elsewhere() {
    let sandbox = sandbox();
    let probe = sandbox.probe().words()[0].clone();
    let file = sandbox.file("file", "").join("below");
    let word = |text: &str| text.into();
    let monitor = [word("-m"), sandbox.path("manager.pid").into_os_string()];
    let with = |options: &[&str], words: &[&str]| {
        let mut all: Vec<_> = options.iter().map(|it| word(it)).collect();
        all.push(word("--"));
        all.extend(words.iter().map(|it| word(it)));
        all
    };
    let under = |handler: &str, words: &[&str]| {
        let mut all = monitor.to_vec();
        all.push(word(handler));
        all.push(word("--"));
        all.push(probe.clone());
        all.extend(words.iter().map(|it| word(it)));
        all
    };
    let logs = file.to_str().expect("plain names");
    let cases = [
        (125, vec![]),
        (125, vec![word("--no-such-option")]),
        (127, with(&[], &["/no/such/server"])),
        (126, with(&[], &["/etc"])),
        (127, with(&["-b"], &["/no/such/server"])),
        (125, with(&["-d", logs, "1d"], &["/bin/true"])),
        (125, with(&["-b", "-d", logs, "1d"], &["/bin/true"])),
        (127, under("/no/such/handler", &["exit=0"])),
        (0, under(CONSENT, &["exit=0"])),
        (3, under(REFUSAL, &["exit=3"])),
        (137, under(REFUSAL, &["kill=9"])),
        (0, with(&[], &["/bin/true"])),
        (1, with(&[], &["/bin/false"])),
    ];
    for (status, words) in &cases {
        for mute in Mute::ALL {
            let outcome = mute.apply(sandbox.vsrun().args(words)).run();
            assert_eq!(outcome.code(), Some(*status), "{mute:?} {words:?}: {outcome:?}");
        }
    }
}

#[test]
fn help_for_a_reader_who_has_gone_is_an_error_and_no_death() {
    let sandbox = sandbox();
    for option in ["-h", "--help", "-V", "--version"] {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let outcome = sandbox.vsrun().arg(option).stdout(writer).run();
        outcome.expect_code(125);
        assert_eq!(outcome.stderr_text().lines().count(), 1);
    }
}

#[test]
fn what_is_written_into_a_pipe_is_written_once_however_many_processes_there_were() {
    let sandbox = sandbox();
    let (reader, writer) = pipe().expect("a pipe");
    let copy = writer.try_clone().expect("a copy");
    let start = managed(&sandbox, REFUSAL).background().stdout(writer).stderr(copy);
    start.command(sandbox.probe().out("hello").exit(3)).run().expect_code(0);
    let mut said = String::new();
    // To the end: until nobody has the other one open any more.
    File::from(reader).read_to_string(&mut said).expect("text");
    assert_eq!(said.lines().filter(|line| *line == "hello").count(), 1, "{said}");
    for once in ["started server", "exited with status 3", "is not restarted"] {
        assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    }
    for option in ["--help", "--version"] {
        let (reader, writer) = pipe().expect("a pipe");
        sandbox.vsrun().arg(option).stdout(writer).run().expect_code(0);
        let mut piped = String::new();
        File::from(reader).read_to_string(&mut piped).expect("text");
        assert_eq!(piped, sandbox.vsrun().arg(option).run().stdout_text());
        assert!(piped.matches("Usage").count() <= 1 && !piped.is_empty());
    }
}
