//! Pidfiles on file systems that are read-only, or on which they are mounted themselves.

use std::fs;

use crate::prelude::*;

#[test]
fn a_file_system_that_becomes_read_only_does_not_prevent_a_restart() {
    needs!(root, "nsenter");
    let sandbox = sandbox();
    let run = sandbox.dir("run");
    let start = sandbox.vsrun().tmpfs(&run, "size=64k").pidfile("run/pid");
    let manager = start
        .manager("manager", CONSENT)
        .command(probe(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    let inside = manager.process().path_inside(&run);
    let old = fs::read_to_string(inside.join("pid")).expect("a pidfile");
    let namespace = format!("--mount=/proc/{}/ns/mnt", manager.pid());
    let remount = sandbox.program("/usr/bin/nsenter").arg(namespace);
    let remount = remount.args(["mount", "-o", "remount,ro"]).arg(&run);
    remount.run().expect_code(0);
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    manager.signal(SIGHUP);
    let third = started(&sandbox, 3);
    assert!(!second.exists() && third.exists());
    // The pidfile stays as it is, with a warning.
    assert_eq!(
        fs::read_to_string(inside.join("pid")).expect("a pidfile"),
        old
    );
    let output = manager.stderr();
    assert!(
        output.contains("run/pid'") && output.contains("Read-only file system"),
        "{output}"
    );
    stop(manager);
}

#[test]
fn a_mounted_pidfile_holds_the_id_of_each_server_and_is_empty_at_the_end() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir("run");
    let (real, pidfile) = (sandbox.file("real", ""), sandbox.file("run/pid", ""));
    let start = sandbox.vsrun().bind(&real, &pidfile).pidfile(&pidfile);
    let manager = start
        .manager("manager", CONSENT)
        .command(probe(&sandbox))
        .spawn();
    for count in 1..=3 {
        let server = started(&sandbox, count);
        assert_eq!(sandbox.lines(&real), [server.pid().to_string()]);
        if count < 3 {
            sandbox.signal(server, SIGKILL);
        }
    }
    stop(manager);
    // What is mounted cannot be removed, but another process may get that id.
    assert_eq!(sandbox.lines(&real), [""; 0]);
}

#[test]
fn a_pidfile_that_is_mounted_has_the_id_of_a_live_process_after_a_start_that_fails() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir("run");
    let (live, dead) = (
        format!("{}\n", std::process::id()),
        format!("{}\n", i32::MAX),
    );
    let pidfile = sandbox.file("run/pid", "");
    for (old, new) in [(live.as_str(), live.as_str()), (&dead, ""), ("no id", "")] {
        let real = sandbox.file("real", old);
        let start = sandbox.vsrun().bind(&real, &pidfile).pidfile(&pidfile);
        start.command(["/no/such/server"]).run().expect_code(127);
        assert_eq!(fs::read_to_string(real).expect("a file"), new, "{old}");
    }
}

#[test]
fn a_file_system_without_rename_flags_holds_pidfiles() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let run = LogDirectory::at(sandbox.dir("run"));
    let live = std::process::id() as i32;
    let pidfile = sandbox.file("run/pid", format!("{live}\n"));
    let start = || {
        let strace = sandbox
            .program("/usr/bin/strace")
            .arg("-o")
            .arg(sandbox.path("trace"));
        let strace = strace.args(["-f", "-e", "inject=renameat2:error=EINVAL", "--"]);
        strace.arg(VSRUN).pidfile(&pidfile)
    };
    start().command(["/no/such/server"]).run().expect_code(127);
    assert_eq!(sandbox.read_pidfile(&pidfile), Some(live));
    start()
        .command(sandbox.probe().append(sandbox.path("starts")).exit(0))
        .run()
        .expect_code(0);
    assert_eq!(sandbox.lines(&pidfile), sandbox.lines("starts"));
    assert_eq!(run.names(), ["pid"]);
}

#[test]
fn a_pidfile_that_cannot_be_written_at_a_restart_is_reported() {
    needs!(root, "strace");
    for (error, words) in [
        ("EIO", "Input/output error"),
        ("ENOSPC", "No space left on device"),
    ] {
        let sandbox = sandbox();
        let vsrun = sandbox.vsrun().pidfile(sandbox.path("server.pid"));
        let vsrun = vsrun.manager(sandbox.path("manager.pid"), CONSENT);
        let manager = vsrun
            .command(sandbox.probe().append(sandbox.path("starts")))
            .spawn();
        started(&sandbox, 1);
        // "asked to restart the server", its end, and then the pidfile.
        let inject = format!("inject=write:error={error}:when=3");
        let tracer = traced(
            &sandbox,
            manager.process(),
            &["-e", "trace=write", "-e", &inject],
        );
        manager.signal(SIGHUP);
        assert!(started(&sandbox, 2).exists());
        wait_for("the reason", || {
            let output = manager.stderr();
            if output.contains("server.pid") && output.contains(words) {
                Ok(())
            } else {
                Err(output)
            }
        });
        tracer.signal(SIGINT);
        tracer.wait();
        // Half a file is never seen, and no temporary one is left.
        assert_eq!(sandbox.read_pidfile(sandbox.path("server.pid")), None);
        let beside = fs::read_dir(sandbox.directory())
            .expect("a directory")
            .flatten();
        let names: Vec<_> = beside.map(|entry| entry.file_name()).collect();
        let left = names
            .iter()
            .filter(|name| name.to_string_lossy().contains("server.pid"));
        assert_eq!(left.count(), 0, "{names:?}");
        manager.signal(SIGHUP);
        let third = started(&sandbox, 3);
        assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), third);
        stop(manager);
    }
}
