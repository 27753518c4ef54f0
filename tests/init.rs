//! The samples under `init/`: handlers and the init script under each shell, and
//! services driven on booted machines. The tests themselves are shell, in
//! `tests/init`; here they are run, and what they print is passed on.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::{require_program, require_root};

/// Runs a script of `tests/init`. A test of its that was skipped is a failure in CI.
fn run(script: &str, arguments: &[&Path]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Command::new("sh");
    tests.arg(here.join("tests/init").join(script)).args(arguments);
    let mut tests = tests.stdout(Stdio::piped()).spawn().expect("a shell");
    let mut bad = Vec::new();
    for line in BufReader::new(tests.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        let skipped = line.starts_with("SKIP") && std::env::var_os("CI").is_some();
        if skipped || line.starts_with("FAIL") {
            bad.push(line.clone());
        }
        // Past the test runner's capture: it takes minutes, and a skip must be seen.
        let _ = writeln!(std::io::stderr(), "{script}: {line}");
    }
    let status = tests.wait().expect("an end");
    assert!(status.success() && bad.is_empty(), "{script}: {status}: {bad:#?}");
}

fn init() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("init")
}

fn vsrun() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vsrun"))
}

#[test]
fn the_samples_are_clean_and_their_units_verify() {
    run("run-files", &[&init()]);
}

#[test]
fn the_handlers_do_what_they_say_under_dash_and_busybox_as_root_and_as_nobody() {
    if require_root() {
        run("run-handlers", &[&init().join("handlers")]);
    }
}

#[test]
fn the_init_script_keeps_to_the_lsb_with_and_without_its_functions() {
    if require_root() {
        run("run-sysv", &[&init(), vsrun()]);
    }
}

#[test]
fn services_are_driven_and_come_back_after_a_reboot_under_three_init_systems() {
    if require_root() && require_program("systemd-nspawn") {
        let roots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("init-roots");
        run("run-boot", &[&roots, &init(), vsrun()]);
    }
}
