//! POSIX record locks (fcntl(2)): they vanish with their process, and with any
//! descriptor of the file that it closes.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::Pid;

/// How often a lock is tried again that another process gives up and takes anew.
const ATTEMPTS: u32 = 100;

/// What came of an attempt to lock a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The lock is ours until any descriptor of the file is closed.
    Locked,
    /// Another process holds it.
    HeldBy(Holder),
}

/// Another process that holds a lock; its id, if it can be seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub Option<Pid>);

/// Tries to lock the whole file for writing, without waiting.
pub fn try_lock(file: impl AsFd) -> Result<Attempt, Errno> {
    let wanted = whole_file(libc::F_WRLCK);
    for _ in 0..ATTEMPTS {
        match fcntl(&file, FcntlArg::F_SETLK(&wanted)) {
            Ok(_) => return Ok(Attempt::Locked),
            Err(Errno::EACCES | Errno::EAGAIN) => {}
            Err(reason) => return Err(reason),
        }
        if let Some(holder) = holder(&file, libc::F_WRLCK)? {
            return Ok(Attempt::HeldBy(holder));
        }
        // Released between the two calls.
    }
    Ok(Attempt::HeldBy(Holder(None)))
}

/// Releases the lock.
pub fn unlock(file: impl AsFd) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_SETLK(&whole_file(libc::F_UNLCK))).map(drop)
}

/// The process that has locked a file for writing. Read locks do not count: everyone who may read
/// the file can hold one. The descriptor need not be open for writing.
pub fn writer(file: impl AsFd) -> Option<Holder> {
    // On a file system without locks there is none.
    holder(file, libc::F_RDLCK).ok().flatten()
}

/// Who holds a lock that conflicts with one of this kind.
fn holder(file: impl AsFd, kind: libc::c_int) -> Result<Option<Holder>, Errno> {
    let mut lock = whole_file(kind);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    let is_held = libc::c_int::from(lock.l_type) != libc::F_UNLCK;
    Ok(is_held.then(|| Holder(Some(lock.l_pid).filter(|pid| *pid > 0).map(Pid::from_raw))))
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: the struct holds integers only, and zero is a value of each: from the start to the
    // end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock
}
