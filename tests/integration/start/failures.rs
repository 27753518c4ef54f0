//! Starts during which calls fail or processes are stopped.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::prelude::*;

#[track_caller]
fn expect_no_files(sandbox: &Sandbox) {
    for name in ["pid", "manager", "manager.lock"] {
        assert!(!sandbox.path(name).exists(), "'{name}' is there");
    }
}

#[test]
fn words_that_are_too_long_for_the_kernel_are_an_error() {
    needs!(root);
    // One string may hold 128 KiB (execve(2)), and this one is not the caller's.
    let home = format!("/{}", "x".repeat(128 * 1024));
    let foo = format!("foo:x:5000:5000::{home}:/bin/sh");
    let sandbox = sandbox();
    let line = "vsrun: cannot execute command '/bin/true': Argument list too long";
    for background in [false, true] {
        let start = sandbox
            .vsrun()
            .with_passwd(&[&foo], &[])
            .user("foo")
            .pidfile("pid");
        let start = if background {
            start.background()
        } else {
            start
        };
        start.command(["/bin/true"]).run().expect_error(126, line);
        expect_no_files(&sandbox);
    }
}

#[test]
fn a_server_is_managed_where_only_the_c_librarys_fork_works() {
    needs!(root, "strace");
    let sandbox = sandbox();
    // Refuses every clone(2) that vsrun makes itself, as qemu-user does. The ones between them are
    // those of fork(3), by which vsrun then forks.
    let start = || injecting(&sandbox, "clone:error=EINVAL:when=1+2").pidfile("pid");
    let manager = start()
        .manager("manager", CONSENT)
        .command(probe(&sandbox))
        .spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    let second = started(&sandbox, 2);
    sandbox.signal(sandbox.wait_for_pidfile(sandbox.path("manager")), SIGTERM);
    manager.wait().expect_code(0);
    assert!(!second.exists());
    expect_no_files(&sandbox);
    let missing = start()
        .manager("manager", CONSENT)
        .command(["/nonexistent"])
        .run();
    missing.expect_code(127);
    expect_no_files(&sandbox);
}

/// Stops every process of a user again and again, as the user may.
fn stopping_all<'a>(sandbox: &'a Sandbox, uid: u32) -> Running<'a> {
    let script = "while :; do kill -s STOP -- -1; done";
    sandbox
        .program("/bin/sh")
        .run_as(uid, uid, &[])
        .args(["-c", script])
        .spawn()
}

#[test]
fn a_user_who_stops_all_its_processes_delays_a_start_by_10_s_at_most() {
    needs!(root);
    // No other test has processes of this user.
    const UID: u32 = 54_401;
    let sandbox = sandbox();
    let stopper = stopping_all(&sandbox, UID);
    for syslog in [false, true] {
        // Another for each start: one that fails puts the file of a live server back.
        let pidfile = sandbox.path(format!("pid-{syslog}"));
        let start = sandbox
            .vsrun()
            .background()
            .user(format!("{UID}:{UID}"))
            .pidfile(&pidfile);
        let start = if syslog { start.syslog("tag") } else { start };
        let outcome = start
            .deadline(Duration::from_secs(20))
            .command(["/bin/sleep", "1000"])
            .run();
        match outcome.code() {
            Some(0) => {}
            _ => {
                outcome.expect_code(125);
                assert!(
                    outcome.stderr_text().contains("no exec within"),
                    "{outcome:?}"
                );
                assert!(!pidfile.exists());
            }
        }
    }
    sandbox.signal(stopper.process(), SIGKILL);
}

#[test]
fn a_manager_whose_logger_or_child_is_stopped_obeys_a_stop() {
    needs!(root);
    const UID: u32 = 54_402;
    let sandbox = sandbox();
    let stopper = stopping_all(&sandbox, UID);
    for syslog in [false, true] {
        let start = sandbox
            .vsrun()
            .user(format!("{UID}:{UID}"))
            .manager("manager", CONSENT);
        let start = if syslog { start.syslog("tag") } else { start };
        let manager = start.command(["/bin/sleep", "1000"]).spawn();
        let children = || manager.process().children();
        wait_for("a child that is stopped", || {
            children()
                .iter()
                .any(|it| it.stat().is_some_and(|stat| stat.state == 'T'))
        });
        manager.signal(SIGTERM);
        // What was stopped may be the server already, which has to be killed.
        let is_server = |child: &Process| child.exe().is_some_and(|exe| exe.ends_with("sleep"));
        let end = || {
            for server in children().into_iter().filter(is_server) {
                // It may have ended by now.
                let _ = kill(Pid::from_raw(server.pid()), Signal::SIGKILL);
            }
            !manager.process().exists()
        };
        wait_for("the end of the manager", end);
    }
    sandbox.signal(stopper.process(), SIGKILL);
}

#[test]
fn each_failing_step_of_the_child_is_named() {
    needs!(root, "strace");
    let sandbox = sandbox();
    sandbox.root("jail");
    let handler = sandbox.handler("handler").create();
    let jail = sandbox.path("jail");
    let in_jail = format!("change root to '{}'", jail.display());
    let faults = [
        ("chroot:error=EPERM", in_jail.as_str()),
        // The one that follows the chroot, and then the one for -w.
        ("chdir:error=EACCES", in_jail.as_str()),
        ("chdir:error=EIO:when=2", "change directory to '/tmp'"),
        ("dup2:error=EBADF", "place the standard streams"),
        ("setresuid:error=EAGAIN", "change to user 'nobody'"),
    ];
    for (inject, doing) in faults {
        for background in [false, true] {
            let start = injecting(&sandbox, inject)
                .pidfile("pid")
                .root(&jail)
                .work_dir("tmp");
            let start = start.user("nobody");
            let start = if background {
                start.background()
            } else {
                start
            };
            let server = Probe::at("/bin/probe").append("/tmp/ran").exit(0);
            let outcome = start.command(server).run();
            outcome.expect_code(125);
            let line = outcome.stderr_text();
            assert!(
                line.starts_with(&format!("vsrun: cannot {doing}: ")),
                "{inject}: {line}"
            );
            assert_eq!(line.lines().count(), 1, "{inject}: {line}");
            assert!(!jail.join("tmp/ran").exists(), "{inject}: a server ran");
            expect_no_files(&sandbox);
        }
    }
    // Only a child that gets a session of its own makes this call.
    let start = injecting(&sandbox, "setsid:error=EPERM").pidfile("pid");
    let outcome = start
        .manager("manager", &handler)
        .command(probe(&sandbox))
        .run();
    outcome.expect_error(
        125,
        "vsrun: cannot leave the session: Operation not permitted",
    );
    assert!(!sandbox.path("starts").exists());
    expect_no_files(&sandbox);
}

#[test]
fn a_change_of_user_that_fails_at_a_restart_never_starts_a_server_as_root() {
    needs!(root, "strace");
    for call in ["setgroups", "setresgid", "setresuid", "capset"] {
        let sandbox = sandbox();
        let starts = sandbox.open_dir("out").join("starts");
        let start = sandbox
            .vsrun()
            .user("nobody")
            .pidfile("pid")
            .manager("manager", CONSENT);
        let manager = start.command(sandbox.probe().append(&starts)).spawn();
        started_in(&sandbox, &starts, 1);
        let inject = format!("{call}:error=EPERM");
        let tracer = refusing_children(&sandbox, manager.process(), &inject);
        manager.signal(SIGHUP);
        // The handler cannot become that user either, so no handler allows a restart.
        let outcome = manager.wait();
        tracer.wait();
        outcome.expect_code(125);
        assert!(
            outcome.stderr_text().contains("Operation not permitted"),
            "{outcome:?}"
        );
        assert_eq!(sandbox.lines(&starts).len(), 1, "{call}: a server ran");
        expect_no_files(&sandbox);
    }
}

#[test]
fn with_few_descriptors_a_start_works_or_is_an_error_of_one_line() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let ran = sandbox.path("ran");
    let mut refused = 0;
    // With fewer the dynamic loader cannot load vsrun.
    for limit in 4..24 {
        for (way, start) in ways(&sandbox, &handler).into_iter().enumerate() {
            let start = start
                .limit(Resource::RLIMIT_NOFILE, limit, limit)
                .pidfile("pid");
            let server = sandbox.probe().append(&ran).exit(0);
            let outcome = start.logdir("logs", "1").command(server).run();
            let line = outcome.stderr_text();
            if outcome.code() == Some(0) {
                wait_for("the server", || ran.exists());
                fs::remove_file(&ran).expect("a file");
            } else {
                refused += 1;
                outcome.expect_code(125);
                assert!(
                    line.starts_with("vsrun: cannot ") && line.lines().count() == 1,
                    "{line}"
                );
                assert!(
                    !ran.exists(),
                    "limit {limit}, way {way}: an error and a server"
                );
                assert!(!sandbox.path("pid").exists(), "limit {limit}, way {way}");
            }
            wait_for("the end of every process", || {
                sandbox.processes().is_empty()
            });
            assert!(
                !sandbox.path("manager.lock").exists(),
                "limit {limit}, way {way}"
            );
            fs::remove_file(sandbox.path("pid")).ok();
            fs::remove_dir_all(sandbox.path("logs")).ok();
        }
    }
    assert!(
        (1..80).contains(&refused),
        "{refused} starts refused: the limits mean nothing"
    );
}
