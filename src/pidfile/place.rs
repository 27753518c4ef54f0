//! A name in a directory, and files that are replaced there as a whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid};

use crate::sys::directory::Directory;
use crate::sys::entry::{Owner, is_regular, is_same, kind, try_names};
use crate::sys::fds;

/// The largest file that is put back as it was, in bytes.
const REPLACED_MAX: u64 = 1 << 20;
const MODE: u32 = 0o644;

/// A name in a directory.
#[derive(Debug)]
pub struct Place {
    pub directory: Directory,
    pub name: OsString,
}

/// What stood at a place: a file and its content, or a link and its target.
#[derive(Debug)]
pub struct Replaced {
    about: FileStat,
    pub content: Vec<u8>,
}

impl Replaced {
    /// Whether it is a file that holds just this number.
    pub fn is_number(&self, number: i32) -> bool {
        let text = std::str::from_utf8(&self.content).unwrap_or_default();
        is_regular(&self.about) && text.trim() == number.to_string()
    }
}

impl Place {
    /// The directory that a path leads to, and the name in it.
    pub fn open(path: &Path) -> Result<Place, Errno> {
        let bytes = path.as_os_str().as_bytes();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if bytes.ends_with(name.as_bytes()) => {
                Ok(Place { directory: Directory::open(parent)?, name: name.to_owned() })
            }
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

    /// Writes a new file beside the old one and renames it into its place: a reader sees one or
    /// the other, and a disk that is full leaves the old one. A file that is mounted there cannot
    /// be replaced and is written in place.
    pub fn write(&self, bytes: &[u8]) -> Result<FileStat, Errno> {
        self.replace(bytes, None, MODE)
    }

    /// Removes what stands there. A file that is mounted there is emptied.
    pub fn remove(&self) -> Result<(), Errno> {
        match self.directory.remove(&self.name) {
            Err(Errno::EBUSY) => self.overwrite(&[]).map(drop),
            removed => removed,
        }
    }

    /// Reads what is about to be replaced: a link, or a file with one name that is small enough.
    pub fn read(&self) -> Option<Replaced> {
        let about = self.entry().ok()??;
        if kind(&about) == SFlag::S_IFLNK {
            let content = self.directory.target(&self.name).ok()?.into_vec();
            return Some(Replaced { about, content });
        }
        // First a descriptor that opens nothing: closing any other one of the manager's lock file,
        // which may stand here under a second name, would drop the lock (see fcntl(2)).
        let file = self.directory.open_file(&self.name, OFlag::O_PATH, Mode::empty()).ok()?;
        let about = fstat(&file).ok()?;
        let is_small = u64::try_from(about.st_size).ok()? <= REPLACED_MAX;
        if !is_regular(&about) || about.st_nlink != 1 || !is_small {
            return None;
        }
        let file = fds::reopen(file.as_fd(), OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
        let mut content = Vec::new();
        File::from(file).take(REPLACED_MAX).read_to_end(&mut content).ok()?;
        Some(Replaced { about, content })
    }

    /// Puts back what was replaced, with its mode, and its owner if the caller may give files away.
    pub fn put_back(&self, replaced: &Replaced) -> Result<(), Errno> {
        let Replaced { about, content } = replaced;
        if kind(about) == SFlag::S_IFLNK {
            return self.directory.link(&self.name, &OsString::from_vec(content.clone()));
        }
        let owner = Owner { uid: Uid::from_raw(about.st_uid), gid: Gid::from_raw(about.st_gid) };
        let mode = about.st_mode & 0o777;
        match self.replace(content, Some(owner), mode) {
            Err(Errno::EPERM) => self.replace(content, None, mode).map(drop),
            replaced => replaced.map(drop),
        }
    }

    fn replace(&self, bytes: &[u8], owner: Option<Owner>, mode: u32) -> Result<FileStat, Errno> {
        let (beside, mut file) = try_names(|name| {
            let (file, _) = self.directory.create(name, owner, mode)?;
            Ok((name.to_owned(), File::from(file)))
        })?;
        let written = file.write_all(bytes).map_err(fds::errno).and_then(|()| fstat(&file));
        let renamed = written.and_then(|about| {
            self.directory.rename(&beside, &self.name)?;
            Ok(about)
        });
        if renamed.is_err() {
            // The error is the one to tell.
            let _ = self.directory.remove(&beside);
        }
        match renamed {
            Err(Errno::EBUSY) => self.overwrite(bytes),
            renamed => renamed,
        }
    }

    fn overwrite(&self, bytes: &[u8]) -> Result<FileStat, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
        let mut file = File::from(self.directory.open_file(&self.name, flags, Mode::empty())?);
        file.write_all(bytes).map_err(fds::errno)?;
        fstat(&file)
    }
}
