//! The log directory, which may belong to a hostile user. What stands under a
//! log's name is renamed aside as it is; new files are created where nothing
//! stands; only regular files with an old log's name are ever deleted.

use std::ffi::OsStr;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::geteuid;

use super::old_logs::{ExpiryFailure, OldLogs};
use super::rotation::Log;
use crate::error::strerror;
use crate::escape::escaped;
use crate::sys::files::directory::Directory;
use crate::sys::files::entry::{Owner, is_regular, is_same};
use crate::sys::files::walk::{CreatedDir, remove_created};
use crate::values::keep::Keep;

/// Log files are for their owner to write and its group to read.
const FILE_MODE: u32 = 0o640;
/// How many names are tried for a log while other processes keep taking them.
const ATTEMPTS: u32 = 100;

/// A log directory and what is known of it.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    directory: Directory,
    owner: Option<Owner>,
    /// A manager marks it as in use.
    is_locked: bool,
    keep: Keep,
    old_logs: OldLogs,
    made: Vec<CreatedDir>,
    created: Vec<(Log, FileStat)>,
    put_aside: Vec<(Log, u64)>,
    notices: Vec<String>,
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
            is_locked: false,
            keep,
            old_logs: OldLogs::default(),
            made,
            created: Vec::new(),
            put_aside: Vec::new(),
            notices: Vec::new(),
        })
    }

    /// Its path.
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
        self.put_aside.clear();
    }

    /// Locks the directory for as long as this is held. A notice says so if another manager has
    /// locked it.
    pub fn lock(&mut self) {
        self.is_locked = true;
        // Not every file system can lock a directory, and not every caller may read it: the lock is
        // for this notice only.
        if self.directory.lock_shared() == Err(Errno::EWOULDBLOCK) {
            let path = escaped(&self.path);
            self.notices.push(format!(
                "log directory '{path}' is locked, as by another manager: their logs will mix; \
                 give each manager a directory of its own"
            ));
        }
    }

    /// Takes up the directory that the path leads to now, and makes it if the path leads nowhere.
    /// True if it is another one than before.
    pub fn follow_path(&mut self) -> Result<bool, Errno> {
        let is_other = match self.directory.follow(&self.path) {
            Err(Errno::ENOENT | Errno::ESTALE) => {
                (self.directory, _) = Directory::open_or_make(&self.path, self.owner)?;
                true
            }
            followed => followed?,
        };
        if is_other && self.is_locked {
            self.lock();
        }
        Ok(is_other)
    }

    /// Takes the notices for the administrator; each is returned once.
    pub fn take_notices(&mut self) -> Vec<String> {
        mem::take(&mut self.notices)
    }

    /// Reads which old logs there are, all of them to be looked at for their age by the next calls of
    /// [`LogDirectory::expire_some`].
    pub fn list(&mut self) -> Result<(), Errno> {
        self.old_logs.list(&self.directory)
    }

    /// Whether there are old logs that have not been looked at for their age.
    pub fn is_expiring(&self) -> bool {
        self.old_logs.is_expiring()
    }

    /// Deletes some of the old logs that have outlived their time. True while there are more to look
    /// at. An error says at the end which of them could not be deleted.
    pub fn expire_some(&mut self) -> Result<bool, ExpiryFailure> {
        self.old_logs.expire_some(&self.directory, self.keep)
    }

    /// Puts the log aside if there is anything in it, and opens a new one. The directory has been
    /// listed. An old log that cannot be renamed, or for which no new one can be made, is opened
    /// again to be appended to, and a notice says why.
    pub fn rotate(&mut self, log: Log) -> Result<OwnedFd, Errno> {
        let name = OsStr::new(log.name());
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.directory.entry(name)? else {
                match self.directory.create(name, self.owner, FILE_MODE) {
                    Ok((file, about)) => {
                        self.created.push((log, about));
                        return Ok(file);
                    }
                    Err(Errno::EEXIST) => continue,
                    Err(reason) => {
                        self.put_back(log);
                        return self.append(log, "create", reason);
                    }
                }
            };
            if self.is_own(&entry) && entry.st_size == 0 {
                match self.open_empty(name) {
                    // Another process has a lease on it (F_SETLEASE in fcntl(2)).
                    Err(Errno::EAGAIN) => {}
                    Err(reason) => return Err(reason),
                    Ok(Some(file)) => return Ok(file),
                    Ok(None) => continue,
                }
            }
            if let Err(reason) = self.put_aside(log) {
                return self.append(log, "rename", reason);
            }
        }
        Err(Errno::EEXIST)
    }

    /// Whether a log must be opened again because the file that is written to has lost its name:
    /// it was removed, or something else stands there. A file that another vsrun put aside is still
    /// a log, and stays in use.
    pub fn has_lost(&self, log: Log, file: &OwnedFd) -> Result<bool, Errno> {
        let about = fstat(file)?;
        Ok(match self.directory.entry(OsStr::new(log.name()))? {
            Some(entry) if is_same(&entry, &about) => false,
            Some(entry) if self.is_own(&entry) && entry.st_size > 0 => about.st_nlink == 0,
            _ => true,
        })
    }

    fn put_aside(&mut self, log: Log) -> Result<(), Errno> {
        let number = self.old_logs.take_number(log);
        match self
            .directory
            .rename_new(OsStr::new(log.name()), OsStr::new(&log.old_name(number)))
        {
            Ok(()) => self.put_aside.push((log, number)),
            Err(Errno::EEXIST | Errno::ENOENT) => {}
            Err(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Gives the log that was put aside last its name back.
    fn put_back(&mut self, log: Log) {
        let Some(last) = self.put_aside.iter().rposition(|(other, _)| *other == log) else {
            return;
        };
        let old = log.old_name(self.put_aside[last].1);
        if self
            .directory
            .rename_new(OsStr::new(&old), OsStr::new(log.name()))
            .is_ok()
        {
            self.put_aside.remove(last);
        }
    }

    /// Opens the old log to append to it, since a new one cannot be made for this reason, which is
    /// the error if there is no old one either.
    fn append(&mut self, log: Log, doing: &str, reason: Errno) -> Result<OwnedFd, Errno> {
        let Ok(Some((file, _))) = self.open_own(OsStr::new(log.name())) else {
            return Err(reason);
        };
        let path = self.path.join(log.name());
        let (path, reason) = (escaped(&path), strerror(reason));
        self.notices.push(format!(
            "cannot {doing} log '{path}': {reason}; appending to the old file"
        ));
        Ok(file)
    }

    /// Opens a log in which nothing has been written yet, if it still is one.
    fn open_empty(&self, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
        let Some((file, about)) = self.open_own(name)? else {
            return Ok(None);
        };
        if about.st_size > 0 {
            return Ok(None);
        }
        match fchmod(&file, Mode::from_bits_truncate(FILE_MODE)) {
            // An append-only file keeps its mode (see ioctl_iflags(2)).
            Ok(()) | Err(Errno::EPERM) => Ok(Some(file)),
            Err(reason) => Err(reason),
        }
    }

    /// Opens a log of the owner's to write at its end; none if it is gone or something else by now.
    fn open_own(&self, name: &OsStr) -> Result<Option<(OwnedFd, FileStat)>, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK;
        let file = match self.directory.open_file(name, flags, Mode::empty()) {
            // Gone, or a link or a FIFO.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            opened => opened?,
        };
        let about = fstat(&file)?;
        if !self.is_own(&about) {
            return Ok(None);
        }
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(Some((file, about)))
    }

    /// Whether a file is a log of the owner's, and not another file's second name.
    fn is_own(&self, entry: &FileStat) -> bool {
        let owner = self.owner.map_or(geteuid(), |owner| owner.uid);
        is_regular(entry) && entry.st_nlink == 1 && entry.st_uid == owner.as_raw()
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
            if self
                .directory
                .entry(name)
                .is_ok_and(|entry| entry.as_ref().is_some_and(ours))
            {
                // The start has failed already, and its error is reported.
                let _ = self.directory.remove(name);
            }
        }
        for (log, number) in self.put_aside.iter().rev() {
            let (old, name) = (log.old_name(*number), log.name());
            let _ = self
                .directory
                .rename_new(OsStr::new(&old), OsStr::new(name));
        }
        remove_created(&self.made);
    }
}
