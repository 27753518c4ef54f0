//! Several vsruns in one directory, and starts that fail in it.

use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use super::*;
use crate::prelude::*;

#[test]
fn two_vsruns_in_one_directory_lose_no_line() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    // Made before the threads compete for it.
    sandbox.probe();
    thread::scope(|scope| {
        for thread in 0..6 {
            let (sandbox, logs) = (&sandbox, &logs);
            scope.spawn(move || {
                for round in 0..8 {
                    say(sandbox, logs, "1d", &format!("{thread}/{round}"));
                }
            });
        }
    });
    let mut output: Vec<String> = Vec::new();
    for name in LogDirectory::at(&logs).names() {
        if name.as_bytes().starts_with(b"logfile") {
            output.extend(text(logs.join(name)).lines().map(str::to_owned));
        }
    }
    output.sort();
    let expected: Vec<String> = (0..6)
        .flat_map(|thread| (0..8).map(move |round| format!("{thread}/{round}")))
        .collect();
    assert_eq!(output, expected);
}

#[test]
fn two_vsruns_in_one_directory_lose_no_line_of_their_own() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    sandbox.probe();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..8).for_each(|_| say(&sandbox, &logs, "1d", "x")));
        }
    });
    let mut lines = 0;
    for name in LogDirectory::at(&logs).names() {
        if name.as_bytes().starts_with(b"vsrun.log") {
            lines += text(logs.join(name)).lines().count();
        }
    }
    assert_eq!(lines, 48);
}

#[test]
fn a_start_that_fails_leaves_the_log_of_another_vsrun() {
    needs!("strace");
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    // The execve(2) of vsrun itself does not count.
    let vsrun = injecting(&sandbox, "execve:delay_enter=1500000:when=1");
    let failing = as_user(vsrun).logdir(&logs, "1d");
    let failing = failing.command(["/nowhere/to/be/found"]).spawn();
    wait_for("the new log", || logs.join("logfile").exists());
    say(&sandbox, &logs, "1d", "hello");
    failing.wait().expect_code(127);
    assert_eq!(text(logs.join("logfile")), "hello\n");
}

#[test]
fn a_start_that_fails_leaves_no_new_directory() {
    let sandbox = sandbox();
    for vsrun in every_way(&sandbox) {
        let vsrun = vsrun.logdir(sandbox.path("a/b/logs"), "1d");
        vsrun
            .command(["/nowhere/to/be/found"])
            .run()
            .expect_code(127);
        assert!(!sandbox.path("a").exists());
    }
}

#[test]
fn a_start_that_fails_leaves_no_new_file() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let no_program = sandbox.file("no-program", "");
    for vsrun in every_way(&sandbox) {
        vsrun
            .logdir(&logs, "1d")
            .command([&no_program])
            .run()
            .expect_code(126);
        assert!(LogDirectory::at(&logs).names().is_empty());
    }
}

#[test]
fn a_start_that_fails_leaves_the_logs_of_earlier_ones_as_they_were() {
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        for name in ["logfile", "logfile.1", "vsrun.log", "other"] {
            users_file(logs.join(name), name);
        }
        let before = snapshot(&logs);
        let vsrun = in_way(&sandbox, way).logdir(&logs, "1d");
        vsrun
            .command(["/nowhere/to/be/found"])
            .run()
            .expect_code(127);
        assert_eq!(snapshot(&logs), before, "way {way}");
    }
}

#[test]
fn a_start_that_another_manager_prevents_leaves_the_logs() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    wait_for("vsrun's line", || {
        text(logs.join("vsrun.log")).contains("started server")
    });
    let before = snapshot(&logs);
    let second = as_user(sandbox.vsrun()).logdir(&logs, "1h");
    let second = second.manager(sandbox.path("manager"), &managed.handler);
    second.command(["/bin/true"]).run().expect_code(125);
    holds_for("the logs as they were", Duration::from_millis(100), || {
        snapshot(&logs) == before
    });
    managed.stop().expect_code(0);
}

#[test]
fn a_manager_writes_on_to_a_log_that_another_vsrun_rotated() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(users_dir(&sandbox, "logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe());
    wait_for("vsrun's line", || logs.vsrun().contains("started server"));
    say(&sandbox, &logs, "1d", "hello");
    let others = logs.vsrun();
    managed.restart();
    wait_for("a line of the restart", || {
        text(logs.path().join("vsrun.log.1"))
            .matches("started server")
            .count()
            == 2
    });
    managed.stop().expect_code(0);
    assert_eq!(logs.vsrun(), others);
}

#[test]
fn a_manager_reports_that_another_one_uses_its_directory() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(users_dir(&sandbox, "logs"));
    let line = format!(
        "log directory '{}' is locked, as by another manager: their logs will mix; \
         give each manager a directory of its own",
        logs.path().display()
    );
    let manager = |name: &str| {
        let vsrun = as_user(sandbox.vsrun()).manager(sandbox.path(name), "/bin/true");
        let running = vsrun.logdir(&logs, "1d").command(sandbox.probe()).spawn();
        wait_for("its line", || {
            logs.vsrun()
                .contains(&format!("vsrun[{}]: started", running.pid()))
        });
        (running, logs.vsrun().matches(&line).count())
    };
    let stop = |manager: Running<'_>| {
        stop(manager);
    };
    let (first, warnings) = manager("first");
    assert_eq!(warnings, 0);
    let (second, warnings) = manager("second");
    assert_eq!(warnings, 1);
    stop(first);
    // The second is there still.
    let (third, warnings) = manager("third");
    assert_eq!(warnings, 1);
    [second, third].into_iter().for_each(stop);
    let (last, warnings) = manager("last");
    assert_eq!(warnings, 0);
    stop(last);
}

#[test]
fn a_manager_that_stops_leaves_its_logs() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(
        &sandbox,
        logs.path(),
        sandbox.probe().out("hello").on_term(OnTerm::Exit(0)),
    );
    wait_for_hello(logs.path());
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
    assert_eq!(logs.server(), "hello\n");
}

#[test]
fn a_hundred_restarts_leave_no_descriptor_open() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe().out("hello"));
    let again = || {
        wait_for_hello(logs.path());
        managed.restart();
    };
    again();
    // While it starts a server, a manager has a socket pair.
    let at_rest = || {
        wait_for("a manager at rest", || {
            let open = managed
                .vsrun
                .process()
                .open_files()
                .expect("a running manager");
            let starts = open
                .values()
                .any(|it| it.to_string_lossy().starts_with("socket:"));
            if starts { Err(open) } else { Ok(open) }
        })
    };
    let before = at_rest();
    (0..100).for_each(|_| again());
    let after = at_rest();
    assert_eq!(after.len(), before.len(), "{after:?}");
    // One log for each start, and vsrun's own.
    assert_eq!(logs.names().len(), 103);
    managed.stop().expect_code(0);
}

#[test]
fn a_server_whose_manager_is_killed_writes_on_to_its_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().ticks(Duration::from_millis(5));
    let managed = managed_with_logs(&sandbox, logs.path(), server);
    let server = managed.server();
    managed.vsrun.signal(SIGKILL);
    managed.vsrun.wait();
    let ticks = || logs.server().lines().count();
    let before = ticks();
    wait_for("more of the server's lines", || ticks() > before + 5);
    assert!(server.exists());
}

#[test]
fn managers_that_share_a_directory_lose_no_line() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.dir("logs"));
    let names = ["a", "b", "c"];
    let managers = names.map(|name| {
        let vsrun = sandbox
            .vsrun()
            .manager(sandbox.path(format!("{name}.pid")), CONSENT);
        let server = greeter(&sandbox, sandbox.path(format!("{name}starts")));
        vsrun.logdir(&logs, "1d").command(server).spawn()
    });
    let lives = |name: &str| sandbox.lines(format!("{name}starts")).len();
    for count in 1..=15 {
        for (name, manager) in names.iter().zip(&managers) {
            wait_for("a start", || lives(name) >= count);
            manager.signal(SIGHUP);
        }
    }
    for name in names {
        wait_for("the last start", || lives(name) == 16);
    }
    wait_for("a line of each life", || {
        let count = lines(&logs, "logfile", "hello\n");
        if count == 48 {
            Ok(())
        } else {
            Err((count, logs.names()))
        }
    });
    wait_for("a line for each start", || {
        let count = lines(&logs, "vsrun.log", " started server ");
        if count == 48 {
            Ok(())
        } else {
            Err((count, logs.names()))
        }
    });
    managers.into_iter().for_each(stop);
}

/// vsrun under strace(1), which delays a call.
fn held_up<'a>(sandbox: &'a Sandbox, logs: &LogDirectory, inject: &str) -> Running<'a> {
    let vsrun = injecting(sandbox, &format!("mkdirat:{inject}")).logdir(logs, "1d");
    vsrun.command(sandbox.probe().out("first").exit(0)).spawn()
}

/// Starts another vsrun, which finds or makes the directory, while the first is delayed.
fn expect_both(sandbox: &Sandbox, logs: &LogDirectory, first: Running<'_>) {
    let second = sandbox.vsrun().logdir(logs, "1d");
    second
        .command(sandbox.probe().out("second").exit(0))
        .run()
        .expect_code(0);
    first.wait().expect_code(0);
    assert_eq!(lines(logs, "logfile", "first\n"), 1);
    assert_eq!(lines(logs, "logfile", "second\n"), 1);
}

#[test]
fn a_directory_that_another_vsrun_writes_to_as_soon_as_it_is_made_is_used_by_both() {
    needs!("strace");
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let first = held_up(&sandbox, &logs, "delay_exit=2000000");
    wait_for("the directory", || logs.path().exists());
    expect_both(&sandbox, &logs, first);
}

#[test]
fn a_directory_that_another_vsrun_makes_first_is_used_by_both() {
    needs!("strace");
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let first = held_up(&sandbox, &logs, "delay_enter=2000000");
    let mut looks = 0;
    wait_for("vsrun to be held up", || {
        let held = first.process().children().iter().any(|child| {
            child
                .stat()
                .is_some_and(|stat| stat.name == "vsrun" && stat.state == 't')
        });
        looks = if held { looks + 1 } else { 0 };
        looks >= 10
    });
    expect_both(&sandbox, &logs, first);
}

/// In a container every vsrun has the same id, so a killed one may have left the temporary name.
#[test]
fn a_temporary_directory_of_the_same_id_does_not_prevent_a_start() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir("var");
    sandbox.dir("var/.vsrun-1");
    let start = sandbox.vsrun().pid_namespace().logdir("var/logs", "1");
    let _running = start
        .command(sandbox.probe().append(open_starts(&sandbox)).out("hello"))
        .spawn();
    wait_for("the server", || {
        LogDirectory::at(sandbox.path("var/logs")).server() == "hello\n"
    });
}
