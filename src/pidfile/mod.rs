//! Pidfiles: always whole, never written through what somebody else put in
//! their place, and gone when they no longer tell the truth.

pub mod claim;
mod place;

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::entry::{is_regular, is_same, kind};
use place::{Place, Replaced};

/// What may stand under a pidfile's name before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// A regular file or a link, which is replaced; or `/dev/null`, which takes any id.
    Replaceable,
    /// At most a regular file with one name that holds no more than an id: nothing is lost with it.
    AnId,
}

/// A file that holds a process id. Dropped, it takes its id away again.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    /// None for `/dev/null`.
    place: Option<Place>,
    written: Option<(Pid, FileStat)>,
    /// What the file held before, until the start has succeeded.
    replaced: Option<Replaced>,
    /// Nothing has been written yet.
    is_new: bool,
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
            let check_content = |()| match before {
                Before::AnId => place.read().map_or(Ok(()), |old| check_id(&old.content)),
                Before::Replaceable => Ok(()),
            };
            check(entry, before)
                .and_then(check_content)
                .map_err(|why| Error::refused("write pidfile", path, why))?;
        }
        let place = Some(place).filter(|_| !is_null);
        Ok(Pidfile { path: path.to_owned(), place, written: None, replaced: None, is_new: true })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file by one that holds this id. A directory that was removed or moved since the
    /// last time is opened again by its path.
    pub fn write(&mut self, pid: Pid) -> Result<(), Errno> {
        let Some(place) = &mut self.place else { return Ok(()) };
        if let (false, Some(parent)) = (self.is_new, self.path.parent()) {
            place.directory.follow(parent)?;
        }
        if std::mem::take(&mut self.is_new) {
            self.replaced = place.read();
        }
        self.written = Some((pid, place.write(format!("{pid}\n").as_bytes())?));
        Ok(())
    }

    /// Removes the file if it still is the one that was written last and holds the same id; true
    /// if that was so. One that could not be removed is tried again the next time. A descriptor is
    /// needed only if somebody has written to it since.
    pub fn remove(&mut self) -> Result<bool, Errno> {
        let (Some(place), Some((pid, written))) = (&self.place, self.written) else {
            return Ok(false);
        };
        let time = |stat: &FileStat| (stat.st_mtime, stat.st_mtime_nsec);
        let still_ours = || place.read().is_some_and(|content| content.is_number(pid.as_raw()));
        let is_ours = place.entry()?.is_some_and(|entry| {
            is_same(&entry, &written) && (time(&entry) == time(&written) || still_ours())
        });
        let removed = if is_ours { place.remove() } else { Ok(()) };
        // Whoever was faster did the same.
        if removed.is_ok() || removed == Err(Errno::ENOENT) {
            self.written = None;
        }
        removed.map(|()| is_ours)
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
        let removed = self.remove() == Ok(true);
        if let (Some(place), Some(replaced)) = (&self.place, &self.replaced) {
            if removed || place.entry() == Ok(None) {
                // The start has failed already, and its error is the one to tell.
                let _ = place.put_back(replaced);
            }
        }
    }
}

fn check(entry: &FileStat, before: Before) -> Result<(), &'static str> {
    match before {
        Before::Replaceable if kind(entry) == SFlag::S_IFLNK => Ok(()),
        Before::AnId if kind(entry) == SFlag::S_IFLNK => Err("it is a symbolic link"),
        _ if !is_regular(entry) => Err("it is not a regular file"),
        Before::AnId if entry.st_nlink > 1 => Err("it has more than one name"),
        Before::AnId if entry.st_size > ID_MAX => Err(NO_ID),
        Before::AnId | Before::Replaceable => Ok(()),
    }
}

/// The size of an id with space around it, in bytes.
const ID_MAX: i64 = 32;
const NO_ID: &str = "it holds more than a process id";

/// Whether a file holds nothing, as vsrun's locks do, an id, as pidfiles and the locks of other
/// programs do, or the zeros that a power failure makes of one.
fn check_id(content: &[u8]) -> Result<(), &'static str> {
    let may_be_id =
        |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | 0) || byte.is_ascii_whitespace();
    if content.iter().all(may_be_id) { Ok(()) } else { Err(NO_ID) }
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
        assert!(Pidfile::open(&path, Before::AnId).is_ok());
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

    #[test]
    fn a_file_to_which_the_same_id_was_written_again_is_removed() {
        let scratch = Scratch::new("again");
        let path = scratch.0.join("x.pid");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, "42").expect("a file");
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_put_back_has_one_name_and_no_set_user_id_bit() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new("bits");
        let (path, other) = (scratch.0.join("x.pid"), scratch.0.join("other"));
        fs::write(&path, "41\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("a mode");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        drop(pidfile);
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o7777, 0o755);
        fs::hard_link(&path, &other).expect("a second name");
        let mut pidfile = Pidfile::open(&path, Before::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        drop(pidfile);
        assert!(!path.exists() && other.exists());
    }
}
