//! POSIX record locks (fcntl(2)): they vanish with their process, and with any
//! descriptor of the file that it closes.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::Pid;

/// How often a lock is tried again that another process gives up and takes anew.
const ATTEMPTS: u32 = 100;

/// What came of an attempt to lock a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The lock is ours until `file` is closed.
    Locked,
    /// Another process holds it; its id, if it can be seen from here.
    HeldBy(Option<Pid>),
}

/// Tries to lock the whole file for writing, without waiting.
pub fn try_lock(file: &OwnedFd) -> Result<Attempt, Errno> {
    for _ in 0..ATTEMPTS {
        let mut wanted = whole_file();
        match fcntl(file, FcntlArg::F_SETLK(&wanted)) {
            Ok(_) => return Ok(Attempt::Locked),
            Err(Errno::EACCES | Errno::EAGAIN) => {}
            Err(reason) => return Err(reason),
        }
        fcntl(file, FcntlArg::F_GETLK(&mut wanted))?;
        if libc::c_int::from(wanted.l_type) != libc::F_UNLCK {
            let holder = Some(wanted.l_pid).filter(|pid| *pid > 0).map(Pid::from_raw);
            return Ok(Attempt::HeldBy(holder));
        }
        // Released between the two calls.
    }
    Ok(Attempt::HeldBy(None))
}

fn whole_file() -> libc::flock {
    // SAFETY: the struct holds integers only, and zero is a value of each: from the start to the
    // end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock
}
