//! What went wrong with users, privilege and what a server inherits in programs of the same trade,
//! tried on vsrun. Each test names its advisories; docs/advisories.md has them all, also those that
//! other tests answer.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;

use crate::prelude::*;

const FOO: &str = "../x:x:5000:5001::/home/x:/bin/sh";

/// Privilege is a matter of capabilities, not of uid 0: issue 88716 of Rust's standard library,
/// which drops the groups only if the caller's uid is 0.
#[test]
fn a_caller_who_may_change_ids_without_being_root_leaves_no_group_of_his() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let sandbox = sandbox();
    let (vsrun, out) = (sandbox.copy_of(VSRUN, "vsrun"), sandbox.open_dir("out"));
    let words = [
        "--reuid=1",
        "--regid=1",
        "--groups=4,27",
        "--inh-caps=+setuid,+setgid",
        "--ambient-caps=+setuid,+setgid",
        "--",
    ];
    let start = sandbox.program("/usr/bin/setpriv").args(words).arg(vsrun).user("nobody");
    let server = sandbox.probe().report(out.join("report")).exit(0);
    start.command(server).run().expect_code(0);
    let report = Report::wait(out.join("report"));
    assert_eq!((report.uids, report.gids), (Ids::all(NOBODY), Ids::all(NOBODY)));
    assert_eq!(report.groups, [NOBODY]);
    let sets = report.capabilities.expect("a /proc");
    assert_eq!((sets.permitted, sets.effective, sets.inheritable, sets.ambient), (0, 0, 0, 0));
}

/// A server that tries to type into its caller's terminal, by whatever of it is open, and says for
/// each way whether that worked.
fn typist(out: &Path) -> [OsString; 4] {
    let script = format!(
        "import fcntl, os, sys
said = []
def attempt(fd):
    try:
        fcntl.ioctl(fd, {}, b'x')
        said.append('typed')
    except OSError as error:
        said.append(error.strerror)
for fd in (0, 1, 2):
    attempt(fd)
try:
    attempt(os.open('/dev/tty', os.O_RDWR))
except OSError as error:
    said.append(error.strerror)
with open(sys.argv[1] + '.new', 'w') as out:
    out.write('\\n'.join(said) + '\\n')
os.rename(sys.argv[1] + '.new', sys.argv[1])
",
        libc::TIOCSTI
    );
    ["/usr/bin/python3".into(), "-c".into(), script.into(), out.into()]
}

/// Commands typed into the administrator's shell: CVE-2005-4890 of sudo, CVE-2016-2568 of pkexec,
/// CVE-2016-2779 of runuser.
#[test]
fn a_server_in_the_background_or_managed_cannot_type_into_the_callers_terminal() {
    if !require_root() || !require_program("script") || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    let out = sandbox.open_dir("out");
    let attempt = |name: &str, options: &[&str]| {
        let told = out.join(name);
        // script(1) hangs up when its program ends, and the attempt must not come after that.
        let wait = "\"$@\"; until test -e \"$told\"; do sleep 0.02; done";
        let words = ["-u", "nobody"].iter().chain(options).map(OsString::from);
        let words = words.chain(["--".into()]).chain(typist(&told));
        let quoted =
            words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")));
        let vsrun = VSRUN;
        let line = format!(
            "told='{}' exec sh -c '{}' sh '{vsrun}' {}",
            told.display(),
            wait.replace('\'', "'\\''"),
            quoted.collect::<Vec<_>>().join(" ")
        );
        let script = sandbox.program("/usr/bin/script").env("SHELL", "/bin/sh");
        script.args(["-qec", &line, "/dev/null"]).run().expect_code(0);
        sandbox.lines(&told)
    };
    let monitor = sandbox.path("manager");
    let manager = ["-m", monitor.to_str().expect("a plain path"), CONSENT];
    let refused = "Operation not permitted";
    for (name, options) in
        [("b", &["-b"][..]), ("m", &manager), ("bm", &[&["-b"], &manager[..]].concat())]
    {
        let said = attempt(name, options);
        assert_eq!(said[1..3], [refused; 2], "{options:?}: {said:?}");
        assert_eq!(said[3], "No such device or address", "{options:?}: {said:?}");
        assert!(!said.iter().any(|line| line == "typed"), "{options:?}: {said:?}");
    }
    // That it is the session which keeps it from typing is seen where it may.
    let allowed = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    if allowed.is_ok_and(|it| it.trim() == "1") {
        assert_eq!(attempt("foreground", &[])[3], "typed");
    }
}

/// A user's name in a path: CVE-2023-42456 of sudo-rs.
#[test]
fn no_path_is_made_of_a_users_name() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (out, trace) = (sandbox.open_dir("out"), sandbox.path("trace"));
    let strace = sandbox.program("/usr/bin/strace").with_passwd(&[FOO], &["bar:x:5002:../x"]);
    let strace = strace.args(["-f", "-qq", "-e", "trace=%file", "-e", "trace=!execve", "-o"]);
    let start = strace.arg(&trace).arg(VSRUN).user("../x");
    let start = start.pidfile("pid").manager("manager", "/bin/false").logdir("logs", "1");
    let server = sandbox.probe().report(out.join("report")).exit(3);
    start.command(server).run().expect_code(3);
    let report = Report::wait(out.join("report"));
    assert_eq!((report.uids, report.groups), (Ids::all(5000), vec![5001, 5002]));
    let calls = sandbox.lines(&trace);
    assert!(calls.iter().any(|call| call.contains("\"manager.lock\"")), "{calls:#?}");
    let odd: Vec<_> = calls.iter().filter(|call| call.contains("../x")).collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

/// A program's name that looks like fields of /proc/PID/stat: CVE-2017-1000367 of sudo; and one
/// that looks like a line of the log: CVE-2023-28486 of sudo.
#[test]
fn a_server_may_be_called_like_fields_of_proc_and_a_line_of_its_own() {
    let sandbox = sandbox();
    let name = "a) R 1 (b\n";
    let original = sandbox.probe().words()[0].clone();
    let program = sandbox.copy_of(original, name);
    let handler = sandbox.handler("handler").create();
    let start = sandbox.vsrun().pidfile("pid").logdir("logs", "1").manager("manager", &handler);
    let server = Probe::at(&program).append(sandbox.path("starts"));
    let manager = start.command(server).spawn();
    let first = started(&sandbox, 1);
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/comm", first.pid())).ok(),
        Some(format!("{name}\n"))
    );
    assert_eq!(manager.process().children(), [first]);
    sandbox.signal(first, SIGKILL);
    let told = handler.wait_for_run(1);
    assert_eq!(told.env("VSRUN_SERVER_PID"), Some(OsStr::new(&first.pid().to_string())));
    let command = told.env("VSRUN_SERVER_COMMAND").expect("a command");
    assert!(command.as_bytes().windows(name.len()).any(|part| part == name.as_bytes()));
    let second = started(&sandbox, 2);
    manager.signal(SIGHUP);
    let third = started(&sandbox, 3);
    assert!(!second.exists());
    assert_eq!(sandbox.read_pidfile(sandbox.path("pid")), Some(third.pid()));
    let own = format!(" vsrun[{}]: ", manager.pid());
    stop(manager);
    assert!(!third.exists());
    let log = LogDirectory::at(sandbox.path("logs")).vsrun();
    assert!(log.lines().all(|line| line.contains(&own)), "{log}");
    assert!(log.contains(r"a) R 1 (b\n"), "{log}");
}

/// Something of the parent's that stays open: CVE-2024-21626 and CVE-2019-5736 of runc.
#[test]
fn whatever_the_options_open_is_closed_in_the_server_and_in_the_handler() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.root("jail");
    let handler = sandbox.handler("handler").exits(1).create();
    let managed = sandbox.vsrun().manager("manager", &handler);
    let ways = [sandbox.vsrun(), sandbox.vsrun().background(), managed];
    for (way, start) in ways.into_iter().enumerate() {
        let report = format!("/tmp/report{way}");
        let server = Probe::at("/bin/probe").report(&report).exit(u8::from(way == 2));
        let start = start.user("nobody").root("jail").pidfile("pid").logdir("logs", "1");
        let start = start.inheriting(3, File::open("/").expect("a directory"));
        start.command(server).run().expect_code(i32::from(way == 2));
        let seen = Report::wait(sandbox.path(format!("jail{report}")));
        assert_eq!(seen.fd_numbers(), [0, 1, 2]);
    }
    let fds = handler.wait_for_run(1).fds;
    let log = sandbox.path("logs/vsrun.log");
    assert_eq!(fds.into_values().collect::<Vec<_>>(), [Path::new("/dev/null"), &log, &log]);
}

/// A process that has become the user's and still holds what was root's: CVE-2019-5736 of runc, and
/// the `PR_SET_DUMPABLE` of prctl(2).
#[test]
fn between_the_change_of_user_and_the_exec_nobody_but_root_can_look_into_the_child() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox.vsrun().user("nobody").pidfile("pid").manager("manager", CONSENT);
    let manager = start.command(sandbox.probe().append(&starts)).spawn();
    wait_for("the server", || sandbox.lines(&starts).len() == 1);
    let strace = sandbox.program("/usr/bin/strace").args(["-f", "-o", "/dev/null", "-p"]);
    let strace = strace.arg(manager.pid().to_string());
    let tracer = strace.args(["-e", "inject=execve:delay_enter=3000000"]).spawn();
    wait_for("strace to be attached", || tracer.stderr().contains("attached"));
    manager.signal(SIGHUP);
    let owner = wait_for("the child that is the user's", || {
        let children = manager.process().children().into_iter();
        let mut children = children.filter(|it| it.exe() == manager.process().exe());
        let child =
            children.find(|it| it.status().is_some_and(|it| it.uids == Ids::all(NOBODY)))?;
        // The kernel gives what may not be traced to root (proc(5)).
        let owner = fs::metadata(format!("/proc/{}/fd", child.pid())).ok()?.uid();
        (child.exe() == manager.process().exe()).then_some(owner)
    });
    assert_eq!(owner, 0);
    wait_for("the server", || sandbox.lines(&starts).len() == 2);
    stop(manager);
    tracer.wait();
}

/// A way in for whoever can reach it: CVE-2017-11610 and CVE-2019-12105 of supervisord.
#[test]
fn vsrun_opens_nothing_that_anybody_could_connect_to() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("bin");
    sandbox.executable("bin/logger", "#!/bin/sh\nexec cat >/dev/null\n");
    let (trace, path) = (sandbox.path("trace"), sandbox.path("bin"));
    let path = format!("{}:/usr/bin:/bin", path.display());
    for output in [&["-d", "logs", "1"][..], &["-s", "tag"]] {
        let strace = sandbox.program("/usr/bin/strace").args(["-f", "-qq", "-o"]).arg(&trace);
        let strace =
            strace.args(["-e", "trace=socketpair,bind,listen,accept,accept4,mknod,mknodat"]);
        let start = strace.arg(VSRUN).env("PATH", &path).args(output);
        let start = start.pidfile("pid").manager("manager", "/bin/false");
        start.command(sandbox.probe().exit(3)).run().expect_code(3);
        let calls = sandbox.lines(&trace);
        let (channels, others): (Vec<_>, Vec<_>) =
            calls.iter().filter(|it| it.contains('(')).partition(|it| it.contains("socketpair("));
        assert!(!channels.is_empty(), "nothing was traced");
        let others: Vec<_> = others.iter().filter(|it| !it.contains("+++")).collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}
