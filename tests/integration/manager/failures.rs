//! Calls of a manager that are interrupted or fail, a slow exec, messages without a reader.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;

use crate::prelude::*;

#[test]
fn calls_that_a_signal_interrupts_are_made_again() {
    needs!(root, "strace");
    for calls in ["poll,ppoll", "wait4,waitid", "read", "recvfrom,recvmsg"] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), calls, "EINTR", "1..3");
        sandbox.signal(first, SIGKILL);
        wait_for_within(Duration::from_secs(5), calls, || starts(&sandbox) == 2);
        manager.signal(SIGHUP);
        wait_for_within(Duration::from_secs(5), calls, || starts(&sandbox) == 3);
        stop(manager);
        tracer.wait();
        assert_eq!((starts(&sandbox), handler.runs().len()), (3, 1), "{calls}");
        expect_no_files(&sandbox);
    }
}

#[test]
fn a_signal_that_cannot_be_sent_is_reported() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "kill", "EPERM", "1");
    manager.signal(SIGHUP);
    wait_for_message(&manager, "Operation not permitted");
    assert!(first.exists());
    // The request still holds when the server ends by itself.
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 2);
    detach(tracer);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_signal_that_could_not_be_sent_is_sent_again() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "kill", "EPERM", "1");
    manager.signal(SIGTERM);
    wait_for_message(&manager, "Operation not permitted");
    manager.wait().expect_code(0);
    assert!(!server.exists());
    tracer.wait();
    expect_nothing_left(&sandbox);
}

#[test]
fn a_pidfile_that_could_not_be_removed_is_removed_later() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "unlinkat", "EROFS", "1");
    manager.signal(SIGTERM);
    wait_for_message(&manager, "cannot remove pidfile");
    manager.wait().expect_code(0);
    tracer.wait();
    expect_nothing_left(&sandbox);
}

#[test]
fn a_manager_with_few_descriptors_sleeps_at_rest() {
    needs!(root);
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let limit = ["--pid", &manager.pid().to_string(), "--nofile=1"];
    sandbox
        .program("/usr/bin/prlimit")
        .args(limit)
        .run()
        .expect_code(0);
    let ticks = || {
        manager
            .process()
            .stat()
            .expect("a running manager")
            .cpu_ticks
    };
    // It wakes up once, and waits under its new limit.
    manager.signal(SIGUSR1);
    let before = ticks();
    holds_for("at rest", Duration::from_millis(500), || {
        starts(&sandbox) == 1
    });
    assert!(ticks() - before < 10, "the manager turns in a loop");
    stop(manager);
}

#[test]
fn a_stop_request_during_a_slow_exec_is_not_lost() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    // Half a second before each exec of a child.
    let delay = [
        "-f",
        "-e",
        "trace=execve",
        "-e",
        "inject=execve:delay_enter=500000",
    ];
    let tracer = traced(&sandbox, manager.process(), &delay);
    manager.signal(SIGHUP);
    wait_for("the child that is to be the server", || {
        let children = manager.process().children();
        children
            .iter()
            .any(|child| child.exe() == manager.process().exe())
    });
    stop(manager);
    tracer.wait();
    expect_nothing_left(&sandbox);
}

/// Restarts the server of a manager slowly. Returns the held child and the tracer that delays it.
#[track_caller]
fn held_up<'a>(sandbox: &'a Sandbox, manager: &Running<'_>) -> (Process, Running<'a>) {
    // The child is released once its pidfile has been renamed.
    let renames = "rename,renameat,renameat2";
    let options = [
        format!("trace={renames}"),
        format!("inject={renames}:delay_enter=1000000"),
    ];
    let tracer = traced(
        sandbox,
        manager.process(),
        &["-e", &options[0], "-e", &options[1]],
    );
    manager.signal(SIGHUP);
    let child = wait_for("the child that is to be the server", || {
        let children = manager.process().children();
        let child = children
            .into_iter()
            .find(|it| it.exe() == manager.process().exe());
        child.ok_or("none")
    });
    (child, tracer)
}

#[test]
fn a_stop_request_is_obeyed_while_the_held_child_is_stopped() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let (child, tracer) = held_up(&sandbox, &manager);
    sandbox.signal(child, SIGSTOP);
    wait_for("its pidfile", || {
        let id = fs::read_to_string(sandbox.path("server.pid")).unwrap_or_default();
        id.trim() == child.pid().to_string()
    });
    stop(manager);
    tracer.wait();
    assert_eq!(starts(&sandbox), 1);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_signal_for_the_server_does_not_reach_it_before_its_exec() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let (child, tracer) = held_up(&sandbox, &manager);
    sandbox.signal(child, SIGSTOP);
    wait_for("the manager to wait for it", || {
        let stat = manager.process().stat();
        stat.is_some_and(|stat| stat.state == 'S') && sandbox.path("server.pid").exists()
    });
    manager.signal(SIGUSR1);
    wait_for("the signal to arrive", || {
        manager
            .process()
            .status()
            .is_some_and(|status| status.pending == SignalSet::default())
    });
    sandbox.signal(child, SIGCONT);
    assert_eq!(started(&sandbox, 2).pid(), child.pid());
    detach(tracer);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_pidfile_that_cannot_be_written_does_not_prevent_a_restart() {
    let sandbox = sandbox();
    let directory = sandbox.dir("run");
    let manager = sandbox
        .vsrun()
        .pidfile(directory.join("server.pid"))
        .manager(directory.join("manager.pid"), CONSENT)
        .command(probe(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    fs::remove_dir_all(&directory).expect("the sandbox can be written");
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    assert!(started(&sandbox, 3).exists());
    stop(manager);
    expect_nothing_left(&sandbox);
}

// Messages that cannot be written.

/// Manages a server through a crash and a request, with messages that go to `stderr`.
fn manage_with(stderr: impl Into<Stdio>) {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .stderr(stderr)
        .command(probe(&sandbox))
        .spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    assert!(started(&sandbox, 3).exists());
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn messages_into_a_full_pipe_do_not_block_the_manager() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut writer = File::from(writer);
    let mut flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).expect("flags"));
    flags.insert(OFlag::O_NONBLOCK);
    fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    flags.remove(OFlag::O_NONBLOCK);
    fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    manage_with(writer);
    drop(reader);
}

#[test]
fn messages_into_a_closed_pipe_do_not_end_the_manager() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    manage_with(writer);
}

#[test]
fn messages_onto_a_full_disk_do_not_end_the_manager() {
    manage_with(
        File::options()
            .write(true)
            .open("/dev/full")
            .expect("a device"),
    );
}

#[test]
fn a_signal_that_fails_with_esrch_does_not_end_the_manager() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let options = ["-e", "trace=kill", "-e", "inject=kill:error=ESRCH:when=1"];
    let tracer = traced(&sandbox, manager.process(), &options);
    manager.signal(SIGHUP);
    wait_for_message(&manager, "No such process");
    assert!(first.exists());
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 2);
    assert!(handler.runs().is_empty());
    tracer.signal(SIGINT);
    tracer.wait();
    stop(manager);
}
