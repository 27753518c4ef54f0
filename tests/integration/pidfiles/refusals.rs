//! What a pidfile refuses.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::prelude::*;

/// Tries to start with something in the pidfile's place, which must survive.
fn is_kept(sandbox: &Sandbox, pidfile: &Path) {
    let before = fs::symlink_metadata(pidfile).expect("it is there");
    let names = run_names(pidfile);
    let start = || sandbox.vsrun().pidfile(pidfile);
    let manager = sandbox.path("manager");
    for start in [
        start(),
        start().background(),
        start().manager(&manager, handler(sandbox)),
        start().manager(&manager, handler(sandbox)).background(),
        sandbox.vsrun().manager(pidfile, handler(sandbox)),
    ] {
        let start = start.deadline(Duration::from_secs(10));
        is_refused(&start.command(forbidden(sandbox)).run(), pidfile);
    }
    let after = fs::symlink_metadata(pidfile).expect("it is there");
    assert_eq!(
        (before.ino(), before.mode(), before.len()),
        (after.ino(), after.mode(), after.len())
    );
    assert_eq!(run_names(pidfile), names);
    for left in ["manager", "manager.lock", "ran"] {
        assert!(!sandbox.path(left).exists(), "'{left}' is there");
    }
}

fn run_names(pidfile: &Path) -> Vec<OsString> {
    LogDirectory::at(pidfile.parent().expect("a directory")).names()
}

#[test]
fn a_fifo_is_refused_at_once() {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    make("mkfifo", &[pidfile.as_os_str()]);
    is_kept(&sandbox, &pidfile);
    assert!(
        fs::symlink_metadata(pidfile)
            .expect("it is there")
            .file_type()
            .is_fifo()
    );
}

#[test]
fn a_socket_is_refused() {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    let _listener = UnixListener::bind(&pidfile).expect("a socket");
    is_kept(&sandbox, &pidfile);
}

#[test]
fn a_directory_is_refused() {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    sandbox.dir("run/pid");
    is_kept(&sandbox, &pidfile);
}

#[test]
fn a_device_is_refused() {
    needs!(root);
    for (kind, major, minor) in [("c", "1", "5"), ("c", "1", "7"), ("b", "7", "0")] {
        let sandbox = sandbox();
        let pidfile = run_dir(&sandbox).path().join("pid");
        let words = [kind, major, minor].map(OsStr::new);
        make(
            "mknod",
            &[pidfile.as_os_str(), words[0], words[1], words[2]],
        );
        is_kept(&sandbox, &pidfile);
    }
}

#[test]
fn the_null_device_is_accepted_and_never_replaced() {
    let sandbox = sandbox();
    let start = || {
        let start = sandbox.vsrun().pidfile("/dev/null");
        // The mount protects the machine's own device if vsrun has a fault.
        if is_root() {
            start.bind("/dev/null", "/dev/null")
        } else {
            start
        }
    };
    start()
        .command(sandbox.probe().exit(3))
        .run()
        .expect_code(3);
    let server = sandbox
        .probe()
        .append(sandbox.path("starts"))
        .only_first(1)
        .exit(1);
    let start = start()
        .manager("manager", handler(&sandbox))
        .command(server);
    let running = start.spawn();
    wait_for("the restart", || sandbox.lines("starts").len() == 2);
    stop(running);
    let device = fs::metadata("/dev/null").expect("a device");
    assert!(device.file_type().is_char_device());
    assert_eq!(device.mode() & 0o777, 0o666);
}

#[test]
fn a_node_of_the_null_device_is_never_replaced_by_root() {
    needs!(root);
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("null");
    make(
        "mknod",
        &[
            pidfile.as_os_str(),
            "c".as_ref(),
            "1".as_ref(),
            "3".as_ref(),
        ],
    );
    sandbox
        .vsrun()
        .pidfile(&pidfile)
        .command(sandbox.probe().exit(0))
        .run()
        .expect_code(0);
    assert!(
        fs::symlink_metadata(&pidfile)
            .expect("a device")
            .file_type()
            .is_char_device()
    );
    assert_eq!(run_names(&pidfile), ["null"]);
}

#[test]
fn a_missing_directory_is_an_error() {
    let sandbox = sandbox();
    let file = sandbox.file("file", "");
    for (path, reason) in [
        (sandbox.path("missing/pid"), "No such file or directory"),
        (file.join("pid"), "Not a directory"),
    ] {
        let line = format!("vsrun: cannot write pidfile '{}': {reason}", path.display());
        for start in [sandbox.vsrun(), sandbox.vsrun().background()] {
            start
                .pidfile(&path)
                .command(forbidden(&sandbox))
                .run()
                .expect_error(125, &line);
        }
        let start = sandbox.vsrun().manager(&path, handler(&sandbox));
        let outcome = start.command(forbidden(&sandbox)).run();
        outcome.expect_code(125);
        assert!(outcome.stderr_text().contains(path.to_str().expect("text")));
        assert!(outcome.stderr_text().contains(reason));
    }
    assert!(!sandbox.path("missing").exists() && !sandbox.path("ran").exists());
}

#[test]
fn a_path_that_ends_in_a_slash_or_dots_names_no_file() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.dir("run/directory");
    for path in [
        "run/pid/",
        "run/directory/",
        "run/.",
        "run/..",
        "/",
        ".",
        "..",
        "run/pid/.",
    ] {
        let start = sandbox.vsrun().pidfile(path).command(forbidden(&sandbox));
        start.run().expect_code(125);
        let start = sandbox.vsrun().manager(path, handler(&sandbox));
        start.command(forbidden(&sandbox)).run().expect_code(125);
        assert_eq!(run.names(), ["directory"], "{path}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir("run");
    let pidfile = sandbox.path("run/pid");
    let line = format!(
        "vsrun: cannot write pidfile '{}': Permission denied",
        pidfile.display()
    );
    let start = sandbox
        .vsrun()
        .run_as(NOBODY, NOBODY, &[])
        .pidfile(&pidfile);
    start.command(["/bin/true"]).run().expect_error(125, &line);
}

#[test]
fn a_name_of_the_greatest_length_works_and_a_longer_one_is_an_error() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let longest = run.path().join("x".repeat(255));
    sandbox
        .vsrun()
        .pidfile(&longest)
        .command(sandbox.probe().exit(0))
        .run()
        .expect_code(0);
    assert!(sandbox.read_pidfile(&longest).is_some());
    fs::remove_file(&longest).expect("a pidfile");
    let longer = run.path().join("x".repeat(256));
    is_refused(
        &sandbox
            .vsrun()
            .pidfile(&longer)
            .command(forbidden(&sandbox))
            .run(),
        &longer,
    );
    // There is no room for the lock's name.
    let start = sandbox.vsrun().manager(&longest, handler(&sandbox));
    start.command(forbidden(&sandbox)).run().expect_code(125);
    assert_eq!(run.names(), [""; 0]);
}

#[test]
fn a_read_only_file_system_is_an_error_and_no_server_runs() {
    needs!(root);
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let ran = sandbox.open_dir("out").join("ran");
    sandbox.file("run/pid", "1\n");
    let pidfile = run.path().join("pid");
    let start = || sandbox.vsrun().read_only(run.path());
    let line = format!(
        "vsrun: cannot write pidfile '{}': Read-only file system",
        pidfile.display()
    );
    let server = || sandbox.probe().append(&ran).exit(0);
    let manager = sandbox.path("manager");
    for start in [
        start(),
        start().background(),
        start().manager(&manager, handler(&sandbox)),
    ] {
        start
            .pidfile(&pidfile)
            .command(server())
            .run()
            .expect_error(125, &line);
    }
    let outcome = start()
        .manager("run/manager", handler(&sandbox))
        .command(server())
        .run();
    outcome.expect_code(125);
    assert!(outcome.stderr_text().contains("Read-only file system"));
    assert!(!ran.exists() && !manager.exists());
    assert_eq!(run.names(), ["pid"]);
}

/// Runs vsrun in a shell on a machine where `full` has no room left, and shows what is in it then.
fn on_a_full_disk(sandbox: &Sandbox, options: &str, words: &[&OsStr]) -> String {
    let full = sandbox.dir("full");
    let fill = match options.contains("nr_inodes") {
        true => "while true 2>/dev/null >full/fill$n; do n=x$n; done",
        false => "cat /dev/zero 2>/dev/null >full/fill",
    };
    let script = format!(
        "echo 77 >full/pid; {fill}; \"$@\"; echo \"status $?\"; cat full/pid; rm full/fill*; \
         ls -A full"
    );
    let start = sandbox.program("/bin/sh").args(["-c", &script, "sh"]);
    let start = start.arg(VSRUN).args(words);
    let start = start.command(forbidden(sandbox)).tmpfs(full, options);
    let outcome = start.run();
    assert!(!sandbox.path("ran").exists(), "a server ran");
    let errors = outcome.stderr_text();
    let own: Vec<&str> = errors
        .lines()
        .filter(|line| line.starts_with("vsrun"))
        .collect();
    assert_eq!(own.len(), 1, "{errors}");
    assert!(own[0].ends_with("No space left on device"), "{errors}");
    outcome.stdout_text()
}

#[test]
fn a_full_disk_leaves_the_old_file_and_starts_no_server() {
    needs!(root);
    for options in ["size=64k", "size=1m,nr_inodes=8"] {
        let sandbox = sandbox();
        let seen = on_a_full_disk(&sandbox, options, &["-p".as_ref(), "full/pid".as_ref()]);
        assert_eq!(seen, "status 125\n77\npid\n", "{options}");
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_under_a_manager_too() {
    needs!(root);
    let sandbox = sandbox();
    let handler = handler(&sandbox);
    let words = ["-p", "full/pid", "-m", "manager"].map(OsStr::new);
    let words: Vec<&OsStr> = words.into_iter().chain([handler.as_os_str()]).collect();
    assert_eq!(
        on_a_full_disk(&sandbox, "size=64k", &words),
        "status 125\n77\npid\n"
    );
    assert!(!sandbox.path("manager").exists() && !sandbox.path("manager.lock").exists());
}

#[test]
fn a_full_disk_prevents_a_managers_start_and_leaves_no_lock() {
    needs!(root);
    let sandbox = sandbox();
    let handler = handler(&sandbox);
    let words = ["-m".as_ref(), "full/manager".as_ref(), handler.as_os_str()];
    assert_eq!(
        on_a_full_disk(&sandbox, "size=64k", &words),
        "status 125\n77\npid\n"
    );
}

#[test]
fn a_disk_that_becomes_full_does_not_prevent_a_restart() {
    needs!(root);
    let sandbox = sandbox();
    let full = sandbox.dir("full");
    let server = sandbox.probe().append(sandbox.path("starts")).only_first(1);
    let start = sandbox.vsrun().tmpfs(&full, "size=64k").pidfile("full/pid");
    let server = server.until(sandbox.path("die")).exit(1);
    let running = start
        .manager("manager", handler(&sandbox))
        .command(server)
        .spawn();
    started(&sandbox, 1);
    let inside = running.process().path_inside(&full);
    fs::write(inside.join("fill"), vec![0; 1 << 20]).expect_err("a full disk");
    sandbox.file("die", "");
    started(&sandbox, 2);
    let stale = sandbox.lines("starts")[0].clone();
    assert_ne!(
        fs::read_to_string(inside.join("pid")).ok(),
        Some(format!("{stale}\n"))
    );
    stop(running);
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_leaves_the_old_file() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let pidfile = sandbox.file("run/pid", "1\n");
    for background in [false, true] {
        let errors = UnixStream::pair().expect("a socket");
        // No line can be written to a file any more, but to this it can.
        let start = sandbox
            .vsrun()
            .limit(Resource::RLIMIT_FSIZE, 0, 0)
            .pidfile(&pidfile);
        let start = if background {
            start.background()
        } else {
            start
        };
        let start = start
            .stderr(OwnedFd::from(errors.0))
            .command(forbidden(&sandbox));
        start.run().expect_code(125);
        let mut line = String::new();
        (&errors.1).read_to_string(&mut line).expect("text");
        let path = pidfile.display();
        assert_eq!(
            line,
            format!("vsrun: cannot write pidfile '{path}': File too large\n")
        );
        assert_eq!(sandbox.read_pidfile(&pidfile), Some(1));
        assert_eq!(run.names(), ["pid"]);
    }
}

#[test]
fn a_file_that_is_mounted_there_is_written_in_place() {
    needs!(root);
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let (real, pidfile) = (
        sandbox.file("real", "12345678\n"),
        sandbox.file("run/pid", ""),
    );
    let server = sandbox.probe().report("report").pidfile(&pidfile).exit(0);
    let start = sandbox
        .vsrun()
        .bind(&real, &pidfile)
        .pidfile(&pidfile)
        .command(server);
    start.run().expect_code(0);
    let report = Report::wait(sandbox.path("report"));
    assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
    assert_eq!(sandbox.read_pidfile(&real), Some(report.pid));
    assert_eq!(run.names(), ["pid"]);
}
