//! fork(2), and what goes with it.

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{ForkResult, Pid, getpid, setsid};

use super::wait::{Exit, Kinship, wait_for};
use crate::sys::files::fds;
use crate::sys::signals;

/// Forks. Only for processes with one thread, so that the child may go on like its parent.
pub fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: vsrun has one thread wherever it forks; the second one waits for an exec.
    unsafe { nix::unistd::fork() }
}

/// Forks a child that may do nothing but make system calls. It is forked apart where that is
/// possible: qemu-user refuses any other fork than the C library's.
pub(super) fn fork_child() -> Result<(ForkResult, Kinship), Errno> {
    // SAFETY: this is a copy of the process, as by fork(2). The order of the arguments differs
    // between architectures, but all are zero. Its atfork handlers do not run, so the
    // child must not use the C library's state.
    match Errno::result(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) }) {
        Ok(0) => Ok((ForkResult::Child, Kinship::Apart)),
        Ok(child) => {
            let child = Pid::from_raw(child as libc::pid_t);
            Ok((ForkResult::Parent { child }, Kinship::Apart))
        }
        Err(Errno::EINVAL) => Ok((fork()?, Kinship::Ordinary)),
        Err(reason) => Err(reason),
    }
}

/// Ends a forked process without running anything that its parent set up.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing.
    unsafe { libc::_exit(status) }
}

/// Does something in an orphan with a session of its own and no output. Fails where there can be
/// none.
pub fn run_orphan(work: impl FnOnce()) -> Result<(), Errno> {
    match fork()? {
        ForkResult::Parent { child } => match wait_for(child)? {
            Exit::Status(0) | Exit::Signal { .. } => Ok(()),
            Exit::Status(reason) => Err(Errno::from_raw(reason.into())),
        },
        ForkResult::Child => {
            let orphan = setsid().and_then(|_| fork());
            if let Ok(ForkResult::Child) = orphan {
                signals::reset_for_exec();
                // The caller may be waiting for the end of its own output.
                let _ = fds::redirect_own(Some(fds::null()));
                work();
            }
            leave(orphan.map_or_else(|reason| reason as i32, |_| 0))
        }
    }
}

/// Whether this process becomes the parent of every orphan among its descendants: it is the first
/// of its pid namespace, or a subreaper (see PR_SET_CHILD_SUBREAPER(2const)).
pub fn adopts_orphans() -> bool {
    getpid().as_raw() == 1 || prctl::get_child_subreaper().unwrap_or(false)
}

/// Makes this process the parent of every orphan among its descendants.
pub fn adopt_orphans() -> Result<(), Errno> {
    prctl::set_child_subreaper(true)
}
