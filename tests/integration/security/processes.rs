//! What other users' processes can do to vsrun, and what vsrun takes from its server.

use std::fs;

use crate::prelude::*;

/// What `script` prints when the server's user runs it, with `argument` as its only one.
#[track_caller]
fn told_to_nobody(sandbox: &Sandbox, script: &str, argument: &str) -> Vec<String> {
    // A session's processes may all send each other SIGCONT (see kill(2)).
    let attacker = sandbox
        .program("/usr/bin/setsid")
        .run_as(NOBODY, NOBODY, &[]);
    let outcome = attacker
        .args(["--wait", PYTHON, "-c", script, argument])
        .run();
    outcome.expect_code(0);
    outcome.stdout_text().lines().map(str::to_owned).collect()
}

/// Looks into a process, or a thread's directory in /proc, in every way that its memory, its
/// environment or its files could be seen, and prints what worked.
const LOOK: &str = "import os, sys
for name in ('mem', 'environ', 'maps', 'auxv'):
    try:
        with open(f'/proc/{sys.argv[1]}/{name}', 'rb') as file:
            file.seek(0) if name == 'mem' else file.read(1)
        print(name)
    except OSError:
        pass
for name in ('fd', 'cwd', 'root', 'exe'):
    try:
        path = f'/proc/{sys.argv[1]}/{name}'
        os.listdir(path) if name == 'fd' else os.readlink(path)
        print(name)
    except OSError:
        pass
";

const SEEN: [&str; 8] = ["mem", "environ", "maps", "auxv", "fd", "cwd", "root", "exe"];

/// Sends a process every signal, and tries to trace it.
const ASSAULT: &str = "import ctypes, os, signal, sys
manager = int(sys.argv[1])
for number in [0] + sorted(signal.valid_signals()):
    try:
        os.kill(manager, number)
        print('signal', number)
    except PermissionError:
        pass
    except ProcessLookupError:
        break
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
for request in (PTRACE_SEIZE, PTRACE_ATTACH):
    if libc.ptrace(request, manager, 0, 0) == 0:
        print('trace', request)
";

#[test]
fn the_servers_user_can_neither_signal_trace_nor_read_a_manager() {
    needs!(root, "python3");
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox
        .vsrun()
        .user("nobody")
        .pidfile("pid")
        .manager("manager", CONSENT);
    let manager = start.command(sandbox.probe().append(&starts)).spawn();
    let server = started_in(&sandbox, "out/starts", 1);
    let id = manager.pid().to_string();
    assert_eq!(told_to_nobody(&sandbox, ASSAULT, &id), [] as [&str; 0]);
    assert_eq!(told_to_nobody(&sandbox, LOOK, &id), [] as [&str; 0]);
    assert!(
        manager
            .process()
            .stat()
            .is_some_and(|stat| stat.state == 'S')
    );
    // The scripts do what they are meant to: the server is its user's.
    assert_eq!(
        told_to_nobody(&sandbox, LOOK, &server.pid().to_string()),
        SEEN
    );
    let done = told_to_nobody(&sandbox, ASSAULT, &server.pid().to_string());
    assert_eq!(done[..2], ["signal 0", "signal 1"]);
    stop(manager);
}

#[test]
fn between_the_change_of_user_and_the_exec_the_user_can_read_nothing() {
    needs!(root, "strace", "python3");
    let sandbox = sandbox();
    sandbox.open_dir("out");
    // With a pidfile another thread of the process is root's still.
    let managed = ["-m", "manager", CONSENT];
    for (way, options) in [&["-p", "pid"][..], &["-b"], &managed, &[]]
        .into_iter()
        .enumerate()
    {
        let vsrun = injecting(&sandbox, "execve:delay_enter=4000000")
            .user("nobody")
            .args(options);
        let report = sandbox.path(format!("out/report{way}"));
        let tracer = vsrun
            .command(sandbox.probe().report(&report).exit(0))
            .spawn();
        let thread = wait_for("a thread of the user", || nobodys_thread(&sandbox));
        let seen = told_to_nobody(&sandbox, LOOK, &thread);
        assert!(!report.exists(), "it has been executed meanwhile");
        assert_eq!(seen, [] as [&str; 0], "{options:?}");
        tracer.wait().expect_code(0);
        assert_eq!(Report::wait(&report).uids, Ids::all(NOBODY));
    }
}

/// A thread of the sandbox that runs as the user nobody, as `PID/task/TID`.
fn nobodys_thread(sandbox: &Sandbox) -> Option<String> {
    let is_nobodys = |thread: &String| {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        Status::parse(&status).uids == Ids::all(NOBODY)
    };
    sandbox.processes().into_iter().find_map(|process| {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.pid()))
            .ok()?
            .flatten();
        let names = tasks.map(|task| task.file_name().to_string_lossy().into_owned());
        let mut threads = names.map(|task| format!("{}/task/{task}", process.pid()));
        threads.find(is_nobodys)
    })
}

#[test]
fn a_manager_reads_nothing_that_its_server_writes() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox
        .vsrun()
        .user("nobody")
        .pidfile("pid")
        .logdir("logs", "1h");
    let server = sandbox.probe().append(&starts).lines(1000);
    let manager = start.manager("manager", CONSENT).command(server).spawn();
    started_in(&sandbox, "out/starts", 1);
    let strace = sandbox
        .program("/usr/bin/strace")
        .args(["-qq", "-yy", "-o", "trace"]);
    let calls = "trace=read,readv,pread64,preadv,recvfrom,recvmsg,mmap,splice,process_vm_readv";
    let tracer = strace
        .args(["-e", calls, "-p", &manager.pid().to_string()])
        .spawn();
    wait_for("the tracer", || {
        manager
            .process()
            .stat()
            .is_some_and(|stat| stat.state != 't')
            && is_traced(&manager)
    });
    manager.signal(SIGHUP);
    started_in(&sandbox, "out/starts", 2);
    stop(manager);
    tracer.wait();
    let trace = sandbox.lines("trace");
    let calls: Vec<_> = trace.iter().filter(|line| line.contains('(')).collect();
    assert!(
        calls.iter().any(|call| call.contains("signalfd")),
        "{calls:#?}"
    );
    let from_elsewhere: Vec<_> = calls
        .iter()
        .filter(|call| !call.contains("signalfd") && !call.contains("UNIX"))
        .filter(|call| !call.starts_with("mmap(NULL") && !call.contains("MAP_ANONYMOUS"))
        .collect();
    assert!(from_elsewhere.is_empty(), "{from_elsewhere:#?}");
}

fn is_traced(running: &Running<'_>) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
}

/// A socket that every process can connect to: CVE-2017-11610 and CVE-2019-12105 of supervisord.
#[test]
fn vsrun_opens_no_socket_that_accepts_connections() {
    needs!("strace");
    let sandbox = sandbox();
    let trace = sandbox.path("trace");
    let path = path_with_logger(&sandbox, "exec cat >/dev/null");
    for output in [&["-d", "logs", "1"][..], &["-s", "tag"]] {
        let strace = sandbox
            .program("/usr/bin/strace")
            .args(["-f", "-qq", "-o"])
            .arg(&trace);
        let strace = strace.args([
            "-e",
            "trace=socketpair,bind,listen,accept,accept4,mknod,mknodat",
        ]);
        let start = strace.arg(VSRUN).env("PATH", &path).args(output);
        let start = start.pidfile("pid").manager("manager", "/bin/false");
        start.command(sandbox.probe().exit(3)).run().expect_code(3);
        let calls = sandbox.lines(&trace);
        let (channels, others): (Vec<_>, Vec<_>) = calls
            .iter()
            .filter(|it| it.contains('('))
            .partition(|it| it.contains("socketpair("));
        assert!(!channels.is_empty(), "nothing was traced");
        let others: Vec<_> = others.iter().filter(|it| !it.contains("+++")).collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}
