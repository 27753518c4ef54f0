//! Managers without /proc, privilege or standard streams, in namespaces, and as process 1.

use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::geteuid;

use super::*;
use crate::prelude::*;

/// Takes a manager through a death, a signal that is passed on, a restart and a stop.
fn live(sandbox: &Sandbox, vsrun: Invocation<'_>) {
    let open = sandbox.open_dir("open");
    let (handled, logs) = (open.join("handled"), LogDirectory::at(open.join("logs")));
    let note = format!(
        "#!/bin/sh\necho \"$VSRUN_SERVER_EXPLAIN\" >>'{}'\n",
        handled.display()
    );
    let handler = sandbox.executable("note", note);
    let starts = open.join("starts");
    let log = open.join("signals");
    let manager = vsrun
        .pidfile(open.join("server.pid"))
        .manager(open.join("manager.pid"), handler)
        .logdir(&logs, "1d")
        .command(
            sandbox
                .probe()
                .log_signals(log)
                .append(&starts)
                .out("hello"),
        )
        .spawn();
    let lives = |count| {
        wait_for("a start", || {
            let lives = sandbox.lines(&starts).len();
            if lives == count {
                Ok(())
            } else {
                Err((lives, manager.stderr(), logs.vsrun()))
            }
        });
        // An empty log would not be rotated.
        wait_for("its line", || logs.server() == "hello\n");
    };
    lives(1);
    sandbox.signal(sandbox.wait_for_server(&manager), SIGKILL);
    lives(2);
    assert_eq!(sandbox.lines(&handled), ["terminated by signal 9"]);
    let server = sandbox.wait_for_server(&manager);
    manager.signal(SIGUSR1);
    wait_for("the signal to be passed on", || {
        sandbox.lines(open.join("signals")) == ["READY", "READY", "USR1"]
    });
    manager.signal(SIGHUP);
    lives(3);
    assert!(!server.exists());
    assert!(sandbox.read_pidfile(open.join("server.pid")).is_some());
    stop(manager);
    assert_eq!(sandbox.lines(&handled).len(), 1);
    let names = logs.names();
    assert_eq!(names, ["logfile", "logfile.1", "logfile.2", "vsrun.log"]);
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!open.join(name).exists(), "{name} is left");
    }
    wait_for("the end of every process", || {
        sandbox.processes().is_empty()
    });
}

#[test]
fn a_manager_works_without_a_proc_file_system() {
    needs!(root);
    for user in [None, Some(NOBODY)] {
        let sandbox = sandbox();
        let vsrun = sandbox.vsrun().tmpfs("/proc", "mode=755");
        let vsrun = match user {
            Some(user) => vsrun.user(user.to_string()),
            None => vsrun,
        };
        live(&sandbox, vsrun);
    }
}

#[test]
fn without_a_proc_file_system_messages_into_a_full_pipe_do_not_block() {
    needs!(root);
    let sandbox = sandbox();
    let (_reader, writer) = nix::unistd::pipe().expect("a pipe");
    let flags = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    flags(OFlag::O_NONBLOCK);
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    flags(OFlag::empty());
    let manager = managed(&sandbox, CONSENT)
        .tmpfs("/proc", "mode=755")
        .stderr(writer);
    let manager = manager.command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    stop(manager);
}

#[test]
fn a_manager_works_without_privilege() {
    let sandbox = sandbox();
    let vsrun = sandbox.vsrun();
    live(
        &sandbox,
        if geteuid().is_root() {
            vsrun.run_as(NOBODY, NOBODY, &[])
        } else {
            vsrun
        },
    );
}

#[test]
fn a_manager_works_in_a_user_namespace() {
    needs!(root);
    let sandboxes = [sandbox(), sandbox()];
    let [first, second] = sandboxes.each_ref();
    live(first, first.vsrun().user_namespace());
    live(
        second,
        second.vsrun().run_as(NOBODY, NOBODY, &[]).user_namespace(),
    );
}

#[test]
fn a_manager_works_as_process_1() {
    needs!(root);
    let sandbox = sandbox();
    live(&sandbox, sandbox.vsrun().pid_namespace());
}

#[test]
fn a_manager_works_without_standard_streams() {
    let sandbox = sandbox();
    live(&sandbox, sandbox.vsrun().closed([0, 1, 2]));
}

#[test]
fn without_standard_streams_or_a_log_a_manager_keeps_its_server_and_obeys() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .closed([0, 1, 2])
        .command(probe(&sandbox))
        .spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    let third = started(&sandbox, 3);
    let files: Vec<PathBuf> = third
        .open_files()
        .expect("a server")
        .into_values()
        .collect();
    assert_eq!(files, [Path::new("/dev/null"); 3]);
    stop(manager);
}
