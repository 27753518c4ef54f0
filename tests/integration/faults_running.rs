//! Faults while a server runs: it dies over and over, is traced, leaves children; ids and clocks do
//! what they should not; the manager lives where something is missing. Those that the tests of each
//! subject prove already are not repeated.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::geteuid;

use crate::prelude::*;

// The server dies.

#[test]
fn a_server_that_is_killed_twenty_times_comes_back_twenty_times() {
    let sandbox = sandbox();
    // A hundred seconds in one: the later delays are half a minute each.
    let Some(clock) = Clock::new(&sandbox, "+0 x100") else {
        return;
    };
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .clock(&clock)
        .command(probe(&sandbox).kill(SIGKILL).only_first(20))
        .spawn();
    let last = started(&sandbox, 21);
    wait_for("the line of the last start", || {
        manager.stderr().matches("started server").count() == 21
    });
    assert_eq!(handler.runs().len(), 20);
    assert!(last.exists() && starts(&sandbox) == 21);
    assert_eq!(manager.process().children(), [last]);
    assert_eq!(sandbox.read_pidfile(sandbox.path("server.pid")), Some(last.pid()));
    stop(manager);
}

#[test]
fn ten_seconds_of_a_crash_loop_are_eight_tries_and_hardly_any_processor_time() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox).exit(1)).spawn();
    // The delays before this one are 6.3 s together, so 12.7 s are over at the next start.
    said(&manager, "restarting the server in 6.4s");
    assert_eq!(starts(&sandbox), 8);
    let ticks = manager.process().stat().expect("a running manager").cpu_ticks;
    // 0.1 s. A manager that turned in a loop would have used up all the time there was: 630 of them.
    assert!(ticks < 10, "{ticks} clock ticks");
    stop(manager);
}

#[test]
fn what_a_dead_server_leaves_running_does_not_hold_up_the_next_one() {
    let sandbox = sandbox();
    sandbox.dir("bin");
    sandbox.executable("bin/logger", "#!/bin/sh\nexec cat >/dev/null\n");
    let path = format!("{}:/usr/bin:/bin", sandbox.path("bin").display());
    for (name, options) in [
        ("plain", [].as_slice()),
        ("files", &["--logdir", "logs", "1d"]),
        ("logger", &["--syslog", "tag"]),
    ] {
        let starts = sandbox.path(name);
        let manager = sandbox
            .vsrun()
            .manager(sandbox.path(format!("{name}.pid")), CONSENT)
            .env("PATH", &path)
            .args(options)
            .command(sandbox.probe().append(&starts).with_session_child())
            .spawn();
        let servers = |count| {
            let ids = wait_for("a start", || {
                let ids = sandbox.lines(&starts);
                if ids.len() == count { Ok(ids) } else { Err(ids) }
            });
            Process::of(ids[count - 1].parse().expect("an id"))
        };
        let first = servers(1);
        let left = wait_for("the server's child", || first.children().first().copied());
        sandbox.signal(first, SIGKILL);
        let second = servers(2);
        manager.signal(SIGHUP);
        let third = servers(3);
        assert!(left.exists() && !first.exists() && !second.exists() && third.exists(), "{name}");
    }
}

#[test]
fn a_server_that_somebody_traces_is_alive_until_it_is_dead() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let tracer = traced(&sandbox, server, &[]);
    sandbox.signal(server, SIGSTOP);
    wait_for("a traced stop", || server.stat().is_some_and(|stat| stat.state == 't'));
    stays("managed", Duration::from_millis(200), || starts(&sandbox) == 1 && server.exists());
    // What was killed is not gone before its tracer has looked at it.
    tracer.signal(SIGSTOP);
    wait_for("a stopped tracer", || tracer.process().stat().is_some_and(|it| it.state == 'T'));
    let ticks = || manager.process().stat().expect("a running manager").cpu_ticks;
    let before = ticks();
    sandbox.signal(server, SIGKILL);
    stays("a death that is not over", Duration::from_millis(300), || starts(&sandbox) == 1);
    assert!(ticks() - before < 10, "the manager turns in a loop");
    tracer.signal(SIGCONT);
    assert!(started(&sandbox, 2).exists());
    let run = handler.wait_for_run(1);
    assert_eq!(run.env("VSRUN_SERVER_TERMSIG"), Some(OsStr::new("9")));
    stop(manager);
    tracer.wait();
}

#[test]
fn where_ids_are_used_again_all_the_time_no_signal_reaches_a_stranger() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (hits, starts_file) = (sandbox.path("hits"), sandbox.path("starts"));
    // Of thirty ids or so, as with a kernel.pid_max of 330, which not every kernel has for a namespace
    // alone. Each start leaves strangers, who take what the dead have left.
    let script = "[ $$ -ge 300 -a $$ -lt 330 ] || echo 300 >/proc/sys/kernel/ns_last_pid
        (trap 'echo hit >>\"$0\"' TERM HUP USR1; sleep 0.03 || echo hit >>\"$0\") & exec \"$@\"";
    let manager = managed(&sandbox, CONSENT)
        .pid_namespace()
        .command(["/bin/sh", "-c", script])
        .arg(&hits)
        .args(probe(&sandbox))
        .spawn();
    for count in 1..=200 {
        wait_for("a start", || starts(&sandbox) >= count);
        // The first deaths of a crash loop are followed by delays, which a request resets.
        if count % 20 == 0 {
            let server = sandbox.wait_for_server(&manager);
            sandbox.signal(server, SIGKILL);
        } else {
            manager.signal(SIGHUP);
        }
    }
    let ids = sandbox.lines(&starts_file);
    let mut different = ids.clone();
    different.sort();
    different.dedup();
    assert!(different.len() < ids.len() / 2, "ids were hardly used again: {ids:?}");
    wait_for("the strangers to be gone", || manager.process().descendants().len() == 1);
    assert_eq!(sandbox.lines(&hits), [] as [&str; 0]);
    stop(manager);
}

/// The one process that a manager has for a server.
trait Servers {
    fn wait_for_server(&self, manager: &Running<'_>) -> Process;
}

impl Servers for Sandbox {
    #[track_caller]
    fn wait_for_server(&self, manager: &Running<'_>) -> Process {
        wait_for("the server", || {
            let children = manager.process().children();
            let server = children.iter().find(|child| {
                let words = child.cmdline().unwrap_or_default();
                words.first().is_some_and(|word| word.to_string_lossy().ends_with("probe"))
            });
            server.copied()
        })
    }
}

#[test]
fn signals_that_fill_the_queue_hide_no_death_and_no_request() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .limit(Resource::RLIMIT_SIGPENDING, 8, 8)
        .command(probe(&sandbox))
        .spawn();
    let flood = |death: Option<Process>, request: Option<i32>| {
        manager.signal(SIGSTOP);
        for _ in 0..20 {
            (SIGRTMIN()..=SIGRTMAX()).for_each(|signal| manager.signal(signal));
        }
        if let Some(server) = death {
            sandbox.signal(server, SIGKILL);
        }
        if let Some(request) = request {
            manager.signal(request);
        }
        manager.signal(SIGCONT);
    };
    flood(Some(started(&sandbox, 1)), None);
    started(&sandbox, 2);
    assert_eq!(handler.runs().len(), 1);
    flood(None, Some(SIGHUP));
    let third = started(&sandbox, 3);
    flood(Some(third), Some(SIGTERM));
    manager.wait().expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (3, 1));
}

// Clocks.

#[test]
fn a_clock_that_jumps_by_a_year_changes_no_delay_no_uptime_and_no_life() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let Some(clock) = Clock::new(&sandbox, "+0d") else {
        return;
    };
    let manager = managed(&sandbox, &handler)
        .clock(&clock)
        // The kernel sets CLOCK_REALTIME only.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .logdir(&logs, "1d")
        .command(probe(&sandbox).out("hello").exit(1).only_first(6))
        .spawn();
    for (offset, delay) in [("-365d", "in 100ms"), ("+365d", "in 400ms"), ("+0d", "in 800ms")] {
        wait_for("a delay", || logs.vsrun().contains(delay));
        clock.set(offset);
    }
    let last = started(&sandbox, 7);
    assert_eq!(handler.runs().len(), 6);
    // In mid-life too, before a death and before a request.
    clock.set("+365d");
    sandbox.signal(last, SIGKILL);
    for (offset, count) in [("-365d", 8), ("+365d", 9)] {
        started(&sandbox, count);
        clock.set(offset);
        manager.signal(SIGHUP);
    }
    started(&sandbox, 10);
    for run in handler.runs() {
        let uptime = run.env("VSRUN_SERVER_UPTIME").and_then(OsStr::to_str).expect("an uptime");
        assert!(uptime.parse().is_ok_and(|seconds: u64| seconds < 60), "{uptime} s");
    }
    assert_eq!(handler.runs().len(), 7);
    // The manager's clock did jump, both ways.
    let years = |log: String| -> Vec<i32> {
        let mut years: Vec<i32> =
            log.lines().filter_map(|line| line.get(..4)?.parse().ok()).collect();
        years.sort();
        years.dedup();
        years
    };
    wait_for("lines of three years", || {
        let years = years(logs.vsrun());
        if years.len() >= 3 { Ok(()) } else { Err(years) }
    });
    stop(manager);
}

/// A library in which the machine has slept for an hour once there is the file $SLEPT.
const SLEEP: &str = "
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    const char *slept = getenv(\"SLEPT\");
    int done = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_BOOTTIME && slept && access(slept, F_OK) == 0)
        time->tv_sec += 3600;
    return done;
}
";

#[test]
fn time_that_the_machine_sleeps_is_uptime_and_no_delay() {
    if !require_program("cc") {
        return;
    }
    let sandbox = sandbox();
    let (source, library) = (sandbox.file("sleep.c", SLEEP), sandbox.path("sleep.so"));
    let cc = sandbox.program("/usr/bin/cc").args(["-shared", "-fPIC", "-o"]);
    cc.arg(&library).arg(source).run().expect_code(0);
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .env("LD_PRELOAD", library)
        .env("SLEPT", sandbox.path("slept"))
        .command(probe(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    sandbox.file("slept", "");
    sandbox.signal(first, SIGKILL);
    let run = handler.wait_for_run(1);
    let uptime = run.env("VSRUN_SERVER_UPTIME").and_then(OsStr::to_str).expect("an uptime");
    let seconds: u64 = uptime.parse().expect("seconds");
    assert!((3600..3900).contains(&seconds), "{seconds} s");
    // A life of an hour: the next start follows at once, and the delays begin anew.
    sandbox.signal(started(&sandbox, 2), SIGKILL);
    sandbox.signal(started(&sandbox, 3), SIGKILL);
    started(&sandbox, 4);
    let delays = manager.stderr().matches("restarting the server in").count();
    assert!(delays <= 2, "{}", manager.stderr());
    stop(manager);
}

// What is missing where the manager lives.

/// A whole life of a manager with all that it does: a death, a signal passed on, a restart, an end.
fn live(sandbox: &Sandbox, vsrun: Invocation<'_>) {
    let open = sandbox.open_dir("open");
    let (handled, logs) = (open.join("handled"), LogDirectory::at(open.join("logs")));
    let note = format!("#!/bin/sh\necho \"$VSRUN_SERVER_EXPLAIN\" >>'{}'\n", handled.display());
    let handler = sandbox.executable("note", note);
    let starts = open.join("starts");
    let log = open.join("signals");
    let manager = vsrun
        .pidfile(open.join("server.pid"))
        .manager(open.join("manager.pid"), handler)
        .logdir(&logs, "1d")
        .command(sandbox.probe().log_signals(log).append(&starts).out("hello"))
        .spawn();
    let lives = |count| {
        wait_for("a start", || {
            let lives = sandbox.lines(&starts).len();
            if lives == count { Ok(()) } else { Err((lives, manager.stderr(), logs.vsrun())) }
        });
        // Else there would be nothing to put aside.
        wait_for("its line", || logs.server() == "hello\n");
    };
    lives(1);
    sandbox.signal(sandbox.wait_for_server(&manager), SIGKILL);
    lives(2);
    assert_eq!(sandbox.lines(&handled), ["terminated by signal 9"]);
    let server = sandbox.wait_for_server(&manager);
    manager.signal(SIGUSR1);
    wait_for("the signal to be passed on", || {
        sandbox.lines(open.join("signals")) == ["READY", "READY", "USR1"]
    });
    manager.signal(SIGHUP);
    lives(3);
    assert!(!server.exists());
    assert!(sandbox.read_pidfile(open.join("server.pid")).is_some());
    stop(manager);
    assert_eq!(sandbox.lines(&handled).len(), 1);
    let names = logs.names();
    assert_eq!(names, ["logfile", "logfile.1", "logfile.2", "vsrun.log"]);
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!open.join(name).exists(), "{name} is left");
    }
    wait_for("the end of every process", || sandbox.processes().is_empty());
}

#[test]
fn without_a_proc_file_system_a_manager_does_all_its_work() {
    if !require_root() {
        return;
    }
    for user in [None, Some(NOBODY)] {
        let sandbox = sandbox();
        let vsrun = sandbox.vsrun().tmpfs("/proc", "mode=755");
        let vsrun = match user {
            Some(user) => vsrun.user(user.to_string()),
            None => vsrun,
        };
        live(&sandbox, vsrun);
    }
}

#[test]
fn without_a_proc_file_system_messages_that_nobody_reads_hold_nothing_up() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (_reader, writer) = nix::unistd::pipe().expect("a pipe");
    let flags = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    flags(OFlag::O_NONBLOCK);
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    flags(OFlag::empty());
    let manager = managed(&sandbox, CONSENT).tmpfs("/proc", "mode=755").stderr(writer);
    let manager = manager.command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    stop(manager);
}

#[test]
fn without_privilege_a_manager_does_all_its_work() {
    let sandbox = sandbox();
    let vsrun = sandbox.vsrun();
    live(&sandbox, if geteuid().is_root() { vsrun.run_as(NOBODY, NOBODY, &[]) } else { vsrun });
}

#[test]
fn in_a_user_namespace_a_manager_does_all_its_work() {
    if !require_root() {
        return;
    }
    let sandboxes = [sandbox(), sandbox()];
    let [first, second] = sandboxes.each_ref();
    live(first, first.vsrun().user_namespace());
    live(second, second.vsrun().run_as(NOBODY, NOBODY, &[]).user_namespace());
}

#[test]
fn as_process_1_a_manager_does_all_its_work() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    live(&sandbox, sandbox.vsrun().pid_namespace());
}

#[test]
fn without_standard_streams_a_manager_does_all_its_work() {
    let sandbox = sandbox();
    live(&sandbox, sandbox.vsrun().closed([0, 1, 2]));
}

#[test]
fn without_standard_streams_or_a_log_a_manager_keeps_its_server_and_obeys() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).closed([0, 1, 2]).command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    let third = started(&sandbox, 3);
    let files: Vec<PathBuf> = third.open_files().expect("a server").into_values().collect();
    assert_eq!(files, [Path::new("/dev/null"); 3]);
    stop(manager);
}

#[test]
fn a_signal_to_a_server_that_the_system_says_is_gone_is_no_end_of_anything() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let options = ["-e", "trace=kill", "-e", "inject=kill:error=ESRCH:when=1"];
    let tracer = traced(&sandbox, manager.process(), &options);
    manager.signal(SIGHUP);
    said(&manager, "No such process");
    assert!(first.exists());
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 2);
    assert!(handler.runs().is_empty());
    tracer.signal(SIGINT);
    tracer.wait();
    stop(manager);
}
