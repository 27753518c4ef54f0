//! Files that are generated and committed: written, or compared with what is
//! there.

use std::fs;

use crate::steps::root;

/// What to do with a generated file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write it.
    Write,
    /// Compare it with the committed one.
    Check,
}

impl Mode {
    /// The mode that a `--check` flag stands for.
    pub fn from_check(check: bool) -> Mode {
        if check { Mode::Check } else { Mode::Write }
    }
}

/// Writes or compares one file, named from the root. `verb` is the xtask verb that makes it.
pub fn settle(file: &str, text: &str, mode: Mode, verb: &str) -> Result<(), String> {
    let path = root().join(file);
    match mode {
        Mode::Write => {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)
                    .map_err(|error| format!("cannot create '{}': {error}", directory.display()))?;
            }
            fs::write(&path, text).map_err(|error| format!("cannot write '{file}': {error}"))
        }
        Mode::Check => match fs::read_to_string(&path) {
            Ok(committed) if committed == text => Ok(()),
            Ok(_) => Err(format!(
                "{file} is out of date: run `cargo xtask {verb}` and commit it"
            )),
            Err(error) => Err(format!(
                "cannot read '{file}': {error}: run `cargo xtask {verb}`"
            )),
        },
    }
}
