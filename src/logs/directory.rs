//! The log directory, which may belong to a hostile user. What stands under a
//! log's name is renamed aside as it is; new files are created where nothing
//! stands; only regular files with an old log's name are ever deleted.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;

use super::rotation::{Log, next_number, parse};
use crate::cli::values::Keep;
use crate::sys::directory::{Directory, Made, Owner, is_regular};

/// Log files are for their owner to write and its group to read.
const FILE_MODE: u32 = 0o640;
/// How many names are tried for a log while somebody else keeps taking them.
const ATTEMPTS: u32 = 100;
/// How many old files are looked at before whoever waits is served.
const EXPIRED_AT_ONCE: usize = 256;

/// A log directory and what is known of it.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    directory: Directory,
    owner: Option<Owner>,
    keep: Keep,
    /// Old files not yet looked at for their age.
    unchecked: Vec<(Log, u64)>,
    made: Vec<Made>,
    created: Vec<Log>,
}

impl LogDirectory {
    /// Opens the directory by its absolute path, and makes it if it is missing. Until
    /// [`LogDirectory::commit`], dropping it takes away what was made.
    pub fn open(path: &Path, keep: Keep, owner: Option<Owner>) -> Result<LogDirectory, Errno> {
        let mut made = Vec::new();
        let opened = Directory::open_or_make(path, owner, &mut made);
        let directory = opened.inspect_err(|_| remove_made(&made))?;
        let (unchecked, created) = (Vec::new(), Vec::new());
        Ok(LogDirectory { path: path.to_owned(), directory, owner, keep, unchecked, made, created })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The start has succeeded: what was made stays.
    pub fn commit(&mut self) {
        self.made.clear();
        self.created.clear();
    }

    /// Opens the directory again by its path if it has been removed. True if that was so.
    pub fn restore(&mut self) -> Result<bool, Errno> {
        if !self.directory.is_gone() {
            return Ok(false);
        }
        self.directory = Directory::open_or_make(&self.path, self.owner, &mut Vec::new())?;
        Ok(true)
    }

    /// Puts the log aside if there is anything in it, and opens a new one.
    pub fn rotate(&mut self, log: Log) -> Result<OwnedFd, Errno> {
        let mut numbers = Vec::new();
        let mut old = std::mem::take(&mut self.unchecked);
        old.clear();
        self.directory.for_each_name(|name| {
            if let Some((found, number)) = parse(name) {
                old.push((found, number));
                if found == log {
                    numbers.push(number);
                }
            }
        })?;
        self.unchecked = old;
        self.open_new(log, numbers)
    }

    fn open_new(&mut self, log: Log, mut numbers: Vec<u64>) -> Result<OwnedFd, Errno> {
        let name = OsStr::new(log.name());
        for _ in 0..ATTEMPTS {
            match self.directory.entry(name)? {
                None => match self.directory.create(name, self.owner, FILE_MODE) {
                    Err(Errno::EEXIST) => {}
                    Ok(file) => {
                        self.created.push(log);
                        return Ok(file);
                    }
                    failed => return failed,
                },
                Some(entry) if self.is_usable(&entry) => {
                    if let Some(file) = self.open_empty(name)? {
                        return Ok(file);
                    }
                }
                Some(_) => {
                    let number = next_number(&numbers);
                    match self.directory.rename_new(name, OsStr::new(&log.old_name(number))) {
                        Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => numbers.push(number),
                        Err(reason) => return Err(reason),
                    }
                }
            }
        }
        Err(Errno::EEXIST)
    }

    /// Opens a log in which nothing has been written yet, if it still is one.
    fn open_empty(&self, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND;
        let file = match self.directory.open_file(name, flags, Mode::empty()) {
            // Gone, or a link or a FIFO by now.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            opened => opened?,
        };
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(self.is_usable(&fstat(&file)?).then_some(file))
    }

    /// Whether a file is an empty log of the owner's, and not another file's second name.
    fn is_usable(&self, entry: &FileStat) -> bool {
        let owner = self.owner.map_or(geteuid(), |owner| owner.uid);
        is_regular(entry)
            && entry.st_size == 0
            && entry.st_nlink == 1
            && entry.st_uid == owner.as_raw()
    }

    /// Looks over all old files once more, at the next calls of [`LogDirectory::expire_some`].
    pub fn review(&mut self) -> Result<(), Errno> {
        let mut old = Vec::new();
        self.directory.for_each_name(|name| old.extend(parse(name)))?;
        self.unchecked = old;
        Ok(())
    }

    /// Deletes some of the old files that have outlived their time. True while there are more to
    /// look at.
    pub fn expire_some(&mut self) -> bool {
        let Some(cutoff) = self.keep.cutoff(Local::now()) else {
            self.unchecked.clear();
            return false;
        };
        let batch = self.unchecked.len().saturating_sub(EXPIRED_AT_ONCE);
        for (log, number) in self.unchecked.drain(batch..) {
            let name = log.old_name(number);
            let entry = self.directory.entry(OsStr::new(&name));
            if entry.is_ok_and(|entry| entry.is_some_and(|entry| is_expired(&entry, cutoff))) {
                // What cannot be deleted now is tried again at the next rotation.
                let _ = self.directory.remove(OsStr::new(&name));
            }
        }
        !self.unchecked.is_empty()
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        for log in &self.created {
            // The start has failed already, and its error is the one to tell.
            let _ = self.directory.remove(OsStr::new(log.name()));
        }
        remove_made(&self.made);
    }
}

fn remove_made(made: &[Made]) {
    for directory in made.iter().rev() {
        // One that is no longer empty is somebody else's by now.
        let _ = directory.remove();
    }
}

fn is_expired(entry: &FileStat, cutoff: DateTime<Local>) -> bool {
    let nanoseconds = u32::try_from(entry.st_mtime_nsec).unwrap_or(0);
    let modified = DateTime::from_timestamp(entry.st_mtime, nanoseconds);
    is_regular(entry) && modified.is_some_and(|modified| modified < cutoff)
}
