//! fork(2), and what goes with it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Pid, setsid};

use super::wait::wait_for;
use super::{fds, signals};

/// What a fork makes of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The caller itself, with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks. Only for processes with one thread, so that the child may go on like its parent.
pub fn fork() -> Result<Fork, Errno> {
    // SAFETY: there is one thread, so no lock can be held by another one.
    match Errno::result(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid))),
    }
}

/// Ends a forked process without running anything that its parent set up.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing.
    unsafe { libc::_exit(status) }
}

/// Does something in an orphan with a session of its own and no output, which nobody waits for.
/// Where there can be none, it is not done.
pub fn aside(null: BorrowedFd<'_>, work: impl FnOnce()) {
    match fork() {
        Ok(Fork::Parent(child)) => drop(wait_for(child)),
        Ok(Fork::Child) => {
            if setsid().is_ok() && fork() == Ok(Fork::Child) {
                signals::give_back();
                // The caller may be waiting for the end of its own output.
                let _ = fds::redirect_own(null, Some(null));
                work();
            }
            leave(0)
        }
        Err(_) => {}
    }
}
