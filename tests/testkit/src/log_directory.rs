//! What vsrun left in a `--logdir` directory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// A log directory, to be read at any time; a file that is not there reads as empty.
#[derive(Clone, Debug)]
pub struct LogDirectory(PathBuf);

impl LogDirectory {
    /// Returns the reader of `path`, which need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> LogDirectory {
        LogDirectory(path.into())
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the names of everything in the directory, sorted; none if it does not exist.
    pub fn names(&self) -> Vec<OsString> {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    }

    /// Returns what a file holds.
    pub fn read(&self, name: impl AsRef<OsStr>) -> Vec<u8> {
        fs::read(self.0.join(name.as_ref())).unwrap_or_default()
    }

    /// Returns the server's current output: `logfile`.
    pub fn server(&self) -> String {
        String::from_utf8_lossy(&self.read("logfile")).into_owned()
    }

    /// Returns the current messages of vsrun and handler: `vsrun.log`.
    pub fn vsrun(&self) -> String {
        String::from_utf8_lossy(&self.read("vsrun.log")).into_owned()
    }
}

impl AsRef<OsStr> for LogDirectory {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}
