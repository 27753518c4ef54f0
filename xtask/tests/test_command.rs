//! What `cargo xtask test` leaves when the tests have ended; a script stands for cargo.

use std::fs;

use testkit::{Invocation, Sandbox, wait_for};

/// The command, with what cargo does for `cargo test`. It finds no apt-get on PATH to install by.
fn test_command<'a>(sandbox: &'a Sandbox, tests: &str) -> Invocation<'a> {
    let script = format!("#!/bin/sh\nPATH=/bin:/usr/bin\n[ \"$1\" = test ] || exit 0\n{tests}\n");
    let cargo = sandbox.executable("cargo", script);
    let xtask = sandbox.program(env!("CARGO_BIN_EXE_xtask")).arg("test");
    xtask
        .env("CARGO", cargo)
        .env("PATH", "")
        .env("TMPDIR", sandbox.open_dir("tmp"))
}

fn expect_nothing_left(sandbox: &Sandbox) {
    assert_eq!(sandbox.processes(), []);
    assert_eq!(
        fs::read_dir(sandbox.path("tmp"))
            .expect("a directory")
            .count(),
        0
    );
}

#[test]
fn processes_that_tests_leave_are_named_and_killed_and_their_files_removed() {
    let sandbox = Sandbox::new("/bin/true");
    let tests = "setsid sleep 1000 & env -i setsid sh -c 'cd /; sleep 2000 & wait' & mktemp -d";
    let outcome = test_command(&sandbox, tests).run();
    outcome.expect_code(1);
    for left in ["sleep 1000", "sleep 2000"] {
        assert!(
            outcome.stderr_text().contains(left),
            "{}",
            outcome.stderr_text()
        );
    }
    expect_nothing_left(&sandbox);
}

#[test]
fn files_and_mounts_go_and_the_tests_decide_the_status() {
    for status in [0, 101] {
        let sandbox = Sandbox::new("/bin/true");
        let tests = format!("mktemp; mount -t tmpfs left \"$TMPDIR\"; exit {status}");
        test_command(&sandbox, &tests).run().expect_code(status);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn ctrl_c_ends_the_tests_and_all_that_they_have_started() {
    let sandbox = Sandbox::new("/bin/true");
    let running = sandbox.path("running");
    let tests = format!(
        "setsid sleep 1000 & touch '{}'; sleep 2000",
        running.display()
    );
    let mut command = test_command(&sandbox, &tests).terminal().spawn();
    wait_for("the tests", || running.exists());
    command.type_keys(b"\x03");
    command.wait().expect_code(1);
    expect_nothing_left(&sandbox);
}
