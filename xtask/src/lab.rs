//! The verbs that the program `lab` implements: `cargo xtask` passes them on.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::steps::{Failure, cargo};

/// A verb of `lab` with its arguments, separated by blanks.
pub fn command(line: &str) -> Command {
    cargo(&format!("run --quiet --locked --package lab -- {line}"))
}

/// Replaces this process by `lab`. Returns only if that fails.
pub fn execute(verb: &str, arguments: &[OsString]) -> Result<(), Failure> {
    // Relative paths are relative to the caller's directory, not to the repository's root.
    let error = command(verb).args(arguments).current_dir(".").exec();
    Err(format!("cannot run cargo: {error}").into())
}
