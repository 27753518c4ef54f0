//! The log directory, which may belong to a hostile user. What stands under a
//! log's name is renamed aside as it is; new files are created where nothing
//! stands; only regular files with an old log's name are ever deleted.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::geteuid;

use super::rotation::{Log, next_number, parse};
use crate::cli::values::Keep;
use crate::error::said;
use crate::sys::clock;
use crate::sys::directory::{Directory, Owner, is_regular, is_same};
use crate::sys::walk::{Made, remove_made};

/// Log files are for their owner to write and its group to read.
const FILE_MODE: u32 = 0o640;
/// How many names are tried for a log while somebody else keeps taking them.
const ATTEMPTS: u32 = 100;
/// How many old files are remembered at a time: whoever owns the directory may make any number of
/// them, and the manager is not to be made as large.
const REMEMBERED: usize = 1 << 17;
/// How many old files are looked at before whoever waits is served.
const EXPIRED_AT_ONCE: usize = 256;

/// A log directory and what is known of it.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    directory: Directory,
    owner: Option<Owner>,
    keep: Keep,
    /// The old files, as far as they are remembered.
    old: Vec<(Log, u64)>,
    /// The highest number of each log's old files.
    highest: [u64; 2],
    /// How many of them have not been looked at for their age.
    unchecked: usize,
    /// Which of the others should have been deleted.
    undeleted: Option<Undeleted>,
    made: Vec<Made>,
    created: Vec<(Log, FileStat)>,
    put_aside: Vec<(Log, u64)>,
}

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
        write!(f, ": {}", said(self.reason))
    }
}

impl LogDirectory {
    /// Opens the directory by its absolute path, and makes it if it is missing. Until
    /// [`LogDirectory::commit`], dropping it takes away what was made.
    pub fn open(path: &Path, keep: Keep, owner: Option<Owner>) -> Result<LogDirectory, Errno> {
        let (directory, made) = Directory::open_or_make(path, owner)?;
        Ok(LogDirectory {
            path: path.to_owned(),
            directory,
            owner,
            keep,
            old: Vec::new(),
            highest: [0; 2],
            unchecked: 0,
            undeleted: None,
            made,
            created: Vec::new(),
            put_aside: Vec::new(),
        })
    }

    /// The directory itself.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The start has succeeded: what was made stays.
    pub fn commit(&mut self) {
        self.made.clear();
        self.created.clear();
        self.put_aside.clear();
    }

    /// Opens the directory again by its path if it has been removed. True if that was so.
    pub fn restore(&mut self) -> Result<bool, Errno> {
        if !self.directory.is_gone() {
            return Ok(false);
        }
        (self.directory, _) = Directory::open_or_make(&self.path, self.owner)?;
        Ok(true)
    }

    /// Reads the directory: which old files there are, all of them to be looked at for their age
    /// by the next calls of [`LogDirectory::expire_some`]. If there are too many to be remembered,
    /// the rest is for another time.
    pub fn list(&mut self) -> Result<(), Errno> {
        self.unchecked = 0;
        self.undeleted = None;
        self.old.clear();
        self.highest = [0; 2];
        let (old, highest) = (&mut self.old, &mut self.highest);
        self.directory.for_each_name(|name| {
            let Some((log, number)) = parse(name) else { return };
            highest[log as usize] = number.max(highest[log as usize]);
            if old.len() < REMEMBERED && old.try_reserve(1).is_ok() {
                old.push((log, number));
            }
        })?;
        old.sort_unstable();
        self.unchecked = old.len();
        Ok(())
    }

    /// Puts the log aside if there is anything in it, and opens a new one. The directory has been
    /// listed.
    pub fn rotate(&mut self, log: Log) -> Result<OwnedFd, Errno> {
        let name = OsStr::new(log.name());
        for _ in 0..ATTEMPTS {
            match self.directory.entry(name)? {
                None => match self.directory.create(name, self.owner, FILE_MODE) {
                    Err(Errno::EEXIST) => {}
                    created => {
                        let (file, about) = created?;
                        self.created.push((log, about));
                        return Ok(file);
                    }
                },
                Some(entry) if self.is_usable(&entry) => match self.open_empty(name) {
                    // Somebody has a lease on it (F_SETLEASE in fcntl(2)).
                    Err(Errno::EAGAIN) => self.put_aside(log)?,
                    opened => {
                        if let Some(file) = opened? {
                            return Ok(file);
                        }
                    }
                },
                Some(_) => self.put_aside(log)?,
            }
        }
        Err(Errno::EEXIST)
    }

    fn put_aside(&mut self, log: Log) -> Result<(), Errno> {
        let taken = self.old.iter().filter(|(other, _)| *other == log);
        let number = next_number(self.highest[log as usize], taken.map(|(_, number)| *number));
        // A name that is taken in the meantime is one more old file.
        self.highest[log as usize] = number.max(self.highest[log as usize]);
        if self.old.try_reserve(1).is_ok() {
            self.old.push((log, number));
        }
        match self.directory.rename_new(OsStr::new(log.name()), OsStr::new(&log.old_name(number))) {
            Ok(()) => self.put_aside.push((log, number)),
            Err(Errno::EEXIST | Errno::ENOENT) => {}
            Err(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Opens a log in which nothing has been written yet, if it still is one.
    fn open_empty(&self, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK;
        let file = match self.directory.open_file(name, flags, Mode::empty()) {
            // Gone, or a link or a FIFO by now.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            opened => opened?,
        };
        if !self.is_usable(&fstat(&file)?) {
            return Ok(None);
        }
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        fchmod(&file, Mode::from_bits_truncate(FILE_MODE))?;
        Ok(Some(file))
    }

    /// Whether a file is an empty log of the owner's, and not another file's second name.
    fn is_usable(&self, entry: &FileStat) -> bool {
        let owner = self.owner.map_or(geteuid(), |owner| owner.uid);
        is_regular(entry)
            && entry.st_size == 0
            && entry.st_nlink == 1
            && entry.st_uid == owner.as_raw()
    }

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

impl Drop for LogDirectory {
    fn drop(&mut self) {
        for (log, file) in &self.created {
            let name = OsStr::new(log.name());
            // Another vsrun may have found the empty log, and use it.
            let ours = |entry: &FileStat| {
                is_same(entry, file) && (*log == Log::Vsrun || entry.st_size == 0)
            };
            if self.directory.entry(name).is_ok_and(|entry| entry.as_ref().is_some_and(ours)) {
                // The start has failed already, and its error is the one to tell.
                let _ = self.directory.remove(name);
            }
        }
        for (log, number) in self.put_aside.iter().rev() {
            let (old, name) = (log.old_name(*number), log.name());
            let _ = self.directory.rename_new(OsStr::new(&old), OsStr::new(name));
        }
        remove_made(&self.made);
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
