//! Faults of logs: vsrun killed or refused at each call of a rotation, disks that are full from the
//! start, directories replaced and shared, clocks that jump, loggers that misbehave while a stop is
//! asked for. Those that the tests of each subject prove already are not repeated.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use crate::prelude::*;

/// A server that says `hello`, leaves a line in a file for its start, and stays: once its start is
/// known it has spoken.
fn server(sandbox: &Sandbox, starts: impl AsRef<OsStr>) -> Vec<OsString> {
    let words = ["/bin/sh", "-c", "echo hello; exec \"$@\"", "sh"].map(OsString::from);
    words.into_iter().chain(sandbox.probe().append(starts)).collect()
}

/// A manager of such a server, with logs, once the server has started.
fn managed<'a>(sandbox: &'a Sandbox, logs: &LogDirectory) -> Running<'a> {
    let manager = logging(sandbox, logs, sandbox.vsrun()).spawn();
    started(sandbox, 1);
    manager
}

/// The same with whatever else `vsrun` is to be started with.
fn logging<'a>(sandbox: &Sandbox, logs: &LogDirectory, vsrun: Invocation<'a>) -> Invocation<'a> {
    vsrun
        .manager(sandbox.path("manager.pid"), CONSENT)
        .logdir(logs, "1d")
        .command(server(sandbox, sandbox.path("starts")))
}

#[track_caller]
fn wait_for_hello(logs: &LogDirectory) {
    wait_for("the server's line", || {
        let said = logs.server();
        if said == "hello\n" { Ok(()) } else { Err((said, logs.names())) }
    });
}

/// How often a line stands in the current and old logs whose names begin like this.
fn lines(logs: &LogDirectory, kind: &str, line: &str) -> usize {
    let names = logs.names().into_iter().filter(|name| name.to_string_lossy().starts_with(kind));
    let count = |name| String::from_utf8_lossy(&logs.read(name)).matches(line).count();
    names.map(count).sum()
}

// Killed at each call.

/// What a start or a restart does to files and processes. To be killed at a call that changes nothing
/// is to be killed before the next one that does.
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

/// Does something with every call of these, the first of its name, the second and so on, until it is
/// told that there was none; some at a time. Returns how many there were.
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

/// strace(1)'s words for killing at one call.
fn killing(call: &str, number: u32) -> [String; 2] {
    [format!("trace={call}"), format!("inject={call}:signal=KILL:when={number}")]
}

/// Starts a server in a directory that somebody was killed in.
#[track_caller]
fn expect_usable(sandbox: &Sandbox, logs: &LogDirectory, killed_at: (&str, u32)) {
    let say = sandbox.vsrun().logdir(logs, "1d").command(sandbox.probe().out("after").exit(0));
    say.run().expect_code(0);
    assert_eq!(logs.server(), "after\n", "{killed_at:?}");
}

#[test]
fn a_vsrun_killed_at_any_call_of_a_start_leaves_a_directory_to_start_in() {
    if !require_program("strace") {
        return;
    }
    let calls = at_each_call(|call, number| {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.dir("logs"));
        sandbox.file("logs/logfile", "old server\n");
        sandbox.file("logs/vsrun.log", "old vsrun\n");
        let [trace, inject] = killing(call, number);
        let strace = sandbox.program("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
        let strace = strace.args(["-e", &trace, "-e", &inject]);
        let vsrun = strace.arg(VSRUN).logdir(&logs, "1d");
        let vsrun = vsrun.manager(sandbox.path("manager.pid"), CONSENT);
        let killed = vsrun.command(["/bin/true"]).run().signal() == Some(SIGKILL);
        wait_for("nobody", || sandbox.processes().is_empty());
        expect_usable(&sandbox, &logs, (call, number));
        let kept = [("logfile", "old server\n"), ("vsrun.log", "old vsrun\n")];
        let kept = kept.map(|(kind, line)| lines(&logs, kind, line));
        assert_eq!(kept, [1, 1], "{call} {number}");
        killed
    });
    // Or they are not what a start is made of any more.
    assert!(calls > 15, "{calls} calls");
}

#[test]
fn a_manager_killed_at_any_call_of_a_restart_leaves_a_directory_to_start_in() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let calls = at_each_call(|call, number| {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed(&sandbox, &logs);
        wait_for("its line", || logs.vsrun().contains("started server"));
        let [trace, inject] = killing(call, number);
        let tracer = traced(&sandbox, manager.process(), &["-e", &trace, "-e", &inject]);
        manager.signal(SIGHUP);
        let over = || logs.vsrun().matches("started server").count() == 2;
        let lived = wait_for("a restart or a death", || match manager.process().exists() {
            true => over().then_some(true),
            false => Some(false),
        });
        // A server that was started is left by a manager that was killed then.
        drop((manager, tracer));
        for left in sandbox.processes() {
            sandbox.signal(left, SIGKILL);
        }
        wait_for("nobody", || sandbox.processes().is_empty());
        expect_usable(&sandbox, &logs, (call, number));
        let said = lines(&logs, "logfile", "hello\n");
        assert!(said >= sandbox.lines("starts").len(), "{call} {number}");
        !lived
    });
    assert!(calls > 5, "{calls} calls");
}

// Refused.

#[test]
fn a_rotation_that_is_refused_at_any_call_costs_no_server_and_no_line() {
    if !require_root() || !require_program("strace") {
        return;
    }
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
        let manager = managed(&sandbox, &logs);
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}"));
        let tracer = traced(&sandbox, manager.process(), &["-e", &trace, "-e", &inject]);
        manager.signal(SIGHUP);
        sandbox.signal(started(&sandbox, 2), SIGKILL);
        let third = started(&sandbox, 3);
        tracer.signal(SIGINT);
        tracer.wait();
        wait_for("three lines", || {
            let count = lines(&logs, "logfile", "hello\n");
            if count == 3 { Ok(()) } else { Err((call, error, count, logs.names())) }
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
fn lines_that_the_system_refuses_to_write_are_counted_and_end_nothing() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for error in ["EIO", "ENOSPC", "EFBIG", "EINTR"] {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let vsrun = sandbox.vsrun().manager(sandbox.path("manager.pid"), CONSENT);
        let vsrun = vsrun.logdir(&logs, "1d");
        let manager = vsrun.command(sandbox.probe().append(sandbox.path("starts"))).spawn();
        let first = started(&sandbox, 1);
        wait_for("the first line", || logs.vsrun().contains("started server"));
        // The death of the server, and then, after the words for that, the handler's answer.
        let inject = format!("inject=write:error={error}:when=1..3");
        let tracer = traced(&sandbox, manager.process(), &["-e", "trace=write", "-e", &inject]);
        sandbox.signal(first, SIGKILL);
        started(&sandbox, 2);
        wait_for("what was lost", || {
            let said = logs.vsrun();
            let counted = said.contains("2 of these messages could not be written");
            if counted { Ok(()) } else { Err((error, said)) }
        });
        wait_for("the line of the restart", || logs.vsrun().matches("started server").count() == 2);
        tracer.signal(SIGINT);
        tracer.wait();
        stop(manager);
    }
}

#[test]
fn a_pidfile_that_the_system_refuses_to_write_at_a_restart_is_told_and_ends_nothing() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for (error, words) in [("EIO", "Input/output error"), ("ENOSPC", "No space left on device")] {
        let sandbox = sandbox();
        let vsrun = sandbox.vsrun().pidfile(sandbox.path("server.pid"));
        let vsrun = vsrun.manager(sandbox.path("manager.pid"), CONSENT);
        let manager = vsrun.command(sandbox.probe().append(sandbox.path("starts"))).spawn();
        started(&sandbox, 1);
        // "asked to restart the server", its end, and then the pidfile.
        let inject = format!("inject=write:error={error}:when=3");
        let tracer = traced(&sandbox, manager.process(), &["-e", "trace=write", "-e", &inject]);
        manager.signal(SIGHUP);
        assert!(started(&sandbox, 2).exists());
        wait_for("the reason", || {
            let said = manager.stderr();
            if said.contains("server.pid") && said.contains(words) { Ok(()) } else { Err(said) }
        });
        tracer.signal(SIGINT);
        tracer.wait();
        // Half a file is never seen, and no temporary one is left.
        assert_eq!(sandbox.read_pidfile(sandbox.path("server.pid")), None);
        let beside = fs::read_dir(sandbox.directory()).expect("a directory").flatten();
        let names: Vec<_> = beside.map(|entry| entry.file_name()).collect();
        let left = names.iter().filter(|name| name.to_string_lossy().contains("server.pid"));
        assert_eq!(left.count(), 0, "{names:?}");
        manager.signal(SIGHUP);
        let third = started(&sandbox, 3);
        assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), third);
        stop(manager);
    }
}

// Disks and directories.

#[test]
fn on_a_disk_that_is_full_from_the_start_the_server_runs_and_can_be_stopped() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let fill = "head -c 200000 /dev/zero >\"$0/filler\" 2>/dev/null; exec \"$@\"";
    let shell = || {
        let shell = sandbox.program("/bin/sh").tmpfs(&logs, "size=32k,mode=777");
        shell.args(["-c", fill]).arg(&logs).arg(VSRUN)
    };
    let server = || server(&sandbox, sandbox.path("starts"));
    let exits = server().into_iter().chain(["exit=4".into()]);
    shell().logdir(&logs, "1d").command(exits).run().expect_code(4);
    let manager = shell().manager(sandbox.path("manager.pid"), CONSENT).logdir(&logs, "1d");
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
    wait_for("what was lost", || inside.vsrun().contains("could not be written"));
    stop(manager);
}

#[test]
fn a_directory_that_was_moved_is_left_for_the_one_that_its_path_leads_to() {
    for is_replaced in [true, false] {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed(&sandbox, &logs);
        wait_for("vsrun's line", || logs.vsrun().contains("started server"));
        let moved = LogDirectory::at(sandbox.path("moved"));
        fs::rename(logs.path(), moved.path()).expect("the sandbox can be written");
        if is_replaced {
            sandbox.dir("logs");
        }
        manager.signal(SIGHUP);
        sandbox.signal(started(&sandbox, 2), SIGKILL);
        started(&sandbox, 3);
        wait_for_hello(&logs);
        assert_eq!(manager.process().cwd().as_deref(), Some(logs.path()));
        stop(manager);
        assert_eq!(logs.names(), ["logfile", "logfile.1", "vsrun.log"]);
        assert_eq!(logs.vsrun().matches("started server").count(), 2);
        assert_eq!(moved.names(), ["logfile", "vsrun.log"]);
    }
}

#[test]
fn a_directory_that_becomes_stale_is_opened_again_by_its_path() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for error in ["ESTALE", "ENOENT"] {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed(&sandbox, &logs);
        let inject = format!("inject=openat:error={error}:when=1");
        let options = ["-e", "trace=openat", "-e", &inject];
        let tracer = traced(&sandbox, manager.process(), &options);
        manager.signal(SIGHUP);
        started(&sandbox, 2);
        tracer.signal(SIGINT);
        tracer.wait();
        wait_for_hello(&logs);
        assert_eq!(logs.names(), ["logfile", "logfile.1", "vsrun.log"], "{error}");
        assert_eq!(lines(&logs, "vsrun.log", "cannot"), 0, "{error}");
        stop(manager);
    }
}

#[test]
fn managers_that_share_a_directory_lose_no_line_however_often_they_restart() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.dir("logs"));
    let names = ["a", "b", "c"];
    let managers = names.map(|name| {
        let vsrun = sandbox.vsrun().manager(sandbox.path(format!("{name}.pid")), CONSENT);
        let server = server(&sandbox, sandbox.path(format!("{name}starts")));
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
        if count == 48 { Ok(()) } else { Err((count, logs.names())) }
    });
    wait_for("a line for each start", || {
        let count = lines(&logs, "vsrun.log", " started server ");
        if count == 48 { Ok(()) } else { Err((count, logs.names())) }
    });
    managers.into_iter().for_each(stop);
}

// Clocks.

#[test]
fn a_clock_set_forward_expires_old_logs_and_one_set_back_none() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let Some(clock) = Clock::new(&sandbox, "-365d") else {
        return;
    };
    let vsrun = sandbox.vsrun().clock(&clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let manager = logging(&sandbox, &logs, vsrun).spawn();
    started(&sandbox, 1);
    for (offset, count) in [("+0d", 2), ("-365d", 3)] {
        clock.set(offset);
        manager.signal(SIGHUP);
        started(&sandbox, count);
        wait_for_hello(&logs);
    }
    assert_eq!(logs.names(), ["logfile", "logfile.1", "logfile.2", "vsrun.log"]);
    clock.set("+365d");
    manager.signal(SIGHUP);
    started(&sandbox, 4);
    // What has just been put aside is a year old by this clock; what is in use is never deleted.
    wait_for("the old logs to go", || {
        let names = logs.names();
        let gone = names == ["logfile", "logfile.3", "vsrun.log"];
        if gone || names == ["logfile", "vsrun.log"] { Ok(()) } else { Err(names) }
    });
    wait_for_hello(&logs);
    stop(manager);
}

// Logger.

/// A program called `logger` in a directory of its own, which is returned as a PATH.
fn with_logger(sandbox: &Sandbox, body: &str) -> String {
    sandbox.dir("bin");
    let note = format!("echo $$ >>'{}'", sandbox.path("loggers").display());
    sandbox.executable("bin/logger", format!("#!/bin/sh\n{note}\n{body}\n"));
    format!("{}:/usr/bin:/bin", sandbox.path("bin").display())
}

/// What logger does when a stop is asked for while the pipe to it is full, and whether all that the
/// server wrote arrives.
fn stop_with_a_full_pipe(behave: impl FnOnce(&Sandbox, Process)) {
    let sandbox = sandbox();
    let body = format!("exec cat >>'{}'", sandbox.path("kept").display());
    let path = with_logger(&sandbox, &body);
    // Two mebibytes and more into a pipe of one.
    let script = "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 99; exec sleep 1000";
    let manager = sandbox
        .vsrun()
        .env("PATH", path)
        .syslog("tag")
        .pidfile(sandbox.path("server.pid"))
        .manager(sandbox.path("manager.pid"), CONSENT)
        .command(["/bin/sh", "-c", "until [ -e \"$0\" ]; do sleep 0.01; done; eval \"$1\""])
        .arg(sandbox.path("go"))
        .arg(script)
        .spawn();
    let id = wait_for("logger", || sandbox.lines("loggers").first()?.parse().ok());
    let logger = Process::of(id);
    wait_for("cat", || {
        logger.cmdline().is_some_and(|words| words.first().is_some_and(|it| it == "cat"))
    });
    sandbox.signal(logger, SIGSTOP);
    sandbox.file("go", "");
    let server = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
    let writer = wait_for("who fills the pipe", || {
        let children = server.descendants();
        children.into_iter().find(|it| {
            it.cmdline().is_some_and(|words| words.first().is_some_and(|it| it == "fold"))
        })
    });
    wait_for("the pipe to be full", || {
        // A write(2) to standard output that does not return.
        let call = fs::read_to_string(format!("/proc/{}/syscall", writer.pid()));
        let writes = call.is_ok_and(|call| call.starts_with(&format!("{} 0x1 ", libc::SYS_write)));
        writes && writer.stat().is_some_and(|stat| stat.state == 'S')
    });
    let asked = Instant::now();
    manager.signal(SIGTERM);
    behave(&sandbox, logger);
    manager.wait().expect_code(0);
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!sandbox.path(name).exists(), "{name} is left");
    }
}

#[test]
fn a_logger_that_hangs_with_its_pipe_full_does_not_keep_a_stop() {
    stop_with_a_full_pipe(|_, _| {});
}

#[test]
fn a_logger_that_dies_with_its_pipe_full_while_a_stop_is_asked_for_does_not_keep_it() {
    stop_with_a_full_pipe(|sandbox, logger| sandbox.signal(logger, SIGKILL));
}

#[test]
fn a_logger_that_goes_on_with_its_pipe_full_while_a_stop_is_asked_for_gets_what_is_in_it() {
    stop_with_a_full_pipe(|sandbox, logger| {
        sandbox.signal(logger, SIGCONT);
        wait_for("what was in the pipe", || {
            let kept = fs::metadata(sandbox.path("kept")).map_or(0, |kept| kept.len());
            if kept >= 1 << 20 { Ok(()) } else { Err(kept) }
        });
    });
}

#[test]
fn a_server_that_is_writing_when_logger_is_killed_over_and_over_never_meets_a_broken_pipe() {
    let sandbox = sandbox();
    let path = with_logger(&sandbox, "exec cat >/dev/null");
    let manager = sandbox
        .vsrun()
        .env("PATH", path)
        .syslog("tag")
        .manager(sandbox.path("manager.pid"), "/bin/false")
        .command(
            sandbox
                .probe()
                .append(sandbox.path("starts"))
                .on_term(OnTerm::Exit(0))
                .ticks(Duration::from_millis(1)),
        )
        .spawn();
    let server = started(&sandbox, 1);
    for count in 1..=6 {
        let id = wait_for("a logger", || {
            sandbox.lines("loggers").get(count - 1).and_then(|id| id.parse().ok())
        });
        sandbox.signal(Process::of(id), SIGKILL);
    }
    wait_for("the seventh logger", || sandbox.lines("loggers").len() == 7);
    assert!(server.exists() && sandbox.lines("starts").len() == 1);
    stop(manager);
}

// Two starts at once.

/// strace(1), which holds vsrun up at a call.
fn held_up<'a>(sandbox: &'a Sandbox, logs: &LogDirectory, inject: &str) -> Running<'a> {
    let strace = sandbox.program("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    let strace = strace.args(["-e", "trace=mkdirat", "-e", &format!("inject=mkdirat:{inject}")]);
    let vsrun = strace.arg(VSRUN).logdir(logs, "1d");
    vsrun.command(sandbox.probe().out("first").exit(0)).spawn()
}

/// Starts another vsrun, which finds or makes the directory, while the first is held up.
fn expect_both(sandbox: &Sandbox, logs: &LogDirectory, first: Running<'_>) {
    let second = sandbox.vsrun().logdir(logs, "1d");
    second.command(sandbox.probe().out("second").exit(0)).run().expect_code(0);
    first.wait().expect_code(0);
    assert_eq!(lines(logs, "logfile", "first\n"), 1);
    assert_eq!(lines(logs, "logfile", "second\n"), 1);
}

#[test]
fn a_directory_that_another_vsrun_writes_to_as_soon_as_it_is_made_is_used_by_both() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let first = held_up(&sandbox, &logs, "delay_exit=2000000");
    wait_for("the directory", || logs.path().exists());
    expect_both(&sandbox, &logs, first);
}

#[test]
fn a_directory_that_another_vsrun_makes_first_is_used_by_both() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let first = held_up(&sandbox, &logs, "delay_enter=2000000");
    let mut looks = 0;
    wait_for("vsrun to be held up", || {
        let held = first.process().children().iter().any(|child| {
            child.stat().is_some_and(|stat| stat.name == "vsrun" && stat.state == 't')
        });
        looks = if held { looks + 1 } else { 0 };
        looks >= 10
    });
    expect_both(&sandbox, &logs, first);
}
