//! Very many old logs.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

use super::*;
use crate::prelude::*;

/// A server in a directory with so many old logs, and a log to be rotated.
fn among_old_logs<'a>(sandbox: &'a Sandbox, logs: &Path, count: u32, keep: &str) -> Managed<'a> {
    let fill = format!(
        "cd logs && seq -f logfile.%.0f {count} | xargs touch -d '2 hours ago' && echo old >logfile &&
        : >../filled && exec \"$@\""
    );
    let sh = sandbox.program("/bin/sh");
    // A tmpfs, where possible, so that the files do not slow down other tests.
    let sh = if geteuid().is_root() {
        sh.tmpfs(logs, "mode=777")
    } else {
        sh
    };
    let vsrun = sh.args(["-c", &fill, "sh"]).arg(VSRUN);
    Managed::new(sandbox, as_user(vsrun).logdir(logs, keep), sandbox.probe())
}

fn expect_prompt_start(sandbox: &Sandbox) {
    let time = |path: &str| about(sandbox.path(path)).modified().expect("a time");
    let took = time("out/starts")
        .duration_since(time("filled"))
        .expect("a start after that");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_hundred_thousand_old_logs_are_deleted_while_the_server_runs() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = among_old_logs(&sandbox, &logs, 100_000, "1h");
    expect_prompt_start(&sandbox);
    let inside = managed.vsrun.process().path_inside(&logs);
    // To read so large a directory over and over would take longer than to empty it.
    for number in [1, 50_000, 100_000] {
        wait_for("an old log to go", || {
            !inside.join(format!("logfile.{number}")).exists()
        });
    }
    wait_for("all old logs to go", || {
        let left = LogDirectory::at(&inside).names();
        if left == ["logfile", "logfile.100001", "vsrun.log"] {
            Ok(())
        } else {
            Err(left.len())
        }
    });
    let memory = managed
        .vsrun
        .process()
        .status()
        .expect("a running manager")
        .rss_kib;
    assert!(memory < 16 * 1024, "{memory} KiB");
    managed.stop().expect_code(0);
}

#[test]
fn twenty_thousand_young_logs_stay_and_do_not_hold_up_a_start() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = among_old_logs(&sandbox, &logs, 20_000, "1d");
    expect_prompt_start(&sandbox);
    let inside = managed.vsrun.process().path_inside(&logs);
    assert_eq!(text(inside.join("logfile.20001")), "old\n");
    assert_eq!(LogDirectory::at(&inside).names().len(), 20_003);
    managed.stop().expect_code(0);
}

/// Makes empty files with the names of old logs.
fn make_old_logs(logs: &Path, count: u64) {
    for number in 1..=count {
        let file = File::create(logs.join(format!("logfile.{number}")));
        let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
        file.and_then(|file| file.set_modified(long_ago))
            .expect("the sandbox can be written");
    }
}

/// strace(1), which makes each deletion take five milliseconds.
fn slow_deletions(sandbox: &Sandbox) -> Invocation<'_> {
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]);
    strace.args([
        "-e",
        "trace=unlinkat",
        "-e",
        "inject=unlinkat:delay_enter=5000",
    ])
}

fn with_slow_deletions<'a>(sandbox: &'a Sandbox, logs: &Path) -> Invocation<'a> {
    let vsrun = slow_deletions(sandbox).arg(VSRUN);
    as_user(vsrun).logdir(logs, "1h")
}

const MANY: u64 = 1_500;

/// A managed server with many old logs, whose deletion takes long; and their directory.
fn managed_with_slow_deletions(sandbox: &Sandbox) -> (PathBuf, Managed<'_>) {
    let logs = users_dir(sandbox, "logs");
    make_old_logs(&logs, MANY);
    let vsrun = with_slow_deletions(sandbox, &logs);
    (logs, Managed::new(sandbox, vsrun, sandbox.probe()))
}

fn expect_most_are_left(logs: &Path) {
    let left = LogDirectory::at(logs).names().len() as u64;
    assert!(left > MANY / 2, "only {left} old logs are left");
}

#[test]
fn deletion_does_not_hold_up_the_server() {
    needs!("strace");
    let sandbox = sandbox();
    let (logs, managed) = managed_with_slow_deletions(&sandbox);
    expect_most_are_left(&logs);
    drop(managed);
}

#[test]
fn the_deleting_process_is_no_child_of_the_server() {
    needs!("strace");
    let sandbox = sandbox();
    let (logs, report) = (
        users_dir(&sandbox, "logs"),
        sandbox.open_dir("out").join("report"),
    );
    make_old_logs(&logs, MANY);
    let server = sandbox.probe().report(&report);
    let running = with_slow_deletions(&sandbox, &logs).command(server).spawn();
    let server = Report::wait(&report).pid;
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    assert_eq!(children.expect("a running server"), "");
    expect_most_are_left(&logs);
    drop(running);
}

#[test]
fn the_deleting_process_does_not_hold_the_output_open() {
    needs!("strace");
    let sandbox = sandbox();
    let (logs, pipe) = (users_dir(&sandbox, "logs"), sandbox.path("pipe"));
    make_old_logs(&logs, MANY);
    mkfifo(&pipe, Mode::S_IRWXU).expect("a FIFO");
    let redirect = format!("exec \"$@\" >'{}' 2>&1", pipe.display());
    let strace = slow_deletions(&sandbox).args(["/bin/sh", "-c", &redirect, "sh"]);
    let vsrun = as_user(strace.arg(VSRUN)).logdir(&logs, "1h");
    let running = vsrun.command(["/bin/true"]).spawn();
    assert_eq!(fs::read(&pipe).expect("a FIFO"), b"");
    expect_most_are_left(&logs);
    drop(running);
}

#[test]
fn deletion_does_not_hold_up_a_stop() {
    needs!("strace");
    let sandbox = sandbox();
    let (logs, managed) = managed_with_slow_deletions(&sandbox);
    let manager = sandbox.wait_for_pidfile(sandbox.path("manager"));
    sandbox.signal(manager, SIGTERM);
    managed.vsrun.wait().expect_code(0);
    expect_most_are_left(&logs);
}

#[test]
fn deletion_does_not_hold_up_a_restart() {
    needs!("strace");
    let sandbox = sandbox();
    let (logs, managed) = managed_with_slow_deletions(&sandbox);
    sandbox.signal(sandbox.wait_for_pidfile(sandbox.path("manager")), SIGHUP);
    managed.wait_for_start(2);
    expect_most_are_left(&logs);
}

#[test]
fn the_directory_is_read_once_at_a_start_and_once_at_a_restart() {
    needs!("strace");
    let sandbox = sandbox();
    let (logs, trace) = (users_dir(&sandbox, "logs"), sandbox.path("trace"));
    make_old_logs(&logs, MANY);
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args([
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-y",
        "-e",
        "trace=getdents64",
        "-o",
    ]);
    let vsrun = as_user(strace.arg(&trace).arg(VSRUN)).logdir(&logs, "1d");
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe());
    let manager = sandbox.wait_for_pidfile(sandbox.path("manager"));
    // A pass ends with a call that returns nothing.
    let passes = || {
        let trace = text(&trace);
        let ours = trace
            .lines()
            .filter(|call| call.contains(&format!("<{}>", logs.display())));
        ours.filter(|call| call.ends_with(" = 0")).count()
    };
    let at_start = passes();
    sandbox.signal(manager, SIGHUP);
    managed.wait_for_start(2);
    let at_restart = passes() - at_start;
    sandbox.signal(manager, SIGTERM);
    managed.vsrun.wait().expect_code(0);
    assert_eq!((at_start, at_restart), (1, 1));
}

#[test]
fn a_restart_among_many_old_logs_survives_a_lack_of_memory() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let start = managed(&sandbox, CONSENT).logdir(&logs, "1");
    let manager = start.command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    // The directory's owner can make them at any time.
    (1..5000).for_each(|number| {
        fs::write(logs.join(format!("logfile.{number}")), "x").expect("the sandbox can be written");
    });
    // The system call brk(2) returns no error: the break stays below the one requested.
    let refusals = [
        "-e",
        "inject=mmap,mremap:error=ENOMEM",
        "-e",
        "inject=brk:retval=0",
    ];
    let tracer = traced(&sandbox, manager.process(), &refusals);
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    assert!(!second.exists());
    detach(tracer);
    stop(manager);
    expect_no_files(&sandbox);
}
