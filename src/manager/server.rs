//! The server: one life at a time, told by its pidfile.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::policy::is_shortage;
use super::report::{Cause, Death};
use crate::logs::Output;
use crate::pidfile::Pidfile;
use crate::sys::child::ChildSpec;
use crate::sys::failure::{Failure, Refusal};
use crate::sys::signals;
use crate::sys::spawn::{Child, launch};
use crate::sys::wait::Exit;

/// The server and what is told of it.
#[derive(Debug)]
pub struct Server {
    spec: ChildSpec,
    pidfile: Option<Pidfile>,
    life: Option<Life>,
    starts: u64,
    /// What came of removing the pidfile.
    removal: Result<(), Errno>,
}

#[derive(Debug)]
struct Life {
    child: Child,
    since: Duration,
}

/// How a start failed.
#[derive(Debug, Clone, Copy)]
pub struct FailedStart {
    /// The process that did not become the server; 0 if it did not come to that.
    pub pid: Pid,
    /// Why.
    pub failure: Failure,
}

impl Server {
    /// A server that has not been started.
    pub fn new(spec: ChildSpec, pidfile: Option<Pidfile>) -> Server {
        Server { spec, pidfile, life: None, starts: 0, removal: Ok(()) }
    }

    /// What it is to be.
    pub fn spec(&self) -> &ChildSpec {
        &self.spec
    }

    /// How often it has been started again.
    pub fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// Lets a process go that is to become the server, its id being in the pidfile by then. After
    /// the first start a pidfile that cannot be written does not keep the server from running,
    /// unless what is lacking may be had in a moment; what came of writing it is returned.
    pub fn start(
        &mut self,
        null: &impl AsFd,
        output: &Output,
    ) -> Result<Result<(), Errno>, FailedStart> {
        let (first, pidfile) = (self.starts == 0, &mut self.pidfile);
        let (mut pid, mut written) = (Pid::from_raw(0), Ok(()));
        let announce = |child| {
            pid = child;
            written = pidfile.as_mut().map_or(Ok(()), |pidfile| pidfile.write(child));
            written.or_else(|reason| if first || is_shortage(reason) { written } else { Ok(()) })
        };
        let since = since_boot();
        match launch(&self.spec, output.of_server(null), announce) {
            Ok(child) => {
                self.life = Some(Life { child, since });
                Ok(written)
            }
            Err(failure) => {
                self.remove_pidfile();
                Err(FailedStart { pid, failure })
            }
        }
    }

    /// What can be read when [`Server::outcome`] is known.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.life.as_ref().and_then(|life| life.child.channel())
    }

    /// What has come of a start: told once, when it is known.
    pub fn outcome(&mut self) -> Option<Result<Pid, FailedStart>> {
        let child = &mut self.life.as_mut()?.child;
        let (pid, outcome) = (child.pid(), child.outcome()?);
        Some(match outcome {
            Ok(()) => {
                self.starts += 1;
                Ok(pid)
            }
            Err(failure) => {
                self.life = None;
                self.remove_pidfile();
                Err(FailedStart { pid, failure })
            }
        })
    }

    /// The start has succeeded.
    pub fn commit(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            pidfile.commit();
        }
    }

    /// Sends it a signal, if it is alive.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        self.life.as_ref().map_or(Ok(()), |life| signals::send(life.child.pid(), signal))
    }

    /// Whether this is its process.
    pub fn is(&self, pid: Pid) -> bool {
        self.life.as_ref().is_some_and(|life| life.child.pid() == pid)
    }

    /// Takes note that its process has been reaped with this end.
    pub fn ended(&mut self, exit: Exit) -> Option<Death> {
        let life = self.life.take()?;
        self.remove_pidfile();
        let uptime = since_boot().saturating_sub(life.since);
        Some(Death { pid: life.child.pid(), cause: Cause::Ended(exit), uptime })
    }

    fn remove_pidfile(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            self.removal = pidfile.remove();
        }
    }

    /// What came of removing the pidfile, told once.
    pub fn removal(&mut self) -> Result<(), Errno> {
        std::mem::replace(&mut self.removal, Ok(()))
    }
}

impl FailedStart {
    /// One that did not come to a process.
    pub fn without_process(refusal: Refusal) -> FailedStart {
        FailedStart { pid: Pid::from_raw(0), failure: refusal.into() }
    }

    /// The death of a server that never lived.
    pub fn death(&self) -> Death {
        Death { pid: self.pid, cause: self.failure.into(), uptime: Duration::ZERO }
    }
}

/// Time since the machine was started, suspended time included (CLOCK_BOOTTIME, see
/// clock_gettime(2)).
fn since_boot() -> Duration {
    // The call cannot fail for a clock that every Linux since 2.6.39 has.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
