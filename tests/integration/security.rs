//! What SECURITY.md says of processes: who can do what to vsrun, and what a server has of its
//! caller's. SECURITY.md names the test of each of its lines, here and elsewhere.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use crate::prelude::*;

const PYTHON: &str = "/usr/bin/python3";

/// Waits for the start number `count`, told in the file `out/starts`, and returns the server of it.
#[track_caller]
fn started(sandbox: &Sandbox, count: usize) -> Process {
    let pids = wait_for(&format!("start {count} of the server"), || {
        let pids = sandbox.lines("out/starts");
        if pids.len() >= count { Ok(pids) } else { Err(pids) }
    });
    Process::of(pids[count - 1].parse().expect("an id for each start"))
}

/// What `script` prints when the server's user runs it, with `argument` as its only one.
#[track_caller]
fn told_to_nobody(sandbox: &Sandbox, script: &str, argument: &str) -> Vec<String> {
    // A session's processes may all send each other SIGCONT (see kill(2)).
    let attacker = sandbox.program("/usr/bin/setsid").run_as(NOBODY, NOBODY, &[]);
    let outcome = attacker.args(["--wait", PYTHON, "-c", script, argument]).run();
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
fn the_servers_user_can_neither_signal_nor_trace_nor_look_into_a_manager() {
    if !require_root() || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox.vsrun().user("nobody").pidfile("pid").manager("manager", CONSENT);
    let manager = start.command(sandbox.probe().append(&starts)).spawn();
    let server = started(&sandbox, 1);
    let id = manager.pid().to_string();
    assert_eq!(told_to_nobody(&sandbox, ASSAULT, &id), [] as [&str; 0]);
    assert_eq!(told_to_nobody(&sandbox, LOOK, &id), [] as [&str; 0]);
    assert!(manager.process().stat().is_some_and(|stat| stat.state == 'S'));
    // The scripts do what they are meant to: the server is its user's.
    assert_eq!(told_to_nobody(&sandbox, LOOK, &server.pid().to_string()), SEEN);
    let done = told_to_nobody(&sandbox, ASSAULT, &server.pid().to_string());
    assert_eq!(done[..2], ["signal 0", "signal 1"]);
    stop(manager);
}

#[test]
fn a_server_between_its_change_of_user_and_its_exec_shows_its_user_nothing() {
    if !require_root() || !require_program("strace") || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    sandbox.open_dir("out");
    // With a pidfile another thread of the process is root's still.
    for (way, options) in [&["-p", "pid"][..], &["-b"], &[]].into_iter().enumerate() {
        let strace = sandbox.program("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
        let strace = strace.args(["-e", "inject=execve:delay_enter=4000000"]);
        let vsrun = strace.arg(VSRUN).user("nobody").args(options);
        let report = sandbox.path(format!("out/report{way}"));
        let tracer = vsrun.command(sandbox.probe().report(&report).exit(0)).spawn();
        let thread = wait_for("what is the user's", || nobodys_thread(&sandbox));
        let seen = told_to_nobody(&sandbox, LOOK, &thread);
        assert!(!report.exists(), "it has been executed meanwhile");
        assert_eq!(seen, [] as [&str; 0], "{options:?}");
        tracer.wait().expect_code(0);
        assert_eq!(Report::wait(&report).uids, Ids::all(NOBODY));
    }
}

/// A thread of the sandbox's that is nobody's, as `PID/task/TID`.
fn nobodys_thread(sandbox: &Sandbox) -> Option<String> {
    let is_nobodys = |thread: &String| {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        Status::parse(&status).uids == Ids::all(NOBODY)
    };
    sandbox.processes().into_iter().find_map(|process| {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).ok()?.flatten();
        let names = tasks.map(|task| task.file_name().to_string_lossy().into_owned());
        let mut threads = names.map(|task| format!("{}/task/{task}", process.pid()));
        threads.find(is_nobodys)
    })
}

#[test]
fn a_manager_reads_nothing_that_its_server_writes() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox.vsrun().user("nobody").pidfile("pid").logdir("logs", "1h");
    let server = sandbox.probe().append(&starts).lines(1000);
    let manager = start.manager("manager", CONSENT).command(server).spawn();
    started(&sandbox, 1);
    let strace = sandbox.program("/usr/bin/strace").args(["-qq", "-yy", "-o", "trace"]);
    let calls = "trace=read,readv,pread64,preadv,recvfrom,recvmsg,mmap,splice,process_vm_readv";
    let tracer = strace.args(["-e", calls, "-p", &manager.pid().to_string()]).spawn();
    wait_for("the tracer", || {
        manager.process().stat().is_some_and(|stat| stat.state != 't') && is_traced(&manager)
    });
    manager.signal(SIGHUP);
    started(&sandbox, 2);
    stop(manager);
    tracer.wait();
    let trace = sandbox.lines("trace");
    let calls: Vec<_> = trace.iter().filter(|line| line.contains('(')).collect();
    assert!(calls.iter().any(|call| call.contains("signalfd")), "{calls:#?}");
    let from_elsewhere: Vec<_> = calls
        .iter()
        .filter(|call| !call.contains("signalfd") && !call.contains("UNIX"))
        .filter(|call| !call.starts_with("mmap(NULL") && !call.contains("MAP_ANONYMOUS"))
        .collect();
    assert!(from_elsewhere.is_empty(), "{from_elsewhere:#?}");
}

fn is_traced(running: &Running<'_>) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
}

#[test]
fn an_unprivileged_callers_other_ids_are_not_the_servers() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let sandbox = sandbox();
    let (vsrun, out) = (sandbox.copy_of(VSRUN, "vsrun"), sandbox.open_dir("out"));
    // As when a set-user-id program starts it.
    let words = ["--ruid=1", "--euid=65534", "--regid=65534", "--clear-groups", "--"];
    let start = sandbox.program("/usr/bin/setpriv").args(words).arg(vsrun).user("nobody");
    let report = out.join("report");
    let outcome = start.command(sandbox.probe().report(&report).exit(0)).run();
    if outcome.code() != Some(125) {
        outcome.expect_code(0);
        assert_eq!(Report::wait(report).uids, Ids::all(NOBODY));
    }
}

/// Prints what the session keyring of keyrings(7) holds that can be read.
const KEYS: &str = "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
KEYCTL, SEARCH, READ, SESSION = 250, 10, 11, -3
key = libc.syscall(KEYCTL, SEARCH, SESSION, b'user', b'vsrun-test', 0)
content = ctypes.create_string_buffer(64)
if key > 0 and libc.syscall(KEYCTL, READ, key, content, 64) > 0:
    print(content.value.decode())
";

/// Puts a key into a session keyring of its own, and executes the rest of its words.
const KEEPER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL, JOIN, SESSION = 248, 250, 1, -3
assert libc.syscall(KEYCTL, JOIN, None) > 0
assert libc.syscall(ADD_KEY, b'user', b'vsrun-test', b'precious', 8, SESSION) > 0
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
#[cfg(target_arch = "x86_64")]
fn a_server_of_another_user_cannot_read_the_keys_of_the_callers_session() {
    if !require_root() || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    let read = |words: &[&str]| {
        let keeper = sandbox.program(PYTHON).args(["-c", KEEPER]).args(words);
        let outcome = keeper.args([PYTHON, "-c", KEYS]).run();
        outcome.expect_code(0);
        outcome.stdout_text()
    };
    assert_eq!(read(&[]), "precious\n");
    for options in [&[][..], &["-p", "pid"]] {
        let vsrun = [&[VSRUN, "-u", "nobody"][..], options, &["--"]].concat();
        assert_eq!(read(&vsrun), "", "{options:?}");
    }
}

#[test]
fn what_the_caller_has_loaded_into_programs_is_loaded_into_vsrun_and_the_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let start = sandbox.vsrun().env("LD_PRELOAD", "/no/such.so").env("PATH", "relative:/bin");
    let outcome = start.command(sandbox.probe().report(&report).exit(0)).run();
    assert!(outcome.stderr_text().contains("'/no/such.so' from LD_PRELOAD"), "{outcome:?}");
    let report = Report::wait(report);
    assert!(report.env.iter().any(|variable| variable == "LD_PRELOAD=/no/such.so"));
    assert!(report.env.iter().any(|variable| variable == "PATH=relative:/bin"));
}

#[test]
fn values_of_any_bytes_and_any_size_are_passed_on_as_they_are() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let odd = std::ffi::OsStr::from_bytes(b"a\nb\x1b[2J\xff=\r\tc");
    let large = "x".repeat(120 * 1024);
    let mut start = sandbox.vsrun().env("ODD", odd);
    let names: Vec<String> = (0..8).map(|number| format!("LARGE{number}")).collect();
    for name in &names {
        start = start.env(name, &large);
    }
    start.command(sandbox.probe().report(&report).exit(0)).run().expect_code(0);
    let report = Report::wait(report);
    let variable = |name: &str| {
        report.env.iter().find_map(|it| it.as_bytes().strip_prefix(format!("{name}=").as_bytes()))
    };
    assert_eq!(variable("ODD"), Some(odd.as_bytes()));
    assert!(names.iter().all(|name| variable(name) == Some(large.as_bytes())));
}

// What is not promised.

#[test]
fn a_server_can_end_a_handler_of_the_same_user_and_so_refuse_its_own_restart() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("exec sleep 1000").create();
    let start = sandbox.vsrun().user("nobody").manager("manager", &handler);
    let manager = start.command(["/bin/sh", "-c", "exit 3"]).spawn();
    handler.wait_for_run(1);
    let running = wait_for("the handler", || manager.process().children().into_iter().next());
    let kill = sandbox.program("/bin/kill").run_as(NOBODY, NOBODY, &[]);
    kill.args(["-KILL", &running.pid().to_string()]).run().expect_code(0);
    manager.wait().expect_code(3);
}

#[test]
fn a_server_can_take_lines_out_of_the_pipe_to_logger() {
    if !require_root() || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    let (bin, out) = (sandbox.dir("bin"), sandbox.open_dir("out"));
    sandbox.executable("bin/logger", "#!/bin/sh\nexec sleep 1000\n");
    let script = "import os, sys
line = os.read(os.open('/dev/stdout', os.O_RDONLY), 4096)
with open(sys.argv[1] + '.new', 'wb') as out:
    out.write(line)
os.rename(sys.argv[1] + '.new', sys.argv[1])
";
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let start = sandbox.vsrun().env("PATH", path).user("nobody").syslog("tag");
    let taken = out.join("taken");
    let words = [PYTHON, "-c", script, taken.to_str().expect("a plain path")];
    let _manager = start.manager("manager", CONSENT).command(words).spawn();
    wait_for("a line", || taken.exists());
    let taken = fs::read_to_string(taken).expect("a line");
    assert!(taken.starts_with("vsrun: started server "), "{taken}");
}

/// A directory that only root may enter, with one in it that everybody could.
fn closed(sandbox: &Sandbox) -> std::path::PathBuf {
    let closed = sandbox.dir("closed");
    sandbox.dir("closed/open");
    sandbox.file("closed/open/file", "precious\n");
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("a mode");
    closed.join("open")
}

#[test]
fn through_the_callers_directory_a_server_reaches_what_its_path_would_not_let_it() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let open = closed(&sandbox);
    let cat = |file: &Path| ["/bin/cat".into(), file.to_owned()];
    let start = || sandbox.vsrun().user("nobody").current_dir(&open);
    let whole = start().command(cat(&open.join("file"))).run();
    assert!(whole.stderr_text().contains("Permission denied"), "{whole:?}");
    assert_eq!(start().command(cat(Path::new("file"))).run().stdout_text(), "precious\n");
    let elsewhere = start().work_dir("/").command(cat(Path::new("file"))).run();
    assert_eq!(elsewhere.stdout_text(), "");
}

#[test]
fn a_link_in_the_place_of_a_work_dir_or_root_is_followed_with_roots_permissions() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let open = closed(&sandbox);
    sandbox.dir_of("home", NOBODY, NOBODY);
    let link = sandbox.link("home/work", &open);
    lchown(&link, Some(NOBODY), Some(NOBODY)).expect("root may give a link away");
    let start = || sandbox.vsrun().user("nobody");
    let shown = start().work_dir(&link).command(["/bin/cat", "file"]).run();
    assert_eq!(shown.stdout_text(), "precious\n");
    sandbox.root("closed/open/root");
    let root = sandbox.link("home/root", open.join("root"));
    lchown(&root, Some(NOBODY), Some(NOBODY)).expect("root may give a link away");
    let server = Probe::at("/bin/probe").report("/tmp/report").exit(0);
    start().root(&root).command(server).run().expect_code(0);
    assert!(open.join("root/tmp/report").exists());
}

#[test]
fn a_link_in_the_place_of_the_callers_directory_is_not_followed() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let open = closed(&sandbox);
    sandbox.dir_of("home", NOBODY, NOBODY);
    let work = sandbox.dir_of("home/work", NOBODY, NOBODY);
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox.vsrun().user("nobody").manager(sandbox.path("manager"), CONSENT);
    let server = sandbox.probe().append(&starts);
    let manager = start.current_dir(&work).command(server).spawn();
    assert_eq!(started(&sandbox, 1).cwd().as_ref(), Some(&work));
    fs::rename(&work, sandbox.path("home/moved")).expect("its owner may move it");
    let link = sandbox.link("home/work", &open);
    lchown(&link, Some(NOBODY), Some(NOBODY)).expect("root may give a link away");
    manager.signal(SIGHUP);
    assert_eq!(started(&sandbox, 2).cwd().as_deref(), Some(Path::new("/")));
    stop(manager);
}

#[test]
fn a_root_confines_no_server_of_roots() {
    if !require_root() || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    let (jail, deeper) = (sandbox.dir("jail"), sandbox.dir("deeper"));
    let escape = "import os, sys
before = os.path.exists('/proc/self')
os.chroot(sys.argv[1])
for _ in range(100):
    os.chdir('..')
os.chroot('.')
print(before, os.path.exists('/proc/self'))
";
    let words = [PYTHON, "-c", escape, deeper.to_str().expect("a plain path")];
    // What lies under the root is the machine's own, except what is mounted there.
    let start = || sandbox.vsrun().bind("/", &jail).root(&jail);
    let escaped = start().command(words).run();
    assert_eq!(escaped.stdout_text(), "False True\n", "{escaped:?}");
    let kept = start().user("nobody").command(words).run();
    assert!(kept.stderr_text().contains("Operation not permitted"), "{kept:?}");
}
