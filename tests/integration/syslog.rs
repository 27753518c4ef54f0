//! `--syslog`: output through logger(1). A logger of the test's own, found first on `PATH`, shows
//! what vsrun does with it; a real one with a real daemon behind it shows that lines arrive.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::prelude::*;

/// The longest that a manager waits for logger, with some more for a busy machine.
const END: Duration = Duration::from_secs(5 + 3);

/// Keeps every line.
const KEEPS: &str = "exec cat >>\"$kept/lines\"";
/// Reads nothing.
const HANGS: &str = "exec sleep 1000";

/// A program called `logger` that records each of its runs and then runs `body`.
struct Logger<'a> {
    sandbox: &'a Sandbox,
    bin: PathBuf,
    kept: PathBuf,
}

impl<'a> Logger<'a> {
    fn new(sandbox: &'a Sandbox, body: &str) -> Logger<'a> {
        let (bin, kept) = (sandbox.dir("bin"), sandbox.open_dir("kept"));
        let script = format!(
            "#!/bin/sh\nkept='{}'\necho \"$$ $(date +%s%N)\" >>\"$kept/runs\"\n\
             for word; do printf '[%s]' \"$word\" >>\"$kept/words\"; done\n{body}\n",
            kept.display()
        );
        sandbox.executable("bin/logger", script);
        Logger { sandbox, bin, kept }
    }

    fn vsrun(&self) -> Invocation<'a> {
        as_user(self.sandbox.vsrun())
            .env("PATH", self.path())
            .syslog("tag")
    }

    fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.bin.display())
    }

    /// Runs `server` under a manager whose handler allows every restart.
    fn managed(&self, server: impl IntoIterator<Item = OsString>) -> Running<'a> {
        self.managed_by(self.sandbox.handler("handler"), server)
    }

    fn managed_by(
        &self,
        handler: HandlerScript<'_>,
        server: impl IntoIterator<Item = OsString>,
    ) -> Running<'a> {
        let handler = handler.create();
        let vsrun = self.vsrun().manager(self.sandbox.path("manager"), &handler);
        vsrun
            .pidfile(self.sandbox.path("pidfile"))
            .command(server)
            .spawn()
    }

    fn server(&self) -> Process {
        self.sandbox.wait_for_pidfile(self.sandbox.path("pidfile"))
    }

    /// A file that the test and the scripts can make.
    fn flag(&self, name: &str) -> PathBuf {
        self.kept.join(name)
    }

    fn lines(&self) -> Vec<String> {
        self.sandbox.lines(self.kept.join("lines"))
    }

    fn wait_for_line(&self, line: &str) {
        wait_for(&format!("the line '{line}'"), || {
            let lines = self.lines();
            if lines.iter().any(|it| it == line) {
                Ok(())
            } else {
                Err(lines)
            }
        });
    }

    /// Process and time of each run so far, in nanoseconds.
    fn runs(&self) -> Vec<(i32, u64)> {
        let run = |line: String| {
            let (pid, time) = line.split_once(' ').expect("an id and a time");
            (pid.parse().expect("an id"), time.parse().expect("a time"))
        };
        self.sandbox
            .lines(self.kept.join("runs"))
            .into_iter()
            .map(run)
            .collect()
    }

    fn wait_for_run(&self, number: usize) -> Process {
        let run = wait_for(&format!("run {number} of logger"), || {
            let runs = self.runs();
            runs.get(number - 1).copied().ok_or(runs)
        });
        Process::of(run.0)
    }
}

fn touch(path: impl AsRef<Path>) {
    fs::write(path, "").expect("the sandbox can be written");
}

/// A server that writes what the test writes, and ends when the test closes its end.
fn echo(sandbox: &Sandbox) -> ([OsString; 2], File) {
    let fifo = sandbox.path("fifo");
    mkfifo(&fifo, Mode::from_bits_truncate(0o666)).expect("the sandbox can be written");
    chmod(&fifo, 0o666);
    // For reading too: so opening does not wait for the server.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("a FIFO");
    (["cat".into(), fifo.into()], file)
}

fn say(mut to: &File, text: &str) {
    to.write_all(text.as_bytes()).expect("the server reads");
}

#[test]
fn output_of_server_vsrun_and_handler_goes_to_logger() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let handler = sandbox
        .handler("handler")
        .line("echo handled; echo badly >&2")
        .exits(1);
    let server = sandbox.probe().out("output").err("errors").exit(3);
    let outcome = logger.managed_by(handler, server).wait();
    outcome.expect_code(3);
    let (own, others): (Vec<String>, Vec<String>) = logger
        .lines()
        .into_iter()
        .partition(|line| line.starts_with("vsrun: "));
    assert_eq!(others, ["output", "errors", "handled", "badly"]);
    assert!(
        own.iter()
            .any(|line| line.starts_with("vsrun: started server ")),
        "{own:#?}"
    );
    assert_eq!(outcome.stdout_text(), "");
}

#[test]
fn output_of_a_server_that_vsrun_becomes_goes_to_logger() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let server = sandbox.probe().out("output").err("errors").exit(3);
    let outcome = logger.vsrun().command(server).run();
    outcome.expect_code(3);
    logger.wait_for_line("errors");
    assert!(logger.lines().contains(&"output".to_owned()));
    assert_eq!(outcome.stdout_text(), "");
}

#[test]
fn in_the_background_output_goes_to_logger() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let server = sandbox.probe().out("output");
    let outcome = logger.vsrun().background().command(server).run();
    outcome.expect_code(0);
    logger.wait_for_line("output");
    assert_eq!(outcome.stdout_text(), "");
}

#[test]
fn logger_gets_the_prefix_unchanged() {
    for prefix in ["web", "a b'$(c)", "-x", " "] {
        let sandbox = sandbox();
        let logger = Logger::new(&sandbox, KEEPS);
        let vsrun = as_user(sandbox.vsrun())
            .env("PATH", logger.path())
            .syslog(prefix);
        vsrun.command(["/bin/true"]).run().expect_code(0);
        // Made when all words are written.
        wait_for("logger's output", || sandbox.path("kept/lines").exists());
        assert_eq!(sandbox.lines("kept/words"), [format!("[-t][{prefix}]")]);
    }
}

#[test]
fn logger_runs_as_the_user() {
    needs!(root);
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let vsrun = sandbox
        .vsrun()
        .user(format!("{NOBODY}:7"))
        .env("PATH", logger.path());
    let running = vsrun.syslog("tag").command(sandbox.probe()).spawn();
    let status = logger.wait_for_run(1).status().expect("a running logger");
    assert_eq!((status.uids, status.gids), (Ids::all(NOBODY), Ids::all(7)));
    assert_eq!(
        status.capabilities.effective | status.capabilities.permitted,
        0
    );
    drop(running);
}

#[test]
fn logger_is_searched_for_outside_the_root() {
    needs!(root);
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let root = sandbox.root("jail");
    let server = Probe::at("/bin/probe").out("output").exit(0);
    logger
        .vsrun()
        .root(&root)
        .command(server)
        .run()
        .expect_code(0);
    logger.wait_for_line("output");
}

#[test]
fn logger_is_found_by_a_relative_path_too() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let vsrun = as_user(sandbox.vsrun())
        .env("PATH", "bin:/usr/bin:/bin")
        .work_dir("/");
    vsrun
        .syslog("tag")
        .command(sandbox.probe().out("output").exit(0))
        .run()
        .expect_code(0);
    logger.wait_for_line("output");
}

#[test]
fn without_logger_nothing_is_started() {
    let sandbox = sandbox();
    let (empty, out) = (sandbox.dir("empty"), sandbox.open_dir("out"));
    for vsrun in every_way(&sandbox) {
        let vsrun = vsrun
            .env("PATH", &empty)
            .pidfile(sandbox.path("pidfile"))
            .syslog("tag");
        let outcome = vsrun
            .command(sandbox.probe().report(out.join("report")))
            .run();
        outcome.expect_code(127);
        let output = outcome.stderr_text();
        // Without a syslog daemon there is a warning too.
        let mut errors = output.lines().filter(|line| !line.contains("/dev/log"));
        let error = errors.next().expect("an error");
        assert!(
            error.contains("'logger'") && errors.next().is_none(),
            "{output}"
        );
        wait_for("the end of every process", || {
            sandbox.processes().is_empty()
        });
        let left = ["out/report", "pidfile", "manager", "manager.lock"].map(|it| sandbox.path(it));
        assert!(!left.iter().any(|path| path.exists()), "{left:?}");
    }
}

#[test]
fn a_logger_that_cannot_be_executed_is_a_start_up_error() {
    let sandbox = sandbox();
    let bin = sandbox.dir("bin");
    sandbox.file("bin/logger", "#!/bin/sh\n");
    let vsrun = as_user(sandbox.vsrun()).env("PATH", &bin).syslog("tag");
    vsrun.command(sandbox.probe()).run().expect_code(126);
}

#[test]
fn a_start_that_fails_leaves_no_logger() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    for vsrun in every_way(&sandbox) {
        let vsrun = vsrun.env("PATH", logger.path()).syslog("tag");
        let outcome = vsrun.command(["/nowhere/to/be/found"]).run();
        outcome.expect_code(127);
        assert!(outcome.stderr_text().contains("'/nowhere/to/be/found'"));
        wait_for("logger to end", || sandbox.processes().is_empty());
    }
}

#[test]
fn logger_is_no_child_of_a_server_that_vsrun_becomes() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let report = logger.flag("report");
    let running = logger
        .vsrun()
        .command(sandbox.probe().report(&report))
        .spawn();
    let server = Report::wait(&report).pid;
    assert_eq!(server, running.pid());
    let stat = logger.wait_for_run(1).stat().expect("a running logger");
    assert_ne!(stat.ppid, server);
    assert_ne!(
        stat.sid,
        running.process().stat().expect("a running server").sid
    );
    assert!(running.process().children().is_empty());
}

#[test]
fn a_server_that_vsrun_becomes_has_no_dead_child_either() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, "exit 0");
    let report = logger.flag("report");
    let running = logger
        .vsrun()
        .command(sandbox.probe().report(&report))
        .spawn();
    Report::wait(&report);
    logger.wait_for_run(1);
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    assert_eq!(fs::read_to_string(children).expect("a running server"), "");
}

#[test]
fn logger_ends_with_a_server_that_vsrun_became() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let end = logger.flag("end");
    let running = logger
        .vsrun()
        .command(sandbox.probe().until(&end).exit(0))
        .spawn();
    let process = logger.wait_for_run(1);
    touch(&end);
    running.wait().expect_code(0);
    wait_for("logger to end", || !process.exists());
}

#[test]
fn server_handler_and_logger_get_the_pipe_and_nothing_else() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let handler = sandbox.handler("handler").create();
    let starts = logger.flag("starts");
    let report = logger.flag("report");
    let server = sandbox
        .probe()
        .append(&starts)
        .report(&report)
        .only_first(1)
        .exit(3);
    let stray = File::open("/etc/passwd").expect("a file");
    let vsrun = logger.vsrun().inheriting(77, stray);
    let running = vsrun
        .manager(sandbox.path("manager"), &handler)
        .command(server)
        .spawn();
    let run = handler.wait_for_run(1);
    wait_for("the second start", || sandbox.lines(&starts).len() == 2);
    let report = Report::wait(&report);
    let pipe = report.fds[&1].clone();
    assert!(pipe.to_string_lossy().starts_with("pipe:["), "{pipe:?}");
    for fds in [&report.fds, &run.fds] {
        assert_eq!(fds.keys().collect::<Vec<_>>(), [&0, &1, &2]);
        assert_eq!(
            (fds[&0].to_str(), &fds[&1], &fds[&2]),
            (Some("/dev/null"), &pipe, &pipe)
        );
    }
    let process = logger.wait_for_run(1);
    let open = wait_for("logger to run its last program", || {
        let open = process.open_files()?;
        (process.exe()?.ends_with("sleep")).then_some(open)
    });
    assert_eq!(open.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    assert_eq!(open[&0], pipe);
    // With a write end of its own, logger would never see the end of the file.
    assert!(open[&1] != pipe && open[&2] != pipe, "{open:?}");
    let flags = OFlag::from_bits_truncate(flags(process, 0));
    assert_eq!(flags & OFlag::O_ACCMODE, OFlag::O_RDONLY);
    drop(running);
}

fn flags(process: Process, fd: i32) -> i32 {
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", process.pid()));
    let info = info.expect("an open descriptor");
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .expect("flags");
    i32::from_str_radix(flags.trim(), 8).expect("an octal number")
}

#[test]
fn a_server_may_open_its_output_by_name() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let script = "echo output >/dev/stdout && echo errors >/dev/stderr";
    let outcome = logger.vsrun().command(["sh", "-c", script]).run();
    logger.wait_for_line("errors");
    logger.wait_for_line("output");
    outcome.expect_code(0);
}

#[test]
fn a_servers_write_waits_for_room_in_the_pipe() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let running = logger.managed(sandbox.probe());
    let server = logger.server();
    for fd in [1, 2] {
        assert_eq!(
            flags(server, fd) & OFlag::O_NONBLOCK.bits(),
            0,
            "descriptor {fd}"
        );
    }
    drop(running);
}

#[test]
fn logger_starts_with_no_signal_blocked_or_ignored() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let vsrun = logger
        .vsrun()
        .ignoring([SIGPIPE, SIGCHLD])
        .blocking_all_signals();
    let running = vsrun.command(sandbox.probe()).spawn();
    let process = logger.wait_for_run(1);
    wait_for("logger to run its last program", || {
        process.exe().is_some_and(|exe| exe.ends_with("sleep"))
    });
    let status = process.status().expect("a running logger");
    assert!(
        status.blocked.is_empty() && status.ignored.is_empty(),
        "{status:?}"
    );
    drop(running);
}

#[test]
fn the_pipe_holds_a_mebibyte() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let running = logger.managed(sandbox.probe());
    let pipe = File::open(format!("/proc/{}/fd/1", logger.server().pid()));
    let size = fcntl(pipe.expect("a pipe"), FcntlArg::F_GETPIPE_SZ).expect("a size");
    assert_eq!(size, 1 << 20);
    drop(running);
}

#[test]
fn a_logger_that_dies_is_started_again_and_no_line_in_the_pipe_is_lost() {
    let sandbox = sandbox();
    // sh reads no further than the line that it is asked for.
    let body =
        "for i in 1 2 3 4 5 6 7 8 9 10; do read -r line && echo \"$line\" >>\"$kept/lines\"; done
        [ \"$(wc -l <\"$kept/runs\")\" -ge 4 ] && exec cat >>\"$kept/lines\"; kill -9 $$";
    let logger = Logger::new(&sandbox, body);
    let starts = logger.flag("starts");
    let running = logger.managed(sandbox.probe().append(&starts).lines(500));
    logger.wait_for_line("line 500");
    let lines: Vec<String> = logger
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("line "))
        .collect();
    let expected: Vec<String> = (1..=500).map(|number| format!("line {number}")).collect();
    assert_eq!(lines, expected);
    assert_eq!((logger.runs().len(), sandbox.lines(&starts).len()), (4, 1));
    stop(running);
}

#[test]
fn a_logger_that_dies_again_and_again_is_started_at_growing_intervals() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, "exit 1");
    let running = logger.managed(sandbox.probe());
    logger.wait_for_run(6);
    let times: Vec<u64> = logger.runs().into_iter().map(|(_, time)| time).collect();
    let gaps: Vec<u64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / 1_000_000)
        .collect();
    for (gap, least) in gaps.iter().zip([0, 100, 200, 400, 800]) {
        assert!(*gap >= least, "{gaps:?}");
    }
    stop(running);
}

#[test]
fn loggers_deaths_leave_no_descriptor_and_no_zombie() {
    let sandbox = sandbox();
    let logger = Logger::new(
        &sandbox,
        "[ -e \"$kept/stay\" ] && exec cat >/dev/null; exit 1",
    );
    let running = logger.managed(sandbox.probe());
    let server = logger.server();
    // While it starts a logger, a manager has a socket pair.
    let open = || {
        wait_for("a manager at rest", || {
            let open = running.process().open_files().expect("a running manager");
            let starts = open
                .values()
                .any(|it| it.to_string_lossy().starts_with("socket:"));
            if starts { Err(open) } else { Ok(open.len()) }
        })
    };
    logger.wait_for_run(2);
    let before = open();
    logger.wait_for_run(5);
    touch(logger.flag("stay"));
    let last = logger.wait_for_run(6);
    assert_eq!(open(), before);
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let mut expected = [server.pid(), last.pid()];
    expected.sort_unstable();
    wait_for("no other child", || {
        let children = fs::read_to_string(&children).expect("a running manager");
        let mut children: Vec<i32> = children
            .split_whitespace()
            .map(|pid| pid.parse().expect("an id"))
            .collect();
        children.sort_unstable();
        if children == expected {
            Ok(())
        } else {
            Err(children)
        }
    });
}

#[test]
fn a_logger_that_hangs_delays_a_stop_by_5_s_at_most() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let running = logger.managed(sandbox.probe().out("output"));
    logger.server();
    let asked = Instant::now();
    stop(running);
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

#[test]
fn a_logger_that_hangs_changes_no_status() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let started = Instant::now();
    let handler = sandbox.handler("handler").exits(1);
    logger
        .managed_by(handler, sandbox.probe().kill(SIGKILL))
        .wait()
        .expect_code(128 + SIGKILL);
    assert!(started.elapsed() < END, "{:?}", started.elapsed());
}

#[test]
fn at_the_end_logger_has_time_for_the_last_lines() {
    let sandbox = sandbox();
    let body = "until [ -e \"$kept/go\" ]; do sleep 0.01; done; cat >>\"$kept/lines\"; sleep 1
        echo end >>\"$kept/lines\"";
    let logger = Logger::new(&sandbox, body);
    let running = logger.managed(sandbox.probe().lines(1000).exit(0));
    touch(logger.flag("go"));
    running.wait().expect_code(0);
    let lines = logger.lines();
    assert!(lines.contains(&"line 1000".to_owned()));
    assert_eq!(lines.last().map(String::as_str), Some("end"));
}

#[test]
fn at_the_end_a_logger_that_is_down_is_started_for_the_last_lines() {
    let sandbox = sandbox();
    // Down for the time of a delay when the server ends.
    let body = "run=$(wc -l <\"$kept/runs\"); [ \"$run\" -ge 4 ] && exec cat >>\"$kept/lines\"
        [ \"$run\" -eq 3 ] && : >\"$kept/down\"; exit 1";
    let logger = Logger::new(&sandbox, body);
    let server = sandbox
        .probe()
        .out("last")
        .until(logger.flag("down"))
        .exit(0);
    logger.managed(server).wait().expect_code(0);
    assert!(
        logger.lines().contains(&"last".to_owned()),
        "{:?}",
        logger.lines()
    );
}

#[test]
fn at_the_end_a_logger_that_dies_is_started_again_for_the_last_lines() {
    let sandbox = sandbox();
    let body = "[ \"$(wc -l <\"$kept/runs\")\" -ge 2 ] && exec cat >>\"$kept/lines\"
        until [ -e \"$kept/die\" ]; do sleep 0.01; done; kill -9 $$";
    let logger = Logger::new(&sandbox, body);
    let end = logger.flag("end");
    let running = logger.managed(sandbox.probe().out("last").until(&end).exit(0));
    let server = logger.server();
    touch(&end);
    wait_for("the server to be gone", || !server.exists());
    // The manager waits for logger by now, or is about to.
    wait_for("the pidfile to be removed", || {
        !sandbox.path("pidfile").exists()
    });
    touch(logger.flag("die"));
    running.wait().expect_code(0);
    assert!(
        logger.lines().contains(&"last".to_owned()),
        "{:?}",
        logger.lines()
    );
}

#[test]
fn a_descendant_that_holds_the_pipe_does_not_delay_a_stop() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let end = logger.flag("end");
    let running = logger.managed(sandbox.probe().with_session_child().until(&end).exit(0));
    logger.server();
    let asked = Instant::now();
    touch(&end);
    running.wait().expect_code(0);
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

/// A server that fills the pipe of a logger that does not read, and then waits for room in it.
fn stuck<'a>(logger: &Logger<'a>) -> Running<'a> {
    let script = format!(
        "trap 'echo got >>\"{0}/signals\"' USR1; echo >>\"{0}/starts\"
        head -c 3000000 /dev/zero & wait; wait",
        logger.kept.display()
    );
    let running = logger.managed(["sh".into(), "-c".into(), script.into()]);
    wait_for("the pipe to be full", || is_full(logger.server()));
    running
}

/// Whether a write to the server's output would have to wait.
fn is_full(server: Process) -> bool {
    let path = format!("/proc/{}/fd/1", server.pid());
    let Ok(pipe) = OpenOptions::new().write(true).open(path) else {
        return false;
    };
    poll(
        &mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)],
        PollTimeout::ZERO,
    ) == Ok(0)
}

#[test]
fn while_the_pipe_is_full_signals_are_passed_on() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let running = stuck(&logger);
    running.signal(SIGUSR1);
    wait_for("the signal", || logger.flag("signals").exists());
}

#[test]
fn while_the_pipe_is_full_the_server_can_be_restarted() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let running = stuck(&logger);
    for start in 2..5 {
        running.signal(SIGHUP);
        wait_for("the next start", || {
            sandbox.lines(logger.flag("starts")).len() == start
        });
    }
}

#[test]
fn while_the_pipe_is_full_a_dead_server_comes_back() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let running = stuck(&logger);
    sandbox.signal(logger.server(), SIGKILL);
    wait_for("the second start", || {
        sandbox.lines(logger.flag("starts")).len() == 2
    });
    drop(running);
}

#[test]
fn while_the_pipe_is_full_the_manager_can_be_stopped() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let running = stuck(&logger);
    let asked = Instant::now();
    stop(running);
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

#[test]
fn while_a_handler_waits_for_room_in_the_pipe_the_manager_can_be_stopped() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, HANGS);
    let handler = sandbox.handler("handler").line("head -c 3000000 /dev/zero");
    let running = logger.managed_by(handler, sandbox.probe().exit(3));
    let writer = wait_for("the handler's child", || {
        let mut family = running.process().descendants().into_iter();
        family.find(|process| process.exe().is_some_and(|exe| exe.ends_with("head")))
    });
    wait_for("the pipe to be full", || is_full(writer));
    let asked = Instant::now();
    stop(running);
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
}

#[test]
fn a_blocked_write_continues_when_logger_reads_again() {
    let sandbox = sandbox();
    let body = "until [ -e \"$kept/go\" ]; do sleep 0.01; done; exec cat >>\"$kept/bytes\"";
    let logger = Logger::new(&sandbox, body);
    let running = stuck(&logger);
    touch(logger.flag("go"));
    wait_for("every byte", || {
        let bytes = fs::metadata(logger.flag("bytes")).map_or(0, |about| about.len());
        if bytes >= 3_000_000 {
            Ok(())
        } else {
            Err(bytes)
        }
    });
    drop(running);
}

#[test]
fn output_still_reaches_logger_when_the_manager_is_killed() {
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let running = logger.managed(sandbox.probe().ticks(Duration::from_millis(5)));
    logger.wait_for_line("tick 1");
    let server = logger.server();
    running.signal(SIGKILL);
    running.wait();
    let before = logger.lines().len();
    wait_for("more of the server's lines", || {
        logger.lines().len() > before + 5
    });
    assert!(server.exists());
}

/// A private `/dev` without `/dev/log`, for the programs in `words`.
fn with_own_dev<'a>(sandbox: &'a Sandbox, first: &str) -> Invocation<'a> {
    let script = format!(
        "mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && {first} exec \"$@\""
    );
    let sh = sandbox.program("/bin/sh").tmpfs("/dev", "mode=755");
    sh.args(["-c", &script, "sh"]).arg(VSRUN)
}

#[test]
fn without_a_syslog_daemon_there_is_one_warning_at_the_start() {
    needs!(root);
    for way in 0..4 {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let end = sandbox.open_dir("flags").join("end");
        let vsrun = with_own_dev(&sandbox, "")
            .syslog("tag")
            .pidfile(sandbox.path("pidfile"));
        let vsrun = if way & 1 == 1 {
            vsrun.background()
        } else {
            vsrun
        };
        let vsrun = if way & 2 == 2 {
            vsrun.manager(sandbox.path("manager"), &handler)
        } else {
            vsrun
        };
        let running = vsrun.command(sandbox.probe().until(&end).exit(0)).spawn();
        let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
        touch(&end);
        wait_for("the server to end", || !server.exists());
        let outcome = running.wait();
        outcome.expect_code(0);
        let output = outcome.stderr_text();
        assert_eq!(output.lines().count(), 1, "way {way}: {output}");
        assert!(
            output.starts_with("vsrun: ") && output.contains("/dev/log"),
            "{output}"
        );
    }
}

/// A real syslog daemon with a `/dev/log` of its own, for vsrun and all that it starts.
struct Daemon {
    messages: PathBuf,
    configuration: PathBuf,
}

impl Daemon {
    fn new(sandbox: &Sandbox) -> Daemon {
        let (state, messages) = (sandbox.dir("rsyslog"), sandbox.path("messages"));
        let configuration = format!(
            "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\")\n\
             template(name=\"plain\" type=\"string\" string=\"%syslogtag%%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"plain\")\n",
            state.display(),
            messages.display()
        );
        Daemon {
            configuration: sandbox.file("rsyslog.conf", configuration),
            messages,
        }
    }

    fn vsrun<'a>(&self, sandbox: &'a Sandbox) -> Invocation<'a> {
        // It goes into the background when its socket is open.
        let daemon = format!(
            "rsyslogd -f '{}' -i '{}' &&",
            self.configuration.display(),
            sandbox.path("rsyslogd.pid").display()
        );
        as_user(with_own_dev(sandbox, &daemon))
    }

    fn lines(&self) -> Vec<String> {
        let content = fs::read(&self.messages).unwrap_or_default();
        String::from_utf8_lossy(&content)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn wait_for_line(&self, line: &str) {
        wait_for(&format!("the line '{line}'"), || {
            let lines = self.lines();
            if lines.iter().any(|it| it == line) {
                Ok(())
            } else {
                Err(lines)
            }
        });
    }
}

fn require_daemon() -> bool {
    require_root() && require_program("rsyslogd") && require_program("logger")
}

#[test]
fn the_daemon_gets_the_lines_of_vsrun_server_and_handler_under_the_prefix() {
    if !require_daemon() {
        return;
    }
    let sandbox = sandbox();
    let (daemon, handler) = (
        Daemon::new(&sandbox),
        sandbox
            .handler("handler")
            .line("echo handled")
            .exits(1)
            .create(),
    );
    let vsrun = daemon
        .vsrun(&sandbox)
        .syslog("web")
        .manager(sandbox.path("manager"), &handler);
    let server = sandbox.probe().out("output").err("errors").exit(3);
    let outcome = vsrun.command(server).run();
    outcome.expect_code(3);
    for line in ["web: output", "web: errors", "web: handled"] {
        daemon.wait_for_line(line);
    }
    let started = |line: &String| line.starts_with("web: vsrun: started server ");
    assert!(daemon.lines().iter().any(started), "{:#?}", daemon.lines());
    // With a daemon there is nothing to warn of.
    assert_eq!(
        (outcome.stdout_text(), outcome.stderr_text()),
        (String::new(), String::new())
    );
}

#[test]
fn the_daemon_gets_the_lines_of_a_server_that_vsrun_becomes() {
    if !require_daemon() {
        return;
    }
    let sandbox = sandbox();
    let daemon = Daemon::new(&sandbox);
    let vsrun = daemon.vsrun(&sandbox).syslog("my web");
    let outcome = vsrun
        .command(sandbox.probe().out("output").lines(100).exit(4))
        .run();
    outcome.expect_code(4);
    daemon.wait_for_line("my web: line 100");
    daemon.wait_for_line("my web: output");
    assert_eq!(outcome.stderr_text(), "");
}

#[test]
fn the_daemon_gets_every_line_though_logger_is_killed_in_mid_stream() {
    if !require_daemon() {
        return;
    }
    let sandbox = sandbox();
    let daemon = Daemon::new(&sandbox);
    let (server, input) = echo(&sandbox);
    let vsrun = daemon
        .vsrun(&sandbox)
        .syslog("web")
        .manager(sandbox.path("manager"), "/bin/true");
    let running = vsrun
        .pidfile(sandbox.path("pidfile"))
        .command(server)
        .spawn();
    let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    let mut expected = Vec::new();
    for round in 0..3 {
        let first = format!("{round} before");
        say(&input, &format!("{first}\n"));
        daemon.wait_for_line(&format!("web: {first}"));
        expected.push(first);
        // It has delivered what it had read. What it reads no more is still in the pipe.
        let logger = wait_for("logger", || {
            let mut children = running.process().children().into_iter();
            children.find(|child| child.exe().is_some_and(|exe| exe.ends_with("logger")))
        });
        sandbox.signal(logger, SIGSTOP);
        wait_for("logger to stop", || {
            logger.stat().is_some_and(|stat| stat.state == 'T')
        });
        let lines: Vec<String> = (0..500)
            .map(|number| format!("{round} line {number}"))
            .collect();
        say(&input, &format!("{}\n", lines.join("\n")));
        sandbox.signal(logger, SIGKILL);
        daemon.wait_for_line(&format!("web: {round} line 499"));
        expected.extend(lines);
    }
    let lines = daemon.lines();
    let received: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("web: "))
        .collect();
    let received: Vec<&str> = received
        .into_iter()
        .filter(|line| !line.starts_with("vsrun: "))
        .collect();
    assert_eq!(received, expected);
    assert!(server.exists());
    stop(running);
}

#[test]
fn the_daemon_gets_the_last_lines_of_a_server_before_the_manager_ends() {
    if !require_daemon() {
        return;
    }
    let sandbox = sandbox();
    let daemon = Daemon::new(&sandbox);
    let end = sandbox.open_dir("flags").join("end");
    let vsrun = daemon
        .vsrun(&sandbox)
        .syslog("web")
        .manager(sandbox.path("manager"), "/bin/true");
    let server = sandbox.probe().until(&end).on_term(OnTerm::Exit(0)).exit(0);
    let running = vsrun
        .pidfile(sandbox.path("pidfile"))
        .command(server)
        .spawn();
    sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    touch(&end);
    running.wait().expect_code(0);
    let exited = |line: &String| line.starts_with("web: vsrun: ") && line.contains("exited");
    wait_for("vsrun's last line", || daemon.lines().iter().any(exited));
}

#[test]
fn without_a_manager_a_logger_that_is_killed_before_its_exec_is_an_error_and_no_server_runs() {
    needs!("strace");
    let sandbox = sandbox();
    let logger = Logger::new(&sandbox, KEEPS);
    let ran = sandbox.path("ran");
    for background in [false, true] {
        let start = sandbox
            .program("/usr/bin/strace")
            .args(["-f", "-qq", "-o", "/dev/null"]);
        let start = start.arg("-P").arg(logger.bin.join("logger"));
        let start = start.args([
            "-e",
            "trace=execve",
            "-e",
            "inject=execve:signal=KILL",
            "--",
        ]);
        let start = start.arg(VSRUN).env("PATH", logger.path());
        let start = start.args(if background {
            &["-b", "-s", "tag"][..]
        } else {
            &["-s", "tag"]
        });
        let outcome = start.command(sandbox.probe().append(&ran).exit(0)).run();
        outcome.expect_code(125);
        let output = outcome.stderr_text();
        let expected = "vsrun: cannot execute command 'logger': its process exited with status 137";
        assert!(
            output.lines().any(|line| line.starts_with(expected)),
            "{output}"
        );
        assert!(!ran.exists() && logger.runs().is_empty());
    }
}

/// What logger does when a stop is asked for while the pipe to it is full, and whether all that the
/// A line of sh that records the id of a logger in the file `loggers`.
fn recording(sandbox: &Sandbox) -> String {
    format!("echo $$ >>'{}'", sandbox.path("loggers").display())
}

/// server wrote arrives.
fn stop_with_a_full_pipe(behave: impl FnOnce(&Sandbox, Process)) {
    let sandbox = sandbox();
    let body = format!("exec cat >>'{}'", sandbox.path("kept").display());
    let path = path_with_logger(&sandbox, &format!("{}\n{body}", recording(&sandbox)));
    // Two mebibytes and more into a pipe of one.
    let script = "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 99; exec sleep 1000";
    let manager = sandbox
        .vsrun()
        .env("PATH", path)
        .syslog("tag")
        .pidfile(sandbox.path("server.pid"))
        .manager(sandbox.path("manager.pid"), CONSENT)
        .command([
            "/bin/sh",
            "-c",
            "until [ -e \"$0\" ]; do sleep 0.01; done; eval \"$1\"",
        ])
        .arg(sandbox.path("go"))
        .arg(script)
        .spawn();
    let id = wait_for("logger", || sandbox.lines("loggers").first()?.parse().ok());
    let logger = Process::of(id);
    wait_for("cat", || {
        logger
            .cmdline()
            .is_some_and(|words| words.first().is_some_and(|it| it == "cat"))
    });
    sandbox.signal(logger, SIGSTOP);
    sandbox.file("go", "");
    let server = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
    let writer = wait_for("who fills the pipe", || {
        let children = server.descendants();
        children.into_iter().find(|it| {
            it.cmdline()
                .is_some_and(|words| words.first().is_some_and(|it| it == "fold"))
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
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "{:?}",
        asked.elapsed()
    );
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!sandbox.path(name).exists(), "{name} is left");
    }
}

#[test]
fn a_logger_that_hangs_with_a_full_pipe_does_not_prevent_a_stop() {
    stop_with_a_full_pipe(|_, _| {});
}

#[test]
fn a_logger_that_dies_with_a_full_pipe_does_not_prevent_a_stop() {
    stop_with_a_full_pipe(|sandbox, logger| sandbox.signal(logger, SIGKILL));
}

#[test]
fn a_logger_that_continues_during_a_stop_gets_the_content_of_the_pipe() {
    stop_with_a_full_pipe(|sandbox, logger| {
        sandbox.signal(logger, SIGCONT);
        wait_for("what was in the pipe", || {
            let kept = fs::metadata(sandbox.path("kept")).map_or(0, |kept| kept.len());
            if kept >= 1 << 20 { Ok(()) } else { Err(kept) }
        });
    });
}

#[test]
fn a_server_gets_no_broken_pipe_while_loggers_are_killed() {
    let sandbox = sandbox();
    let path = path_with_logger(
        &sandbox,
        &format!("{}\nexec cat >/dev/null", recording(&sandbox)),
    );
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
            sandbox
                .lines("loggers")
                .get(count - 1)
                .and_then(|id| id.parse().ok())
        });
        sandbox.signal(Process::of(id), SIGKILL);
    }
    wait_for("the seventh logger", || sandbox.lines("loggers").len() == 7);
    assert!(server.exists() && sandbox.lines("starts").len() == 1);
    stop(manager);
}

#[test]
fn a_server_can_take_lines_out_of_the_pipe_to_logger() {
    needs!(root, "python3");
    let sandbox = sandbox();
    let out = sandbox.open_dir("out");
    let script = "import os, sys
line = os.read(os.open('/dev/stdout', os.O_RDONLY), 4096)
with open(sys.argv[1] + '.new', 'wb') as out:
    out.write(line)
os.rename(sys.argv[1] + '.new', sys.argv[1])
";
    let path = path_with_logger(&sandbox, "exec sleep 1000");
    let start = sandbox
        .vsrun()
        .env("PATH", path)
        .user("nobody")
        .syslog("tag");
    let taken = out.join("taken");
    let words = [PYTHON, "-c", script, taken.to_str().expect("a plain path")];
    let _manager = start.manager("manager", CONSENT).command(words).spawn();
    wait_for("a line", || taken.exists());
    let taken = fs::read_to_string(taken).expect("a line");
    assert!(taken.starts_with("vsrun: started server "), "{taken}");
}
