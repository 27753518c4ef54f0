//! Rotation of the logs at a start.

use std::ffi::OsStr;
use std::fs;

use super::*;
use crate::prelude::*;

#[test]
fn each_start_of_vsrun_rotates_both_logs() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let mut output = Vec::new();
    for text in ["one", "two", "three"] {
        say(&sandbox, &logs, "1d", text);
        output.push(logs.vsrun());
    }
    let names = [
        "logfile",
        "logfile.1",
        "logfile.2",
        "vsrun.log",
        "vsrun.log.1",
        "vsrun.log.2",
    ];
    assert_eq!(logs.names(), names);
    assert_eq!(
        (logs.read("logfile.1"), logs.read("logfile.2")),
        ("one\n".into(), "two\n".into())
    );
    assert_eq!(logs.server(), "three\n");
    let old = ["vsrun.log.1", "vsrun.log.2", "vsrun.log"].map(|name| text(logs.path().join(name)));
    assert_eq!(old.as_slice(), output);
}

#[test]
fn a_restart_rotates_only_the_servers_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe().out("hello"));
    for _ in 0..2 {
        wait_for_hello(logs.path());
        managed.restart();
    }
    wait_for_hello(logs.path());
    assert_eq!(
        logs.names(),
        ["logfile", "logfile.1", "logfile.2", "vsrun.log"]
    );
    wait_for("a line for each start", || {
        logs.vsrun().matches("started server").count() == 3
    });
    managed.stop().expect_code(0);
    assert_eq!(
        (
            mode_of(logs.path().join("logfile")),
            owner_of(logs.path().join("logfile"))
        ),
        (0o640, user())
    );
}

#[test]
fn a_restart_after_a_crash_rotates_the_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe().out("hello"));
    wait_for_hello(logs.path());
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(2);
    wait_for_hello(logs.path());
    assert_eq!(logs.read("logfile.1"), b"hello\n");
    managed.stop().expect_code(0);
}

#[test]
fn an_empty_log_is_not_rotated() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe());
    managed.restart();
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
}

#[test]
fn an_empty_log_that_stays_in_use_has_mode_0640() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join("logfile"), "");
    chmod(logs.join("logfile"), 0o666);
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(
        (
            mode_of(logs.join("logfile")),
            owner_of(logs.join("logfile"))
        ),
        (0o640, user())
    );
}

#[test]
fn a_log_that_was_removed_is_made_anew_at_the_next_start() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe().out("hello"));
    wait_for_hello(logs.path());
    fs::remove_file(logs.path().join("logfile")).expect("a log");
    managed.restart();
    wait_for_hello(logs.path());
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
}

#[test]
fn vsruns_log_that_was_removed_is_made_anew_at_the_next_start() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe().out("hello"));
    wait_for("vsrun's line", || logs.vsrun().contains("started server"));
    fs::remove_file(logs.path().join("vsrun.log")).expect("a log");
    managed.restart();
    wait_for("vsrun's new line", || {
        logs.vsrun().contains("started server")
    });
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(3);
    assert!(
        logs.vsrun().contains("\nhandled\nbadly\n"),
        "{}",
        logs.vsrun()
    );
    let manager = managed
        .vsrun
        .process()
        .open_files()
        .expect("a running manager");
    assert!(
        !manager
            .values()
            .any(|file| file.to_string_lossy().ends_with("(deleted)"))
    );
    managed.stop().expect_code(0);
}

#[test]
fn a_rotated_log_keeps_owner_mode_and_time() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join("logfile"), "old\n");
    chmod(logs.join("logfile"), 0o604);
    age(logs.join("logfile"), "3 hours ago");
    let before = snapshot(&logs)[OsStr::new("logfile")].clone();
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(snapshot(&logs)[OsStr::new("logfile.1")], before);
}

#[test]
fn the_number_is_one_more_than_the_highest() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for name in [
        "logfile.3",
        "logfile.7",
        "vsrun.log.41",
        "logfile",
        "vsrun.log",
    ] {
        users_file(logs.join(name), name);
    }
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile.8")), "logfile");
    assert_eq!(text(logs.join("vsrun.log.42")), "vsrun.log");
    assert_eq!(LogDirectory::at(&logs).names().len(), 7);
}

#[test]
fn at_the_top_of_the_numbers_the_lowest_free_one_is_taken() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let top = u64::MAX;
    for name in [
        "logfile.1",
        "logfile.2",
        "logfile.4",
        &format!("logfile.{top}"),
        "logfile",
    ] {
        users_file(logs.join(name), name);
    }
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile.3")), "logfile");
    say(&sandbox, &logs, "1d", "hello again");
    assert_eq!(text(logs.join("logfile.5")), "hello\n");
    assert_eq!(
        text(logs.join(format!("logfile.{top}"))),
        format!("logfile.{top}")
    );
}

#[test]
fn one_below_the_top_of_the_numbers_the_top_is_taken() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join(format!("logfile.{}", u64::MAX - 1)), "old\n");
    users_file(logs.join("logfile"), "newer\n");
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join(format!("logfile.{}", u64::MAX))), "newer\n");
}

#[test]
fn only_canonical_numbers_count() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    odd_names()
        .iter()
        .for_each(|name| users_file(logs.join(name), "other"));
    users_file(logs.join("logfile"), "old\n");
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile.1")), "old\n");
}

#[test]
fn the_first_server_log_of_a_start_is_never_what_an_older_server_still_writes_to() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(users_dir(&sandbox, "logs"));
    let out = sandbox.open_dir("flags");
    let script = format!(
        "echo before; until [ -e '{0}/go' ]; do sleep 0.01; done; echo after",
        out.display()
    );
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let older = vsrun.command(["/bin/sh", "-c", &script]).spawn();
    wait_for("the first line", || logs.server() == "before\n");
    say(&sandbox, &logs, "1d", "newer");
    fs::write(out.join("go"), "").expect("the sandbox can be written");
    older.wait().expect_code(0);
    assert_eq!(
        (text(logs.path().join("logfile.1")), logs.server()),
        ("before\nafter\n".into(), "newer\n".into())
    );
}
