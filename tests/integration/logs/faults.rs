//! Starts and rotations in which each call fails, or is the last before a SIGKILL.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::prelude::*;

/// The calls of a start or a restart that change files or processes. A kill at any other call has
/// the effect of a kill at the next of these.
const CALLS: [&str; 13] = [
    "openat",
    "openat2",
    "mkdirat",
    "fchown",
    "fchmod",
    "renameat2",
    "rename",
    "unlinkat",
    "write",
    "clone3",
    "clone",
    "socketpair",
    "sendto",
];

/// Runs `at` for the first call of each name, the second and so on, until it returns false, for
/// several names at a time. Returns how often it returned true.
fn at_each_call(at: impl Fn(&str, u32) -> bool + Sync) -> usize {
    let (next, count, at) = (AtomicUsize::new(0), AtomicUsize::new(0), &at);
    let work = || {
        while let Some(call) = CALLS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let made = (1..100).take_while(|number| at(call, *number)).count();
            count.fetch_add(made, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(work)));
    count.into_inner()
}

/// The options of strace(1) for a kill at one call.
fn killing(call: &str, number: u32) -> [String; 2] {
    [
        format!("trace={call}"),
        format!("inject={call}:signal=KILL:when={number}"),
    ]
}

/// Starts a server in a directory in which a vsrun was killed.
#[track_caller]
fn expect_usable(sandbox: &Sandbox, logs: &LogDirectory, killed_at: (&str, u32)) {
    let say = sandbox
        .vsrun()
        .logdir(logs, "1d")
        .command(sandbox.probe().out("after").exit(0));
    say.run().expect_code(0);
    assert_eq!(logs.server(), "after\n", "{killed_at:?}");
}

#[test]
fn a_vsrun_killed_at_any_call_of_a_start_leaves_a_usable_directory() {
    needs!("strace");
    for is_there in [true, false] {
        let calls = at_each_call(|call, number| {
            let sandbox = sandbox();
            let logs = LogDirectory::at(sandbox.path("logs"));
            if is_there {
                users_dir(&sandbox, "logs");
                users_file(logs.path().join("logfile"), "old server\n");
                users_file(logs.path().join("vsrun.log"), "old vsrun\n");
            }
            let fault = format!("{call}:signal=KILL:when={number}");
            let vsrun = as_user(injecting(&sandbox, &fault));
            let vsrun = vsrun
                .logdir(&logs, "1d")
                .manager(sandbox.path("manager.pid"), CONSENT);
            let killed = vsrun.command(["/bin/true"]).run().signal() == Some(SIGKILL);
            wait_for("the end of every process", || {
                sandbox.processes().is_empty()
            });
            expect_usable(&sandbox, &logs, (call, number));
            let old = [("logfile", "old server\n"), ("vsrun.log", "old vsrun\n")];
            let kept = old.map(|(kind, line)| lines(&logs, kind, line));
            assert_eq!(kept, [usize::from(is_there); 2], "{call} {number}");
            killed
        });
        // With fewer the list of calls would be out of date.
        assert!(calls > 15, "{calls} calls");
    }
}

#[test]
fn a_manager_killed_at_any_call_of_a_restart_leaves_a_usable_directory() {
    needs!(root, "strace");
    let calls = at_each_call(|call, number| {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed_greeter(&sandbox, &logs);
        wait_for("its line", || logs.vsrun().contains("started server"));
        let [trace, inject] = killing(call, number);
        let tracer = traced(&sandbox, manager.process(), &["-e", &trace, "-e", &inject]);
        manager.signal(SIGHUP);
        let over = || logs.vsrun().matches("started server").count() == 2;
        let lived = wait_for("a restart or a death", || {
            match manager.process().exists() {
                true => over().then_some(true),
                false => Some(false),
            }
        });
        // A server that was started is left by a manager that was killed then.
        drop((manager, tracer));
        for left in sandbox.processes() {
            sandbox.signal(left, SIGKILL);
        }
        wait_for("nobody", || sandbox.processes().is_empty());
        expect_usable(&sandbox, &logs, (call, number));
        let written = lines(&logs, "logfile", "hello\n");
        assert!(written >= sandbox.lines("starts").len(), "{call} {number}");
        !lived
    });
    assert!(calls > 5, "{calls} calls");
}

#[test]
fn a_rotation_that_fails_at_any_call_loses_no_server_and_no_line() {
    needs!(root, "strace");
    let (renew, rename) = ("cannot renew the log files in", "cannot rename log");
    let refusals = [
        ("renameat2", "EROFS", rename),
        ("renameat2", "EIO", rename),
        ("openat", "ENOSPC", renew),
        ("openat", "EROFS", renew),
        ("openat", "EDQUOT", renew),
        ("newfstatat", "EIO", renew),
        ("getdents64", "EIO", renew),
    ];
    for (call, error, line) in refusals {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed_greeter(&sandbox, &logs);
        let (trace, inject) = (
            format!("trace={call}"),
            format!("inject={call}:error={error}"),
        );
        let tracer = traced(&sandbox, manager.process(), &["-e", &trace, "-e", &inject]);
        manager.signal(SIGHUP);
        sandbox.signal(started(&sandbox, 2), SIGKILL);
        let third = started(&sandbox, 3);
        tracer.signal(SIGINT);
        tracer.wait();
        wait_for("three lines", || {
            let count = lines(&logs, "logfile", "hello\n");
            if count == 3 {
                Ok(())
            } else {
                Err((call, error, count, logs.names()))
            }
        });
        assert!(lines(&logs, "vsrun.log", line) >= 1, "{call} {error}");
        manager.signal(SIGHUP);
        started(&sandbox, 4);
        wait_for_hello(&logs);
        assert!(!third.exists());
        assert_eq!(lines(&logs, "logfile", "hello\n"), 4, "{call} {error}");
        stop(manager);
    }
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    needs!(root, "strace");
    for error in ["EIO", "ENOSPC", "EFBIG", "EINTR"] {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let vsrun = sandbox
            .vsrun()
            .manager(sandbox.path("manager.pid"), CONSENT);
        let vsrun = vsrun.logdir(&logs, "1d");
        let manager = vsrun
            .command(sandbox.probe().append(sandbox.path("starts")))
            .spawn();
        let first = started(&sandbox, 1);
        wait_for("the first line", || logs.vsrun().contains("started server"));
        // The lines about the death of the server and the handler's consent.
        let inject = format!("inject=write:error={error}:when=1..3");
        let tracer = traced(
            &sandbox,
            manager.process(),
            &["-e", "trace=write", "-e", &inject],
        );
        sandbox.signal(first, SIGKILL);
        started(&sandbox, 2);
        wait_for("what was lost", || {
            let written = logs.vsrun();
            let counted = written.contains("2 of these messages could not be written");
            if counted {
                Ok(())
            } else {
                Err((error, written))
            }
        });
        wait_for("the line of the restart", || {
            logs.vsrun().matches("started server").count() == 2
        });
        tracer.signal(SIGINT);
        tracer.wait();
        stop(manager);
    }
}
