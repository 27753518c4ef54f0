//! Pidfiles: always whole, never written through what somebody else put in
//! their place, and gone when they no longer tell the truth.

pub mod claim;

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::directory::{Directory, is_regular, kind};
use crate::sys::fds;

/// How much of a file that is replaced is kept, in bytes, in case the start fails.
const KEPT_MAX: u64 = 4096;

/// What may stand under a pidfile's name before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// A regular file or a link, which is replaced; or `/dev/null`, which takes any id.
    Replaceable,
    /// At most a regular file with one name.
    OneRegularFile,
}

/// A file that holds a process id. Dropped, it takes its id away again.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    /// None for `/dev/null`.
    place: Option<Place>,
    written: Option<FileStat>,
    /// What the file held before, until the start has succeeded.
    replaced: Option<Vec<u8>>,
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Place {
    directory: Directory,
    name: OsString,
}

impl Pidfile {
    /// Opens the directory of an absolute path and looks at what stands there. Writes nothing.
    pub fn open(path: &Path, before: Before) -> Result<Pidfile, Error> {
        let cannot = |reason| Error::cannot("write pidfile", path, reason);
        let place = Place::open(path).map_err(cannot)?;
        let entry = place.entry().map_err(cannot)?;
        let is_null =
            entry.as_ref().is_some_and(|entry| before == Before::Replaceable && is_null(entry));
        if let (Some(entry), false) = (&entry, is_null) {
            check(entry, before).map_err(|why| Error::refused("write pidfile", path, why))?;
        }
        let replaced = entry.and_then(|_| place.content());
        let place = Some(place).filter(|_| !is_null);
        Ok(Pidfile { path: path.to_owned(), place, written: None, replaced })
    }

    /// Replaces the file by one that holds this id. A directory that was removed is looked for
    /// again by its path.
    pub fn write(&mut self, pid: Pid) -> Result<(), Errno> {
        let Some(place) = &mut self.place else { return Ok(()) };
        if place.directory.is_gone() {
            *place = Place::open(&self.path)?;
        }
        self.written = Some(place.replace(format!("{pid}\n").as_bytes())?);
        Ok(())
    }

    /// Removes the file if it still is the one that was written last. Needs no descriptor.
    pub fn remove(&mut self) {
        if let (Some(place), Some(written)) = (&self.place, self.written.take()) {
            place.remove(&written);
        }
    }

    /// Leaves the file to a server that outlives this process.
    pub fn leave(mut self) {
        self.written = None;
        self.commit();
    }

    /// Forgets what the file held before: the start has succeeded.
    pub fn commit(&mut self) {
        self.replaced = None;
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let failed = self.written.is_some();
        self.remove();
        if let (true, Some(place), Some(bytes)) = (failed, &self.place, &self.replaced) {
            if let Ok(None) = place.entry() {
                // The start has failed already, and its error is the one to tell.
                let _ = place.replace(bytes);
            }
        }
    }
}

impl Place {
    /// The directory that a path leads to, and the name in it.
    fn open(path: &Path) -> Result<Place, Errno> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                Ok(Place { directory: Directory::open(parent)?, name: name.to_owned() })
            }
            _ => Err(Errno::EISDIR),
        }
    }

    /// Whether another place is the same name in the same directory.
    fn is(&self, other: &Place) -> bool {
        self.name == other.name && self.directory.is(&other.directory)
    }

    fn entry(&self) -> Result<Option<FileStat>, Errno> {
        self.directory.entry(&self.name)
    }

    /// Removes the name if it still leads to this file, unchanged.
    fn remove(&self, file: &FileStat) {
        let same = |entry: &FileStat| {
            let identity =
                |stat: &FileStat| (stat.st_dev, stat.st_ino, stat.st_mtime, stat.st_mtime_nsec);
            identity(entry) == identity(file)
        };
        if self.entry().is_ok_and(|entry| entry.as_ref().is_some_and(same)) {
            // Whoever removed it in between did the same.
            let _ = self.directory.remove(&self.name);
        }
    }

    /// What a regular file of the name holds, as far as it may matter.
    fn content(&self) -> Option<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = File::from(self.directory.open_file(&self.name, flags, Mode::empty()).ok()?);
        let mut bytes = Vec::new();
        let length = file.metadata().ok().filter(Metadata::is_file)?.len();
        file.take(KEPT_MAX).read_to_end(&mut bytes).ok()?;
        (length <= KEPT_MAX).then_some(bytes)
    }

    /// Writes a new file beside the old one and renames it into its place: a reader sees one or
    /// the other, and a disk that is full leaves the old one.
    fn replace(&self, bytes: &[u8]) -> Result<FileStat, Errno> {
        let (beside, file) = self.create_beside()?;
        let mut file = File::from(file);
        let outcome = file
            .write_all(bytes)
            .map_err(fds::errno)
            .and_then(|()| self.directory.rename(&beside, &self.name))
            .and_then(|()| fstat(&file));
        if outcome.is_err() {
            // The error is the one to tell.
            let _ = self.directory.remove(&beside);
        }
        outcome
    }

    /// Creates a file under a name that nothing else has. What stands there already may be
    /// somebody else's, or left by a machine that lost its power.
    fn create_beside(&self) -> Result<(OsString, OwnedFd), Errno> {
        let mut attempt = 0;
        loop {
            let name = OsString::from(format!(".vsrun-{}-{attempt}", std::process::id()));
            match self.directory.create(&name, None, 0o644) {
                Err(Errno::EEXIST) if attempt < 100 => attempt += 1,
                outcome => return outcome.map(|file| (name, file)),
            }
        }
    }
}

fn check(entry: &FileStat, before: Before) -> Result<(), &'static str> {
    match before {
        Before::Replaceable if kind(entry) == SFlag::S_IFLNK => Ok(()),
        _ if !is_regular(entry) => Err("it is not a regular file"),
        Before::OneRegularFile if entry.st_nlink > 1 => Err("it has more than one name"),
        _ => Ok(()),
    }
}

fn is_null(entry: &FileStat) -> bool {
    kind(entry) == SFlag::S_IFCHR && entry.st_rdev == libc::makedev(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("vsrun-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a new directory");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_id_is_written_and_taken_away() {
        let scratch = Scratch::new("written");
        let path = scratch.0.join("x.pid");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "42\n");
        drop(pidfile);
        assert_eq!(fs::read_dir(&scratch.0).expect("a directory").count(), 0);
    }

    #[test]
    fn a_link_is_replaced_and_its_target_is_not_touched() {
        let scratch = Scratch::new("link");
        let (path, target) = (scratch.0.join("x.pid"), scratch.0.join("target"));
        fs::write(&target, "precious").expect("a file");
        symlink(&target, &path).expect("a link");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        assert!(fs::symlink_metadata(&path).expect("a file").is_file());
        assert_eq!(fs::read_to_string(&target).expect("a file"), "precious");
        assert!(Pidfile::open(&path, Before::OneRegularFile).is_ok());
    }

    #[test]
    fn a_file_that_holds_another_id_is_left_alone() {
        let scratch = Scratch::new("other");
        let path = scratch.0.join("x.pid");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        fs::write(&path, "43\n").expect("a file");
        drop(pidfile);
        assert_eq!(fs::read_to_string(&path).expect("a file"), "43\n");
    }

    #[test]
    fn a_start_that_fails_puts_the_old_content_back() {
        let scratch = Scratch::new("failed");
        let path = scratch.0.join("x.pid");
        fs::write(&path, "41\n").expect("a file");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        drop(pidfile);
        assert_eq!(fs::read_to_string(&path).expect("a file"), "41\n");
    }

    #[test]
    fn the_null_device_is_accepted_and_kept() {
        let mut pidfile =
            Pidfile::open(Path::new("/dev/null"), Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        drop(pidfile);
        assert_eq!(fs::metadata("/dev/null").expect("a device").rdev(), libc::makedev(1, 3));
    }
}
