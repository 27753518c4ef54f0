//! Deletes old logs that have outlived their time, some at a time. Touches
//! nothing but regular files with an old log's name.

use std::ffi::OsStr;
use std::fmt;

use chrono::{DateTime, FixedOffset};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use super::directory::LogDirectory;
use super::rotation::Log;
use crate::error::strerror;
use crate::sys::clock;
use crate::sys::directory::{Directory, is_regular};

/// How many old files are looked at before whoever waits is served.
const EXPIRED_AT_ONCE: usize = 256;

/// Old files that could not be deleted.
#[derive(Debug, Clone, Copy)]
pub struct Undeleted {
    /// The first of them.
    log: Log,
    number: u64,
    /// How many others there are.
    more: usize,
    /// What the system said of the first.
    reason: Errno,
}

impl fmt::Display for Undeleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot delete old log '{}'", self.log.old_name(self.number))?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        write!(f, ": {}", strerror(self.reason))
    }
}

impl LogDirectory {
    /// Whether there are old files that have not been looked at for their age.
    pub fn is_expiring(&self) -> bool {
        self.unchecked > 0
    }

    /// Deletes some of the old files that have outlived their time. True while there are more to
    /// look at. An error tells at the end which of them could not be deleted; they are tried again
    /// when the directory has been listed again.
    pub fn expire_some(&mut self) -> Result<bool, Undeleted> {
        if self.unchecked == 0 {
            return Ok(false);
        }
        let cutoff = self.keep.cutoff(clock::now());
        let Some(cutoff) = cutoff else { return Ok(false) };
        let rest = self.unchecked.saturating_sub(EXPIRED_AT_ONCE);
        for (log, number) in &self.old[rest..self.unchecked] {
            let deleted = expire(&self.directory, &log.old_name(*number), cutoff);
            if let Err(reason) = deleted {
                let more = self.undeleted.map_or(0, |known| known.more + 1);
                let first = Undeleted { log: *log, number: *number, more: 0, reason };
                self.undeleted = Some(Undeleted { more, ..self.undeleted.unwrap_or(first) });
            }
        }
        self.unchecked = rest;
        if rest == 0 {
            // There may have been very many.
            self.old = Vec::new();
        }
        match self.undeleted.take_if(|_| rest == 0) {
            None => Ok(rest > 0),
            Some(undeleted) => Err(undeleted),
        }
    }
}

/// Deletes an old file that has outlived its time.
fn expire(directory: &Directory, name: &str, cutoff: DateTime<FixedOffset>) -> Result<(), Errno> {
    let name = OsStr::new(name);
    match directory.entry(name)? {
        Some(entry) if is_expired(&entry, cutoff) => match directory.remove(name) {
            // Another vsrun was faster.
            Err(Errno::ENOENT) => Ok(()),
            removed => removed,
        },
        _ => Ok(()),
    }
}

fn is_expired(entry: &FileStat, cutoff: DateTime<FixedOffset>) -> bool {
    let nanoseconds = u32::try_from(entry.st_mtime_nsec).unwrap_or(0);
    let modified = DateTime::from_timestamp(entry.st_mtime, nanoseconds);
    is_regular(entry) && modified.is_some_and(|modified| modified < cutoff)
}
