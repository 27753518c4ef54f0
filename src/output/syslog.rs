//! The pipe to logger(1). A manager keeps both ends, so that no line is lost
//! when logger dies and is started again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{dup3, fchown};

use crate::sys::files::entry::Owner;
use crate::sys::files::fds;
use crate::sys::process::spec::Descriptors;

/// Where logger delivers to (syslog(3)).
pub const SOCKET: &str = "/dev/log";

/// A pipe that logger reads.
#[derive(Debug)]
pub struct Syslog {
    read: OwnedFd,
    write: OwnedFd,
}

impl Syslog {
    /// Opens the pipe. No logger reads it yet.
    pub fn open(owner: Option<Owner>) -> Result<Syslog, Errno> {
        let (read, write) = fds::large_pipe()?;
        if let Some(Owner { uid, gid }) = owner {
            // So that what writes to it can open /dev/stdout.
            fchown(&write, Some(uid), Some(gid))?;
        }
        Ok(Syslog { read, write })
    }

    /// What logger starts from.
    pub fn of_logger(&self) -> Descriptors<'_> {
        Descriptors {
            input: self.read.as_fd(),
            output: Some(fds::null()),
            work_dir: None,
        }
    }

    /// The end that is written to.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// Whether lines are left that no logger has taken.
    pub fn has_lines(&self) -> bool {
        fds::can_read(self.read.as_fd())
    }

    /// Lets go of the end that is written to, so that logger ends after the last line.
    pub fn hang_up(&mut self) {
        // dup3(2) onto an open descriptor needs no resource.
        let _ = dup3(fds::null(), &mut self.write, OFlag::O_CLOEXEC);
    }
}

/// Whether a syslog daemon listens. Without one logger discards its lines.
pub fn has_daemon() -> bool {
    Path::new(SOCKET).exists()
}
