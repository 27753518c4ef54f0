//! A manager's claim on its monitor pidfile: one manager at a time, by a lock
//! that vanishes with its process.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::getpid;

use super::place::Place;
use super::{Before, Pidfile, check};
use crate::error::Error;
use crate::sys::lock::{Attempt, try_lock};

/// The lock is for its owner alone: whoever could read it could shut root out with a read lock.
const LOCK_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

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
    /// Locks, then writes this process's id. Whatever a manager that is gone left behind is taken
    /// over; a live one is [`Error::Managed`].
    pub fn stake(path: &Path) -> Result<Claim, Error> {
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = Path::new(&lock_path);
        let cannot = |reason| Error::cannot("lock", lock_path, reason);
        let place = Place::open(lock_path).map_err(cannot)?;
        let lock = loop {
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NONBLOCK;
            let file = place.directory.open_file(&place.name, flags, LOCK_MODE).map_err(cannot)?;
            let about = fstat(&file).map_err(cannot)?;
            check(&about, Before::OneRegularFile)
                .map_err(|why| Error::refused("lock", lock_path, why))?;
            match try_lock(&file).map_err(cannot)? {
                Attempt::HeldBy(holder) => return Err(Error::Managed(holder)),
                Attempt::Locked if place.holds(&about).map_err(cannot)? => break file,
                // The last holder removed the file between our opening and locking it.
                Attempt::Locked => {}
            }
        };
        // Somebody else's file stays as it is; the lock on it holds all the same.
        let _ = fchmod(&lock, LOCK_MODE);
        let mut claim = Claim { pidfile: None, place, lock };
        let mut pidfile = Pidfile::open(path, Before::OneRegularFile)?;
        pidfile.write(getpid()).map_err(|reason| Error::cannot("write pidfile", path, reason))?;
        pidfile.commit();
        claim.pidfile = Some(pidfile);
        Ok(claim)
    }

    /// Opens the server's pidfile, which must be neither of the claim's own files, by whatever
    /// path: writing it would give up the claim.
    pub fn open_beside(&self, path: &Path) -> Result<Pidfile, Error> {
        let pidfile = Pidfile::open(path, Before::Replaceable)?;
        let own = [Some(&self.place), self.pidfile.as_ref().and_then(|own| own.place.as_ref())];
        match &pidfile.place {
            Some(place) if own.into_iter().flatten().any(|own| own.is(place)) => {
                Err(Error::refused("write pidfile", path, "it is the manager's own"))
            }
            _ => Ok(pidfile),
        }
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
