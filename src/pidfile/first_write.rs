//! The first write of a server's pidfile, which is undone if the start fails.
//! Until the outcome is known the new file is locked for writing: another
//! start that has replaced it waits for the lock to be released, and finds the
//! file empty if this start has failed. The lock vanishes with the process, so
//! a start that is killed holds up no other.

use std::ffi::OsStr;
use std::fs::File;
use std::thread;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{Pid, ftruncate, getpid};

use super::place::{MODE, New, Place, Written, is_as_old, read_id};
use crate::limits;
use crate::sys::clock::Moment;
use crate::sys::files::lock;
use crate::sys::process::wait::is_alive;

/// How often a file is exchanged that others remove and make at the same time.
const ATTEMPTS: u32 = 100;

/// What was done to write an id, and what stood there before.
#[derive(Debug)]
pub enum FirstWrite {
    /// A new file stands there. This is its only descriptor: closing another one would release the
    /// lock (see fcntl(2)).
    Replaced { new: New, displaced: Option<File> },
    /// A file that is mounted there was written to.
    Overwritten { about: FileStat, old: Option<Pid> },
}

impl FirstWrite {
    /// Writes an id.
    pub fn new(place: &Place, pid: Pid) -> Result<FirstWrite, Errno> {
        let id = line(pid);
        // Until it is locked, no other user may open it.
        let new = place.make(&id, MODE & 0o600, |file| {
            // A file system without locks does without.
            let _ = lock::try_lock(file);
            fchmod(file, Mode::from_bits_truncate(MODE))
        })?;
        match put(place, &new.name) {
            Ok(displaced) => Ok(FirstWrite::Replaced { new, displaced }),
            Err(reason) => {
                // The first error is reported.
                let _ = place.directory.remove(&new.name);
                if reason != Errno::EBUSY {
                    return Err(reason);
                }
                let old = place.open_id(&place.name).and_then(|file| read_id(&file));
                Ok(FirstWrite::Overwritten {
                    about: place.overwrite(&id)?,
                    old,
                })
            }
        }
    }

    /// The file that was written to.
    pub fn about(&self) -> FileStat {
        match self {
            FirstWrite::Replaced { new, .. } => new.about,
            FirstWrite::Overwritten { about, .. } => *about,
        }
    }

    /// Takes the id away, and puts back the one before if it is that of a live process and nothing
    /// else stands there by then.
    pub fn undo(self, place: &Place, pid: Pid) -> Result<(), Errno> {
        let deadline = Moment::now() + limits::PIDFILE_WAIT;
        // This process is alive, but no server.
        let is_server = |id: &Pid| ![pid, getpid()].contains(id) && is_alive(*id);
        match self {
            FirstWrite::Overwritten { about, old } => {
                let old = old.filter(is_server).map(line).unwrap_or_default();
                let is_ours = place.entry_of(&Written { pid, about })?.is_some();
                if is_ours {
                    place.overwrite(&old).map(drop)
                } else {
                    Ok(())
                }
            }
            FirstWrite::Replaced { new, displaced } => {
                let removed = take_away(new, place, pid, deadline);
                let old = displaced.and_then(|file| settled_id(&file, deadline));
                if let Some(old) = old.filter(is_server) {
                    put_back(place, old, deadline);
                }
                removed
            }
        }
    }
}

fn line(pid: Pid) -> Vec<u8> {
    format!("{pid}\n").into_bytes()
}

/// Gives a new file its name; the file that had it before, if it may hold an id.
fn put(place: &Place, beside: &OsStr) -> Result<Option<File>, Errno> {
    let Place { directory, name } = place;
    for _ in 0..ATTEMPTS {
        match directory.rename_new(beside, name) {
            Ok(()) => return Ok(None),
            Err(Errno::EEXIST) => {}
            Err(_) => break,
        }
        match directory.exchange(beside, name) {
            Ok(()) => {
                let displaced = place.open_id(beside);
                return match directory.remove(beside) {
                    Ok(()) | Err(Errno::ENOENT) => Ok(displaced),
                    Err(reason) => {
                        // A directory, for instance: it stays where it was.
                        directory.exchange(beside, name)?;
                        Err(reason)
                    }
                };
            }
            // Removed in between.
            Err(Errno::ENOENT) => {}
            Err(_) => break,
        }
    }
    // Not every file system can exchange two files.
    let displaced = place.open_id(name);
    directory.rename(beside, name)?;
    Ok(displaced)
}

/// Removes the new file, and lets other starts see that this one has failed.
fn take_away(new: New, place: &Place, pid: Pid, deadline: Moment) -> Result<(), Errno> {
    let mut written = Written {
        pid,
        about: new.about,
    };
    let remove = |written: &Written| match place.entry_of(written)? {
        Some(entry) => place.remove(&entry),
        None => Ok(None),
    };
    // Other starts' files that were moved aside instead.
    let mut moved = Vec::new();
    let first_look = remove(&written).map(|beside| {
        moved.extend(beside.and_then(|beside| place.try_put_back(beside)));
    });
    if fstat(&new.file).is_ok_and(|about| is_as_old(&about, &new.about)) {
        // If that fails, others see that its process is gone.
        let _ = ftruncate(&new.file, 0);
        written.about = fstat(&new.file).unwrap_or(new.about);
    }
    // The file stays open until the second look: no other file gets its inode number.
    let _ = lock::unlock(&new.file);
    // Another start may have moved the file aside during the first look and put it back since, or
    // have put back the id because it had waited too long.
    let second_look = remove(&written).map(|beside| moved.extend(beside));
    // From here on no other start waits for this one.
    for beside in moved {
        place.put_back(beside, deadline);
    }
    // One that was removed at first is not reported if the second look fails.
    first_look.or(second_look)
}

/// The id in a file, when the outcome of the start that wrote it is known.
fn settled_id(file: &File, deadline: Moment) -> Option<Pid> {
    while lock::writer(file).is_some() && Moment::now() < deadline {
        thread::sleep(limits::PIDFILE_PAUSE);
    }
    read_id(file)
}

fn put_back(place: &Place, pid: Pid, deadline: Moment) {
    // The start has failed already, and its error is reported.
    let Ok(new) = place.make(&line(pid), MODE, |_| Ok(())) else {
        return;
    };
    place.put_back(new.name, deadline);
    // A manager whose server has died in between has not found the id there.
    if !is_alive(pid) && place.holds(&new.about) == Ok(true) {
        if let Ok(Some(beside)) = place.remove(&new.about) {
            place.put_back(beside, deadline);
        }
    }
}
