//! Several vsruns in one directory, failed starts, kills.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use testkit::signal::{SIGKILL, SIGTERM};
use testkit::{LogDirectory, OnTerm, Outcome, Running, require_program, stays, wait_for};

use crate::common::{
    as_user, every_way, give, managed, sandbox, say, snapshot, text, users_dir, users_file,
    wait_for_hello,
};

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
    let mut said: Vec<String> = Vec::new();
    for name in LogDirectory::at(&logs).names() {
        if name.as_bytes().starts_with(b"logfile") {
            said.extend(text(logs.join(name)).lines().map(str::to_owned));
        }
    }
    said.sort();
    let expected: Vec<String> =
        (0..6).flat_map(|thread| (0..8).map(move |round| format!("{thread}/{round}"))).collect();
    assert_eq!(said, expected);
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
fn a_start_that_fails_takes_no_log_away_that_another_vsrun_uses() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=execve"]);
    // The execve(2) of vsrun itself does not count.
    let strace = strace.args(["-e", "inject=execve:delay_enter=1500000:when=1"]);
    let failing = as_user(strace.arg(env!("CARGO_BIN_EXE_vsrun"))).logdir(&logs, "1d");
    let failing = failing.command(["/nowhere/to/be/found"]).spawn();
    wait_for("the new log", || logs.join("logfile").exists());
    say(&sandbox, &logs, "1d", "hello");
    failing.wait().expect_code(127);
    assert_eq!(text(logs.join("logfile")), "hello\n");
}

/// Lets vsrun be killed at the `when`th call of `syscall`, in a directory that `prepare` makes, and
/// sees that the next start works and that nothing that was there is lost.
fn survives_a_kill(syscall: &str, when: u32, prepare: fn(&Path)) -> Outcome {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    prepare(&logs);
    let strace = sandbox.program("/usr/bin/strace");
    let strace =
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={syscall}"));
    let inject = format!("inject={syscall}:signal=KILL:when={when}");
    let vsrun = as_user(strace.arg("-e").arg(inject).arg(env!("CARGO_BIN_EXE_vsrun")));
    let killed = vsrun.logdir(&logs, "1d").command(["/bin/true"]).run();
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile")), "hello\n", "{syscall} {when}");
    let names = LogDirectory::at(&logs).names();
    let all: Vec<String> = names.into_iter().map(|name| text(logs.join(name))).collect();
    let kept = |what: &str| all.iter().any(|content| content.contains(what));
    assert!(!logs.with_extension("full").exists() || kept("old server") && kept("old vsrun"));
    killed
}

fn with_old_logs(logs: &Path) {
    fs::create_dir(logs).expect("the sandbox can be written");
    give(logs);
    users_file(logs.join("logfile"), "old server\n");
    users_file(logs.join("vsrun.log"), "old vsrun\n");
    fs::write(logs.with_extension("full"), "").expect("the sandbox can be written");
}

#[test]
fn a_vsrun_killed_while_it_puts_logs_aside_leaves_a_directory_to_start_in() {
    if !require_program("strace") {
        return;
    }
    for when in [1, 2] {
        let killed = survives_a_kill("renameat2", when, with_old_logs);
        assert_eq!(killed.signal(), Some(SIGKILL));
    }
    for when in [1, 2, 3, 4, 5, 6, 7, 8] {
        survives_a_kill("newfstatat", when, with_old_logs);
    }
}

#[test]
fn a_vsrun_killed_while_it_makes_the_directory_leaves_one_to_start_in() {
    if !require_program("strace") {
        return;
    }
    for syscall in ["mkdirat", "fchown", "fchmod"] {
        for when in [1, 2] {
            survives_a_kill(syscall, when, |_| {});
        }
    }
}

#[test]
fn a_vsrun_killed_while_it_opens_files_leaves_a_directory_to_start_in() {
    if !require_program("strace") {
        return;
    }
    for when in (4..40).step_by(3) {
        survives_a_kill("openat", when, with_old_logs);
    }
}

#[test]
fn a_start_that_fails_leaves_no_new_directory() {
    let sandbox = sandbox();
    for vsrun in every_way(&sandbox) {
        let vsrun = vsrun.logdir(sandbox.path("a/b/logs"), "1d");
        vsrun.command(["/nowhere/to/be/found"]).run().expect_code(127);
        assert!(!sandbox.path("a").exists());
    }
}

#[test]
fn a_start_that_fails_leaves_no_new_file() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let no_program = sandbox.file("no-program", "");
    for vsrun in every_way(&sandbox) {
        vsrun.logdir(&logs, "1d").command([&no_program]).run().expect_code(126);
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
        let vsrun = every_way(&sandbox).remove(way).logdir(&logs, "1d");
        vsrun.command(["/nowhere/to/be/found"]).run().expect_code(127);
        assert_eq!(snapshot(&logs), before, "way {way}");
    }
}

#[test]
fn a_start_that_another_manager_forbids_leaves_the_logs_alone() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    wait_for("vsrun's line", || text(logs.join("vsrun.log")).contains("started server"));
    let before = snapshot(&logs);
    let second = as_user(sandbox.vsrun()).logdir(&logs, "1h");
    let second = second.manager(sandbox.path("monitor"), &managed.handler);
    second.command(["/bin/true"]).run().expect_code(125);
    stays("the logs as they were", Duration::from_millis(100), || snapshot(&logs) == before);
    managed.stop().expect_code(0);
}

#[test]
fn a_manager_whose_log_another_vsrun_put_aside_goes_on_writing_to_it() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(users_dir(&sandbox, "logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe());
    wait_for("vsrun's line", || logs.vsrun().contains("started server"));
    say(&sandbox, &logs, "1d", "hello");
    let others = logs.vsrun();
    managed.restart();
    wait_for("a line of the restart", || {
        text(logs.path().join("vsrun.log.1")).matches("started server").count() == 2
    });
    managed.stop().expect_code(0);
    assert_eq!(logs.vsrun(), others);
}

#[test]
fn a_manager_says_that_another_one_uses_its_directory() {
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
            logs.vsrun().contains(&format!("vsrun[{}]: started", running.pid()))
        });
        (running, logs.vsrun().matches(&line).count())
    };
    let stop = |manager: Running<'_>| {
        manager.signal(SIGTERM);
        manager.wait().expect_code(0);
    };
    let (first, said) = manager("first");
    assert_eq!(said, 0);
    let (second, said) = manager("second");
    assert_eq!(said, 1);
    stop(first);
    // The second is there still.
    let (third, said) = manager("third");
    assert_eq!(said, 1);
    [second, third].into_iter().for_each(stop);
    let (last, said) = manager("last");
    assert_eq!(said, 0);
    stop(last);
}

#[test]
fn a_manager_that_stops_leaves_its_logs() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed =
        managed(&sandbox, logs.path(), sandbox.probe().out("hello").on_term(OnTerm::Exit(0)));
    wait_for_hello(logs.path());
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
    assert_eq!(logs.server(), "hello\n");
}

#[test]
fn a_hundred_restarts_leave_no_descriptor_open() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe().out("hello"));
    let again = || {
        wait_for_hello(logs.path());
        managed.restart();
    };
    again();
    // While it starts a server, a manager has a socket pair.
    let at_rest = || {
        wait_for("a manager at rest", || {
            let open = managed.vsrun.process().open_files().expect("a running manager");
            let starts = open.values().any(|it| it.to_string_lossy().starts_with("socket:"));
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
fn a_server_whose_manager_is_killed_goes_on_writing_to_its_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().ticks(Duration::from_millis(5));
    let managed = managed(&sandbox, logs.path(), server);
    let server = managed.server();
    managed.vsrun.signal(SIGKILL);
    managed.vsrun.wait();
    let ticks = || logs.server().lines().count();
    let before = ticks();
    wait_for("more of the server's lines", || ticks() > before + 5);
    assert!(server.exists());
}
