//! The background: what the caller learns and when, and what is left of it
//! (spec 1.8).

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::unistd::pipe;

use crate::prelude::*;

/// Starts in the background without a manager and with one.
fn both_ways<'a>(sandbox: &'a Sandbox) -> [Invocation<'a>; 2] {
    let handler = sandbox.handler("handler").create();
    let start = || sandbox.vsrun().background();
    [start(), start().manager(sandbox.path("manager"), &handler)]
}

#[test]
fn the_caller_returns_while_the_server_runs() {
    for way in [0, 1] {
        let sandbox = sandbox();
        let [plain, managed] = both_ways(&sandbox);
        let start = if way == 0 { plain } else { managed };
        let server = sandbox.probe().append(sandbox.path("starts"));
        let outcome = start.command(server).run();
        outcome.expect_code(0);
        started(&sandbox, 1);
        wait_for("no process but the server and its manager", || {
            sandbox.processes().len() == way + 1
        });
    }
}

#[test]
fn when_the_caller_returns_the_server_is_executed_and_every_pidfile_written() {
    // The files must be there at once, so this is tried many times.
    for _ in 0..20 {
        let sandbox = sandbox();
        for (name, start) in ["a", "b"].into_iter().zip(both_ways(&sandbox)) {
            let pidfile = sandbox.path(name);
            let server = sandbox.probe();
            let program = server.words()[0].clone();
            start.pidfile(&pidfile).command(server).run().expect_code(0);
            let pid = sandbox.read_pidfile(&pidfile).expect("a pidfile");
            let server = Process::of(pid);
            assert_eq!(server.exe().as_deref(), Some(Path::new(&program)));
        }
        let manager = sandbox
            .read_pidfile(sandbox.path("manager"))
            .expect("a pidfile");
        assert!(Process::of(manager).exists());
    }
}

#[test]
fn the_pidfiles_hold_the_ids_of_what_runs_in_the_background() {
    let sandbox = sandbox();
    let (pidfile, report) = (sandbox.path("pid"), sandbox.path("report"));
    let [_, managed] = both_ways(&sandbox);
    let server = sandbox.probe().report(&report).pidfile(&pidfile);
    let running = managed.pidfile(&pidfile).command(server).spawn();
    let caller = running.pid();
    running.wait().expect_code(0);
    let report = Report::wait(report);
    assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("manager")),
        Some(report.ppid)
    );
    assert!(![report.pid, report.ppid].contains(&caller));
}

#[test]
fn nothing_that_the_caller_had_open_stays_open() {
    let sandbox = sandbox();
    let null = || {
        File::options()
            .write(true)
            .open("/dev/null")
            .expect("a device")
    };
    for start in both_ways(&sandbox) {
        let (mut reader, writer) = UnixStream::pair().expect("a socket");
        let start = start.inheriting(9, writer).stdout(null()).stderr(null());
        start.command(sandbox.probe()).run().expect_code(0);
        // The end of the file comes when no process has the other end open.
        assert_eq!(reader.read(&mut [0]).expect("a socket"), 0);
    }
    assert_eq!(sandbox.processes().len(), 3);
}

#[test]
fn output_is_not_redirected() {
    let sandbox = sandbox();
    let [plain, _] = both_ways(&sandbox);
    let server = sandbox
        .probe()
        .out("out")
        .err("err")
        .append(sandbox.path("starts"));
    let running = plain.command(server).spawn();
    wait_for("the output", || {
        running.stdout() == "out\n" && running.stderr() == "err\n"
    });
    running.wait().expect_code(0);
}

#[test]
fn an_error_is_reported_once() {
    let sandbox = sandbox();
    let line = "vsrun: cannot execute command '/no/such/server': No such file or directory";
    for start in both_ways(&sandbox) {
        start
            .command(["/no/such/server"])
            .run()
            .expect_error(127, line);
    }
}

#[test]
fn an_error_reaches_the_caller_and_not_the_log_directory() {
    let sandbox = sandbox();
    let line = "vsrun: cannot execute command '/no/such/server': No such file or directory";
    for start in both_ways(&sandbox) {
        let start = start
            .logdir("logs", "1")
            .pidfile("pid")
            .command(["/no/such/server"]);
        start.run().expect_error(127, line);
        for left in ["logs", "pid", "manager", "manager.lock"] {
            assert!(!sandbox.path(left).exists(), "'{left}' is there");
        }
    }
}

#[test]
fn a_server_that_dies_at_once_counts_as_started() {
    for end in [Probe::exit as fn(Probe, u8) -> Probe, |probe, _| {
        probe.kill(SIGKILL)
    }] {
        for _ in 0..20 {
            let sandbox = sandbox();
            let [plain, _] = both_ways(&sandbox);
            let server = end(sandbox.probe(), 127);
            let outcome = plain.pidfile("pid").command(server).run();
            outcome.expect_code(0);
            assert_eq!(outcome.stderr_text(), "");
            assert!(sandbox.read_pidfile(sandbox.path("pid")).is_some());
        }
    }
}

#[test]
fn a_later_refusal_by_the_handler_does_not_change_the_callers_status() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox.vsrun().background().manager("manager", &handler);
    start.command(sandbox.probe().exit(9)).run().expect_code(0);
    handler.wait_for_run(1);
    wait_for("the end of the manager", || sandbox.processes().is_empty());
    assert!(!sandbox.path("manager").exists() && !sandbox.path("manager.lock").exists());
}

#[test]
fn server_and_manager_survive_the_end_of_the_callers_terminal() {
    let sandbox = sandbox();
    let starts = sandbox.path("starts");
    for start in both_ways(&sandbox) {
        // The session's leader is vsrun itself: its end hangs the terminal up.
        let start = start.terminal().command(sandbox.probe().append(&starts));
        start.run().expect_code(0);
    }
    wait_for("two servers and a manager", || {
        sandbox.processes().len() == 3
    });
    let before = sandbox.processes();
    holds_for("all that runs", Duration::from_millis(200), || {
        sandbox.processes() == before
    });
}

#[test]
fn the_interrupt_key_after_the_start_does_not_reach_the_server() {
    let sandbox = sandbox();
    let log = sandbox.path("signals");
    // A shell stays on the terminal after vsrun has returned.
    let shell = sandbox.program("/bin/sh").terminal();
    let script = "trap : INT; \"$@\"; : >returned; while ! [ -e end ]; do sleep 0.01; done";
    let shell = shell.args(["-c", script, "sh", VSRUN, "-b", "--"]);
    let mut running = shell.args(sandbox.probe().log_signals(&log)).spawn();
    wait_for("the return", || sandbox.path("returned").exists());
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.type_keys(b"\x03");
    sandbox.file("end", "");
    running.wait();
    holds_for("no signal", Duration::from_millis(100), || {
        sandbox.lines("signals") == ["READY"]
    });
}

#[test]
fn server_and_manager_survive_the_callers_death_after_the_start() {
    let sandbox = sandbox();
    let [plain, _] = both_ways(&sandbox);
    let pidfile = sandbox.path("pid");
    plain
        .pidfile(&pidfile)
        .command(sandbox.probe())
        .run()
        .expect_code(0);
    let server = sandbox.wait_for_pidfile(&pidfile);
    holds_for("the server", Duration::from_millis(50), || server.exists());
    sandbox.signal(server, SIGINT);
    wait_for("the server's end", || !server.exists());
}

#[test]
fn ids_are_changed_in_the_background_too() {
    needs!(root);
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    for start in both_ways(&sandbox) {
        fs::remove_file(root.join("tmp/report")).ok();
        let start = start
            .user("nobody")
            .root(&root)
            .work_dir("tmp")
            .logdir("logs", "1");
        start
            .command(Probe::at("probe").report("/tmp/report"))
            .env("PATH", "/bin")
            .run()
            .expect_code(0);
        let report = Report::wait(root.join("tmp/report"));
        assert_eq!(report.uids, Ids::all(65534));
        assert_eq!(report.cwd.as_deref(), Some(Path::new("/tmp")));
    }
}

#[test]
fn a_process_that_is_killed_before_the_exec_is_an_error() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let handler = handler.path().to_str().expect("a plain path").to_owned();
    let ran = sandbox.path("ran");
    // Calls that the process in the background makes at its start.
    for (option, value, call) in [
        ("-w", "/", "chdir"),
        ("-r", "/", "chroot"),
        ("-u", "root", "setresuid"),
        ("-w", "/", "execve"),
    ] {
        for managed in [false, true] {
            let start = injecting(&sandbox, &format!("{call}:signal=KILL")).background();
            let start = start.args([option, value]).pidfile("pid");
            // The check of the handler makes those calls too.
            if managed && call == "setresuid" {
                continue;
            }
            let start = match managed {
                true => start.args(["-m", "manager", &handler]),
                false => start,
            };
            let outcome = start.command(sandbox.probe().append(&ran).exit(0)).run();
            outcome.expect_code(125);
            assert_eq!(
                outcome.stderr_text().lines().count(),
                1,
                "{}",
                outcome.stderr_text()
            );
            assert!(!ran.exists(), "{call}: a server ran");
            wait_for("the end of everything", || sandbox.processes().is_empty());
            assert!(!sandbox.path("pid").exists(), "{call}: a pidfile is left");
        }
    }
}

/// A start with a manager in which each new session takes a second, the server's too, and the
/// manager while it waits for that.
fn slow(sandbox: &Sandbox) -> (Running<'_>, Process) {
    let handler = sandbox.handler("handler").create();
    let start = injecting(sandbox, "setsid:delay_enter=1000000")
        .background()
        .pidfile("pid");
    let start = start.manager("manager", &handler);
    let start = start
        .command(sandbox.probe().append(sandbox.path("starts")))
        .spawn();
    let manager = sandbox.wait_for_pidfile(sandbox.path("manager"));
    // The server's pidfile is written: the start waits only for the session.
    sandbox.wait_for_pidfile(sandbox.path("pid"));
    (start, manager)
}

#[test]
fn a_child_that_is_stopped_before_its_exec_is_an_error() {
    needs!("strace");
    let sandbox = sandbox();
    let (start, manager) = slow(&sandbox);
    sandbox.signal(manager, SIGTERM);
    let outcome = start.wait();
    outcome.expect_code(125);
    assert_eq!(outcome.stderr_text(), "vsrun: asked to stop\n");
    wait_for("the end of everything", || sandbox.processes().is_empty());
    for left in ["starts", "pid", "manager", "manager.lock"] {
        assert!(!sandbox.path(left).exists(), "'{left}' is there");
    }
}

#[test]
fn a_restart_request_before_the_first_server_keeps_the_callers_directory() {
    needs!("strace");
    let sandbox = sandbox();
    let (start, manager) = slow(&sandbox);
    sandbox.signal(manager, SIGHUP);
    started(&sandbox, 1);
    let server = sandbox.wait_for_pidfile(sandbox.path("pid"));
    assert_eq!(sandbox.lines("starts"), [server.pid().to_string()]);
    assert_eq!(server.cwd().as_deref(), Some(sandbox.path("").as_path()));
    sandbox.signal(manager, SIGTERM);
    start.wait().expect_code(0);
}

#[test]
fn a_manager_whose_start_was_reported_as_failed_ends() {
    needs!("strace");
    let sandbox = sandbox();
    let (start, manager) = slow(&sandbox);
    let leader = manager.stat().expect("a running manager").ppid;
    sandbox.signal(Process::of(leader), SIGKILL);
    let outcome = start.wait();
    outcome.expect_code(125);
    assert!(
        outcome.stderr_text().contains("died"),
        "{}",
        outcome.stderr_text()
    );
    wait_for("the end of everything", || sandbox.processes().is_empty());
    for left in ["pid", "manager", "manager.lock"] {
        assert!(!sandbox.path(left).exists(), "'{left}' is there");
    }
}

#[test]
fn each_step_into_the_background_that_fails_is_an_error_of_one_line() {
    needs!("strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let handler = handler.path().to_str().expect("a plain path").to_owned();
    let ran = sandbox.path("ran");
    for managed in [false, true] {
        // Calls one after the other, until there are no more of them to fail.
        for call in ["clone,clone3,fork,vfork", "setsid"] {
            let mut survived = 0;
            for number in 1..10 {
                let fault = format!("{call}:error=EAGAIN:when={number}");
                let start = injecting(&sandbox, &fault).background().pidfile("pid");
                let start = match managed {
                    true => start.args(["-m", "manager", &handler]),
                    false => start,
                };
                let outcome = start.command(sandbox.probe().append(&ran).exit(0)).run();
                wait_for("the end of everything", || sandbox.processes().is_empty());
                let line = outcome.stderr_text();
                let own: Vec<&str> = line
                    .lines()
                    .filter(|it| it.contains("vsrun: cannot"))
                    .collect();
                if outcome.code() == Some(0) {
                    survived += 1;
                    assert!(ran.exists(), "{call} {number}: success without a server");
                    fs::remove_file(&ran).expect("a file");
                } else {
                    outcome.expect_code(125);
                    assert_eq!(own.len(), 1, "{call} {number}: {line}");
                    assert!(!ran.exists(), "{call} {number}: an error and a server");
                    for left in ["pid", "manager", "manager.lock"] {
                        assert!(
                            !sandbox.path(left).exists(),
                            "{call} {number}: '{left}' is there"
                        );
                    }
                }
                fs::remove_file(sandbox.path("pid")).ok();
            }
            assert!(survived > 0, "{call}: there is an end of the calls");
        }
    }
}

#[test]
fn each_line_is_written_to_a_pipe_once() {
    let sandbox = sandbox();
    let (reader, writer) = pipe().expect("a pipe");
    let copy = writer.try_clone().expect("a copy");
    let start = managed(&sandbox, REFUSAL)
        .background()
        .stdout(writer)
        .stderr(copy);
    start
        .command(sandbox.probe().out("hello").exit(3))
        .run()
        .expect_code(0);
    let mut output = String::new();
    // To the end of the file: until no process has the other end open.
    File::from(reader)
        .read_to_string(&mut output)
        .expect("text");
    assert_eq!(
        output.lines().filter(|line| *line == "hello").count(),
        1,
        "{output}"
    );
    for once in ["started server", "exited with status 3", "is not restarted"] {
        assert_eq!(output.matches(once).count(), 1, "{once}: {output}");
    }
    for option in ["--help", "--version"] {
        let (reader, writer) = pipe().expect("a pipe");
        sandbox
            .vsrun()
            .arg(option)
            .stdout(writer)
            .run()
            .expect_code(0);
        let mut piped = String::new();
        File::from(reader).read_to_string(&mut piped).expect("text");
        assert_eq!(piped, sandbox.vsrun().arg(option).run().stdout_text());
        assert!(piped.matches("Usage").count() <= 1 && !piped.is_empty());
    }
}
