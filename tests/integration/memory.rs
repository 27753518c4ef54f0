//! vsrun under valgrind(1): it uses no memory that is not its own or was never written, loses none,
//! and leaves no descriptor open, however it ends. What it executes is not looked at.

use std::fs;
use std::time::Duration;

use crate::prelude::*;

const VALGRIND: &str = "/usr/bin/valgrind";
/// Under valgrind a start takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// vsrun under valgrind, to be completed by its options.
fn watched(sandbox: &Sandbox) -> Invocation<'_> {
    let valgrind = sandbox.program(VALGRIND).deadline(PATIENCE);
    let valgrind = valgrind.args([
        "--leak-check=full",
        "--track-fds=yes",
        "--error-exitcode=99",
    ]);
    // What can still be reached at the end is looked at by the tests.
    let valgrind = valgrind.args(["--errors-for-leak-kinds=definite", "--log-file=findings"]);
    // For a debugger, and left in /tmp by a process that changes user.
    valgrind.args(["--vgdb=no", VSRUN])
}

/// What valgrind says of the process `pid` which has exited, after a look at what it says of all:
/// each line begins with the id of its process, children that have executed nothing being among
/// them.
#[track_caller]
fn said_of(sandbox: &Sandbox, pid: i32) -> String {
    let summary = format!("=={pid}== ERROR SUMMARY: ");
    let all = wait_for_within(PATIENCE, "valgrind's summary", || {
        let all = fs::read_to_string(sandbox.path("findings")).unwrap_or_default();
        if all.contains(&summary) {
            Ok(all)
        } else {
            Err(all)
        }
    });
    expect_no_error(&all);
    let mark = format!("=={pid}== ");
    let own: Vec<&str> = all
        .lines()
        .filter_map(|line| line.strip_prefix(&mark))
        .collect();
    own.join("\n")
}

#[track_caller]
fn expect_no_error(all: &str) {
    let wrong = [
        "Invalid ",
        "uninitialised",
        "unaddressable",
        "Process terminating",
    ];
    let found = wrong.iter().find(|word| all.contains(**word));
    assert_eq!(found, None, "{all}");
    for (what, none) in [
        ("ERROR SUMMARY: ", "0 errors "),
        ("definitely lost: ", "0 bytes "),
    ] {
        let mut counts = all.lines().filter_map(|line| line.split_once(what));
        assert!(counts.all(|(_, count)| count.starts_with(none)), "{all}");
    }
}

#[track_caller]
fn left_no_descriptor(output: &str) {
    assert!(output.contains("FILE DESCRIPTORS: "), "{output}");
    let open = output
        .lines()
        .filter(|line| line.contains("Open file descriptor"));
    // vsrun keeps the null device open to the end, and a usage error what it has inherited.
    let kept = [": /dev/null", "/findings"];
    let open: Vec<_> = open
        .filter(|line| !kept.iter().any(|end| line.ends_with(end)))
        .collect();
    assert!(open.is_empty(), "{open:?} {output}");
}

/// All memory was given back, also what is held to the end.
#[track_caller]
fn left_nothing(output: &str) {
    left_no_descriptor(output);
    assert!(output.contains("All heap blocks were freed"), "{output}");
}

/// Waits until the server has been started `count` times, and returns it.
#[track_caller]
fn started(sandbox: &Sandbox, count: usize) -> Process {
    let pids = wait_for_within(PATIENCE, &format!("start {count} of the server"), || {
        let pids = sandbox.lines("starts");
        if pids.len() >= count {
            Ok(pids)
        } else {
            Err(pids)
        }
    });
    Process::of(pids[count - 1].parse().expect("an id for each start"))
}

/// Restarts the server on request and by its deaths, `count` times each, and stops the manager.
#[track_caller]
fn is_kept_busy(sandbox: &Sandbox, manager: &Running<'_>, count: usize) {
    let mut server = started(sandbox, 1);
    for round in 1..=count {
        manager.signal(SIGHUP);
        server = started(sandbox, 2 * round);
        sandbox.signal(server, SIGKILL);
        server = started(sandbox, 2 * round + 1);
    }
    manager.signal(SIGTERM);
    wait_for_within(PATIENCE, "the end of the server", || !server.exists());
}

#[test]
fn what_ends_before_there_is_a_server_leaves_nothing() {
    needs!("valgrind");
    for (words, status) in [
        (&["--no-such-option", "--", "x"][..], 125),
        (&["-m", "manager", "/no/handler", "--", "x"], 127),
    ] {
        let sandbox = sandbox();
        let vsrun = watched(&sandbox).args(words).spawn();
        let pid = vsrun.pid();
        vsrun.wait().expect_code(status);
        left_nothing(&said_of(&sandbox, pid));
    }
}

#[test]
fn a_vsrun_that_does_not_become_the_server_leaves_no_descriptor() {
    needs!(root, "valgrind");
    let sandbox = sandbox();
    sandbox.dir("root");
    let start = watched(&sandbox)
        .user("nobody")
        .root("root")
        .pidfile("pid")
        .logdir("logs", "1");
    let vsrun = start.command(["/no/server"]).spawn();
    let pid = vsrun.pid();
    vsrun.wait().expect_code(127);
    left_no_descriptor(&said_of(&sandbox, pid));
}

#[test]
fn a_vsrun_that_becomes_the_server_has_no_memory_error() {
    needs!(root, "valgrind");
    let sandbox = sandbox();
    let start = watched(&sandbox)
        .user("nobody")
        .pidfile("pid")
        .logdir("logs", "1");
    start.command(sandbox.probe().exit(3)).run().expect_code(3);
    expect_no_error(&fs::read_to_string(sandbox.path("findings")).expect("valgrind's words"));
}

#[test]
fn a_start_in_the_background_leaves_nothing() {
    needs!("valgrind");
    let sandbox = sandbox();
    let start = watched(&sandbox)
        .background()
        .pidfile("pid")
        .logdir("logs", "1");
    let vsrun = start.command(sandbox.probe()).spawn();
    let pid = vsrun.pid();
    vsrun.wait().expect_code(0);
    left_nothing(&said_of(&sandbox, pid));
}

#[test]
fn a_manager_with_logs_leaves_nothing_after_requests_deaths_and_handlers() {
    needs!("valgrind");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let start = watched(&sandbox).pidfile("pid").logdir("logs", "1h");
    let server = sandbox.probe().append(sandbox.path("starts")).out("a line");
    let manager = start.manager("manager", &handler).command(server).spawn();
    let pid = manager.pid();
    is_kept_busy(&sandbox, &manager, 3);
    manager.wait().expect_code(0);
    left_nothing(&said_of(&sandbox, pid));
}

#[test]
fn a_manager_in_the_background_leaves_nothing_when_its_handler_refuses() {
    needs!("valgrind");
    let sandbox = sandbox();
    let go = sandbox.path("go");
    let start = watched(&sandbox)
        .background()
        .pidfile("pid")
        .logdir("logs", "1");
    let start = start.manager("manager", "/bin/false");
    start
        .command(sandbox.probe().until(&go).exit(3))
        .run()
        .expect_code(0);
    let manager = sandbox.wait_for_pidfile(sandbox.path("manager"));
    fs::write(go, "").expect("the sandbox can be written");
    left_nothing(&said_of(&sandbox, manager.pid()));
}

#[test]
fn a_manager_with_syslog_leaves_nothing_though_logger_dies() {
    needs!("valgrind");
    let sandbox = sandbox();
    sandbox.dir("bin");
    // It takes one line a life, until the manager has let go of the pipe.
    let script = format!(
        "#!/bin/sh\nread -r line\necho >>'{}'\n",
        sandbox.path("taken").display()
    );
    sandbox.executable("bin/logger", script);
    let path = format!("{}:/usr/bin:/bin", sandbox.path("bin").display());
    let start = watched(&sandbox)
        .env("PATH", path)
        .syslog("tag")
        .manager("manager", "/bin/true");
    let server = sandbox.probe().append(sandbox.path("starts")).lines(3);
    let manager = start.command(server).spawn();
    let pid = manager.pid();
    wait_for_within(PATIENCE, "a third logger", || {
        sandbox.lines("taken").len() >= 3
    });
    is_kept_busy(&sandbox, &manager, 1);
    manager.wait().expect_code(0);
    left_nothing(&said_of(&sandbox, pid));
}

#[test]
fn a_manager_that_cannot_start_its_server_leaves_nothing() {
    needs!("valgrind");
    let sandbox = sandbox();
    let start = watched(&sandbox)
        .pidfile("pid")
        .logdir("logs", "1")
        .manager("manager", "/bin/true");
    let vsrun = start.command(["/no/server"]).spawn();
    let pid = vsrun.pid();
    vsrun.wait().expect_code(127);
    left_nothing(&said_of(&sandbox, pid));
}
