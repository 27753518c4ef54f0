//! What a server is started with: descriptors, signals, input, environment,
//! session and terminal (spec 1.3).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::prelude::*;

fn open(path: impl AsRef<Path>) -> OwnedFd {
    File::open(path).expect("a file").into()
}

/// Starts a server in each of the four ways, `with` whatever, and returns what each one saw.
fn in_every_way(with: impl Fn(Invocation<'_>) -> Invocation<'_>) -> [Report; 4] {
    [(false, false), (true, false), (false, true), (true, true)].map(|(background, managed)| {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let report = sandbox.path("report");
        let mut start = with(sandbox.vsrun());
        if background {
            start = start.background();
        }
        if managed {
            start = start.manager(sandbox.path("manager"), &handler);
        }
        let server = sandbox.probe().report(&report).exit(0);
        start.command(server).run().expect_code(0);
        Report::wait(&report)
    })
}

#[test]
fn standard_input_is_the_null_device_whatever_the_caller_had() {
    for report in in_every_way(|start| start.stdin(File::open("/etc/passwd").expect("a file"))) {
        assert_eq!(report.fds[&0], Path::new("/dev/null"));
    }
}

#[test]
fn every_inherited_descriptor_above_2_is_closed_in_the_server() {
    let reports = in_every_way(|start| {
        let numbers = (3..10).chain([33, 255, 256, 900]);
        numbers.fold(start, |start, number| start.inheriting(number, open("/etc/passwd")))
    });
    for report in reports {
        assert_eq!(report.fd_numbers(), [0, 1, 2]);
    }
}

#[test]
fn every_inherited_descriptor_above_2_is_closed_in_the_handler_and_the_manager() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let server = sandbox.probe().append(sandbox.path("starts")).only_first(1).exit(1);
    let running = sandbox
        .vsrun()
        .inheriting(7, open("/etc/passwd"))
        .inheriting(33, open("/etc/passwd"))
        .manager(sandbox.path("manager"), &handler)
        .command(server)
        .spawn();
    let run = handler.wait_for_run(1);
    assert_eq!(run.fds.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    assert_eq!(run.fds[&0], Path::new("/dev/null"));
    let open = running.process().open_files().expect("a manager");
    assert!(!open.values().any(|target| target == Path::new("/etc/passwd")), "{open:?}");
}

#[test]
fn descriptors_above_the_limit_are_closed_too() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    // A few numbers are left free, for the dynamic loader.
    let numbers = (12..64).chain([200, 1000]);
    let start = numbers
        .fold(sandbox.vsrun(), |start, number| start.inheriting(number, open("/etc/passwd")))
        .limit(Resource::RLIMIT_NOFILE, 64, 64);
    let server = sandbox.probe().report(&report).exit(0);
    start.pidfile("pid").command(server).run().expect_code(0);
    assert_eq!(Report::wait(report).fd_numbers(), [0, 1, 2]);
}

#[test]
fn closed_standard_descriptors_are_the_null_device_in_the_server() {
    for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
        for report in in_every_way(|start| start.closed(closed.iter().copied())) {
            assert_eq!(report.fd_numbers(), [0, 1, 2], "{closed:?}");
            for number in closed {
                assert_eq!(report.fds[number], Path::new("/dev/null"), "{closed:?}");
            }
        }
    }
}

#[test]
fn no_message_is_written_into_a_file_of_vsruns_where_standard_error_was_closed() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox.vsrun().closed([0, 1, 2]).manager(sandbox.path("manager"), &handler);
    let server = sandbox.probe().out("out").err("err").append(sandbox.path("starts"));
    let server = server.until(sandbox.path("end")).exit(1);
    let running = start.pidfile(sandbox.path("pid")).command(server).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    assert_eq!(sandbox.lines("manager"), [running.pid().to_string()]);
    assert_eq!(sandbox.lines("manager.lock"), [""; 0]);
    assert_eq!(sandbox.lines("pid"), sandbox.lines("starts"));
    sandbox.file("end", "");
    running.wait().expect_code(1);
}

#[test]
fn every_signal_has_its_default_action_and_none_is_blocked() {
    let every_signal = || (1..=64).filter(|it| ![9, 19].contains(it));
    let reports = in_every_way(|start| start.ignoring(every_signal()).blocking_all_signals());
    for report in reports {
        assert!(report.ignored.is_empty(), "ignored: {:?}", report.ignored);
        assert!(report.blocked.is_empty(), "blocked: {:?}", report.blocked);
    }
}

#[test]
fn the_handler_ignores_and_blocks_no_signal_either() {
    let sandbox = sandbox();
    // While a shell waits for a command it may block signals; a loop of its own needs none.
    let show = "while read -r line; do case $line in Sig[BI]*) echo \"$line\";; esac; done";
    let line = format!("{show} </proc/$$/status >\"${{0%/*}}/sets\"");
    let handler = sandbox.handler("handler").line(line).exits(1).create();
    let start = sandbox
        .vsrun()
        .ignoring([SIGPIPE, SIGCHLD, SIGHUP, SIGTERM, SIGINT, SIGRTMIN() + 2])
        .blocking_all_signals()
        .manager(sandbox.path("manager"), &handler);
    start.command(sandbox.probe().exit(1)).run().expect_code(1);
    let none = "0000000000000000";
    assert_eq!(sandbox.lines("sets"), [format!("SigBlk:\t{none}"), format!("SigIgn:\t{none}")]);
}

#[test]
fn an_ignored_sigchld_hides_no_death_from_the_manager() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox.vsrun().ignoring([SIGCHLD]).manager(sandbox.path("manager"), &handler);
    start.command(sandbox.probe().exit(6)).run().expect_code(6);
    assert_eq!(handler.runs().len(), 1);
}

#[test]
fn an_ignored_sigchld_hides_no_outcome_from_the_background() {
    let sandbox = sandbox();
    let start = || sandbox.vsrun().ignoring([SIGCHLD]).background();
    start().command(["/no/such/server"]).run().expect_code(127);
    start().command(["/bin/true"]).run().expect_code(0);
}

#[test]
fn a_manager_obeys_signals_that_its_caller_ignored_or_blocked() {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let running = sandbox
            .vsrun()
            .ignoring([SIGTERM, SIGINT, SIGQUIT, SIGHUP])
            .blocking_all_signals()
            .manager(sandbox.path("manager"), &handler)
            .command(sandbox.probe().append(sandbox.path("starts")))
            .spawn();
        wait_for("the server", || sandbox.lines("starts").len() == 1);
        running.signal(signal);
        running.wait().expect_code(0);
    }
}

#[test]
fn in_the_foreground_vsrun_becomes_the_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report);
    let running = sandbox.vsrun().command(server).spawn();
    let report = Report::wait(&report);
    assert_eq!(report.pid, running.pid());
    assert_eq!(report.ppid, std::process::id() as i32);
    assert_eq!(sandbox.processes(), [running.process()]);
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).expect("a process");
    assert_eq!(tasks.count(), 1);
}

#[test]
fn signals_to_vsrun_in_the_foreground_are_signals_to_the_server() {
    let sandbox = sandbox();
    let log = sandbox.path("signals");
    let running = sandbox.vsrun().command(sandbox.probe().log_signals(&log)).spawn();
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.signal(SIGUSR1);
    wait_for("the signal", || sandbox.lines("signals") == ["READY", "USR1"]);
}

#[test]
fn the_server_is_given_the_name_that_was_typed() {
    let sandbox = sandbox();
    let program = sandbox.probe().words()[0].clone();
    let report = sandbox.path("report");
    for typed in ["probe", "./probe", program.to_str().expect("a plain path")] {
        fs::remove_file(&report).ok();
        let start = sandbox.vsrun().env("PATH", sandbox.directory());
        start.command(Probe::at(typed).report(&report).exit(0)).run().expect_code(0);
        assert_eq!(Report::wait(&report).args[0], typed);
    }
}

#[test]
fn no_shell_is_involved() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let words = ["$(touch ran)", "`touch ran`", "; touch ran", "> ran", "*", "~"];
    let server = sandbox.probe().report(&report).exit(0).carrying(words);
    sandbox.vsrun().command(server).run().expect_code(0);
    let args = Report::wait(report).args;
    assert_eq!(args[args.len() - words.len()..], words);
    assert!(!sandbox.path("ran").exists());
    let line = "vsrun: cannot execute command 'exit 0': No such file or directory on PATH; \
                it is one word, and no shell is involved";
    sandbox.vsrun().command(["exit 0"]).run().expect_error(127, line);
}

#[test]
fn a_script_is_run_by_its_interpreter() {
    let sandbox = sandbox();
    let script =
        sandbox.executable("script", "#!/bin/sh -e\nprintf '<%s>' \"$0\" \"$@\"\nexit 3\n");
    let outcome = sandbox.vsrun().command([script.as_os_str(), "a b".as_ref(), "".as_ref()]).run();
    outcome.expect_code(3);
    assert_eq!(outcome.stdout_text(), format!("<{}><a b><>", script.display()));
}

#[test]
fn the_environment_is_the_callers() {
    let odd = OsString::from("one\ntwo = three");
    let reports = in_every_way(|start| {
        let start =
            start.env("ODD", &odd).env("EMPTY", "").env("HOME", "/callers").env("A.b-c", "d");
        start.env("USER", "caller").env("PATH", "/bin:relative")
    });
    for report in reports {
        for (name, value) in [
            ("ODD", odd.as_os_str()),
            ("EMPTY", "".as_ref()),
            ("HOME", "/callers".as_ref()),
            ("USER", "caller".as_ref()),
            ("A.b-c", "d".as_ref()),
            ("PATH", "/bin:relative".as_ref()),
        ] {
            assert_eq!(report.env(name), Some(value), "{name}");
        }
        // And the sandbox's own.
        assert_eq!(report.env.len(), 7, "{:?}", report.env);
    }
}

#[test]
fn the_server_gets_no_variable_of_vsruns() {
    let reports = in_every_way(|start| {
        let start = start.env("VSRUN_SERVER_PID", "1").env("VSRUN_", "x");
        start.env("VSRUN_ANYTHING", "1").env("VSRUNNER", "stays")
    });
    for report in reports {
        let left = report.env.iter().filter(|it| it.to_string_lossy().starts_with("VSRUN_"));
        assert_eq!(left.count(), 0, "{:?}", report.env);
        assert_eq!(report.env("VSRUNNER"), Some(OsStr::new("stays")));
    }
}

#[test]
fn the_umask_is_the_callers() {
    // Only root can read what is written under umask 0777.
    let masks = if is_root() { &[0, 0o027, 0o777][..] } else { &[0, 0o027] };
    for mask in masks.iter().copied() {
        let sandbox = sandbox();
        let out = sandbox.path("report");
        for way in [false, true] {
            fs::remove_file(&out).ok();
            let start = sandbox.vsrun().umask(mask);
            let start = if way { start.background() } else { start };
            let server = sandbox.probe().report(&out).exit(0);
            start.command(server).run().expect_code(0);
            assert_eq!(Report::wait(&out).umask, mask);
        }
    }
}

#[test]
fn the_umask_of_a_managed_server_and_its_handler_is_the_callers() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let report = sandbox.path("report");
    let start = sandbox.vsrun().umask(0o027).manager(sandbox.path("manager"), &handler);
    let server = sandbox.probe().report(&report).exit(1);
    start.command(server).run().expect_code(1);
    assert_eq!(Report::wait(report).umask, 0o027);
    assert_eq!(handler.wait_for_run(1).status.umask, 0o027);
}

#[test]
fn resource_limits_are_the_callers() {
    let reports = in_every_way(|start| {
        let start = start.limit(Resource::RLIMIT_NOFILE, 60, 70);
        start.limit(Resource::RLIMIT_CORE, 0, 4096)
    });
    for report in reports {
        assert_eq!((report.limits["nofile"], report.limits["core"]), ((60, 70), (0, 4096)));
    }
}

#[test]
fn a_line_of_vsruns_that_meets_a_limit_on_file_sizes_does_not_kill_the_server() {
    let sandbox = sandbox();
    let start = sandbox.vsrun().limit(Resource::RLIMIT_FSIZE, 0, 0).logdir("logs", "1");
    start.command(sandbox.probe().exit(4)).run().expect_code(4);
}

#[test]
fn a_server_may_still_gain_privilege_by_what_it_executes() {
    for report in in_every_way(|start| start) {
        assert_eq!(report.no_new_privs, Some(false));
    }
}

#[test]
fn without_a_work_dir_the_server_starts_where_vsrun_was_started() {
    let elsewhere = sandbox();
    let here = elsewhere.directory();
    for report in in_every_way(|start| start.current_dir(here)) {
        assert_eq!(report.cwd.as_deref(), Some(here));
    }
}

#[test]
fn the_work_dir_is_where_the_server_starts() {
    let elsewhere = sandbox();
    let here = elsewhere.dir("a b");
    for report in in_every_way(|start| start.work_dir(&here)) {
        assert_eq!(report.cwd.as_ref(), Some(&here));
    }
}

#[test]
fn with_a_log_directory_and_without_a_work_dir_the_server_starts_in_the_log_directory() {
    let elsewhere = sandbox();
    let logs = elsewhere.path("var/logs");
    for report in in_every_way(|start| start.logdir(&logs, "1")) {
        assert_eq!(report.cwd.as_ref(), Some(&logs));
    }
}

#[test]
fn the_work_dir_wins_over_the_log_directory() {
    let elsewhere = sandbox();
    let (logs, work_dir) = (elsewhere.path("logs"), elsewhere.dir("work"));
    for report in in_every_way(|start| start.work_dir(&work_dir).logdir(&logs, "1")) {
        assert_eq!(report.cwd.as_ref(), Some(&work_dir));
    }
    for report in in_every_way(|start| start.logdir(&logs, "1").work_dir(&work_dir)) {
        assert_eq!(report.cwd.as_ref(), Some(&work_dir));
    }
}

#[test]
fn the_directory_of_the_start_may_be_one_that_the_user_cannot_enter() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let closed = sandbox.dir("closed");
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("a mode");
    let (out, handler) = (sandbox.open_dir("out"), sandbox.handler("handler").create());
    for managed in [false, true] {
        let report = out.join(format!("report-{managed}"));
        let start = sandbox.vsrun().user("nobody").current_dir(&closed);
        let start = if managed { start.manager(sandbox.path("manager"), &handler) } else { start };
        let server = sandbox.probe().report(&report).exit(0);
        start.command(server).run().expect_code(0);
        assert_eq!(Report::wait(report).uids.effective, NOBODY);
    }
}

#[test]
fn the_directory_of_the_start_may_be_one_that_the_caller_cannot_enter() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let closed = sandbox.dir("closed");
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("a mode");
    let (out, handler) = (sandbox.open_dir("out"), sandbox.handler("handler").create());
    for managed in [false, true] {
        let report = out.join(format!("report-{managed}"));
        let start = sandbox.vsrun().run_as(NOBODY, NOBODY, &[]).current_dir(&closed);
        let start = if managed { start.manager(out.join("manager"), &handler) } else { start };
        start.command(sandbox.probe().report(&report).exit(0)).run().expect_code(0);
        assert_eq!(Report::wait(report).cwd.as_ref(), Some(&closed));
    }
}

#[test]
fn a_work_dir_that_only_the_user_may_enter_is_entered_as_the_user() {
    if !require_root() || !require_program("setpriv") {
        return;
    }
    let sandbox = sandbox();
    let private = sandbox.dir_of("private", NOBODY, NOBODY);
    fs::set_permissions(&private, Permissions::from_mode(0o700)).expect("a mode");
    let report = private.join("report");
    let caps = "-dac_override,-dac_read_search";
    let start = sandbox.program("/usr/bin/setpriv").args(["--bounding-set", caps]);
    let start = start.args(["--inh-caps", caps, "--", VSRUN]);
    let server = sandbox.probe().report(&report).exit(0);
    start.user("nobody").work_dir(&private).command(server).run().expect_code(0);
    assert_eq!(Report::wait(report).cwd, Some(private));
}

#[test]
fn where_the_log_directory_is_closed_to_the_user_server_and_handler_work_in_the_root_directory() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let out = sandbox.open_dir("out");
    let handler = sandbox.handler("handler").exits(1).create();
    for closed in ["logs", "private/logs"] {
        let report = out.join("report");
        fs::remove_file(&report).ok();
        if closed.contains('/') {
            sandbox.dir("private");
        }
        let logs = sandbox.dir(closed);
        let private = sandbox.path(Path::new(closed).components().next().expect("a name"));
        fs::set_permissions(private, Permissions::from_mode(0o700)).expect("a mode");
        let count = handler.runs().len();
        let start = sandbox.vsrun().user("nobody").logdir(&logs, "1d").manager("manager", &handler);
        start.command(sandbox.probe().report(&report).exit(3)).run().expect_code(3);
        assert_eq!(Report::wait(report).cwd.as_deref(), Some(Path::new("/")), "{closed}");
        let run = handler.wait_for_run(count + 1);
        assert_eq!(run.env("VSRUN_SERVER_WORKDIR"), Some(OsStr::new("/")), "{closed}");
        assert_eq!(run.cwd, Path::new("/"), "{closed}");
    }
}

#[test]
fn an_absurd_stack_size_in_the_environment_fails_no_start() {
    let sandbox = sandbox();
    let user = if is_root() { "nobody" } else { "" };
    let start = sandbox.vsrun().env("RUST_MIN_STACK", "99999999999999").pidfile("pid");
    let start = if user.is_empty() { start } else { start.user(user) };
    start.command(["/bin/true"]).run().expect_code(0);
}

#[test]
fn as_process_1_without_a_manager_the_server_has_no_child_that_it_did_not_start() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let old = sandbox.file("logs/logfile.1", "old");
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    File::open(&old).and_then(|file| file.set_modified(long_ago)).expect("a time");
    let server = sandbox.probe().until(sandbox.path("end")).exit(0);
    let running = sandbox.vsrun().pid_namespace().logdir(&logs, "1d").command(server).spawn();
    wait_for("the deletion of the old log", || !old.exists());
    assert!(running.process().children().is_empty());
    sandbox.file("end", "");
    running.wait().expect_code(0);
}

/// Expects the same line from the server's start in each of the four ways, and no server.
#[track_caller]
fn stage_fails(line: &str, with: impl Fn(Invocation<'_>) -> Invocation<'_>) {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let ran = sandbox.open_dir("out").join("ran");
    for (background, managed) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut start = with(sandbox.vsrun()).pidfile(sandbox.path("pid"));
        if background {
            start = start.background();
        }
        if managed {
            start = start.manager(sandbox.path("manager"), &handler);
        }
        let server = sandbox.probe().append(&ran).exit(0);
        start.command(server).run().expect_error(125, line);
        for left in ["pid", "manager", "manager.lock", "out/ran"] {
            assert!(!sandbox.path(left).exists(), "'{left}' is there");
        }
    }
}

#[test]
fn a_work_dir_that_cannot_be_entered_is_named_with_its_stage() {
    let line = "vsrun: cannot change directory to '/no/such/dir': No such file or directory";
    stage_fails(line, |start| start.work_dir("/no/such/dir"));
    let line = "vsrun: cannot change directory to '/etc/passwd': Not a directory";
    stage_fails(line, |start| start.work_dir("/etc/passwd"));
}

#[test]
fn a_root_that_cannot_be_changed_to_is_named_with_its_stage() {
    if !require_root() {
        return;
    }
    let line = "vsrun: cannot change root to '/no/such/dir': No such file or directory";
    stage_fails(line, |start| start.root("/no/such/dir"));
    let line = "vsrun: cannot change root to '/etc/passwd': Not a directory";
    stage_fails(line, |start| start.root("/etc/passwd"));
}

/// Checks that everything went to where vsrun's own output goes.
#[track_caller]
fn wrote(outcome: &Outcome, stdout: &str, stderr: &str) {
    assert_eq!((outcome.stdout_text().as_str(), outcome.stderr_text().as_str()), (stdout, stderr));
}

#[test]
fn standard_output_and_error_are_not_redirected() {
    let sandbox = sandbox();
    let outcome = sandbox.vsrun().command(sandbox.probe().out("out").err("err").exit(0)).run();
    wrote(&outcome, "out\n", "err\n");
}

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
    let start = sandbox.vsrun().terminal().manager(sandbox.path("manager"), &handler);
    let mut running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.type_keys(b"\x03");
    running.wait().expect_code(0);
    // The key is not the server's.
    assert_eq!(sandbox.lines("signals"), ["READY", "TERM"]);
    assert!(handler.runs().is_empty());
}

#[test]
fn the_suspend_key_does_not_stop_a_manager() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().terminal().manager(sandbox.path("manager"), &handler);
    let mut running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    running.type_keys(b"\x1a");
    running.signal(SIGTSTP);
    running.signal(SIGTERM);
    running.wait().expect_code(0);
}

#[test]
fn under_a_manager_the_server_has_a_session_of_its_own_and_no_terminal() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report);
    let start = sandbox.vsrun().terminal().manager(sandbox.path("manager"), &handler);
    let _running = start.command(server).spawn();
    let report = Report::wait(&report);
    assert!(!report.terminal);
    assert_eq!((report.sid, report.pgid), (report.pid, report.pid));
}

#[test]
fn the_handler_has_no_terminal_either() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox.vsrun().terminal().manager(sandbox.path("manager"), &handler);
    let running = start.command(sandbox.probe().exit(1)).spawn();
    let run = handler.wait_for_run(1);
    assert_eq!((run.stat.tty, run.stat.sid), (0, run.stat.pid));
    running.wait().expect_code(1);
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
        assert_ne!((report.sid, report.pgid), (caller, caller));
        if managed {
            let manager = sandbox.wait_for_pidfile(sandbox.path("manager"));
            let stat = manager.stat().expect("a manager");
            assert_eq!(stat.tty, 0);
            assert_ne!(stat.sid, manager.pid(), "a session leader can get a terminal");
        }
    }
}

#[test]
fn a_server_in_the_background_outlives_the_terminal() {
    let sandbox = sandbox();
    let pidfile = sandbox.path("pid");
    let start = sandbox.vsrun().terminal().background().pidfile(&pidfile);
    start.command(sandbox.probe()).run().expect_code(0);
    let server = sandbox.wait_for_pidfile(&pidfile);
    stays("the server", Duration::from_millis(200), || server.exists());
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
    wait_for("the manager to be at rest", || running.process().children().len() == 1);
}

#[test]
fn a_manager_keeps_no_mount_busy_but_its_log_directorys() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (name, logs) in [("a", None), ("b", Some(sandbox.path("logs")))] {
        let starts = sandbox.path(format!("starts-{name}"));
        let start = sandbox.vsrun().manager(sandbox.path(name), &handler);
        let start = match &logs {
            Some(logs) => start.logdir(logs, "1"),
            None => start,
        };
        let running = start.command(sandbox.probe().append(&starts)).spawn();
        wait_for("the server", || starts.exists());
        let expected = logs.as_deref().unwrap_or(Path::new("/"));
        assert_eq!(running.process().cwd().as_deref(), Some(expected));
    }
}
