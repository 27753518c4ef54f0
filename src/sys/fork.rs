//! fork(2) and its counterpart.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

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
