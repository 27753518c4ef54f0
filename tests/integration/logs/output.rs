//! What goes into the two files, and how.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use nix::fcntl::OFlag;

use super::*;
use crate::prelude::*;

fn flags_of(process: Process, fd: i32) -> OFlag {
    let info = text(format!("/proc/{}/fdinfo/{fd}", process.pid()));
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .expect("flags");
    OFlag::from_bits_truncate(i32::from_str_radix(flags.trim(), 8).expect("an octal number"))
}

/// What a line of vsrun.log says, by time, process and text; none if it is not of that form.
fn line_of_vsrun(line: &str) -> Option<(DateTime<FixedOffset>, i32, &str)> {
    let form = "0000-00-00T00:00:00.000+00:00";
    let stamp = line.get(..form.len())?;
    let fits = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'+' => byte == b'+' || byte == b'-',
        other => byte == other,
    };
    let time = DateTime::parse_from_rfc3339(stamp).ok()?;
    let (pid, text) = line[form.len()..]
        .strip_prefix(" vsrun[")?
        .split_once("]: ")?;
    stamp
        .bytes()
        .zip(form.bytes())
        .all(fits)
        .then_some((time, pid.parse().ok()?, text))
}

#[test]
fn the_servers_output_and_errors_go_to_logfile_and_nowhere_else() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().out("output").err("errors").exit(3);
    let outcome = sandbox.vsrun().logdir(&logs, "1d").command(server).run();
    outcome.expect_code(3);
    assert_eq!(logs.server(), "output\nerrors\n");
    assert_eq!(
        (outcome.stdout_text(), outcome.stderr_text()),
        (String::new(), String::new())
    );
    let log = logs.vsrun();
    assert!(
        log.lines().all(|line| line_of_vsrun(line).is_some()),
        "{log}"
    );
}

#[test]
fn the_handlers_output_goes_to_vsruns_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed_with_logs(&sandbox, logs.path(), sandbox.probe().only_first(1).exit(3));
    managed.wait_for_start(2);
    let output: Vec<String> = logs
        .vsrun()
        .lines()
        .filter(|line| line_of_vsrun(line).is_none())
        .map(Into::into)
        .collect();
    assert_eq!(output, ["handled", "badly"]);
    assert_eq!(managed.vsrun.stderr(), "");
    managed.stop().expect_code(0);
}

#[test]
fn the_manager_logs_what_it_started() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let before = Utc::now();
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let vsrun = vsrun.manager(sandbox.path("manager"), "/bin/true");
    let vsrun = vsrun
        .pidfile(sandbox.path("pidfile"))
        .command(["sleep", "1000"])
        .spawn();
    let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    let log = wait_for("a line of vsrun's", || {
        logs.vsrun().lines().next().map(str::to_owned)
    });
    let (time, pid, text) = line_of_vsrun(&log).expect("a line of vsrun's form");
    assert_eq!(pid, vsrun.pid());
    assert_eq!(text, format!("started server {}: sleep 1000", server.pid()));
    // The log's times are cut to milliseconds.
    assert!(
        time >= before - TimeDelta::milliseconds(1) && time <= Utc::now(),
        "{time}"
    );
}

#[test]
fn a_server_that_vsrun_becomes_has_its_line_in_the_log_too() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report).exit(0);
    sandbox
        .vsrun()
        .logdir(&logs, "1d")
        .command(server)
        .run()
        .expect_code(0);
    let log = logs.vsrun();
    let (_, pid, text) = line_of_vsrun(log.trim_end()).expect("one line of vsrun's form");
    assert_eq!(pid, Report::wait(&report).pid);
    assert!(text.contains(&format!(" server {pid}: ")), "{text}");
}

#[test]
fn the_log_has_the_local_time_with_its_offset() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let vsrun = sandbox.vsrun().env("TZ", "XYZ-05:30").logdir(&logs, "1d");
    vsrun.command(["/bin/true"]).run().expect_code(0);
    let log = logs.vsrun();
    let (time, ..) = line_of_vsrun(log.trim_end()).expect("a line of vsrun's form");
    assert_eq!(time.offset().local_minus_utc(), (5 * 60 + 30) * 60);
    assert!(
        Utc::now().signed_duration_since(time).num_seconds().abs() < 30,
        "{time}"
    );
}

/// A file in the form of tzfile(5), of a zone so many seconds east.
fn zone_file(sandbox: &Sandbox, name: &str, east: i32) -> PathBuf {
    let block = || {
        let counts = [0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
        [
            &b"TZif2"[..],
            &[0; 15],
            &counts,
            &east.to_be_bytes(),
            &[0, 0],
            b"XYZ\0",
        ]
        .concat()
    };
    sandbox.file(name, [block(), block(), b"\n\n".to_vec()].concat())
}

#[test]
fn a_time_zone_that_is_none_is_utc_and_ends_no_manager() {
    let sandbox = sandbox();
    let (east, absurd) = (3600, 200_000);
    for (zone, offset) in [
        (
            format!(":{}", zone_file(&sandbox, "near", east).display()),
            east,
        ),
        (
            format!(":{}", zone_file(&sandbox, "absurd", absurd).display()),
            0,
        ),
        (":/dev/zero".to_owned(), 0),
        (":/etc/passwd".to_owned(), 0),
        (":/nonexistent".to_owned(), 0),
        ("X99".to_owned(), 0),
        (String::new(), 0),
    ] {
        let logs = LogDirectory::at(sandbox.path("logs"));
        let vsrun = sandbox
            .vsrun()
            .env("TZ", &zone)
            .limit(Resource::RLIMIT_AS, 1 << 30, 1 << 30);
        let vsrun = vsrun
            .logdir(&logs, "1d")
            .manager(sandbox.path("manager"), "/bin/false");
        vsrun.command(["/bin/true"]).run().expect_code(0);
        let log = logs.vsrun();
        let first = log.lines().next().expect("a line");
        let (time, ..) = line_of_vsrun(first).expect("a line of vsrun's form");
        assert_eq!(time.offset().local_minus_utc(), offset, "{zone}");
        assert!(
            Utc::now().signed_duration_since(time).num_seconds().abs() < 30,
            "{time}"
        );
    }
}

#[test]
fn each_line_is_one_write() {
    needs!("strace");
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let (trace, handler) = (
        sandbox.path("trace"),
        sandbox.handler("handler").exits(1).create(),
    );
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "-e", "trace=write,writev", "-s", "9999", "-o"]);
    let vsrun = strace.arg(&trace).arg(VSRUN).logdir(&logs, "1d");
    let vsrun = vsrun.manager(sandbox.path("manager"), &handler);
    vsrun.command(sandbox.probe().exit(3)).run().expect_code(3);
    let trace = text(&trace);
    let writes: Vec<&str> = trace
        .lines()
        .filter(|call| call.contains(" vsrun["))
        .collect();
    let whole = |call: &&str| call.matches("\\n").count() == 1 && call.contains("\\n\", ");
    assert!(writes.iter().all(whole), "{writes:#?}");
    assert_eq!(writes.len(), logs.vsrun().lines().count());
}

#[test]
fn no_argument_can_forge_a_line() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let forged = "x\n2026-01-01T00:00:00.000+00:00 vsrun[1]: forged\r\n\x1b[2J\x7f\u{85}";
    let server = sandbox.probe().carrying([forged]);
    let managed = managed_by_words(&sandbox, logs.path(), server);
    managed.restart();
    let manager = managed.vsrun.pid();
    managed.stop().expect_code(0);
    let log = logs.vsrun();
    let foreign = log
        .lines()
        .find(|line| line_of_vsrun(line).is_none_or(|(_, pid, _)| pid != manager));
    assert_eq!(foreign, None);
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
}

/// The word that a server carries must come last.
fn managed_by_words<'a>(sandbox: &'a Sandbox, logs: &Path, server: Probe) -> Managed<'a> {
    let starts = sandbox.open_dir("out").join("starts");
    let mut words: Vec<OsString> = server.into_iter().collect();
    let mut append = OsString::from("append=");
    append.push(starts);
    words.insert(1, append);
    Managed::of(sandbox, as_user(sandbox.vsrun()).logdir(logs, "1d"), words)
}

#[test]
fn bytes_that_are_no_text_are_escaped_in_the_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox
        .probe()
        .exit(0)
        .carrying([OsStr::from_bytes(b"a\xffb")]);
    sandbox
        .vsrun()
        .logdir(&logs, "1d")
        .command(server)
        .run()
        .expect_code(0);
    let log = String::from_utf8(logs.read("vsrun.log")).expect("text");
    assert!(
        line_of_vsrun(log.trim_end()).is_some() && log.contains("\\xff"),
        "{log}"
    );
}

#[test]
fn a_line_longer_than_a_page_is_still_one_line() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().exit(0).carrying(vec!["word"; 20_000]);
    sandbox
        .vsrun()
        .logdir(&logs, "1d")
        .command(server)
        .run()
        .expect_code(0);
    let log = logs.vsrun();
    assert!(
        log.lines().all(|line| line_of_vsrun(line).is_some()) && log.ends_with('\n'),
        "{log}"
    );
}

#[test]
fn the_server_writes_straight_to_the_file_and_at_its_end() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe());
    let server = managed.server();
    let open = server.open_files().expect("a running server");
    for fd in [1, 2] {
        assert_eq!(open[&fd], logs.join("logfile"));
        assert!(
            flags_of(server, fd).contains(OFlag::O_APPEND),
            "descriptor {fd}"
        );
        assert!(
            !flags_of(server, fd).contains(OFlag::O_NONBLOCK),
            "descriptor {fd}"
        );
    }
    assert_eq!(open.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    assert_eq!(managed.vsrun.process().descendants(), [server]);
    managed.stop().expect_code(0);
}

#[test]
fn a_server_that_vsrun_becomes_writes_straight_to_the_file_and_at_its_end() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let report = sandbox.open_dir("out").join("report");
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let running = vsrun.command(sandbox.probe().report(&report)).spawn();
    let report = Report::wait(&report);
    let (server, logfile) = (running.process(), logs.join("logfile"));
    assert_eq!(
        (report.pid, report.fd_numbers()),
        (server.pid(), vec![0, 1, 2])
    );
    assert_eq!((&report.fds[&1], &report.fds[&2]), (&logfile, &logfile));
    assert!(
        [1, 2]
            .into_iter()
            .all(|fd| flags_of(server, fd).contains(OFlag::O_APPEND))
    );
    assert_eq!(sandbox.processes(), [server]);
}

#[test]
fn manager_and_handler_write_at_the_end_of_vsruns_log() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().only_first(1).exit(3));
    let handler = managed.handler.wait_for_run(1);
    managed.wait_for_start(2);
    let manager = managed.vsrun.process();
    let open = manager.open_files().expect("a running manager");
    for fd in [1, 2] {
        assert_eq!(
            (&open[&fd], &handler.fds[&fd]),
            (&logs.join("vsrun.log"), &open[&fd])
        );
        assert!(
            flags_of(manager, fd).contains(OFlag::O_APPEND),
            "descriptor {fd}"
        );
    }
    managed.stop().expect_code(0);
}

#[test]
fn what_others_append_to_a_log_is_not_overwritten() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let go = sandbox.open_dir("flags").join("go");
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let script = format!(
        "echo first; until [ -e '{}' ]; do sleep 0.01; done; echo third",
        go.display()
    );
    let running = vsrun.command(["/bin/sh", "-c", &script]).spawn();
    wait_for("the first line", || text(logs.join("logfile")) == "first\n");
    let mut file = File::options()
        .append(true)
        .open(logs.join("logfile"))
        .expect("the log");
    std::io::Write::write_all(&mut file, b"second\n").expect("room");
    fs::write(&go, "").expect("the sandbox can be written");
    running.wait().expect_code(0);
    assert_eq!(text(logs.join("logfile")), "first\nsecond\nthird\n");
}

#[test]
fn in_the_background_output_goes_to_the_files_too() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let outcome = as_user(sandbox.vsrun())
        .background()
        .pidfile(sandbox.path("pidfile"))
        .logdir(&logs, "1d")
        .command(sandbox.probe().out("hello"))
        .run();
    outcome.expect_code(0);
    wait_for("the server's line", || logs.server() == "hello\n");
    let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    assert!(
        logs.vsrun()
            .contains(&format!(" server {}: ", server.pid())),
        "{}",
        logs.vsrun()
    );
    assert_eq!(
        (outcome.stdout_text(), outcome.stderr_text()),
        (String::new(), String::new())
    );
}
