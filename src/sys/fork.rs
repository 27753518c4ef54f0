//! fork(2), and what goes with it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid, setsid};

use super::wait::{Exit, wait_for};
use super::{fds, signals};

/// Forks. Only for processes with one thread, so that the child may go on like its parent.
pub fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: vsrun has one thread wherever it forks; the second one waits for an exec.
    unsafe { nix::unistd::fork() }
}

/// Forks a child whose end is nobody's business but its starter's until it executes a program: it
/// raises no SIGCHLD, and only [`super::wait::ended_before_exec`] and [`wait_for`] find it (see
/// clone(2) on a child without a termination signal; an exec makes it a child like any other). It
/// may do nothing but make system calls.
pub(super) fn fork_apart() -> Result<ForkResult, Errno> {
    // SAFETY: this is a copy of the process, as by fork(2). The order of the arguments differs
    // between architectures, but all are zero. The C library is not told, and not used.
    match Errno::result(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) })? {
        0 => Ok(ForkResult::Child),
        child => Ok(ForkResult::Parent { child: Pid::from_raw(child as libc::pid_t) }),
    }
}

/// Ends a forked process without running anything that its parent set up.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing.
    unsafe { libc::_exit(status) }
}

/// Does something in an orphan with a session of its own and no output, which nobody waits for.
/// Fails where there can be none.
pub fn aside(null: BorrowedFd<'_>, work: impl FnOnce()) -> Result<(), Errno> {
    match fork()? {
        ForkResult::Parent { child } => match wait_for(child)? {
            Exit::Status(0) | Exit::Signal { .. } => Ok(()),
            Exit::Status(reason) => Err(Errno::from_raw(reason.into())),
        },
        ForkResult::Child => {
            let orphan = setsid().and_then(|_| fork());
            if let Ok(ForkResult::Child) = orphan {
                signals::give_back();
                // The caller may be waiting for the end of its own output.
                let _ = fds::redirect_own(null, Some(null));
                work();
            }
            leave(orphan.map_or_else(|reason| reason as i32, |_| 0))
        }
    }
}
