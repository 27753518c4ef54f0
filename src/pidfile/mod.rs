//! Pidfiles: always complete, never written through a link or a special file in
//! their place, and removed when they are no longer true.

pub mod claim;
mod first_write;
mod place;

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::clock::Moment;
use crate::sys::files::entry::{is_regular, kind};
use first_write::FirstWrite;
use place::{Place, Written, read_start};

/// What may stand under a pidfile's name before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
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
    written: Option<Written>,
    start: Start,
}

/// How far the start has come that writes the id.
#[derive(Debug)]
enum Start {
    /// Nothing has been written, or it has been undone.
    Begun,
    /// The id has been written.
    Announced(FirstWrite),
    /// It has succeeded, or there is nothing to undo but the id itself.
    Over,
}

impl Pidfile {
    /// Opens the directory of an absolute path and looks at what stands there. Writes nothing.
    pub fn open(path: &Path, before: Existing) -> Result<Pidfile, Error> {
        let cannot = |reason| Error::cannot_open("write pidfile", path, reason);
        let place = Place::open(path).map_err(cannot)?;
        let entry = place.entry().map_err(cannot)?;
        let is_null = entry
            .as_ref()
            .is_some_and(|entry| before == Existing::Replaceable && is_null(entry));
        if let (Some(entry), false) = (&entry, is_null) {
            let check_content = |()| match before {
                Existing::AnId => {
                    let content = place
                        .open_id(&place.name)
                        .and_then(|file| read_start(&file));
                    content.map_or(Ok(()), |content| check_id(&content))
                }
                Existing::Replaceable => Ok(()),
            };
            check(entry, before)
                .and_then(check_content)
                .map_err(|why| Error::refused("write pidfile", path, why))?;
        }
        let place = Some(place).filter(|_| !is_null);
        // The monitor pidfile is the claim's alone: no other start writes it meanwhile.
        let start = match before {
            Existing::Replaceable => Start::Begun,
            Existing::AnId => Start::Over,
        };
        Ok(Pidfile {
            path: path.to_owned(),
            place,
            written: None,
            start,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file by one that holds this id. A directory that was removed or moved since the
    /// last time is opened again by its path.
    pub fn write(&mut self, pid: Pid) -> Result<(), Errno> {
        let Some(place) = &mut self.place else {
            return Ok(());
        };
        if let (Start::Over, Some(parent)) = (&self.start, self.path.parent()) {
            place.directory.follow(parent)?;
        }
        let about = match self.start {
            Start::Over => place.write(format!("{pid}\n").as_bytes())?,
            Start::Begun | Start::Announced(_) => {
                let write = FirstWrite::new(place, pid)?;
                let about = write.about();
                self.start = Start::Announced(write);
                about
            }
        };
        self.written = Some(Written { pid, about });
        Ok(())
    }

    /// Removes the file if it holds the id that was written last. One that could not be removed is
    /// tried again the next time. If the start is not over, the first write is undone.
    pub fn remove(&mut self) -> Result<(), Errno> {
        let (Some(place), Some(written)) = (&self.place, self.written) else {
            return Ok(());
        };
        match std::mem::replace(&mut self.start, Start::Begun) {
            Start::Announced(write) => {
                self.written = None;
                return write.undo(place, written.pid);
            }
            start => self.start = start,
        }
        if let Some(entry) = place.entry_of(&written)? {
            if let Some(beside) = place.remove(&entry)? {
                place.put_back(beside, Moment::now());
            }
        }
        self.written = None;
        Ok(())
    }

    /// Leaves the file to a server that outlives this process.
    pub fn leave(mut self) {
        self.written = None;
    }

    /// The start has succeeded: its first write is not undone any more.
    pub fn commit(&mut self) {
        self.start = Start::Over;
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // The error that ends vsrun is the one to tell.
        let _ = self.remove();
    }
}

fn check(entry: &FileStat, before: Existing) -> Result<(), &'static str> {
    match before {
        Existing::Replaceable if kind(entry) == SFlag::S_IFLNK => Ok(()),
        Existing::AnId if kind(entry) == SFlag::S_IFLNK => Err("it is a symbolic link"),
        _ if !is_regular(entry) => Err("it is not a regular file"),
        Existing::AnId if entry.st_nlink > 1 => Err("it has more than one name"),
        Existing::AnId if entry.st_size > ID_MAX => Err(NO_ID),
        Existing::AnId | Existing::Replaceable => Ok(()),
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
    if content.iter().all(may_be_id) {
        Ok(())
    } else {
        Err(NO_ID)
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
        let mut pidfile = Pidfile::open(&path, Existing::Replaceable).expect("opened");
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
        let mut pidfile = Pidfile::open(&path, Existing::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        assert!(fs::symlink_metadata(&path).expect("a file").is_file());
        assert_eq!(fs::read_to_string(&target).expect("a file"), "precious");
        assert!(Pidfile::open(&path, Existing::AnId).is_ok());
    }

    #[test]
    fn a_file_that_holds_another_id_is_left_alone() {
        let scratch = Scratch::new("other");
        let path = scratch.0.join("x.pid");
        let mut pidfile = Pidfile::open(&path, Existing::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        fs::write(&path, "43\n").expect("a file");
        drop(pidfile);
        assert_eq!(fs::read_to_string(&path).expect("a file"), "43\n");
    }

    #[test]
    fn a_start_that_fails_puts_the_id_of_a_live_process_back() {
        let scratch = Scratch::new("failed");
        let path = scratch.0.join("x.pid");
        let parent = format!("{}\n", std::os::unix::process::parent_id());
        for (old, new) in [(parent.as_str(), Some(parent.as_str())), ("precious", None)] {
            fs::write(&path, old).expect("a file");
            let mut pidfile = Pidfile::open(&path, Existing::Replaceable).expect("opened");
            pidfile.write(Pid::from_raw(i32::MAX)).expect("written");
            drop(pidfile);
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), new);
        }
    }

    #[test]
    fn a_directory_that_is_made_there_before_the_first_write_stays() {
        let scratch = Scratch::new("directory");
        let path = scratch.0.join("x.pid");
        let mut pidfile = Pidfile::open(&path, Existing::Replaceable).expect("opened");
        fs::create_dir(&path).expect("a directory");
        assert_eq!(pidfile.write(Pid::from_raw(42)), Err(Errno::EISDIR));
        drop(pidfile);
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(&scratch.0).expect("a directory").count(), 1);
    }

    #[test]
    fn the_null_device_is_accepted_and_kept() {
        let mut pidfile =
            Pidfile::open(Path::new("/dev/null"), Existing::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        drop(pidfile);
        assert_eq!(
            fs::metadata("/dev/null").expect("a device").rdev(),
            libc::makedev(1, 3)
        );
    }

    #[test]
    fn a_file_to_which_the_same_id_was_written_again_is_removed() {
        let scratch = Scratch::new("again");
        let path = scratch.0.join("x.pid");
        let mut pidfile = Pidfile::open(&path, Existing::Replaceable).expect("opened");
        pidfile.write(Pid::from_raw(42)).expect("written");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, "42").expect("a file");
        drop(pidfile);
        assert!(!path.exists());
    }
}
