//! Leaving the caller's session, while the caller waits for the outcome.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, setsid, write};

use crate::error::Error;
use crate::plan::Plan;
use crate::sys::fork::{Fork, fork, leave};
use crate::sys::signals;
use crate::sys::wait::{Exit, wait_for};

/// The two processes that come out of [`detach`].
#[derive(Debug)]
pub enum Side {
    /// The caller's, which has learned the outcome.
    Caller(u8),
    /// The one in the background, which reports it.
    Away(Outcome),
}

/// Where the outcome of the start is reported, once.
#[derive(Debug)]
pub struct Outcome(Option<OwnedFd>);

impl Outcome {
    /// Nobody waits for it.
    pub fn unwatched() -> Outcome {
        Outcome(None)
    }

    /// Tells the exit status that the caller is to have.
    pub fn report(&mut self, status: u8) {
        if let Some(pipe) = self.0.take() {
            // A caller that is gone does not want to know.
            let _ = write(pipe, &[status]);
        }
    }
}

/// Forks twice around a new session (see daemon(7)), so that what runs on has no terminal and
/// cannot get one. The caller waits until the outcome is reported, or until a server has been
/// executed in place of reporting it.
pub fn detach(plan: &Plan) -> Result<Side, Error> {
    let cannot = |reason| Error::cannot("go into the background", "", reason);
    let (outcome, report) = pipe2(OFlag::O_CLOEXEC).map_err(cannot)?;
    match fork().map_err(cannot)? {
        Fork::Parent(session_leader) => {
            drop(report);
            // The caller may be interrupted while it waits.
            signals::give_back();
            match wait_for(session_leader).map_err(cannot)? {
                Exit::Status(0) => learn(&outcome, plan).map(Side::Caller),
                Exit::Status(reason) => Err(cannot(Errno::from_raw(reason.into()))),
                Exit::Signal { .. } => Err(Error::NoOutcome),
            }
        }
        Fork::Child => {
            drop(outcome);
            match setsid().and_then(|_| fork()) {
                Ok(Fork::Child) => Ok(Side::Away(Outcome(Some(report)))),
                Ok(Fork::Parent(_)) => leave(0),
                Err(reason) => leave(reason as i32),
            }
        }
    }
}

fn learn(outcome: &OwnedFd, plan: &Plan) -> Result<u8, Error> {
    let mut status = [0];
    loop {
        match read(outcome, &mut status) {
            Ok(0) if plan.manager.is_none() => return Ok(0),
            Ok(0) => return Err(Error::NoOutcome),
            Ok(_) => return Ok(status[0]),
            Err(Errno::EINTR) => {}
            Err(reason) => return Err(Error::cannot("learn the outcome", "", reason)),
        }
    }
}
