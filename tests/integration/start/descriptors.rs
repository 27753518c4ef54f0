//! Which descriptors a server, a handler and a manager have.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::resource::getrlimit;

use super::*;
use crate::prelude::*;

fn open(path: impl AsRef<Path>) -> OwnedFd {
    File::open(path).expect("a file").into()
}

#[test]
fn standard_input_is_the_null_device() {
    for report in in_every_way(|start| start.stdin(File::open("/etc/passwd").expect("a file"))) {
        assert_eq!(report.fds[&0], Path::new("/dev/null"));
    }
}

#[test]
fn every_inherited_descriptor_above_2_is_closed_in_the_server() {
    let reports = in_every_way(|start| {
        let numbers = (3..10).chain([33, 255, 256, 900]);
        numbers.fold(start, |start, number| {
            start.inheriting(number, open("/etc/passwd"))
        })
    });
    for report in reports {
        assert_eq!(report.fd_numbers(), [0, 1, 2]);
    }
}

#[test]
fn descriptors_above_the_limit_are_closed_too() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    // A few numbers are left free, for the dynamic loader.
    let numbers = (12..64).chain([200, 1000]);
    let start = numbers
        .fold(sandbox.vsrun(), |start, number| {
            start.inheriting(number, open("/etc/passwd"))
        })
        .limit(Resource::RLIMIT_NOFILE, 64, 64);
    let server = sandbox.probe().report(&report).exit(0);
    start.pidfile("pid").command(server).run().expect_code(0);
    assert_eq!(Report::wait(report).fd_numbers(), [0, 1, 2]);
}

#[test]
fn on_a_kernel_without_close_range_no_inherited_descriptor_stays_open() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let (report, trace, empty) = (
        sandbox.path("report"),
        sandbox.path("trace"),
        sandbox.dir("no"),
    );
    // As many as a process may have: without a /proc each number has to be tried.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // strace(1) itself needs a /proc.
    let hiding = "mount --bind \"$0\" /proc && exec \"$@\"";
    for hide in [
        &["sh", "-c", "exec \"$@\""][..],
        &["unshare", "-m", "sh", "-c", hiding],
    ] {
        fs::remove_file(&report).ok();
        let strace = sandbox
            .program("/usr/bin/strace")
            .args(["-f", "--seccomp-bpf", "-qq", "-o"]);
        let strace = strace
            .arg(&trace)
            .args(["-e", "inject=close_range:error=ENOSYS", "--"]);
        let start = strace.args(hide).arg(&empty).arg(VSRUN);
        let passwd = || File::open("/etc/passwd").expect("a file");
        let start = start
            .inheriting(7, passwd())
            .inheriting(33, passwd())
            .inheriting(900, passwd());
        let start = start.pidfile("pid");
        let start = start.limit(Resource::RLIMIT_NOFILE, most, most);
        start
            .command(sandbox.probe().report(&report).exit(0))
            .run()
            .expect_code(0);
        assert_eq!(Report::wait(&report).fd_numbers(), [0, 1, 2], "{hide:?}");
        let refused = fs::read_to_string(&trace).is_ok_and(|it| it.contains("ENOSYS"));
        assert!(refused, "the kernel had the call after all");
    }
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
fn with_closed_standard_error_no_message_goes_into_a_file_of_vsrun() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox
        .vsrun()
        .closed([0, 1, 2])
        .manager(sandbox.path("manager"), &handler);
    let server = sandbox
        .probe()
        .out("out")
        .err("err")
        .append(sandbox.path("starts"));
    let server = server.until(sandbox.path("end")).exit(1);
    let running = start.pidfile(sandbox.path("pid")).command(server).spawn();
    started(&sandbox, 1);
    assert_eq!(sandbox.lines("manager"), [running.pid().to_string()]);
    assert_eq!(sandbox.lines("manager.lock"), [""; 0]);
    assert_eq!(sandbox.lines("pid"), sandbox.lines("starts"));
    sandbox.file("end", "");
    running.wait().expect_code(1);
}

#[test]
fn with_closed_standard_descriptors_output_goes_to_the_logs() {
    let sandbox = sandbox();
    let (report, lines) = (sandbox.path("report"), sandbox.path("lines"));
    let path = path_with_logger(&sandbox, &format!("exec cat >>'{}'", lines.display()));
    let handler = sandbox.handler("handler").create();
    let server = || sandbox.probe().report(&report).out("hello").exit(0);
    let is_pipe = |target: &PathBuf| target.to_string_lossy().starts_with("pipe:");
    for way in 0..4 {
        // The numbers that vsrun's own files would get, and some above them.
        let start = || {
            fs::remove_file(&report).ok();
            let start = ways(&sandbox, &handler)
                .into_iter()
                .nth(way)
                .expect("a way");
            start.closed(0..10).pidfile("pid").env("PATH", &path)
        };
        let logs = sandbox.path(format!("logs{way}"));
        start()
            .logdir(&logs, "1")
            .command(server())
            .run()
            .expect_code(0);
        let log = logs.join("logfile");
        let files: Vec<_> = Report::wait(&report).fds.into_values().collect();
        assert_eq!(files, [Path::new("/dev/null"), &log, &log]);
        wait_for("the line", || {
            fs::read_to_string(&log).is_ok_and(|text| text == "hello\n")
        });

        fs::remove_file(&lines).ok();
        start().syslog("tag").command(server()).run().expect_code(0);
        let files: Vec<_> = Report::wait(&report).fds.into_values().collect();
        assert!(
            files[0] == Path::new("/dev/null") && files.len() == 3,
            "{files:?}"
        );
        assert!(files[1..].iter().all(is_pipe), "{files:?}");
        wait_for("the line", || {
            sandbox.lines(&lines).iter().any(|line| line == "hello")
        });
    }
}

#[test]
fn standard_output_and_error_are_not_redirected() {
    let sandbox = sandbox();
    let outcome = sandbox
        .vsrun()
        .command(sandbox.probe().out("out").err("err").exit(0))
        .run();
    assert_eq!(
        (&*outcome.stdout_text(), &*outcome.stderr_text()),
        ("out\n", "err\n")
    );
}

/// A descriptor of the parent that stays open: CVE-2024-21626 and CVE-2019-5736 of runc.
#[test]
fn files_that_the_options_open_are_closed_in_server_and_handler() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.root("jail");
    let handler = sandbox.handler("handler").exits(1).create();
    let managed = sandbox.vsrun().manager("manager", &handler);
    let ways = [sandbox.vsrun(), sandbox.vsrun().background(), managed];
    for (way, start) in ways.into_iter().enumerate() {
        let report = format!("/tmp/report{way}");
        let server = Probe::at("/bin/probe")
            .report(&report)
            .exit(u8::from(way == 2));
        let start = start
            .user("nobody")
            .root("jail")
            .pidfile("pid")
            .logdir("logs", "1");
        let start = start.inheriting(3, File::open("/").expect("a directory"));
        start.command(server).run().expect_code(i32::from(way == 2));
        let seen = Report::wait(sandbox.path(format!("jail{report}")));
        assert_eq!(seen.fd_numbers(), [0, 1, 2]);
    }
    let fds = handler.wait_for_run(1).fds;
    let log = sandbox.path("logs/vsrun.log");
    assert_eq!(
        fds.into_values().collect::<Vec<_>>(),
        [Path::new("/dev/null"), &log, &log]
    );
}
