//! logger(1) and the pipe to it. A manager keeps the pipe's read end, so that a
//! logger that dies is started again and no line is lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Pid, dup2, fchown};

use crate::backoff::{Backoff, STABLE_LIFE};
use crate::sys::directory::Owner;
use crate::sys::failure::Failure;
use crate::sys::fds;
use crate::sys::spawn::{ChildSpec, Handles, spawn};

/// Where logger delivers to (syslog(3)).
pub const SOCKET: &str = "/dev/log";
/// How long the end waits for logger.
pub const LAST_LINES: Duration = Duration::from_secs(5);

/// A pipe that a logger reads.
#[derive(Debug)]
pub struct Syslog {
    read: OwnedFd,
    write: OwnedFd,
    null: OwnedFd,
    spec: ChildSpec,
    logger: Option<Logger>,
    backoff: Backoff,
    next_start: Option<Instant>,
}

#[derive(Debug)]
struct Logger {
    pid: Pid,
    since: Instant,
}

impl Syslog {
    /// Opens the pipe. No logger reads it yet.
    pub fn open(spec: ChildSpec, owner: Option<Owner>) -> Result<Syslog, Errno> {
        let (read, write) = fds::large_pipe()?;
        if let Some(Owner { uid, gid }) = owner {
            // So that /dev/stdout can be opened by who writes to it.
            fchown(&write, Some(uid), Some(gid))?;
        }
        let (backoff, null) = (Backoff::of_restarts(), fds::null()?);
        Ok(Syslog { read, write, null, spec, logger: None, backoff, next_start: None })
    }

    /// Whether there is no daemon that logger could deliver to: it discards lines then.
    pub fn is_deaf(&self) -> bool {
        !Path::new(SOCKET).exists()
    }

    /// The logger to be started.
    pub fn spec(&self) -> &ChildSpec {
        &self.spec
    }

    /// Starts logger.
    pub fn start(&mut self) -> Result<(), Failure> {
        let (input, output) = (self.read.as_fd(), Some(self.null.as_fd()));
        let handles = Handles { input, output, work_dir: None };
        let pid = spawn(&self.spec, handles, |_| Ok(()))?;
        self.next_start = None;
        self.logger = Some(Logger { pid, since: Instant::now() });
        Ok(())
    }

    /// The end of the pipe that everybody writes to.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// Takes note that a child has ended. True if it was logger, which is due again later.
    pub fn ended(&mut self, pid: Pid, now: Instant) -> bool {
        let Some(logger) = self.logger.take_if(|logger| logger.pid == pid) else {
            return false;
        };
        if now.duration_since(logger.since) >= STABLE_LIFE {
            self.backoff.reset();
        }
        self.put_off(now);
        true
    }

    /// Starts logger when its time has come. One that cannot be started is put off.
    pub fn tend(&mut self, now: Instant) -> Result<(), Failure> {
        if self.next_start.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.start().inspect_err(|_| self.put_off(now))
    }

    /// When [`Syslog::tend`] is wanted, if at all.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_start
    }

    /// Lets go of the pipe's write end, so that logger ends after the last line. One that was to be
    /// started again later is due now.
    pub fn hang_up(&mut self) {
        // dup2(2) onto an open descriptor needs nothing that could be lacking.
        let _ = dup2(&self.null, &mut self.write);
        if self.logger.is_none() {
            self.next_start = Some(Instant::now());
        }
    }

    /// Whether everything that was written has been taken by a logger that has ended.
    pub fn is_drained(&self) -> bool {
        self.logger.is_none() && !fds::can_read(self.read.as_fd())
    }

    fn put_off(&mut self, now: Instant) {
        self.next_start = Some(now + self.backoff.delay());
    }
}
