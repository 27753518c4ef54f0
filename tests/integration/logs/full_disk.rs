//! Logs that cannot be made or written.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::*;
use crate::prelude::*;

#[test]
fn a_log_that_cannot_be_renamed_is_appended_to() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let vsrun = sandbox.vsrun().logdir(&logs, "1d");
    let vsrun = if geteuid().is_root() {
        vsrun.run_as(NOBODY, NOBODY, &[])
    } else {
        vsrun
    };
    // The monitor pidfile's directory must be the caller's.
    chmod(sandbox.directory(), 0o777);
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    chmod(&logs, 0o555);
    managed.restart();
    wait_for("the second hello", || {
        text(logs.join("logfile")) == "hello\nhello\n"
    });
    let log = text(logs.join("vsrun.log"));
    assert!(log.contains("Permission denied"), "{log}");
    managed.stop().expect_code(0);
    chmod(&logs, 0o755);
}

#[test]
fn a_server_is_started_again_though_no_new_log_can_be_made() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    // Room for the directory and the two logs.
    let vsrun = as_user(sandbox.vsrun()).tmpfs(&logs, "size=64k,nr_inodes=3,mode=777");
    let managed = Managed::new(
        &sandbox,
        vsrun.logdir(&logs, "1d"),
        sandbox.probe().out("hello"),
    );
    let inside = managed.vsrun.process().path_inside(&logs);
    wait_for_hello(&inside);
    managed.restart();
    wait_for("the second hello", || {
        text(inside.join("logfile")) == "hello\nhello\n"
    });
    assert_eq!(LogDirectory::at(&inside).names(), ["logfile", "vsrun.log"]);
    assert!(text(inside.join("vsrun.log")).contains(&appending(&logs, "create", NO_SPACE)));
    managed.stop().expect_code(0);
}

const NO_SPACE: &str = "No space left on device";

/// The line about a log for which there is no new one.
fn appending(logs: &Path, doing: &str, reason: &str) -> String {
    let path = logs.join("logfile");
    format!(
        "cannot {doing} log '{}': {reason}; appending to the old file",
        path.display()
    )
}

#[test]
fn logs_of_earlier_starts_are_appended_to_where_no_new_ones_can_be_made() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    // Room for the directory and the two logs.
    let old = "echo old >logfile && echo old >vsrun.log && \"$@\"; \
               echo \"status $?\" && head logfile vsrun.log && ls";
    let shell = sandbox
        .program("/bin/sh")
        .tmpfs(&logs, "size=64k,nr_inodes=3,mode=777");
    let vsrun = shell.current_dir(&logs).args(["-c", old, "sh", VSRUN]);
    let vsrun = vsrun
        .logdir(&logs, "1d")
        .command(sandbox.probe().out("hello").exit(4));
    let output = vsrun.run().stdout_text();
    assert!(
        output.starts_with("status 4\n==> logfile <==\nold\nhello\n"),
        "{output}"
    );
    assert!(output.contains("==> vsrun.log <==\nold\n"), "{output}");
    assert!(
        output.contains(&appending(&logs, "create", NO_SPACE)),
        "{output}"
    );
    assert!(output.ends_with("\nlogfile\nvsrun.log\n"), "{output}");
}

#[test]
fn mounted_logs_are_appended_to_with_a_warning() {
    needs!(root);
    let sandbox = sandbox();
    let (logs, outside) = (users_dir(&sandbox, "logs"), sandbox.dir("outside"));
    let mut vsrun = as_user(sandbox.vsrun());
    for name in ["logfile", "vsrun.log"] {
        users_file(logs.join(name), "");
        users_file(outside.join(name), "old\n");
        vsrun = vsrun.bind(outside.join(name), logs.join(name));
    }
    let managed = Managed::new(
        &sandbox,
        vsrun.logdir(&logs, "1d"),
        sandbox.probe().out("hello"),
    );
    wait_for("the line", || {
        text(outside.join("logfile")) == "old\nhello\n"
    });
    managed.restart();
    wait_for("the second line", || {
        text(outside.join("logfile")) == "old\nhello\nhello\n"
    });
    managed.stop().expect_code(0);
    let output = text(outside.join("vsrun.log"));
    let line = appending(&logs, "rename", "Device or resource busy");
    assert!(
        output.starts_with("old\n") && output.matches(&line).count() == 2,
        "{output}"
    );
}

/// Starts a server under strace(1), which makes calls fail, and returns the outcome.
fn refused(sandbox: &Sandbox, logs: &Path, refusals: &[(&str, &str)]) -> Outcome {
    let mut strace = sandbox
        .program("/usr/bin/strace")
        .args(["-f", "-qq", "-o", "/dev/null"]);
    for (call, error) in refusals {
        strace = strace.arg("-e").arg(format!("inject={call}:error={error}"));
    }
    let vsrun = as_user(strace.arg(VSRUN)).logdir(logs, "1d");
    vsrun.command(sandbox.probe().out("hello").exit(0)).run()
}

#[test]
fn logs_that_the_file_system_cannot_rename_are_appended_to() {
    needs!("strace");
    let refusals: [&[(&str, &str)]; 3] = [
        // An append-only file.
        &[("renameat2", "EPERM")],
        // A file system without RENAME_NOREPLACE and hard links.
        &[("renameat2", "EINVAL"), ("linkat", "EPERM")],
        // One that makes a hard link, and cannot remove the first name.
        &[("renameat2", "EINVAL"), ("unlinkat", "EPERM:when=1")],
    ];
    for refusals in refusals {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile"), "old\n");
        refused(&sandbox, &logs, refusals).expect_code(0);
        assert_eq!(text(logs.join("logfile")), "old\nhello\n");
        assert_eq!(LogDirectory::at(&logs).names(), ["logfile", "vsrun.log"]);
        let output = text(logs.join("vsrun.log"));
        assert!(
            output.contains(&appending(&logs, "rename", "Operation not permitted")),
            "{output}"
        );
    }
}

#[test]
fn an_empty_log_whose_mode_cannot_be_changed_is_written_to() {
    needs!("strace");
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for name in ["logfile", "vsrun.log"] {
        users_file(logs.join(name), "");
    }
    // As for an append-only file.
    refused(
        &sandbox,
        &logs,
        &[("fchmod", "EPERM"), ("renameat2", "EPERM")],
    )
    .expect_code(0);
    assert_eq!(text(logs.join("logfile")), "hello\n");
}

#[test]
fn what_cannot_be_renamed_and_is_no_log_of_the_users_is_not_written_to() {
    needs!(root, "strace");
    let kinds: [fn(&Path, &Path); 3] = [
        |precious, log| fs::hard_link(precious, log).expect("a second name"),
        |precious, log| symlink(precious, log).expect("a link"),
        |_, log| fs::write(log, "root's\n").expect("the sandbox can be written"),
    ];
    for place in kinds {
        let sandbox = sandbox();
        let (logs, precious) = (users_dir(&sandbox, "logs"), sandbox.path("precious"));
        users_file(&precious, "precious\n");
        place(&precious, &logs.join("logfile"));
        let before = snapshot(&logs);
        let outcome = refused(&sandbox, &logs, &[("renameat2", "EBUSY")]);
        let path = logs.display();
        let error = format!("vsrun: cannot create a log file in '{path}': Device or resource busy");
        outcome.expect_error(125, &error);
        assert_eq!(
            (snapshot(&logs), text(&precious)),
            (before, "precious\n".into())
        );
    }
}

/// A server that fills a log directory of 64 KiB at each start, and then stays.
fn on_a_full_disk<'a>(sandbox: &'a Sandbox, logs: &Path, words: &[&str]) -> Managed<'a> {
    let out = sandbox.open_dir("out");
    let script = format!(
        "#!/bin/sh\nhead -c 200000 /dev/zero\nexec '{}' 'append={1}/starts' 'log-signals={1}/signals' term=exit:0\n",
        sandbox.probe().words()[0].to_string_lossy(),
        out.display()
    );
    let server = sandbox.executable("server", script);
    let words = words.iter().map(OsString::from);
    let vsrun = as_user(sandbox.vsrun())
        .tmpfs(logs, "size=64k,mode=777")
        .logdir(logs, "1d");
    Managed::of(
        sandbox,
        vsrun,
        [server.into_os_string()].into_iter().chain(words),
    )
}

#[test]
fn on_a_full_disk_server_and_manager_live_on() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let managed = on_a_full_disk(&sandbox, &logs, &[]);
    let server = managed.server();
    let written = about(managed.vsrun.process().path_inside(logs.join("logfile"))).len();
    assert!(written > 0 && written <= 64 * 1024, "{written}");
    managed.vsrun.signal(SIGUSR1);
    wait_for("the signal to be passed on", || {
        sandbox.lines("out/signals").contains(&"USR1".into())
    });
    assert!(server.exists() && managed.vsrun.process().exists());
    managed.stop().expect_code(0);
}

#[test]
fn on_a_full_disk_the_server_can_be_restarted_and_stopped() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let managed = on_a_full_disk(&sandbox, &logs, &[]);
    managed.restart();
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(3);
    let asked = Instant::now();
    managed.stop().expect_code(0);
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
}

/// Makes the manager lose lines on a full disk and then write another, and returns its log.
/// The words are long, so that the file's last page does not hold all lines.
fn log_of_a_disk_that_was_full() -> Vec<String> {
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let managed = on_a_full_disk(&sandbox, &logs, &[&"long".repeat(400)]);
    for _ in 0..4 {
        managed.restart();
    }
    let inside = managed.vsrun.process().path_inside(&logs);
    let filler = fs::read_dir(&inside).expect("a directory").flatten();
    for entry in filler.filter(|entry| entry.file_name().as_bytes().starts_with(b"logfile")) {
        let file = File::options().write(true).open(entry.path());
        // The newest is a server's that is still writing: what is left is room for the manager.
        file.and_then(|file| file.set_len(0))
            .expect("the test's own file system");
    }
    let server = managed.server();
    sandbox.signal(server, SIGKILL);
    wait_for("a new line", || {
        text(inside.join("vsrun.log")).contains("terminated by signal 9")
    });
    let lines = text(inside.join("vsrun.log"))
        .lines()
        .map(str::to_owned)
        .collect();
    managed.stop();
    lines
}

#[test]
fn a_full_disk_is_reported_once_there_is_room() {
    needs!(root);
    let lines = log_of_a_disk_that_was_full();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("could not be written")),
        "{lines:#?}"
    );
}

#[test]
fn no_line_runs_into_one_that_a_full_disk_cut() {
    needs!(root);
    let lines = log_of_a_disk_that_was_full();
    let glued: Vec<&String> = lines
        .iter()
        .filter(|line| line.matches(" vsrun[").count() > 1)
        .collect();
    assert!(glued.is_empty(), "{glued:#?}");
}

#[test]
fn on_a_disk_that_is_full_from_the_start_the_server_runs_and_can_be_stopped() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let fill = "head -c 200000 /dev/zero >\"$0/filler\" 2>/dev/null; exec \"$@\"";
    let shell = || {
        let shell = sandbox.program("/bin/sh").tmpfs(&logs, "size=32k,mode=777");
        shell.args(["-c", fill]).arg(&logs).arg(VSRUN)
    };
    let server = || greeter(&sandbox, sandbox.path("starts"));
    let exits = server().into_iter().chain(["exit=4".into()]);
    shell()
        .logdir(&logs, "1d")
        .command(exits)
        .run()
        .expect_code(4);
    let manager = shell()
        .manager(sandbox.path("manager.pid"), CONSENT)
        .logdir(&logs, "1d");
    let manager = manager.command(server()).spawn();
    let first = started(&sandbox, 2);
    let inside = LogDirectory::at(manager.process().path_inside(&logs));
    assert_eq!(inside.names(), ["filler", "logfile", "vsrun.log"]);
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 3);
    manager.signal(SIGHUP);
    started(&sandbox, 4);
    fs::remove_file(inside.path().join("filler")).expect("the test's own file system");
    manager.signal(SIGHUP);
    started(&sandbox, 5);
    wait_for_hello(&inside);
    wait_for("what was lost", || {
        inside.vsrun().contains("could not be written")
    });
    stop(manager);
}
