//! Sessions, terminals, parents and children.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::libc;

use crate::prelude::*;

#[test]
fn in_the_foreground_the_session_group_and_terminal_stay_the_callers() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report);
    let running = sandbox.vsrun().terminal().command(server).spawn();
    let report = Report::wait(&report);
    assert!(report.terminal);
    assert_eq!((report.sid, report.pgid), (running.pid(), running.pid()));
}

#[test]
fn the_interrupt_key_reaches_the_server_in_the_foreground() {
    for (key, signal) in [(b"\x03", SIGINT), (b"\x1c", SIGQUIT)] {
        let sandbox = sandbox();
        let report = sandbox.path("report");
        let server = sandbox.probe().report(&report);
        let mut running = sandbox.vsrun().terminal().command(server).spawn();
        Report::wait(&report);
        running.type_keys(key);
        assert_eq!(running.wait().signal(), Some(signal));
    }
}

#[test]
fn the_interrupt_key_stops_a_manager_in_the_foreground() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let log = sandbox.path("signals");
    let server = sandbox.probe().log_signals(&log).on_term(OnTerm::Exit(3));
    let start = sandbox
        .vsrun()
        .terminal()
        .manager(sandbox.path("manager"), &handler);
    let mut running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.type_keys(b"\x03");
    running.wait().expect_code(0);
    // The key does not reach the server.
    assert_eq!(sandbox.lines("signals"), ["READY", "TERM"]);
    assert!(handler.runs().is_empty());
}

#[test]
fn the_suspend_key_does_not_stop_a_manager() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox
        .vsrun()
        .terminal()
        .manager(sandbox.path("manager"), &handler);
    let mut running = start.command(server).spawn();
    started(&sandbox, 1);
    running.type_keys(b"\x1a");
    running.signal(SIGTSTP);
    stop(running);
}

#[test]
fn under_a_manager_the_server_has_a_session_of_its_own_and_no_terminal() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report);
    let start = sandbox
        .vsrun()
        .terminal()
        .manager(sandbox.path("manager"), &handler);
    let _running = start.command(server).spawn();
    let report = Report::wait(&report);
    assert!(!report.terminal);
    assert_eq!((report.sid, report.pgid), (report.pid, report.pid));
}

#[test]
fn in_the_background_there_is_no_terminal_and_none_to_be_had() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for managed in [false, true] {
        let report = sandbox.path(format!("report-{managed}"));
        let server = sandbox.probe().report(&report);
        let start = sandbox.vsrun().terminal().background();
        let start = match managed {
            true => start.manager(sandbox.path("manager"), &handler),
            false => start,
        };
        let running = start.command(server).spawn();
        let caller = running.pid();
        running.wait().expect_code(0);
        let report = Report::wait(&report);
        assert!(!report.terminal);
        assert!(![report.sid, report.pgid].contains(&caller));
        if managed {
            let manager = sandbox.wait_for_pidfile(sandbox.path("manager"));
            let stat = manager.stat().expect("a manager");
            assert_eq!(stat.tty, 0);
            assert!(
                ![manager.pid(), caller].contains(&stat.sid),
                "a leader can get a terminal"
            );
        } else {
            assert_ne!(report.sid, report.pid, "a leader can get a terminal");
        }
    }
}

#[test]
fn a_server_that_its_manager_starts_is_the_managers_child() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let report = sandbox.path("report");
    let start = sandbox.vsrun().manager(sandbox.path("manager"), &handler);
    let running = start.command(sandbox.probe().report(&report)).spawn();
    let report = Report::wait(&report);
    assert_eq!(report.ppid, running.pid());
    wait_for("the manager to be at rest", || {
        running.process().children().len() == 1
    });
}

/// A server that tries to type into its caller's terminal by each descriptor and by `/dev/tty`, and
/// reports each result.
fn typist(out: &Path) -> [OsString; 4] {
    let script = format!(
        "import fcntl, os, sys
results = []
def attempt(fd):
    try:
        fcntl.ioctl(fd, {}, b'x')
        results.append('typed')
    except OSError as error:
        results.append(error.strerror)
for fd in (0, 1, 2):
    attempt(fd)
try:
    attempt(os.open('/dev/tty', os.O_RDWR))
except OSError as error:
    results.append(error.strerror)
with open(sys.argv[1] + '.new', 'w') as out:
    out.write('\\n'.join(results) + '\\n')
os.rename(sys.argv[1] + '.new', sys.argv[1])
",
        libc::TIOCSTI
    );
    [
        "/usr/bin/python3".into(),
        "-c".into(),
        script.into(),
        out.into(),
    ]
}

/// Commands typed into the administrator's shell: CVE-2005-4890 of sudo, CVE-2016-2568 of pkexec,
/// CVE-2016-2779 of runuser.
#[test]
fn a_server_in_the_background_or_managed_cannot_type_into_the_callers_terminal() {
    needs!(root, "script", "python3");
    let sandbox = sandbox();
    let out = sandbox.open_dir("out");
    let attempt = |name: &str, options: &[&str]| {
        let results = out.join(name);
        // script(1) hangs up when its program ends, and the attempt must not come after that.
        let wait = "\"$@\"; until test -e \"$results\"; do sleep 0.02; done";
        let words = ["-u", "nobody"].iter().chain(options).map(OsString::from);
        let words = words.chain(["--".into()]).chain(typist(&results));
        let quoted =
            words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")));
        let vsrun = VSRUN;
        let line = format!(
            "results='{}' exec sh -c '{}' sh '{vsrun}' {}",
            results.display(),
            wait.replace('\'', "'\\''"),
            quoted.collect::<Vec<_>>().join(" ")
        );
        let script = sandbox.program("/usr/bin/script").env("SHELL", "/bin/sh");
        script
            .args(["-qec", &line, "/dev/null"])
            .run()
            .expect_code(0);
        sandbox.lines(&results)
    };
    let monitor = sandbox.path("manager");
    let manager = ["-m", monitor.to_str().expect("a plain path"), CONSENT];
    let refused = "Operation not permitted";
    for (name, options) in [
        ("b", &["-b"][..]),
        ("m", &manager),
        ("bm", &[&["-b"], &manager[..]].concat()),
    ] {
        let results = attempt(name, options);
        assert_eq!(results[1..3], [refused; 2], "{options:?}: {results:?}");
        assert_eq!(
            results[3], "No such device or address",
            "{options:?}: {results:?}"
        );
        assert!(
            !results.iter().any(|line| line == "typed"),
            "{options:?}: {results:?}"
        );
    }
    // In the foreground, where the kernel permits it, the same server can type.
    let allowed = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    if allowed.is_ok_and(|it| it.trim() == "1") {
        assert_eq!(attempt("foreground", &[])[3], "typed");
    }
}

#[test]
fn as_process_1_without_a_manager_the_server_has_no_unexpected_child() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let old = sandbox.file("logs/logfile.1", "old");
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    File::open(&old)
        .and_then(|file| file.set_modified(long_ago))
        .expect("a time");
    let server = sandbox.probe().until(sandbox.path("end")).exit(0);
    let running = sandbox
        .vsrun()
        .pid_namespace()
        .logdir(&logs, "1d")
        .command(server)
        .spawn();
    wait_for("the deletion of the old log", || !old.exists());
    assert!(running.process().children().is_empty());
    sandbox.file("end", "");
    running.wait().expect_code(0);
}
