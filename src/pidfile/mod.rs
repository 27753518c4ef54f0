//! Pidfiles: always whole, never written through what somebody else put in
//! their place, and gone when they no longer tell the truth.

pub mod claim;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::directory::{Directory, is_regular, kind};

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
    place: Option<(Directory, OsString)>,
    written: Option<Pid>,
    replaced: Option<Vec<u8>>,
}

impl Pidfile {
    /// Opens the directory of an absolute path and looks at what stands there. Writes nothing.
    pub fn open(path: &Path, before: Before) -> Result<Pidfile, Error> {
        let cannot = |reason| Error::cannot("write pidfile", path, reason);
        let (directory, name) = open_parent(path).map_err(cannot)?;
        let place = match directory.entry(&name).map_err(cannot)? {
            Some(entry) if before == Before::Replaceable && is_null(&entry) => None,
            Some(entry) => {
                check(&entry, before).map_err(|reason| Error::Refused {
                    doing: "write pidfile",
                    object: path.into(),
                    reason,
                })?;
                Some((directory, name))
            }
            None => Some((directory, name)),
        };
        Ok(Pidfile { path: path.to_owned(), place, written: None, replaced: None })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file by one that holds this id.
    pub fn write(&mut self, pid: Pid) -> Result<(), Errno> {
        let Some((directory, name)) = &self.place else {
            return Ok(());
        };
        if self.written.is_none() {
            self.replaced = content(directory, name);
        }
        replace(directory, name, format_args!("{pid}\n"))?;
        self.written = Some(pid);
        Ok(())
    }

    /// Removes the file if it still holds the id that was written last.
    pub fn remove(&mut self) {
        let (Some((directory, name)), Some(pid)) = (&self.place, self.written.take()) else {
            return;
        };
        if content(directory, name).is_some_and(|bytes| bytes == format!("{pid}\n").as_bytes()) {
            // Whoever removed it in between did the same.
            let _ = directory.remove(name);
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
        self.remove();
        if let (Some((directory, name)), Some(bytes)) = (&self.place, &self.replaced) {
            if let Ok(None) = directory.entry(name) {
                // The start has failed already, and its error is the one to tell.
                let _ =
                    replace(directory, name, format_args!("{}", String::from_utf8_lossy(bytes)));
            }
        }
    }
}

/// The directory that a path leads to, and the name in it.
fn open_parent(path: &Path) -> Result<(Directory, OsString), Errno> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((Directory::open(parent)?, name.to_owned())),
        _ => Err(Errno::EISDIR),
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

/// What a regular file holds, as far as it may matter.
fn content(directory: &Directory, name: &OsStr) -> Option<Vec<u8>> {
    let file = directory.open_file(name, OFlag::O_RDONLY, Mode::empty()).ok()?;
    let file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    if file.metadata().ok()?.is_file() {
        file.take(KEPT_MAX).read_to_end(&mut bytes).ok()?;
    }
    Some(bytes)
}

/// Writes a new file beside the old one and renames it into its place: a reader sees one or the
/// other, and a disk that is full leaves the old one.
fn replace(
    directory: &Directory,
    name: &OsStr,
    text: std::fmt::Arguments<'_>,
) -> Result<(), Errno> {
    let (beside, file) = create_beside(directory)?;
    let mut file = std::fs::File::from(file);
    let text = text.to_string();
    let written = file.write_all(text.as_bytes());
    let outcome = written
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        .and_then(|()| directory.rename(&beside, name));
    if outcome.is_err() {
        // The error is the one to tell.
        let _ = directory.remove(&beside);
    }
    outcome
}

/// Creates a file under a name that nothing else has. What stands there already may be somebody
/// else's, or left by a machine that lost its power.
fn create_beside(directory: &Directory) -> Result<(OsString, OwnedFd), Errno> {
    let mut attempt = 0;
    loop {
        let name = OsString::from(format!(".vsrun-{}-{attempt}", std::process::id()));
        match directory.create(&name, None, 0o644) {
            Err(Errno::EEXIST) if attempt < 100 => attempt += 1,
            outcome => return outcome.map(|file| (name, file)),
        }
    }
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
