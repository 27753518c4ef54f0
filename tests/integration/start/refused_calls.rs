//! Each system call of a start fails in turn: the start either succeeds, or is an error of one line
//! that leaves no file.

use std::fs;

use crate::prelude::*;

/// Makes the first of these calls fail in each process of vsrun, then the second of each, until
/// no further call is made. Returns how many starts failed.
fn refuse_in_turn(calls: &str, error: &str) -> usize {
    let sandbox = Sandbox::new(VSRUN);
    let handler = sandbox.handler("handler").exits(1).create();
    let (trace, server) = (sandbox.path("trace"), sandbox.probe().exit(0));
    let mut failed = 0;
    for (background, managed) in WAYS {
        for number in 1.. {
            let place = LogDirectory::at(sandbox.dir("place"));
            let inject = format!("inject={calls}:error={error}:when={number}");
            let strace = sandbox
                .program("/usr/bin/strace")
                .args(["-f", "-qq", "-o"])
                .arg(&trace);
            let strace = strace.args(["-e", &format!("trace={calls}"), "-e", &inject, "--"]);
            let start = strace.arg(VSRUN).current_dir(place.path());
            let start = start.user("nobody").pidfile("pid").logdir("var/logs", "1");
            let start = if background {
                start.background()
            } else {
                start
            };
            let start = if managed {
                start.manager("manager", &handler)
            } else {
                start
            };
            let outcome = start.command(server.clone()).run();
            wait_for("the end of every process", || {
                sandbox.processes().is_empty()
            });
            let (names, line) = (place.names(), outcome.stderr_text());
            let case = format!("{calls} {error} {number}, -b {background}, -m {managed}: {line}");
            if outcome.code() == Some(0) {
                let left: &[&str] = if managed { &["var"] } else { &["pid", "var"] };
                assert_eq!(names, left, "{case}");
            } else {
                failed += 1;
                assert_eq!(outcome.code(), Some(125), "{case}");
                assert!(
                    line.starts_with("vsrun: ") && line.lines().count() == 1,
                    "{case}"
                );
                assert!(names.is_empty(), "{case}: left {names:?}");
            }
            assert!(handler.runs().is_empty(), "{case}");
            fs::remove_dir_all(place.path()).expect("the sandbox can be written");
            if !fs::read_to_string(&trace).is_ok_and(|calls| calls.contains("INJECTED")) {
                break;
            }
        }
    }
    failed
}

fn refuse_each_in_turn(faults: &[(&str, &str)]) {
    needs!(root, "strace");
    for (calls, error) in faults {
        assert!(
            refuse_in_turn(calls, error) > 0,
            "{calls} was never refused"
        );
    }
}

#[test]
fn calls_that_change_files_may_fail_at_any_time() {
    refuse_each_in_turn(&[
        ("rename,renameat,renameat2", "EIO"),
        ("mkdir,mkdirat", "EDQUOT"),
        ("fchmod", "EPERM"),
        ("fchown", "EPERM"),
    ]);
}

#[test]
fn calls_that_make_processes_may_fail_at_any_time() {
    refuse_each_in_turn(&[
        ("clone,clone3,fork,vfork", "EAGAIN"),
        ("socketpair,pipe,pipe2,signalfd4", "EMFILE"),
        ("sendto,recvfrom,sendmsg,recvmsg", "ENOMEM"),
        ("dup2,dup3", "EBADF"),
        ("chdir,fchdir", "EIO"),
    ]);
}

#[test]
fn calls_that_open_read_and_lock_files_may_fail_at_any_time() {
    refuse_each_in_turn(&[
        ("open,openat", "EMFILE"),
        ("getdents64", "EIO"),
        ("fcntl", "ENOLCK"),
    ]);
}
