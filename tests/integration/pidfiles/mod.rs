//! Pidfiles and the manager's lock: what they hold, what they replace and
//! refuse, and what is left of them (spec 1.4).

mod content;
mod file_systems;
mod lifetime;
mod managers;
mod paths;
mod races;
mod refusals;

use std::path::Path;

use crate::prelude::*;

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
    assert!(
        line.starts_with("vsrun: cannot ") && line.lines().count() == 1,
        "{line:?}"
    );
    assert!(line.contains(&format!("'{}'", path.display())), "{line}");
}
