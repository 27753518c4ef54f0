//! Descriptors, memory and wake-ups of a manager.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::prelude::*;

fn resident_kib(process: Process) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", process.pid());
    let text = fs::read_to_string(path).expect("the manager lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .expect("a number of KiB")
}

/// Restarts a server this often and checks that the manager stays as it was after the first ten.
fn restart_often(sandbox: &Sandbox, manager: &Running<'_>, count: usize) {
    let mut before = None;
    for number in 1..=count {
        started(sandbox, number);
        if number == 10 {
            before = Some((
                files_at_rest(manager.process()),
                resident_kib(manager.process()),
            ));
        }
        manager.signal(SIGHUP);
    }
    let last = started(sandbox, count + 1);
    let (files, resident) = before.expect("more than ten");
    assert_eq!(files_at_rest(manager.process()), files);
    let grown = resident_kib(manager.process()).saturating_sub(resident);
    assert!(grown <= 64, "grown by {grown} KiB");
    assert_eq!(zombies(manager.process()), 0);
    assert_eq!(manager.process().children(), [last]);
}

#[test]
fn three_hundred_restarts_leak_nothing() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    restart_often(&sandbox, &manager, 300);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn restarts_with_log_files_leak_no_descriptor() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let manager = managed(&sandbox, REFUSAL)
        .logdir(&logs, "1")
        .command(probe(&sandbox).out("hello"))
        .spawn();
    // An empty file would not be kept.
    let written = || wait_for("the line of this life", || logs.server() == "hello\n");
    started(&sandbox, 1);
    written();
    let before = files_at_rest(manager.process()).len();
    for count in 2..=100 {
        manager.signal(SIGHUP);
        started(&sandbox, count);
        written();
    }
    assert_eq!(files_at_rest(manager.process()).len(), before);
    assert_eq!(zombies(manager.process()), 0);
    stop(manager);
    // Each life's output is there.
    let kept = logs.names().into_iter().filter(|name| {
        name.to_str()
            .is_some_and(|name| name.starts_with("logfile"))
    });
    assert_eq!(kept.count(), 100);
}

#[test]
fn at_rest_the_manager_never_wakes_up() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let plain = managed_as(&sandbox, "plain", REFUSAL)
        .command(sandbox.probe().append(sandbox.path("starts")));
    let logging = managed_as(&sandbox, "logging", REFUSAL)
        .logdir(&logs, "1")
        .command(sandbox.probe().append(sandbox.path("starts")));
    let managers = [plain.spawn(), logging.spawn()];
    started(&sandbox, 2);
    let activity = || {
        managers.each_ref().map(|manager| {
            let stat = manager.process().stat().expect("it lives");
            let status = manager.process().status().expect("it lives");
            (status.voluntary_switches, stat.cpu_ticks, stat.state)
        })
    };
    let mut last = activity();
    wait_for("rest", || {
        let now = activity();
        let same = now == last && now.iter().all(|it| it.2 == 'S');
        last = now;
        same
    });
    holds_for("asleep", Duration::from_secs(5), || activity() == last);
}

#[test]
fn a_restart_asks_the_system_for_no_memory() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let files = files_at_rest(manager.process());
    let tracer = traced(
        &sandbox,
        manager.process(),
        &["-e", "trace=brk,mmap,mremap,munmap,clone,fork,vfork,clone3"],
    );
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    sandbox.signal(second, SIGSEGV);
    started(&sandbox, 3);
    assert_eq!(files_at_rest(manager.process()), files);
    detach(tracer);
    let calls = sandbox.lines("trace");
    let forks = calls
        .iter()
        .filter(|call| call.contains("fork(") || call.contains("clone"));
    assert_eq!(forks.count(), 3, "two servers and a handler: {calls:?}");
    let memory = ["brk(", "mmap(", "mremap(", "munmap("];
    let asked = calls
        .iter()
        .any(|call| memory.iter().any(|name| call.contains(name)));
    assert!(!asked, "{calls:?}");
    stop(manager);
}

#[test]
fn a_manager_keeps_no_directory_busy() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .current_dir(sandbox.dir("start"))
        .command(probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    assert_eq!(manager.process().cwd().as_deref(), Some(Path::new("/")));
    stop(manager);
}

#[test]
fn with_a_log_directory_the_manager_works_there() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let manager = managed(&sandbox, REFUSAL)
        .logdir(&logs, "1")
        .command(probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    assert_eq!(manager.process().cwd(), Some(logs));
    stop(manager);
}

#[test]
fn deaths_and_handlers_leak_no_descriptor_and_no_zombie() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let handler = sandbox.executable("handler", "#!/bin/sh\nsleep 0.01 &\nexit 0\n");
    let server = sandbox.probe().append(sandbox.path("starts")).with_child();
    let manager = managed(&sandbox, handler)
        .logdir(&logs, "1d")
        .command(server)
        .spawn();
    let mut before = None;
    for round in 0..60 {
        let server = started(&sandbox, 2 * round + 1);
        // What it left is not the manager's to reap.
        let child = wait_for("its child", || server.children().first().copied());
        sandbox.signal(child, SIGKILL);
        sandbox.signal(server, SIGKILL);
        started(&sandbox, 2 * round + 2);
        if round == 5 {
            before = Some(files_at_rest(manager.process()).len());
        }
        // A request makes the next death the first of its kind, which is followed by no delay.
        manager.signal(SIGHUP);
    }
    started(&sandbox, 121);
    assert_eq!(Some(files_at_rest(manager.process()).len()), before);
    assert_eq!(zombies(manager.process()), 0);
    stop(manager);
}
