//! Faults of the surroundings that a server is started or restarted in: what is missing, refused or
//! inherited. Those that the tests of each subject prove already are not repeated.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::getrlimit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::signal::{SIGHUP, SIGKILL, SIGTERM};
use testkit::{
    Handler, Invocation, Probe, Process, Report, Resource, Running, Sandbox, probe, released,
    require_program, require_root, said, started, stop, wait_for,
};

const NOBODY: u32 = 65534;
const CONSENT: &str = "/bin/true";

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))
}

/// The ways to start a server that leave this process free: in the background, and managed.
fn ways<'a>(sandbox: &'a Sandbox, handler: &Handler) -> [Invocation<'a>; 4] {
    let manager = || sandbox.vsrun().manager(sandbox.path("manager"), handler);
    [sandbox.vsrun(), sandbox.vsrun().background(), manager(), manager().background()]
}

#[track_caller]
fn expect_no_files(sandbox: &Sandbox) {
    for name in ["pid", "manager", "manager.lock"] {
        assert!(!sandbox.path(name).exists(), "'{name}' is there");
    }
}

// What is inherited.

#[test]
fn where_the_standard_descriptors_are_closed_output_still_goes_where_it_was_told() {
    let sandbox = sandbox();
    let (report, lines) = (sandbox.path("report"), sandbox.path("lines"));
    sandbox.dir("bin");
    sandbox.executable("bin/logger", format!("#!/bin/sh\nexec cat >>'{}'\n", lines.display()));
    let path = format!("{}:/usr/bin:/bin", sandbox.path("bin").display());
    let handler = sandbox.handler("handler").create();
    let server = || sandbox.probe().report(&report).out("hello").exit(0);
    let is_pipe = |target: &PathBuf| target.to_string_lossy().starts_with("pipe:");
    for way in 0..4 {
        // The numbers that vsrun's own files would get, and some above them.
        let start = || {
            fs::remove_file(&report).ok();
            let start = ways(&sandbox, &handler).into_iter().nth(way).expect("a way");
            start.closed(0..10).pidfile("pid").env("PATH", &path)
        };
        let logs = sandbox.path(format!("logs{way}"));
        start().logdir(&logs, "1").command(server()).run().expect_code(0);
        let log = logs.join("logfile");
        let files: Vec<_> = Report::wait(&report).fds.into_values().collect();
        assert_eq!(files, [Path::new("/dev/null"), &log, &log]);
        wait_for("the line", || fs::read_to_string(&log).is_ok_and(|text| text == "hello\n"));

        fs::remove_file(&lines).ok();
        start().syslog("tag").command(server()).run().expect_code(0);
        let files: Vec<_> = Report::wait(&report).fds.into_values().collect();
        assert!(files[0] == Path::new("/dev/null") && files.len() == 3, "{files:?}");
        assert!(files[1..].iter().all(is_pipe), "{files:?}");
        wait_for("the line", || sandbox.lines(&lines).iter().any(|line| line == "hello"));
    }
}

#[test]
fn on_a_kernel_without_close_range_no_inherited_descriptor_stays_open() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (report, trace, empty) = (sandbox.path("report"), sandbox.path("trace"), sandbox.dir("no"));
    // As many as a process may have: without a /proc each number has to be tried.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // strace(1) itself needs a /proc.
    let hiding = "mount --bind \"$0\" /proc && exec \"$@\"";
    for hide in [&["sh", "-c", "exec \"$@\""][..], &["unshare", "-m", "sh", "-c", hiding]] {
        fs::remove_file(&report).ok();
        let strace = sandbox.program("/usr/bin/strace").args(["-f", "--seccomp-bpf", "-qq", "-o"]);
        let strace = strace.arg(&trace).args(["-e", "inject=close_range:error=ENOSYS", "--"]);
        let start = strace.args(hide).arg(&empty).arg(env!("CARGO_BIN_EXE_vsrun"));
        let passwd = || File::open("/etc/passwd").expect("a file");
        let start =
            start.inheriting(7, passwd()).inheriting(33, passwd()).inheriting(900, passwd());
        let start = start.pidfile("pid");
        let start = start.limit(Resource::RLIMIT_NOFILE, most, most);
        start.command(sandbox.probe().report(&report).exit(0)).run().expect_code(0);
        assert_eq!(Report::wait(&report).fd_numbers(), [0, 1, 2], "{hide:?}");
        let refused = fs::read_to_string(&trace).is_ok_and(|it| it.contains("ENOSYS"));
        assert!(refused, "the kernel had the call after all");
    }
}

// What cannot be executed.

#[test]
fn words_that_are_too_long_for_the_kernel_are_an_error_that_says_so() {
    if !require_root() {
        return;
    }
    // One string may hold 128 KiB (execve(2)), and this one is not the caller's.
    let home = format!("/{}", "x".repeat(128 * 1024));
    let foo = format!("foo:x:5000:5000::{home}:/bin/sh");
    let sandbox = sandbox();
    let line = "vsrun: cannot execute command '/bin/true': Argument list too long";
    for background in [false, true] {
        let start = sandbox.vsrun().with_passwd(&[&foo], &[]).user("foo").pidfile("pid");
        let start = if background { start.background() } else { start };
        start.command(["/bin/true"]).run().expect_error(126, line);
        expect_no_files(&sandbox);
    }
}

#[test]
fn a_program_that_is_being_written_or_lacks_its_first_line_at_a_restart_is_the_handlers_business() {
    for (content, is_written, reason) in
        [(None, true, "Text file busy"), (Some("touch ran\n"), false, "Exec format error")]
    {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let original = sandbox.probe().words()[0].clone();
        let program = sandbox.copy_of(&original, "program");
        let server = Probe::at(&program).append(sandbox.path("starts"));
        let start = sandbox.vsrun().pidfile("pid").manager("manager", &handler);
        let manager = start.command(server).spawn();
        let first = started(&sandbox, 1);
        // A file of its own: the running program cannot be written to.
        match content {
            Some(text) => drop(sandbox.executable("program", text)),
            None => drop(sandbox.copy_of(&original, "program")),
        }
        let writer = is_written.then(|| OpenOptions::new().append(true).open(&program));
        sandbox.signal(first, SIGKILL);
        let run = handler.wait_for_run(2);
        let told = |name| run.env(name).and_then(OsStr::to_str).unwrap_or_default();
        assert_eq!(told("VSRUN_SERVER_EXITSTATUS"), "126");
        assert!(told("VSRUN_SERVER_EXPLAIN").contains(reason), "{:?}", run.env);
        assert!(!sandbox.path("pid").exists());
        drop(writer);
        let mended = Instant::now();
        sandbox.copy_of(&original, "program");
        started(&sandbox, 2);
        assert!(mended.elapsed() < Duration::from_secs(2), "back after {:?}", mended.elapsed());
        assert!(!sandbox.path("ran").exists(), "a shell was given the file");
        stop(manager);
        expect_no_files(&sandbox);
    }
}

#[test]
fn where_only_the_c_librarys_fork_is_allowed_a_server_is_managed_all_the_same() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    // Each fork of vsrun's own is refused, as by qemu-user, and followed by one of the C library's.
    let start = || with_failing(&sandbox, "clone:error=EINVAL:when=1+2").pidfile("pid");
    let manager = start().manager("manager", CONSENT).command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    let second = started(&sandbox, 2);
    sandbox.signal(sandbox.wait_for_pidfile(sandbox.path("manager")), SIGTERM);
    manager.wait().expect_code(0);
    assert!(!second.exists());
    expect_no_files(&sandbox);
    let missing = start().manager("manager", CONSENT).command(["/nonexistent"]).run();
    missing.expect_code(127);
    expect_no_files(&sandbox);
}

/// Stops every process of a user again and again, as the user may.
fn stopping_all<'a>(sandbox: &'a Sandbox, uid: u32) -> Running<'a> {
    let script = "while :; do kill -s STOP -- -1; done";
    sandbox.program("/bin/sh").run_as(uid, uid, &[]).args(["-c", script]).spawn()
}

#[test]
fn a_user_who_stops_all_its_processes_holds_a_start_up_for_10_s_at_most() {
    if !require_root() {
        return;
    }
    // No other test has processes of this user.
    const UID: u32 = 54_401;
    let sandbox = sandbox();
    let stopper = stopping_all(&sandbox, UID);
    for syslog in [false, true] {
        let start = sandbox.vsrun().background().user(format!("{UID}:{UID}")).pidfile("pid");
        let start = if syslog { start.syslog("tag") } else { start };
        let outcome = start.deadline(Duration::from_secs(20)).command(["/bin/sleep", "1000"]).run();
        match outcome.code() {
            Some(0) => {}
            _ => {
                outcome.expect_code(125);
                assert!(outcome.stderr_text().contains("no exec within"), "{outcome:?}");
                assert!(!sandbox.path("pid").exists());
            }
        }
    }
    sandbox.signal(stopper.process(), SIGKILL);
}

#[test]
fn a_manager_whose_logger_or_server_is_stopped_at_the_start_obeys_a_stop() {
    if !require_root() {
        return;
    }
    const UID: u32 = 54_402;
    let sandbox = sandbox();
    let stopper = stopping_all(&sandbox, UID);
    for syslog in [false, true] {
        let start = sandbox.vsrun().user(format!("{UID}:{UID}")).manager("manager", CONSENT);
        let start = if syslog { start.syslog("tag") } else { start };
        let manager = start.command(["/bin/sleep", "1000"]).spawn();
        let children = || manager.process().children();
        wait_for("a child that is stopped", || {
            children().iter().any(|it| it.stat().is_some_and(|stat| stat.state == 'T'))
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

// Steps of the child that the system refuses.

/// strace(1) around vsrun, which makes one call fail in every process of it.
fn with_failing<'a>(sandbox: &'a Sandbox, inject: &str) -> Invocation<'a> {
    let start = sandbox.program("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    start.args(["-e", &format!("inject={inject}"), "--", env!("CARGO_BIN_EXE_vsrun")])
}

#[test]
fn each_step_of_the_child_that_is_refused_is_named_and_no_server_runs() {
    if !require_root() || !require_program("strace") {
        return;
    }
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
            let start = with_failing(&sandbox, inject).pidfile("pid").root(&jail).work_dir("tmp");
            let start = start.user("nobody");
            let start = if background { start.background() } else { start };
            let server = Probe::at("/bin/probe").append("/tmp/ran").exit(0);
            let outcome = start.command(server).run();
            outcome.expect_code(125);
            let line = outcome.stderr_text();
            assert!(line.starts_with(&format!("vsrun: cannot {doing}: ")), "{inject}: {line}");
            assert_eq!(line.lines().count(), 1, "{inject}: {line}");
            assert!(!jail.join("tmp/ran").exists(), "{inject}: a server ran");
            expect_no_files(&sandbox);
        }
    }
    // Only a child that gets a session of its own makes this call.
    let start = with_failing(&sandbox, "setsid:error=EPERM").pidfile("pid");
    let outcome = start.manager("manager", &handler).command(probe(&sandbox)).run();
    outcome.expect_error(125, "vsrun: cannot leave the session: Operation not permitted");
    assert!(!sandbox.path("starts").exists());
    expect_no_files(&sandbox);
}

/// Attaches strace(1) to a manager and to every child that it will have.
#[track_caller]
fn refusing_children<'a>(sandbox: &'a Sandbox, manager: Process, inject: &str) -> Running<'a> {
    let strace = sandbox.program("/usr/bin/strace").arg("-f").arg("-o").arg("/dev/null");
    let strace = strace.args(["-p", &manager.pid().to_string(), "-e"]);
    let tracer = strace.arg(format!("inject={inject}")).spawn();
    said(&tracer, "attached");
    tracer
}

#[test]
fn a_change_of_user_that_is_refused_at_a_restart_never_makes_a_server_of_roots() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for call in ["setgroups", "setresgid", "setresuid", "capset"] {
        let sandbox = sandbox();
        let starts = sandbox.open_dir("out").join("starts");
        let start = sandbox.vsrun().user("nobody").pidfile("pid").manager("manager", CONSENT);
        let manager = start.command(sandbox.probe().append(&starts)).spawn();
        wait_for("the server", || sandbox.lines(&starts).len() == 1);
        let inject = format!("{call}:error=EPERM");
        let tracer = refusing_children(&sandbox, manager.process(), &inject);
        manager.signal(SIGHUP);
        // The handler cannot be what it has to be either: nobody allows a restart.
        let outcome = manager.wait();
        tracer.wait();
        outcome.expect_code(125);
        assert!(outcome.stderr_text().contains("Operation not permitted"), "{outcome:?}");
        assert_eq!(sandbox.lines(&starts).len(), 1, "{call}: a server ran");
        expect_no_files(&sandbox);
    }
}

#[test]
fn a_change_of_user_that_lacks_something_at_a_restart_is_tried_again() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (out, handler) = (sandbox.open_dir("out"), sandbox.handler("handler").create());
    let (starts, report) = (out.join("starts"), out.join("report"));
    let start = sandbox.vsrun().user("nobody").pidfile("pid").manager("manager", &handler);
    let server = sandbox.probe().report(&report).append(&starts);
    let manager = start.command(server).spawn();
    wait_for("the server", || sandbox.lines(&starts).len() == 1);
    fs::remove_file(&report).expect("the first report");
    let tracer = refusing_children(&sandbox, manager.process(), "setresuid:error=EAGAIN");
    manager.signal(SIGHUP);
    said(&manager, "trying again in 400ms");
    released(tracer);
    assert_eq!(Report::wait(&report).uids.real, NOBODY);
    assert!(handler.runs().is_empty());
    stop(manager);
    expect_no_files(&sandbox);
}

// Shortages.

#[test]
fn with_few_descriptors_a_start_works_or_is_an_error_of_one_line() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let ran = sandbox.path("ran");
    let mut refused = 0;
    // With fewer the dynamic loader cannot load vsrun.
    for limit in 4..24 {
        for (way, start) in ways(&sandbox, &handler).into_iter().enumerate() {
            let start = start.limit(Resource::RLIMIT_NOFILE, limit, limit).pidfile("pid");
            let server = sandbox.probe().append(&ran).exit(0);
            let outcome = start.logdir("logs", "1").command(server).run();
            let line = outcome.stderr_text();
            if outcome.code() == Some(0) {
                wait_for("the server", || ran.exists());
                fs::remove_file(&ran).expect("a file");
            } else {
                refused += 1;
                outcome.expect_code(125);
                assert!(line.starts_with("vsrun: cannot ") && line.lines().count() == 1, "{line}");
                assert!(!ran.exists(), "limit {limit}, way {way}: an error and a server");
                assert!(!sandbox.path("pid").exists(), "limit {limit}, way {way}");
            }
            wait_for("the end of every process", || sandbox.processes().is_empty());
            assert!(!sandbox.path("manager.lock").exists(), "limit {limit}, way {way}");
            fs::remove_file(sandbox.path("pid")).ok();
            fs::remove_dir_all(sandbox.path("logs")).ok();
        }
    }
    assert!((1..80).contains(&refused), "{refused} starts refused: the limits mean nothing");
}

/// Starts a manager, makes the kernel refuse it forks, asks for a restart.
fn without_forks<'a>(sandbox: &'a Sandbox, when: &str) -> (Running<'a>, Running<'a>) {
    let start = sandbox.vsrun().pidfile("pid").manager("manager", "/bin/false");
    let manager = start.command(probe(sandbox)).spawn();
    started(sandbox, 1);
    let forks = "clone,clone3,fork,vfork";
    let strace = sandbox.program("/usr/bin/strace").arg("-o").arg("/dev/null");
    let strace = strace.args(["-p", &manager.pid().to_string()]);
    let strace = strace.args(["-e", &format!("inject={forks}:error=EAGAIN:when={when}")]);
    let tracer = strace.spawn();
    said(&tracer, "attached");
    manager.signal(SIGHUP);
    (manager, tracer)
}

/// The delays that a manager has announced, in milliseconds.
fn delays(manager: &Running<'_>) -> Vec<u64> {
    let text = manager.stderr();
    let announced = text.lines().filter_map(|line| line.split_once("trying again in "));
    let in_millis = |delay: &str| match delay.trim().strip_suffix("ms") {
        Some(number) => number.parse().ok(),
        None => Some((delay.trim().strip_suffix('s')?.parse::<f64>().ok()? * 1000.0) as u64),
    };
    announced.map(|(_, delay)| in_millis(delay).expect("a duration")).collect()
}

#[test]
fn a_fork_that_is_refused_five_times_in_a_row_succeeds_the_sixth_time() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (manager, tracer) = without_forks(&sandbox, "1..5");
    started(&sandbox, 2);
    assert_eq!(delays(&manager), [100, 200, 400, 800, 1600]);
    released(tracer);
    stop(manager);
    expect_no_files(&sandbox);
}

#[test]
fn a_fork_that_is_refused_for_long_is_tried_every_5_s_for_ever_and_a_stop_is_obeyed() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (manager, tracer) = without_forks(&sandbox, "1+");
    // Two of the longest in a row: it does not grow any more, and it goes on.
    wait_for("the longest delay, twice", || {
        let delays = delays(&manager);
        let longest = delays.iter().filter(|delay| **delay == 5000).count();
        if longest >= 2 { Ok(()) } else { Err(delays) }
    });
    assert_eq!(delays(&manager)[..7], [100, 200, 400, 800, 1600, 3200, 5000]);
    let before = Instant::now();
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
    assert!(before.elapsed() < Duration::from_secs(2), "after {:?}", before.elapsed());
    tracer.wait();
    assert_eq!(sandbox.lines("starts").len(), 1);
    expect_no_files(&sandbox);
}

#[test]
fn many_old_logs_and_a_shortage_of_memory_cost_no_server_and_no_manager() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let start = sandbox.vsrun().pidfile("pid").logdir(&logs, "1").manager("manager", CONSENT);
    let manager = start.command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    // As the directory's owner can make them at any time.
    (1..5000).for_each(|number| {
        fs::write(logs.join(format!("logfile.{number}")), "x").expect("the sandbox can be written");
    });
    let strace = sandbox.program("/usr/bin/strace").arg("-o").arg("/dev/null");
    let strace = strace.args(["-p", &manager.pid().to_string()]);
    // brk(2) as the kernel has it says nothing of an error: the break stays below what was asked for.
    let refusals = ["-e", "inject=mmap,mremap:error=ENOMEM", "-e", "inject=brk:retval=0"];
    let tracer = strace.args(refusals).spawn();
    said(&tracer, "attached");
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    assert!(!second.exists());
    released(tracer);
    stop(manager);
    expect_no_files(&sandbox);
}
