//! A name in a directory, and files that are replaced there as a whole.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::Pid;

use super::ID_MAX;
use crate::limits;
use crate::sys::clock::Moment;
use crate::sys::files::directory::Directory;
use crate::sys::files::entry::{is_regular, is_same, try_names};
use crate::sys::files::{fds, lock};

/// The mode of a pidfile.
pub const MODE: u32 = 0o644;

/// A name in a directory.
#[derive(Debug)]
pub struct Place {
    pub directory: Directory,
    pub name: OsString,
}

/// A complete file beside a place, under a temporary name.
#[derive(Debug)]
pub struct New {
    pub name: OsString,
    pub file: File,
    pub about: FileStat,
}

/// An id, and the file that it was written to.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub pid: Pid,
    pub about: FileStat,
}

impl Place {
    /// The directory that a path leads to, and the name in it.
    pub fn open(path: &Path) -> Result<Place, Errno> {
        let bytes = path.as_os_str().as_bytes();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if bytes.ends_with(name.as_bytes()) => Ok(Place {
                directory: Directory::open(parent)?,
                name: name.to_owned(),
            }),
            _ => Err(Errno::EISDIR),
        }
    }

    /// Whether another place is the same name in the same directory.
    pub fn is(&self, other: &Place) -> bool {
        self.name == other.name && self.directory.is(&other.directory)
    }

    /// What stands there, links as links.
    pub fn entry(&self) -> Result<Option<FileStat>, Errno> {
        self.directory.entry(&self.name)
    }

    /// Whether this very file stands there.
    pub fn holds(&self, file: &FileStat) -> Result<bool, Errno> {
        Ok(self.entry()?.is_some_and(|entry| is_same(&entry, file)))
    }

    /// What stands there, if it holds the id that was written: the same file, unchanged, or any
    /// other. A descriptor is needed only if it is not the same or has been changed.
    pub fn entry_of(&self, written: &Written) -> Result<Option<FileStat>, Errno> {
        let Some(entry) = self.entry()? else {
            return Ok(None);
        };
        let is_unchanged = is_same(&entry, &written.about) && is_as_old(&entry, &written.about);
        let holds_id = || {
            let file = self.open_id(&self.name)?;
            let about = fstat(&file).ok()?;
            (read_id(&file) == Some(written.pid)).then_some(about)
        };
        Ok(if is_unchanged {
            Some(entry)
        } else {
            holds_id()
        })
    }

    /// Writes a new file beside the old one and renames it into its place: a reader sees one or
    /// the other, and a disk that is full leaves the old one. A file that is mounted there cannot
    /// be replaced and is written in place.
    pub fn write(&self, bytes: &[u8]) -> Result<FileStat, Errno> {
        let new = self.make(bytes, MODE, |_| Ok(()))?;
        match self.directory.rename(&new.name, &self.name) {
            Ok(()) => Ok(new.about),
            Err(reason) => {
                // The first error is reported.
                let _ = self.directory.remove(&new.name);
                if reason == Errno::EBUSY {
                    self.overwrite(bytes)
                } else {
                    Err(reason)
                }
            }
        }
    }

    /// Makes a file that is to be renamed into the place. `prepare` is called before anything is
    /// written to it.
    pub fn make(
        &self,
        bytes: &[u8],
        mode: u32,
        prepare: impl FnOnce(&File) -> Result<(), Errno>,
    ) -> Result<New, Errno> {
        let (name, mut file) = try_names(|name| {
            let (file, _) = self.directory.create(name, None, mode)?;
            Ok((name.to_owned(), File::from(file)))
        })?;
        let written = prepare(&file)
            .and_then(|()| file.write_all(bytes).map_err(fds::errno))
            .and_then(|()| fstat(&file));
        match written {
            Ok(about) => Ok(New { name, file, about }),
            Err(reason) => {
                // The first error is reported.
                let _ = self.directory.remove(&name);
                Err(reason)
            }
        }
    }

    /// Writes to the file that stands there.
    pub fn overwrite(&self, bytes: &[u8]) -> Result<FileStat, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
        let mut file = File::from(self.directory.open_file(&self.name, flags, Mode::empty())?);
        file.write_all(bytes).map_err(fds::errno)?;
        fstat(&file)
    }

    /// Removes a file that was seen to stand there. It is renamed first: if another start has put
    /// its own file there since, that one is not removed, and its temporary name is returned. A
    /// file that is mounted there is emptied.
    pub fn remove(&self, seen: &FileStat) -> Result<Option<OsString>, Errno> {
        let moved = try_names(|beside| {
            self.directory.rename_new(&self.name, beside)?;
            Ok(beside.to_owned())
        });
        let beside = match moved {
            Ok(beside) => beside,
            // Already removed.
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EBUSY) => return self.overwrite(&[]).map(|_| None),
            // There may be no room for a longer name.
            Err(_) => return self.directory.remove(&self.name).map(|()| None),
        };
        match self.directory.entry(&beside) {
            Ok(Some(moved)) if !is_same(&moved, seen) => Ok(Some(beside)),
            _ => self.directory.remove(&beside).map(|()| None),
        }
    }

    /// Renames a file from beside into the place, if nothing stands there. Returns the temporary
    /// name of what is still to be put back.
    pub fn try_put_back(&self, beside: OsString) -> Option<OsString> {
        if self.directory.rename_new(&beside, &self.name).is_err() {
            return Some(beside);
        }
        // Its start may have failed in between, without finding the file here.
        let entry = self.entry().ok()?.filter(is_empty)?;
        self.remove(&entry).ok()?
    }

    /// Likewise, but removes the file if another one stands there. While that belongs to a start
    /// whose outcome is unknown, waits for it.
    pub fn put_back(&self, beside: OsString, deadline: Moment) {
        let mut left = self.try_put_back(beside);
        while let Some(beside) = left {
            if self.is_settled() || Moment::now() >= deadline {
                // One that cannot be removed is not needed.
                let _ = self.directory.remove(&beside);
                return;
            }
            thread::sleep(limits::PIDFILE_PAUSE);
            left = self.try_put_back(beside);
        }
    }

    /// Whether what stands there is no file of a start whose outcome is unknown, or that has failed.
    fn is_settled(&self) -> bool {
        let Ok((file, about)) = self.look_at(&self.name) else {
            return false;
        };
        if !is_regular(&about) {
            return true;
        }
        // An empty one is not opened, as it may be the manager's own lock file.
        let is_locked = !is_empty(&about)
            && self
                .read_again(&self.name, &about)
                .is_some_and(|file| lock::writer(&file).is_some());
        // A start that fails empties its file before it releases the lock.
        !is_locked && fstat(&file).is_ok_and(|about| !is_empty(&about))
    }

    /// Opens a file of the directory that may hold an id and has one name.
    pub fn open_id(&self, name: &OsStr) -> Option<File> {
        let may_hold_id = |about: &FileStat| (1..=ID_MAX).contains(&about.st_size);
        self.open_if(name, |about| about.st_nlink == 1 && may_hold_id(about))
    }

    /// Opens a regular file of the directory for reading, if it suits.
    pub fn open_if(&self, name: &OsStr, suits: impl FnOnce(&FileStat) -> bool) -> Option<File> {
        let (_, about) = self.look_at(name).ok()?;
        if is_regular(&about) && suits(&about) {
            self.read_again(name, &about)
        } else {
            None
        }
    }

    /// A descriptor that opens nothing: closing any other one of the manager's lock file, which may
    /// stand here under a second name, would drop the lock (see fcntl(2)).
    fn look_at(&self, name: &OsStr) -> Result<(OwnedFd, FileStat), Errno> {
        let file = self
            .directory
            .open_file(name, OFlag::O_PATH, Mode::empty())?;
        let about = fstat(&file)?;
        Ok((file, about))
    }

    /// Opens for reading what has been looked at, if it still stands there. By its name: the root,
    /// and so `/proc`, may have been changed.
    fn read_again(&self, name: &OsStr, seen: &FileStat) -> Option<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = self.directory.open_file(name, flags, Mode::empty()).ok()?;
        if fstat(&file).is_ok_and(|about| is_same(&about, seen)) {
            return Some(File::from(file));
        }
        // It may be the manager's own lock file, whose lock closing it would drop.
        let _ = file.into_raw_fd();
        None
    }
}

fn is_empty(file: &FileStat) -> bool {
    is_regular(file) && file.st_size == 0
}

/// Whether a file has not been changed since.
pub fn is_as_old(file: &FileStat, before: &FileStat) -> bool {
    (file.st_mtime, file.st_mtime_nsec) == (before.st_mtime, before.st_mtime_nsec)
}

/// The first bytes of a file, as many as an id may have.
pub fn read_start(file: &File) -> Option<Vec<u8>> {
    let mut content = vec![0; ID_MAX as usize];
    let length = file.read_at(&mut content, 0).ok()?;
    content.truncate(length);
    Some(content)
}

/// The id that a file holds.
pub fn read_id(file: &File) -> Option<Pid> {
    let content = read_start(file)?;
    let id = std::str::from_utf8(&content).ok()?.trim().parse().ok()?;
    Some(id).filter(|id| *id > 0).map(Pid::from_raw)
}
