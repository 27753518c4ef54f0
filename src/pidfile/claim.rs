//! A manager's claim on its monitor pidfile: one manager at a time, by a lock
//! that vanishes with its process.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{getpid, read};

use super::place::Place;
use super::{Existing, ID_MAX, Pidfile, check, check_id};
use crate::error::Error;
use crate::sys::files::entry::is_same;
use crate::sys::files::lock::{Attempt, Holder, try_lock, writer};

/// Only the owner may open the lock: a user who can read it could block root with a read lock.
const LOCK_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// How often a lock file is opened anew that others remove and make at the same time.
const ATTEMPTS: u32 = 100;

/// The lock on `MONITOR-PIDFILE.lock` and the pidfile beside it. Dropped, it removes both, the
/// lock last.
#[derive(Debug)]
pub struct Claim {
    pidfile: Option<Pidfile>,
    place: Place,
    /// The only descriptor of the lock file in this process: closing another one would drop the
    /// lock (see fcntl(2)).
    lock: OwnedFd,
}

impl Claim {
    /// Locks, then writes this process's id. What a dead manager left behind is taken
    /// over; a live one is [`Error::Managed`].
    pub fn acquire(path: &Path) -> Result<Claim, Error> {
        let lock_path = lock_of(path.as_os_str());
        let lock_path = Path::new(&lock_path);
        let cannot = |reason| Error::cannot_open("lock", lock_path, reason);
        let place = Place::open(lock_path).map_err(cannot)?;
        let lock = take_lock(&place, lock_path)?;
        // The lock holds even if the mode of another user's file cannot be changed.
        let _ = fchmod(&lock, LOCK_MODE);
        let mut claim = Claim {
            pidfile: None,
            place,
            lock,
        };
        let mut pidfile = Pidfile::open(path, Existing::AnId)?;
        pidfile
            .write(getpid())
            .map_err(|reason| Error::cannot("write pidfile", path, reason))?;
        claim.pidfile = Some(pidfile);
        Ok(claim)
    }

    /// Whether a pidfile is one of the claim's own files, by whatever path.
    fn owns(&self, pidfile: &Pidfile) -> bool {
        let own = [
            Some(&self.place),
            self.pidfile.as_ref().and_then(|own| own.place.as_ref()),
        ];
        let place = pidfile.place.as_ref();
        place.is_some_and(|place| own.into_iter().flatten().any(|own| own.is(place)))
    }

    /// Whether a file is the lock file, by whatever name.
    fn has_locked(&self, file: &FileStat) -> bool {
        fstat(&self.lock).is_ok_and(|own| is_same(&own, file))
    }
}

/// Opens a server's pidfile, which must be neither a monitor pidfile nor the lock file of a live
/// manager, this process included: replacing it would make room for a second manager.
pub fn open_server_pidfile(path: &Path, own: Option<&Claim>) -> Result<Pidfile, Error> {
    let pidfile = Pidfile::open(path, Existing::Replaceable)?;
    let Some(place) = &pidfile.place else {
        return Ok(pidfile);
    };
    if own.is_some_and(|own| own.owns(&pidfile)) {
        return Err(Error::refused(
            "write pidfile",
            path,
            "it is the manager's own",
        ));
    }
    // The lock of a file that may not be read cannot be queried.
    let user = |name: &OsStr| {
        writer(place.open_if(name, |file| !own.is_some_and(|own| own.has_locked(file)))?)
    };
    // Unlike a pidfile, a lock file is closed to others.
    let is_closed = |file: FileStat| Mode::from_bits_truncate(file.st_mode) == LOCK_MODE;
    let is_lock = place
        .entry()
        .is_ok_and(|entry| entry.is_some_and(is_closed));
    for (user, used_as) in [
        (user(&lock_of(&place.name)), "monitor pidfile"),
        (if is_lock { user(&place.name) } else { None }, "lock file"),
    ] {
        if let Some(Holder(holder)) = user {
            return Err(Error::PidfileInUse {
                path: path.to_owned(),
                holder,
                used_as,
            });
        }
    }
    Ok(pidfile)
}

/// The name of the lock file that goes with a monitor pidfile.
fn lock_of(pidfile: &OsStr) -> OsString {
    [pidfile, OsStr::new(".lock")].into_iter().collect()
}

/// Opens the lock file and locks it.
fn take_lock(place: &Place, path: &Path) -> Result<OwnedFd, Error> {
    let cannot = |reason| Error::cannot("lock", path, reason);
    for _ in 0..ATTEMPTS {
        let Some((file, is_new)) = open_lock(place).map_err(cannot)? else {
            continue;
        };
        let attempt = || {
            let about = fstat(&file).map_err(cannot)?;
            let refused = |why| Error::refused("lock", path, why);
            check(&about, Existing::AnId).map_err(refused)?;
            let mut content = [0; ID_MAX as usize];
            let length = read(&file, &mut content).map_err(cannot)?;
            check_id(&content[..length]).map_err(refused)?;
            let attempt = try_lock(&file).map_err(cannot)?;
            Ok((attempt, place.holds(&about).map_err(cannot)?))
        };
        match attempt() {
            Ok((Attempt::Locked, true)) => return Ok(file),
            // The last holder removed the file between our opening and locking it.
            Ok((Attempt::Locked, false)) => {}
            Ok((Attempt::HeldBy(Holder(holder)), _)) => return Err(Error::Managed(holder)),
            Err(error) => {
                if is_new {
                    // The first error is reported; an empty file that stays is taken over.
                    let _ = place.directory.remove(&place.name);
                }
                return Err(error);
            }
        }
    }
    Err(Error::refused(
        "lock",
        path,
        "it is removed or replaced again and again",
    ))
}

/// Opens the lock file, and makes it if it is missing; whether that was so. None if its last holder
/// removed it in between.
fn open_lock(place: &Place) -> Result<Option<(OwnedFd, bool)>, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
    let create = flags | OFlag::O_CREAT | OFlag::O_EXCL;
    match place.directory.open_file(&place.name, create, LOCK_MODE) {
        Err(Errno::EEXIST) => {}
        made => return Ok(Some((made?, true))),
    }
    match place.directory.open_file(&place.name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => Ok(None),
        opened => Ok(Some((opened?, false))),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.pidfile = None;
        if fstat(&self.lock).and_then(|about| self.place.holds(&about)) == Ok(true) {
            // A lock file that stays is taken over by the next manager.
            let _ = self.place.directory.remove(&self.place.name);
        }
    }
}
