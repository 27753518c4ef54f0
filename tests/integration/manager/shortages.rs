//! Memory, processes and descriptors that are not available for a while.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::prelude::*;

const FORKS: &str = "clone,clone3,fork,vfork";
const CHANNELS: &str = "socketpair,pipe,pipe2";

#[test]
fn a_restart_that_lacks_a_resource_is_tried_again_without_a_handler() {
    needs!(root, "strace");
    let refusals = [
        (FORKS, "EAGAIN"),
        (FORKS, "ENOMEM"),
        (CHANNELS, "EMFILE"),
        (CHANNELS, "ENFILE"),
        (CHANNELS, "ENOMEM"),
    ];
    for (calls, error) in refusals {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(1).create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), calls, error, "1..2");
        manager.signal(SIGHUP);
        let server = started(&sandbox, 2);
        assert_eq!(
            delays(&manager, "trying again in"),
            ["100ms", "200ms"],
            "{calls} {error}"
        );
        detach(tracer);
        assert!(
            server.exists() && handler.runs().is_empty(),
            "{calls} {error}"
        );
        assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), server);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_child_that_cannot_be_released_for_lack_of_memory_is_replaced() {
    needs!(root, "strace");
    for error in ["ENOMEM", "ENOBUFS"] {
        let sandbox = sandbox();
        let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), "sendto,sendmsg", error, "1+");
        manager.signal(SIGHUP);
        wait_for("another try", || {
            let text = sandbox.lines("trace").join("\n");
            if text.matches(error).count() >= 3 {
                Ok(())
            } else {
                Err(text)
            }
        });
        assert_eq!(starts(&sandbox), 1);
        detach(tracer);
        let second = started(&sandbox, 2);
        assert_eq!(manager.process().children(), [second]);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_log_directory_that_cannot_be_listed_leaks_no_descriptor() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let start = managed(&sandbox, REFUSAL).logdir("logs", "1d");
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let before = manager.process().open_files().map(|files| files.len());
    // fdopendir(3) asks whether the descriptor can be read from.
    let tracer = refusing(&sandbox, manager.process(), "fcntl", "ENOMEM", "1+");
    for count in 2..5 {
        manager.signal(SIGHUP);
        started(&sandbox, count);
    }
    let trace = sandbox.lines("trace").join("\n");
    assert!(trace.matches("F_GETFL)").count() >= 3, "{trace}");
    detach(tracer);
    assert_eq!(
        manager.process().open_files().map(|files| files.len()),
        before
    );
    stop(manager);
}

#[test]
fn a_keyring_over_the_quota_is_tried_again() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let server = sandbox.probe().append(&starts);
    let manager = managed(&sandbox, REFUSAL)
        .user("nobody")
        .command(server)
        .spawn();
    let started = |count| {
        wait_for(&format!("start {count}"), || {
            let starts = sandbox.lines("out/starts");
            if starts.len() == count {
                Ok(())
            } else {
                Err(starts)
            }
        });
    };
    started(1);
    let quota = [
        "-f",
        "-e",
        "trace=keyctl",
        "-e",
        "inject=keyctl:error=EDQUOT",
    ];
    let tracer = traced(&sandbox, manager.process(), &quota);
    manager.signal(SIGHUP);
    wait_for_message(&manager, "trying again in 200ms");
    assert_eq!(sandbox.lines("out/starts").len(), 1);
    detach(tracer);
    started(2);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_server_whose_directory_is_gone_starts_at_the_root_with_a_warning() {
    let sandbox = sandbox();
    let here = sandbox.dir("here");
    let manager = managed(&sandbox, REFUSAL)
        .current_dir(&here)
        .command(probe(&sandbox))
        .spawn();
    assert_eq!(started(&sandbox, 1).cwd().as_ref(), Some(&here));
    fs::rename(&here, sandbox.path("moved")).expect("it can be moved");
    manager.signal(SIGHUP);
    assert_eq!(started(&sandbox, 2).cwd().as_deref(), Some(Path::new("/")));
    let (path, reason) = (here.display(), "No such file or directory");
    wait_for_message(
        &manager,
        &format!("cannot change directory to '{path}': {reason}; the server works in '/'"),
    );
    fs::create_dir(&here).expect("a directory");
    manager.signal(SIGHUP);
    assert_eq!(started(&sandbox, 3).cwd().as_ref(), Some(&here));
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_directory_that_cannot_be_opened_for_lack_of_descriptors_is_tried_again() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let here = sandbox.dir("here");
    let start = managed(&sandbox, REFUSAL).current_dir(&here);
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let tracer = refusing(
        &sandbox,
        manager.process(),
        "openat2,openat",
        "EMFILE",
        "1+",
    );
    manager.signal(SIGHUP);
    wait_for_message(&manager, "trying again in 200ms");
    detach(tracer);
    assert_eq!(started(&sandbox, 2).cwd().as_ref(), Some(&here));
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_pidfile_that_cannot_be_opened_for_lack_of_descriptors_is_tried_again() {
    needs!(root, "strace");
    for error in ["EMFILE", "ENFILE", "ENOMEM"] {
        let sandbox = sandbox();
        let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), "open,openat", error, "1+");
        manager.signal(SIGHUP);
        wait_for_message(&manager, "trying again in 200ms");
        assert_eq!(starts(&sandbox), 1);
        detach(tracer);
        let second = started(&sandbox, 2);
        assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), second);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn the_pidfile_of_a_server_that_is_gone_is_removed_though_no_descriptor_is_free() {
    needs!(root);
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let lowest = free_descriptors(manager.process())
        .next()
        .expect("a free number");
    limit_descriptors(&sandbox, manager.process(), lowest as usize);
    sandbox.signal(first, SIGKILL);
    wait_for_message(&manager, "trying again in 100ms");
    assert!(
        !sandbox.path("server.pid").exists(),
        "it names a process that is gone"
    );
    limit_descriptors(&sandbox, manager.process(), 1024);
    started(&sandbox, 2);
    stop(manager);
}

#[test]
fn log_files_that_cannot_be_opened_for_lack_of_descriptors_do_not_prevent_a_restart() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .logdir(sandbox.path("logs"), "1")
        .command(probe(&sandbox).out("hello"))
        .spawn();
    started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "open,openat", "EMFILE", "1..3");
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    detach(tracer);
    assert!(second.exists());
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    let logs = LogDirectory::at(sandbox.path("logs"));
    wait_for("output again", || logs.server() == "hello\n");
    stop(manager);
}

#[test]
fn a_handler_that_lacks_a_resource_is_tried_again() {
    needs!(root, "strace");
    for (calls, error) in [(FORKS, "EAGAIN"), (FORKS, "ENOMEM"), (CHANNELS, "EMFILE")] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), calls, error, "1..2");
        sandbox.signal(first, SIGKILL);
        assert!(started(&sandbox, 2).exists());
        detach(tracer);
        assert_eq!(delays(&manager, "trying again in"), ["100ms", "200ms"]);
        assert_eq!(handler.runs().len(), 1);
        stop(manager);
    }
}

#[test]
fn requests_are_obeyed_while_forks_fail() {
    needs!(root, "strace");
    for (death, request) in [
        (SIGHUP, SIGTERM),
        (SIGKILL, SIGTERM),
        (SIGHUP, SIGHUP),
        (SIGKILL, SIGHUP),
    ] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), FORKS, "EAGAIN", "1+");
        if death == SIGHUP {
            manager.signal(SIGHUP);
        } else {
            sandbox.signal(first, death);
        }
        wait_for_message(&manager, "trying again in 800ms");
        let before = Instant::now();
        if request == SIGTERM {
            stop(manager);
            assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
            assert_eq!(starts(&sandbox), 1);
            expect_no_files(&sandbox);
        } else {
            detach(tracer);
            manager.signal(SIGHUP);
            started(&sandbox, 2);
            assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
            stop(manager);
        }
        assert!(handler.runs().is_empty());
    }
}

#[test]
fn the_delay_is_reset_when_a_shortage_is_over() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    for (count, when) in [(2, "1..5"), (3, "1..2")] {
        let tracer = refusing(&sandbox, manager.process(), FORKS, "EAGAIN", when);
        manager.signal(SIGHUP);
        started(&sandbox, count);
        detach(tracer);
    }
    let expected = ["100ms", "200ms", "400ms", "800ms", "1.6s", "100ms", "200ms"];
    assert_eq!(delays(&manager, "trying again in"), expected);
    stop(manager);
}

/// Sets the manager's limit for descriptors.
fn limit_descriptors(sandbox: &Sandbox, manager: Process, limit: usize) {
    let outcome = sandbox
        .program("/usr/bin/prlimit")
        .args(["--pid", &manager.pid().to_string()])
        .arg(format!("--nofile={limit}:4096"))
        .run();
    outcome.expect_code(0);
}

/// The numbers that the manager's next descriptors will have.
fn free_descriptors(manager: Process) -> impl Iterator<Item = i32> {
    let open = files_at_rest(manager);
    (0..).filter(move |number| !open.contains_key(number))
}

#[test]
fn a_manager_without_free_descriptors_tries_until_it_has_some() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let lowest = free_descriptors(manager.process())
        .next()
        .expect("a free number");
    limit_descriptors(&sandbox, manager.process(), lowest as usize);
    sandbox.signal(first, SIGKILL);
    wait_for_message(&manager, "trying again in 400ms");
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    limit_descriptors(&sandbox, manager.process(), 1024);
    assert!(started(&sandbox, 2).exists());
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

#[test]
fn a_restart_needs_no_descriptor_beyond_the_channel_to_the_child() {
    needs!(root);
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let second_free = free_descriptors(manager.process())
        .nth(1)
        .expect("a free number");
    limit_descriptors(&sandbox, manager.process(), second_free as usize + 1);
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    sandbox.signal(second, SIGKILL);
    let third = started(&sandbox, 3);
    assert_eq!(delays(&manager, "trying again in"), [] as [&str; 0]);
    assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), third);
    stop(manager);
    expect_nothing_left(&sandbox);
}

/// A user of the test's own, so that no other process counts against the limit, and processes that
/// reach the limit.
fn crowd<'a>(sandbox: &'a Sandbox, uid: u32) -> Vec<Running<'a>> {
    let crowd: Vec<_> = (0..2)
        .map(|_| {
            let mut words = sandbox.probe().into_iter();
            let program = words.next().expect("the program");
            sandbox.program(program).run_as(uid, uid, &[]).spawn()
        })
        .collect();
    for member in &crowd {
        wait_for("a process of the user", || {
            member
                .process()
                .status()
                .is_some_and(|it| it.uids.real == uid)
        });
    }
    crowd
}

#[test]
fn a_user_with_too_many_processes_gets_the_server_back_when_they_are_fewer() {
    needs!(root);
    // The first starts of the server and of the handler lack a process each.
    for (serial, death) in [SIGHUP, SIGKILL].into_iter().enumerate() {
        let sandbox = sandbox();
        let starts_file = sandbox.open_dir("open").join("starts");
        let uid = 500_000 + (std::process::id() % 100_000) * 2 + serial as u32;
        let manager = managed(&sandbox, CONSENT)
            .user(format!("{uid}:{uid}"))
            .limit(Resource::RLIMIT_NPROC, 1, 1)
            .command(sandbox.probe().append(&starts_file))
            .spawn();
        let lives = || sandbox.lines(&starts_file).len();
        wait_for("the start", || lives() == 1);
        let first = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
        let crowd = crowd(&sandbox, uid);
        if death == SIGHUP {
            manager.signal(SIGHUP);
        } else {
            sandbox.signal(first, death);
        }
        wait_for_message(&manager, "trying again in 400ms");
        assert_eq!(lives(), 1);
        drop(crowd);
        wait_for("the server to be back", || lives() == 2);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_change_of_user_that_lacks_a_resource_is_tried_again() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let report = sandbox.open_dir("out").join("report");
    let server = sandbox
        .probe()
        .report(&report)
        .append(open_starts(&sandbox));
    let manager = managed(&sandbox, &handler)
        .user("nobody")
        .command(server)
        .spawn();
    started(&sandbox, 1);
    fs::remove_file(&report).expect("the first report");
    let tracer = refusing_children(&sandbox, manager.process(), "setresuid:error=EAGAIN");
    manager.signal(SIGHUP);
    wait_for_message(&manager, "trying again in 400ms");
    detach(tracer);
    assert_eq!(Report::wait(&report).uids.real, NOBODY);
    assert!(handler.runs().is_empty());
    stop(manager);
    expect_no_files(&sandbox);
}

#[test]
fn a_fork_that_fails_for_long_is_tried_every_5_s_until_a_stop() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), FORKS, "EAGAIN", "1+");
    manager.signal(SIGHUP);
    // Two of the longest in a row: the delay does not grow any more, and vsrun does not give up.
    let expected = [
        "100ms", "200ms", "400ms", "800ms", "1.6s", "3.2s", "5s", "5s",
    ];
    wait_for("the longest delay, twice", || {
        let delays = delays(&manager, "trying again in");
        if delays == expected {
            Ok(())
        } else {
            Err(delays)
        }
    });
    let before = Instant::now();
    stop(manager);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    tracer.wait();
    assert_eq!(starts(&sandbox), 1);
    expect_no_files(&sandbox);
}
