//! Old logs that are deleted.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::prelude::*;

#[test]
fn files_older_than_keep_are_deleted_and_younger_ones_stay() {
    let cases = [
        ("1h", "50 minutes ago", "70 minutes ago"),
        ("36h", "35 hours ago", "37 hours ago"),
        ("2d", "46 hours ago", "50 hours ago"),
        ("2", "46 hours ago", "50 hours ago"),
        ("1w", "6 days ago", "8 days ago"),
        ("1m", "27 days ago", "32 days ago"),
        // A year of calendar months, which twelve times thirty days are not.
        ("12m", "363 days ago", "368 days ago"),
    ];
    for (keep, young, old) in cases {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        for (name, when) in [
            ("logfile", old),
            ("logfile", young),
            ("vsrun.log", old),
            ("vsrun.log", young),
        ] {
            let number = if when == old { 1 } else { 2 };
            let path = logs.join(format!("{name}.{number}"));
            users_file(&path, "x");
            age(&path, when);
        }
        say(&sandbox, &logs, keep, "hello");
        settle(&sandbox);
        let names = LogDirectory::at(&logs).names();
        assert_eq!(
            names,
            ["logfile", "logfile.2", "vsrun.log", "vsrun.log.2"],
            "KEEP {keep}"
        );
    }
}

#[test]
fn old_files_are_deleted_in_every_way_to_start() {
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile.1"), "x");
        age(logs.join("logfile.1"), "2 days ago");
        let end = sandbox.open_dir("flags").join("end");
        let vsrun = in_way(&sandbox, way).logdir(&logs, "1d");
        let running = vsrun.command(sandbox.probe().until(&end).exit(0)).spawn();
        wait_for("the old file to go", || !logs.join("logfile.1").exists());
        fs::write(&end, "").expect("the sandbox can be written");
        running.wait().expect_code(0);
    }
}

#[test]
fn old_files_that_cannot_be_deleted_are_reported_once() {
    needs!(root);
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        let (end, held) = (
            sandbox.open_dir("flags").join("end"),
            sandbox.file("held", "x"),
        );
        age(&held, "2 days ago");
        for name in ["logfile.1", "logfile.2", "vsrun.log.1", "vsrun.log.2"] {
            users_file(logs.join(name), "x");
            age(logs.join(name), "2 days ago");
        }
        // What is mounted cannot be removed.
        let [first, second] = ["logfile.1", "vsrun.log.1"].map(|name| logs.join(name));
        let vsrun = in_way(&sandbox, way).bind(&held, first).bind(&held, second);
        let vsrun = vsrun.logdir(&logs, "1d");
        let running = vsrun.command(sandbox.probe().until(&end).exit(0)).spawn();
        wait_for("the others to go", || !logs.join("vsrun.log.2").exists());
        fs::write(&end, "").expect("the sandbox can be written");
        running.wait().expect_code(0);
        settle(&sandbox);
        let log = text(logs.join("vsrun.log"));
        let errors: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("cannot "))
            .collect();
        let expected = "cannot delete old log 'logfile.1' and 1 more: Device or resource busy";
        assert!(
            errors.len() == 1 && errors[0].ends_with(expected),
            "{way}: {log}"
        );
        let names = LogDirectory::at(&logs).names();
        assert_eq!(
            names,
            ["logfile", "logfile.1", "vsrun.log", "vsrun.log.1"],
            "{way}"
        );
    }
}

#[test]
fn a_start_that_fails_deletes_no_old_files() {
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile.1"), "x");
        age(logs.join("logfile.1"), "2 days ago");
        let vsrun = in_way(&sandbox, way).logdir(&logs, "1d");
        vsrun
            .command(["/nowhere/to/be/found"])
            .run()
            .expect_code(127);
        settle(&sandbox);
        assert_eq!(LogDirectory::at(&logs).names(), ["logfile.1"], "{way}");
    }
}

#[test]
fn a_keep_longer_than_the_calendar_deletes_nothing() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join("logfile.1"), "x");
    age(logs.join("logfile.1"), "1970-01-02");
    say(&sandbox, &logs, "4294967295m", "hello");
    settle(&sandbox);
    assert_eq!(text(logs.join("logfile.1")), "x");
}

#[test]
fn a_time_in_the_future_never_expires() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for (name, when) in [("logfile.1", "tomorrow"), ("logfile.2", "2100-01-01")] {
        users_file(logs.join(name), "x");
        age(logs.join(name), when);
    }
    say(&sandbox, &logs, "1h", "hello");
    settle(&sandbox);
    assert_eq!(
        LogDirectory::at(&logs).names(),
        ["logfile", "logfile.1", "logfile.2", "vsrun.log"]
    );
}

#[test]
fn old_files_are_deleted_at_every_restart() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe());
    for name in ["logfile.1", "vsrun.log.5"] {
        users_file(logs.join(name), "x");
        age(logs.join(name), "2 days ago");
    }
    managed.restart();
    wait_for("the old files to go", || {
        let names = LogDirectory::at(&logs).names();
        if names == ["logfile", "vsrun.log"] {
            Ok(())
        } else {
            Err(names)
        }
    });
    managed.stop().expect_code(0);
}

#[test]
fn old_files_are_deleted_once_a_day_while_a_manager_lives() {
    let sandbox = sandbox();
    let Some(clock) = Clock::new(&sandbox, "+0d") else {
        return;
    };
    let logs = users_dir(&sandbox, "logs");
    let vsrun = as_user(sandbox.vsrun()).clock(&clock).logdir(&logs, "2d");
    let signals = sandbox.open_dir("signals").join("log");
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe().log_signals(&signals));
    users_file(logs.join("logfile.1"), "x");
    let wake = |number: usize| {
        managed.vsrun.signal(SIGUSR1);
        wait_for("the signal to be passed on", || {
            sandbox.lines(&signals).len() == number + 1
        });
    };
    clock.set("+25h");
    wake(1);
    clock.set("+47h");
    wake(2);
    assert!(logs.join("logfile.1").exists());
    clock.set("+50h");
    wake(3);
    wait_for("the old file to go", || !logs.join("logfile.1").exists());
    clock.set("+0d");
    managed.stop().expect_code(0);
}

#[test]
fn old_files_are_deleted_also_where_the_cutoff_is_an_hour_that_the_clocks_skip_or_repeat() {
    // The clocks go forward on 29 March 2026 at 2 and back on 25 October at 3.
    let moments = [
        "2026-04-28 02:30:00 29d",
        "2026-04-28 02:30:00 30d",
        "2026-11-04 02:30:00 10d",
    ];
    for moment in moments {
        let (now, keep) = moment.rsplit_once(' ').expect("a time and a duration");
        let sandbox = sandbox();
        let Some(clock) = Clock::new(&sandbox, &format!("@{now}")) else {
            return;
        };
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile.1"), "x");
        age(logs.join("logfile.1"), "2020-01-01");
        let vsrun = as_user(sandbox.vsrun())
            .clock(&clock)
            .env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
            .logdir(&logs, keep);
        vsrun
            .command(sandbox.probe().out("hello").exit(0))
            .run()
            .expect_code(0);
        settle(&sandbox);
        assert!(!logs.join("logfile.1").exists(), "{keep} before {now}");
    }
}

#[test]
fn files_of_other_names_are_not_touched_whatever_their_age() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for name in odd_names() {
        users_file(logs.join(name), "other");
        age(logs.join(name), "10 years ago");
    }
    let before = snapshot(&logs);
    say(&sandbox, &logs, "1h", "hello");
    settle(&sandbox);
    let mut after = snapshot(&logs);
    after.retain(|name, _| name != "logfile" && name != "vsrun.log");
    assert_eq!(after, before);
}

#[test]
fn only_regular_files_are_deleted() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let precious = sandbox.file("precious", "precious\n");
    fs::create_dir(logs.join("logfile.3")).expect("a directory");
    symlink(&precious, logs.join("logfile.4")).expect("a link");
    symlink("/nowhere", logs.join("vsrun.log.5")).expect("a link");
    mkfifo(&logs.join("logfile.6"), Mode::S_IRWXU).expect("a FIFO");
    let socket = std::os::unix::net::UnixListener::bind(logs.join("logfile.7"));
    for entry in fs::read_dir(&logs).expect("a directory").flatten() {
        give(entry.path());
        age(entry.path(), "10 years ago");
    }
    age(&precious, "10 years ago");
    users_file(logs.join("logfile"), "old\n");
    let before = snapshot(&logs);
    say(&sandbox, &logs, "1h", "hello");
    settle(&sandbox);
    let mut after = snapshot(&logs);
    after.retain(|name, _| before.contains_key(name) && name != "logfile");
    assert_eq!(after.len() + 1, before.len());
    assert!(
        after.iter().all(|(name, facts)| before[name] == *facts),
        "{after:?}"
    );
    assert_eq!(
        (text(precious), text(logs.join("logfile.8"))),
        ("precious\n".into(), "old\n".into())
    );
    drop(socket);
}

#[test]
fn a_clock_set_forward_expires_old_logs_and_one_set_back_none() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let Some(clock) = Clock::new(&sandbox, "-365d") else {
        return;
    };
    let vsrun = sandbox
        .vsrun()
        .clock(&clock)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let manager = manage_greeter(&sandbox, &logs, vsrun).spawn();
    started(&sandbox, 1);
    for (offset, count) in [("+0d", 2), ("-365d", 3)] {
        clock.set(offset);
        manager.signal(SIGHUP);
        started(&sandbox, count);
        wait_for_hello(&logs);
    }
    assert_eq!(
        logs.names(),
        ["logfile", "logfile.1", "logfile.2", "vsrun.log"]
    );
    clock.set("+365d");
    manager.signal(SIGHUP);
    started(&sandbox, 4);
    // What has just been rotated is a year old by this clock; what is in use is never deleted.
    wait_for("the old logs to go", || {
        let names = logs.names();
        let gone = names == ["logfile", "logfile.3", "vsrun.log"];
        if gone || names == ["logfile", "vsrun.log"] {
            Ok(())
        } else {
            Err(names)
        }
    });
    wait_for_hello(&logs);
    stop(manager);
}
