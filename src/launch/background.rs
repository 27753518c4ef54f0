//! Leaving the caller's session, while the caller waits for the outcome.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, pipe2, read, setsid, write};

use crate::error::Error;
use crate::sys::fork::fork;
use crate::sys::signals;
use crate::sys::wait::{Exit, wait_for};

/// The process that a fork leaves this code in.
#[derive(Debug)]
pub enum Side<T> {
    /// The one that goes on.
    Away(T),
    /// The one that stays behind, and has learned the exit status of the other's start.
    Behind(u8),
}

/// Where a manager reports how it has started.
#[derive(Debug)]
pub struct Report(Option<OwnedFd>);

impl Report {
    /// Tells the exit status that the caller is to have, the first time. False if whoever waited
    /// for it was killed: the caller has been told of a failure then.
    pub fn tell(&mut self, status: u8) -> bool {
        let Some(report) = self.0.take() else { return true };
        loop {
            match write(&report, &[status]) {
                Err(Errno::EINTR) => {}
                told => return told.is_ok(),
            }
        }
    }
}

/// Forks, and opens a session without a terminal (see setsid(2)). The caller waits for the exit
/// status of the process that goes on.
pub fn leave_session() -> Result<Side<()>, Error> {
    let cannot = |reason| Error::cannot("go into the background", "", reason);
    match fork().map_err(cannot)? {
        ForkResult::Child => setsid().map(|_| Side::Away(())).map_err(cannot),
        ForkResult::Parent { child: leader } => {
            // The caller may be interrupted while it waits.
            signals::give_back();
            match wait_for(leader).map_err(cannot)? {
                Exit::Status(status) => Ok(Side::Behind(status)),
                Exit::Signal { .. } => Err(Error::NoOutcome),
            }
        }
    }
}

/// Forks once more, so that what goes on and stays leads no session and cannot get a terminal
/// (see daemon(7)). The session's leader waits for its report.
pub fn leave_leader() -> Result<Side<Report>, Error> {
    let cannot = |reason| Error::cannot("go into the background", "", reason);
    let (outcome, report) = pipe2(OFlag::O_CLOEXEC).map_err(cannot)?;
    match fork().map_err(cannot)? {
        ForkResult::Child => Ok(Side::Away(Report(Some(report)))),
        ForkResult::Parent { .. } => {
            drop(report);
            let mut status = [0];
            loop {
                match read(&outcome, &mut status) {
                    Ok(0) => return Err(Error::NoOutcome),
                    Ok(_) => return Ok(Side::Behind(status[0])),
                    Err(Errno::EINTR) => {}
                    Err(reason) => return Err(cannot(reason)),
                }
            }
        }
    }
}
