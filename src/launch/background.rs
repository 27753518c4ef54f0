//! Leaving the caller's session, while the caller waits for the outcome.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, pipe2, read, setsid, write};

use crate::error::Error;
use crate::sys::process::fork::fork;
use crate::sys::process::wait::{Exit, wait_for};
use crate::sys::signals;

/// The process that a fork leaves this code in.
#[derive(Debug)]
pub enum ForkSide<T> {
    /// The new process, in the background.
    Background(T),
    /// The old one, with the exit status of the start in the new one.
    Caller(u8),
}

/// The way to the process that waits for the outcome of a start.
#[derive(Debug)]
pub struct OutcomePipe(Option<OwnedFd>);

impl OutcomePipe {
    /// Reports the exit status of the start, the first time. False if the process that waited for it
    /// was killed: its caller sees a failed start then.
    pub fn report(&mut self, status: u8) -> bool {
        let Some(pipe) = self.0.take() else {
            return true;
        };
        loop {
            match write(&pipe, &[status]) {
                Err(Errno::EINTR) => {}
                written => return written.is_ok(),
            }
        }
    }
}

/// Forks, and opens a session without a terminal (see setsid(2)). The caller waits for the exit
/// status of the new process.
pub fn leave_session() -> Result<ForkSide<()>, Error> {
    let cannot = |reason| Error::cannot("go into the background", "", reason);
    match fork().map_err(cannot)? {
        ForkResult::Child => setsid().map(|_| ForkSide::Background(())).map_err(cannot),
        ForkResult::Parent { child: leader } => {
            // The caller may be interrupted while it waits.
            signals::reset_for_exec();
            match wait_for(leader).map_err(cannot)? {
                Exit::Status(status) => Ok(ForkSide::Caller(status)),
                Exit::Signal { .. } => Err(Error::NoOutcome),
            }
        }
    }
}

/// Forks once more, so that what goes on and stays leads no session and cannot get a terminal
/// (see daemon(7)). The session's leader waits for its report.
pub fn leave_leader() -> Result<ForkSide<OutcomePipe>, Error> {
    let cannot = |reason| Error::cannot("go into the background", "", reason);
    let (outcome, report) = pipe2(OFlag::O_CLOEXEC).map_err(cannot)?;
    match fork().map_err(cannot)? {
        ForkResult::Child => Ok(ForkSide::Background(OutcomePipe(Some(report)))),
        ForkResult::Parent { .. } => {
            drop(report);
            let mut status = [0];
            loop {
                match read(&outcome, &mut status) {
                    Ok(0) => return Err(Error::NoOutcome),
                    Ok(_) => return Ok(ForkSide::Caller(status[0])),
                    Err(Errno::EINTR) => {}
                    Err(reason) => return Err(cannot(reason)),
                }
            }
        }
    }
}
