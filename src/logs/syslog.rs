//! logger(1) and the pipe to it. A manager keeps the pipe's read end, so that a
//! logger that dies is started again and no line is lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, dup3, fchown};

use crate::backoff::{Backoff, STABLE_LIFE};
use crate::sys::child::{ChildSpec, Handles};
use crate::sys::directory::Owner;
use crate::sys::failure::Failure;
use crate::sys::fds;
use crate::sys::spawn::{Child, launch};

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
    child: Child,
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

    /// Waits until logger has been executed.
    pub fn settle(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.logger.as_mut().map_or(Ok(()), |logger| logger.child.settle(deadline))
    }

    /// Starts logger. What comes of that is for [`Syslog::tend`] to tell.
    pub fn launch(&mut self) -> Result<&mut Child, Failure> {
        let (input, output) = (self.read.as_fd(), Some(self.null.as_fd()));
        let handles = Handles { input, output, work_dir: None };
        let child = launch(&self.spec, handles, |_| Ok(()))?;
        self.next_start = None;
        Ok(&mut self.logger.insert(Logger { child, since: Instant::now() }).child)
    }

    /// The end of the pipe that everybody writes to.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// Takes note that a child has ended. True if it was logger, which is due again later.
    pub fn ended(&mut self, pid: Pid, now: Instant) -> bool {
        let Some(logger) = self.logger.take_if(|logger| logger.child.pid() == pid) else {
            return false;
        };
        if now.duration_since(logger.since) >= STABLE_LIFE {
            self.backoff.reset();
        }
        self.put_off(now);
        true
    }

    /// Starts logger when its time has come. One that could not be executed is put off, and told.
    pub fn tend(&mut self, now: Instant) -> Result<(), Failure> {
        let is_due = self.next_start.is_some_and(|due| due <= now);
        let launched = if is_due { self.launch().map(drop) } else { Ok(()) };
        let child = self.logger.as_mut().map(|logger| &mut logger.child);
        let outcome = launched.and_then(|()| child.and_then(Child::outcome).unwrap_or(Ok(())));
        outcome.inspect_err(|_| {
            self.logger = None;
            self.put_off(now);
        })
    }

    /// Whether logger has been executed.
    pub fn is_up(&self) -> bool {
        self.logger.as_ref().is_some_and(|logger| logger.child.channel().is_none())
    }

    /// The process of logger, while it has one.
    pub fn pid(&self) -> Option<Pid> {
        self.logger.as_ref().map(|logger| logger.child.pid())
    }

    /// What can be read when [`Syslog::tend`] is wanted.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.logger.as_ref().and_then(|logger| logger.child.channel())
    }

    /// When [`Syslog::tend`] is wanted otherwise.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_start
    }

    /// Lets go of the pipe's write end, so that logger ends after the last line. One that was to be
    /// started again later is due now.
    pub fn hang_up(&mut self) {
        // dup3(2) onto an open descriptor needs nothing that could be lacking.
        let _ = dup3(&self.null, &mut self.write, OFlag::O_CLOEXEC);
        match &mut self.logger {
            Some(logger) => logger.child.abandon(),
            None => self.next_start = Some(Instant::now()),
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
