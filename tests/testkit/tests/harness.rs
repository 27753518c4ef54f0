//! The harness itself, tried on programs whose behaviour is known.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use testkit::signal::{SIGCHLD, SIGKILL, SIGPIPE, SIGRTMIN, SIGSEGV, SIGTERM, SIGUSR1};
use testkit::{
    Ids, LogDirectory, OnTerm, Probe, Process, Report, Resource, Sandbox, holds_for, needs,
    wait_for,
};

const NOBODY: u32 = 65534;

fn sandbox() -> Sandbox {
    // No test here runs vsrun.
    Sandbox::new("/usr/bin/env")
}

/// Runs the probe itself in the place of vsrun.
fn direct(sandbox: &Sandbox, probe: Probe) -> testkit::Invocation<'_> {
    let mut words = probe.into_iter();
    sandbox
        .program(words.next().expect("the program"))
        .args(words)
}

#[test]
fn the_probe_reports_an_ordinary_start() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let pidfile = sandbox.file("pidfile", "123\n");
    let probe = sandbox
        .probe()
        .report(&report)
        .pidfile(&pidfile)
        .exit(7)
        .carrying(["a\n b", ""]);
    direct(&sandbox, probe)
        .env("NAME", "a=b")
        .run()
        .expect_code(7);
    let report = Report::read(&report).expect("a report");
    assert_eq!(report.fd_numbers(), [0, 1, 2]);
    assert_eq!(report.fds[&0].to_str(), Some("/dev/null"));
    assert_eq!(report.cwd.as_deref(), Some(sandbox.directory()));
    assert_eq!(report.env("NAME"), Some("a=b".as_ref()));
    assert_eq!(report.args[report.args.len() - 2..], ["a\n b", ""]);
    assert!(report.blocked.is_empty() && report.ignored.is_empty());
    assert_eq!((report.umask, report.terminal), (0o022, false));
    assert_eq!(report.pidfile, Some("123\n".into()));
}

#[test]
fn the_probe_writes_what_it_is_told_and_dies_by_any_signal() {
    let sandbox = sandbox();
    for signal in [SIGSEGV, SIGKILL, SIGTERM, SIGRTMIN(), SIGRTMIN() + 3] {
        let probe = sandbox.probe().out("out").err("err").lines(2).kill(signal);
        let outcome = direct(&sandbox, probe).run();
        assert_eq!(outcome.signal(), Some(signal));
        assert_eq!(
            (outcome.stdout_text(), outcome.stderr_text()),
            ("out\nline 1\nline 2\n".into(), "err\n".into())
        );
    }
}

#[test]
fn the_probe_logs_signals_and_does_on_term_as_told() {
    let sandbox = sandbox();
    let log = sandbox.path("signals");
    let cases = [
        (OnTerm::Exit(9), 9),
        (OnTerm::Slow(Duration::from_millis(20)), 0),
    ];
    for (behaviour, code) in cases {
        fs::remove_file(&log).ok();
        let probe = sandbox.probe().log_signals(&log).on_term(behaviour);
        let running = direct(&sandbox, probe).spawn();
        wait_for("the signals to be handled", || {
            sandbox.lines("signals") == ["READY"]
        });
        running.signal(SIGUSR1);
        wait_for("the signal", || {
            sandbox.lines("signals") == ["READY", "USR1"]
        });
        running.signal(SIGTERM);
        running.wait().expect_code(code);
        assert_eq!(sandbox.lines("signals"), ["READY", "USR1", "TERM"]);
    }
}

#[test]
fn the_probe_stays_until_a_file_exists_though_it_is_asked_to_stop() {
    let sandbox = sandbox();
    let (starts, end) = (sandbox.path("starts"), sandbox.path("end"));
    let probe = sandbox
        .probe()
        .append(&starts)
        .on_term(OnTerm::Ignore)
        .until(&end)
        .exit(5);
    let running = direct(&sandbox, probe).spawn();
    wait_for("the start", || sandbox.lines("starts").len() == 1);
    running.signal(SIGTERM);
    holds_for("alive", Duration::from_millis(100), || {
        running.process().exists()
    });
    sandbox.file("end", "");
    running.wait().expect_code(5);
}

#[test]
fn the_probe_comes_to_its_end_in_its_first_starts_only() {
    let sandbox = sandbox();
    let starts = sandbox.path("starts");
    let probe = sandbox.probe().append(&starts).only_first(2).exit(3);
    direct(&sandbox, probe.clone()).run().expect_code(3);
    direct(&sandbox, probe.clone()).run().expect_code(3);
    let third = direct(&sandbox, probe).spawn();
    wait_for("the third start", || sandbox.lines("starts").len() == 3);
    third.signal(SIGTERM);
    assert_eq!(third.wait().signal(), Some(SIGTERM));
}

#[test]
fn surroundings_reach_the_program() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let file = File::open("/etc/passwd").expect("a file");
    direct(&sandbox, sandbox.probe().report(&report).exit(0))
        .ignoring([SIGPIPE, SIGCHLD, 32, 50])
        .blocking_all_signals()
        .closed([0, 2])
        .inheriting(77, file)
        .limit(Resource::RLIMIT_NOFILE, 90, 100)
        .umask(0o027)
        .env_clear()
        .run()
        .expect_code(0);
    let report = Report::wait(&report);
    assert_eq!(report.fd_numbers(), [1, 77]);
    assert_eq!(report.fds[&77].to_str(), Some("/etc/passwd"));
    assert_eq!(
        report.ignored.numbers().collect::<Vec<_>>(),
        [SIGPIPE, SIGCHLD, 32, 50]
    );
    assert!(report.blocked.contains(SIGTERM) && !report.blocked.contains(SIGKILL));
    assert_eq!((report.umask, report.limits["nofile"]), (0o027, (90, 100)));
    assert_eq!(report.env.len(), 1);
}

#[test]
fn a_program_runs_as_another_user() {
    needs!(root);
    let sandbox = sandbox();
    let report = sandbox.open_dir("out").join("report");
    direct(&sandbox, sandbox.probe().report(&report).exit(0))
        .run_as(NOBODY, 7, &[4, 27])
        .run()
        .expect_code(0);
    let report = Report::wait(&report);
    assert_eq!((report.uids, report.gids), (Ids::all(NOBODY), Ids::all(7)));
    assert_eq!(report.groups, [4, 27]);
    assert_eq!(report.capabilities.map(|sets| sets.effective), Some(0));
}

#[test]
fn a_user_namespace_has_a_root_of_its_own() {
    needs!(root);
    let sandbox = sandbox();
    let report = sandbox.open_dir("out").join("report");
    for someone in [0, NOBODY] {
        fs::remove_file(&report).ok();
        direct(&sandbox, sandbox.probe().report(&report).exit(0))
            .run_as(someone, someone, &[])
            .user_namespace()
            .run()
            .expect_code(0);
        assert_eq!(Report::wait(&report).uids, Ids::all(0));
    }
}

#[test]
fn a_program_is_process_1_of_a_pid_namespace_and_gets_the_signals() {
    needs!(root);
    let sandbox = sandbox();
    let (report, log) = (sandbox.path("report"), sandbox.path("signals"));
    let probe = sandbox
        .probe()
        .report(&report)
        .log_signals(&log)
        .on_term(OnTerm::Exit(4));
    let running = direct(&sandbox, probe).pid_namespace().spawn();
    wait_for("the signals to be handled", || {
        sandbox.lines("signals") == ["READY"]
    });
    assert_eq!(Report::wait(&report).pid, 1);
    running.signal(SIGTERM);
    running.wait().expect_code(4);
}

#[test]
fn added_users_and_mounts_exist_for_the_program_only() {
    needs!(root);
    let sandbox = sandbox();
    let full = sandbox.dir("full");
    let script = "id -nu foo; id -nG foo; touch full/a; touch .b || echo read-only";
    let outcome = sandbox
        .program("/bin/sh")
        .args(["-c", script])
        .with_passwd(
            &["foo:x:5000:5001::/:/bin/sh"],
            &["foo:x:5001:", "bar:x:5002:foo"],
        )
        .read_only(sandbox.directory())
        .tmpfs(&full, "size=64k")
        .run();
    assert_eq!(outcome.stdout_text(), "foo\nfoo bar\nread-only\n");
    assert!(!full.join("a").exists());
    assert!(
        !fs::read_to_string("/etc/passwd")
            .expect("a file")
            .contains("foo:x:5000")
    );
}

#[test]
fn the_probe_runs_in_a_bare_root() {
    needs!(root);
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    let probe = Probe::at("/bin/probe").report("/tmp/report").exit(0);
    sandbox
        .program("/usr/sbin/chroot")
        .arg(&root)
        .args(probe)
        .run()
        .expect_code(0);
    let report = Report::read(root.join("tmp/report")).expect("a report");
    assert_eq!(report.cwd.as_deref(), Some("/".as_ref()));
    assert_eq!(report.fds[&0].to_str(), Some("/dev/null"));
    assert_eq!(
        (report.fd_numbers(), report.capabilities),
        (vec![0, 1, 2], None)
    );
}

#[test]
fn keys_reach_the_program_on_a_terminal() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let mut running = direct(&sandbox, sandbox.probe().report(&report))
        .terminal()
        .spawn();
    assert!(Report::wait(&report).terminal);
    assert_ne!(running.process().stat().map(|stat| stat.tty), Some(0));
    running.type_keys(b"\x03");
    assert_eq!(running.wait().signal(), Some(testkit::signal::SIGINT));
}

#[test]
fn an_empty_argument_vector_is_passed_on() {
    let sandbox = sandbox();
    // Linux puts one empty word into an empty vector.
    let outcome = sandbox
        .program("/bin/dash")
        .stdin(script_file(&sandbox))
        .without_argv()
        .run();
    assert_eq!(outcome.stdout_text(), "<> 0\n");
}

fn script_file(sandbox: &Sandbox) -> File {
    File::open(sandbox.file("script", "echo \"<$0> $#\"\n")).expect("a file")
}

#[test]
fn a_handler_records_each_run() {
    let sandbox = sandbox();
    let handler = sandbox
        .handler("handler")
        .exits(3)
        .line("echo handled")
        .create();
    let run = |value: &str| sandbox.program(handler.path()).env("NAME", value).run();
    let outcome = run("one\ntwo");
    outcome.expect_code(3);
    assert_eq!(outcome.stdout_text(), "handled\n");
    handler.set_exit(0);
    run("b").expect_code(0);
    assert_eq!(handler.runs().len(), 2);
    let first = &handler.runs()[0];
    assert_eq!(
        first.env("NAME").map(|value| value.as_bytes()),
        Some(&b"one\ntwo"[..])
    );
    assert_eq!(first.fds.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    assert_eq!(first.fds[&0].to_str(), Some("/dev/null"));
    assert_eq!(first.cwd, sandbox.directory());
    assert!(first.args.is_empty());
    assert_eq!(first.status.ignored, testkit::SignalSet(0));
    assert_eq!(handler.wait_for_run(2).env("NAME"), Some("b".as_ref()));
}

#[test]
fn everything_that_was_started_ends_with_the_sandbox() {
    let sandbox = sandbox();
    let directory = sandbox.directory().to_owned();
    let starts = sandbox.path("starts");
    let probe = || sandbox.probe().append(&starts);
    let daemon = probe()
        .with_child()
        .with_session_child()
        .daemonizing()
        .on_term(OnTerm::Ignore);
    direct(&sandbox, daemon).run().expect_code(0);
    // A process without marker and directory, known by its program only.
    direct(&sandbox, probe().daemonizing())
        .env_remove("VSTEST_SANDBOX")
        .current_dir("/")
        .stdout(File::create("/dev/null").expect("a file"))
        .stderr(File::create("/dev/null").expect("a file"))
        .run()
        .expect_code(0);
    wait_for("two daemons and two children", || {
        sandbox.processes().len() == 4
    });
    let processes = sandbox.processes();
    drop(sandbox);
    assert!(!processes.into_iter().any(Process::exists));
    assert!(!directory.exists());
}

#[test]
fn a_panic_ends_everything_too() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let test = std::thread::spawn(move || {
        let sandbox = sandbox();
        let running = direct(&sandbox, sandbox.probe()).spawn();
        sender
            .send((running.process(), sandbox.directory().to_owned()))
            .expect("a listener");
        panic!("as a failing test does");
    });
    let (process, directory) = receiver.recv().expect("a process");
    assert!(test.join().is_err());
    assert!(!process.exists() && !directory.exists());
}

#[test]
#[should_panic(expected = "still running after 50ms")]
fn a_run_that_does_not_end_in_time_is_told() {
    let sandbox = sandbox();
    direct(&sandbox, sandbox.probe())
        .deadline(Duration::from_millis(50))
        .run();
}

#[test]
#[should_panic(expected = "is not of this test")]
fn a_stranger_is_never_signalled() {
    let sandbox = sandbox();
    sandbox.signal(Process::of(1), SIGTERM);
}

#[test]
fn a_pidfile_is_read_once_its_process_runs() {
    let sandbox = sandbox();
    let running = direct(&sandbox, sandbox.probe()).spawn();
    assert_eq!(sandbox.read_pidfile(sandbox.path("pidfile")), None);
    let pidfile = sandbox.file("pidfile", format!("{}\n", running.pid()));
    let process = sandbox.wait_for_pidfile(pidfile);
    sandbox.signal(process, SIGKILL);
    assert_eq!(running.wait().signal(), Some(SIGKILL));
}

#[test]
#[should_panic(expected = "not an id and a newline")]
fn a_pidfile_without_its_newline_is_never_accepted() {
    let sandbox = sandbox();
    let pidfile = sandbox.file("pidfile", "123");
    sandbox.read_pidfile(pidfile);
}

#[test]
fn a_log_directory_is_read() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.dir("logs"));
    sandbox.file("logs/logfile", "a\n");
    sandbox.file("logs/logfile.1", "b\n");
    assert_eq!(logs.names(), ["logfile", "logfile.1"]);
    assert_eq!(
        (logs.server(), logs.vsrun()),
        ("a\n".to_owned(), String::new())
    );
    assert_eq!(logs.read("logfile.1"), b"b\n");
}
