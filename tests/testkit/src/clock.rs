//! A clock that is not the machine's, by libfaketime (see faketime(1)).

use std::fs;
use std::path::PathBuf;

use crate::{Sandbox, require_program, require_root};

/// The clock of some programs of a sandbox, for [`crate::Invocation::clock`].
#[derive(Clone, Copy, Debug)]
pub struct Clock<'a>(&'a Sandbox);

impl<'a> Clock<'a> {
    /// Returns a clock that shows `time`, in the words of `FAKETIME`: `-365d`, `+0 x100`,
    /// `@2026-04-28 02:30:00`. None where the test is skipped: it needs root and faketime.
    #[must_use = "a test that needs a clock returns early without it"]
    #[track_caller]
    pub fn new(sandbox: &'a Sandbox, time: &str) -> Option<Clock<'a>> {
        if !require_root() || !require_program("faketime") {
            return None;
        }
        let clock = Clock(sandbox);
        clock.set(time);
        Some(clock)
    }

    /// Sets the clock, also of programs that run.
    pub fn set(&self, time: &str) {
        // As a whole: it is read at every look at the clock.
        let beside = self.0.file("clock.new", format!("{time}\n"));
        fs::rename(beside, self.file()).expect("the sandbox can be written");
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path("clock")
    }
}
