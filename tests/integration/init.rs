//! The samples under `init/`: handlers and the init script under each shell. The
//! tests themselves are shell, in `tests/init`. Those that boot machines are run
//! by the packages' tests, which have a package to install there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prelude::*;

fn run(script: &str, arguments: &[&Path]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/init")
        .join(script);
    run_shell_tests(Command::new("sh").arg(script).args(arguments));
}

fn init() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("init")
}

fn vsrun() -> &'static Path {
    Path::new(VSRUN)
}

#[test]
fn the_samples_are_clean_and_their_units_verify() {
    run("run-files", &[&init()]);
}

#[test]
fn the_handlers_work_under_dash_and_busybox_as_root_and_as_nobody() {
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
