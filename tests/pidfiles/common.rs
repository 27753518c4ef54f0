//! What the tests have in common.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{LogDirectory, Outcome, Probe, Sandbox};

pub const NOBODY: u32 = 65534;
pub const DAEMON: u32 = 1;

pub fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))
}

/// A directory `run` of a test's own, of which everything in it is known.
pub fn run_dir(sandbox: &Sandbox) -> LogDirectory {
    LogDirectory::at(sandbox.dir("run"))
}

/// Checks that a start failed in one line that names `path`.
#[track_caller]
pub fn is_refused(outcome: &Outcome, path: &Path) {
    outcome.expect_code(125);
    assert_eq!(outcome.stdout_text(), "");
    let line = outcome.stderr_text();
    assert!(line.starts_with("vsrun: cannot ") && line.lines().count() == 1, "{line:?}");
    assert!(line.contains(&format!("'{}'", path.display())), "{line}");
}

/// A server that must not run.
pub fn forbidden(sandbox: &Sandbox) -> Probe {
    sandbox.probe().append(sandbox.path("ran")).exit(0)
}

pub fn mode_of(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

pub fn handler(sandbox: &Sandbox) -> PathBuf {
    if !sandbox.path("handler").exists() {
        sandbox.handler("handler").create();
    }
    sandbox.path("handler")
}

pub fn make(program: &str, words: &[&OsStr]) {
    let status = Command::new(program).args(words).status();
    assert!(status.is_ok_and(|it| it.success()), "{program} {words:?}");
}
