//! Deaths of children. Raw, because nix loses the status of a death by a
//! real-time signal.

use std::fmt;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::{fds, signals};

/// How a process ended (see waitpid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(u8),
    /// This signal killed it.
    Signal {
        /// The signal's number; real-time signals too.
        number: i32,
        /// Whether it left a core dump.
        core: bool,
    },
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "exited with status {status}"),
            Exit::Signal { number, core: true } => write!(f, "dumped core with signal {number}"),
            Exit::Signal { number, core: false } => write!(f, "terminated by signal {number}"),
        }
    }
}

/// Takes the next dead child, if there is one; never one that has not executed anything yet. To be
/// called until there is none: several deaths may stand behind one SIGCHLD.
pub fn reap() -> Option<(Pid, Exit)> {
    wait(Pid::from_raw(-1), libc::WNOHANG).ok().flatten()
}

/// Waits for the end of one child, whether it has executed anything or not.
pub fn wait_for(child: Pid) -> Result<Exit, Errno> {
    wait(child, libc::__WALL)?.map(|(_, exit)| exit).ok_or(Errno::ECHILD)
}

/// How a child ended that was forked apart, if it did so without having executed anything.
pub(super) fn ended_before_exec(child: Pid) -> Option<Exit> {
    wait(child, libc::__WCLONE).ok().flatten().map(|(_, exit)| exit)
}

/// Whether a process lives, whoever started it: a zombie does not.
pub fn is_alive(pid: Pid) -> bool {
    // SAFETY: no memory is passed.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match Errno::result(opened) {
        Ok(number) => {
            // SAFETY: the descriptor is new and nobody else's.
            let process = unsafe { OwnedFd::from_raw_fd(number as libc::c_int) };
            // It can be read when the process has ended (see pidfd_open(2)).
            !fds::can_read(process.as_fd())
        }
        Err(Errno::ESRCH) => false,
        // Before Linux 5.3 there is no pidfd_open(2). A zombie counts as alive then.
        Err(_) => signals::send(pid, 0) != Err(Errno::ESRCH),
    }
}

fn wait(child: Pid, flags: i32) -> Result<Option<(Pid, Exit)>, Errno> {
    let mut status = 0;
    let pid = loop {
        // SAFETY: `status` outlives the call.
        match Errno::result(unsafe { libc::waitpid(child.as_raw(), &mut status, flags) }) {
            Err(Errno::EINTR) => {}
            outcome => break outcome?,
        }
    };
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    } else {
        Exit::Status(libc::WEXITSTATUS(status) as u8)
    };
    Ok((pid > 0).then(|| (Pid::from_raw(pid), exit)))
}
