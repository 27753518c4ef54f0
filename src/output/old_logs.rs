//! The old logs of a directory: their numbers, and the deletion of those that
//! have outlived their time, some at a time. Deletes nothing but regular files
//! with an old log's name.

use std::ffi::OsStr;
use std::fmt;

use chrono::{DateTime, FixedOffset};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use super::rotation::{Log, next_number, parse};
use crate::error::strerror;
use crate::sys::clock;
use crate::sys::files::directory::Directory;
use crate::sys::files::entry::is_regular;
use crate::values::keep::Keep;

/// How many old logs are remembered at a time. The owner of the directory may make any number of
/// them, which must not cost the manager its memory.
const REMEMBERED: usize = 1 << 17;
/// How many old logs are looked at before other work is done.
const EXPIRED_AT_ONCE: usize = 256;

/// What is known of the old logs.
#[derive(Debug, Default)]
pub struct OldLogs {
    /// As far as they are remembered.
    known: Vec<(Log, u64)>,
    /// The highest number of each log's old files.
    highest: [u64; 2],
    /// How many of the known ones have not been looked at for their age.
    unchecked: usize,
    /// Which of the others should have been deleted.
    undeleted: Option<ExpiryFailure>,
}

/// Old logs that could not be deleted.
#[derive(Debug, Clone, Copy)]
pub struct ExpiryFailure {
    /// The first of them.
    log: Log,
    number: u64,
    /// How many others there are.
    more: usize,
    /// What the system said of the first.
    reason: Errno,
}

impl fmt::Display for ExpiryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot delete old log '{}'",
            self.log.old_name(self.number)
        )?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        write!(f, ": {}", strerror(self.reason))
    }
}

impl OldLogs {
    /// Reads which old logs there are, all of them to be looked at for their age by the next calls
    /// of [`OldLogs::expire_some`]. If there are too many to be remembered, the rest is for another
    /// time.
    pub fn list(&mut self, directory: &Directory) -> Result<(), Errno> {
        self.unchecked = 0;
        self.undeleted = None;
        self.known.clear();
        self.highest = [0; 2];
        let (known, highest) = (&mut self.known, &mut self.highest);
        directory.for_each_name(|name| {
            let Some((log, number)) = parse(name) else {
                return;
            };
            highest[log as usize] = number.max(highest[log as usize]);
            if known.len() < REMEMBERED && known.try_reserve(1).is_ok() {
                known.push((log, number));
            }
        })?;
        known.sort_unstable();
        self.unchecked = known.len();
        Ok(())
    }

    /// The number for a log that becomes an old one. Another file that takes it meanwhile counts as
    /// an old log, too.
    pub fn take_number(&mut self, log: Log) -> u64 {
        let taken = self.known.iter().filter(|(other, _)| *other == log);
        let number = next_number(self.highest[log as usize], taken.map(|(_, number)| *number));
        self.highest[log as usize] = number.max(self.highest[log as usize]);
        if self.known.try_reserve(1).is_ok() {
            self.known.push((log, number));
        }
        number
    }

    /// Whether there are old logs that have not been looked at for their age.
    pub fn is_expiring(&self) -> bool {
        self.unchecked > 0
    }

    /// Deletes some of the old logs that were modified before `cutoff`. True while there are more to
    /// look at. An error says at the end which of them could not be deleted; they are tried again
    /// after the next [`OldLogs::list`].
    pub fn expire_some(
        &mut self,
        directory: &Directory,
        keep: Keep,
    ) -> Result<bool, ExpiryFailure> {
        if self.unchecked == 0 {
            return Ok(false);
        }
        let Some(cutoff) = keep.cutoff(clock::now()) else {
            return Ok(false);
        };
        let rest = self.unchecked.saturating_sub(EXPIRED_AT_ONCE);
        for (log, number) in &self.known[rest..self.unchecked] {
            let deleted = expire(directory, &log.old_name(*number), cutoff);
            if let Err(reason) = deleted {
                let more = self.undeleted.map_or(0, |known| known.more + 1);
                let first = ExpiryFailure {
                    log: *log,
                    number: *number,
                    more: 0,
                    reason,
                };
                self.undeleted = Some(ExpiryFailure {
                    more,
                    ..self.undeleted.unwrap_or(first)
                });
            }
        }
        self.unchecked = rest;
        if rest == 0 {
            // There may have been very many.
            self.known = Vec::new();
        }
        match self.undeleted.take_if(|_| rest == 0) {
            None => Ok(rest > 0),
            Some(undeleted) => Err(undeleted),
        }
    }
}

/// Deletes an old log that was modified before `cutoff`.
fn expire(directory: &Directory, name: &str, cutoff: DateTime<FixedOffset>) -> Result<(), Errno> {
    let name = OsStr::new(name);
    match directory.entry(name)? {
        Some(entry) if is_expired(&entry, cutoff) => match directory.remove(name) {
            // Already removed.
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
