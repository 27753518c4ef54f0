//! The server as its manager sees it: how it is started, and the one life it
//! may have at a time.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::policy::is_shortage;
use super::report::{Cause, Death};
use crate::logs::Output;
use crate::pidfile::Pidfile;
use crate::sys::clock::since_boot;
use crate::sys::failure::Failure;
use crate::sys::signals;
use crate::sys::spawn::{ChildSpec, spawn};
use crate::sys::wait::Exit;

/// The server and what is told of it.
#[derive(Debug)]
pub struct Server {
    spec: ChildSpec,
    pidfile: Option<Pidfile>,
    life: Option<Life>,
    starts: u64,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    pid: Pid,
    since: Duration,
}

/// A server's id, and whether its pidfile could be written.
pub type Started = (Pid, Result<(), Errno>);

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
        Server { spec, pidfile, life: None, starts: 0 }
    }

    /// What it is to be.
    pub fn spec(&self) -> &ChildSpec {
        &self.spec
    }

    /// How often it has been started again.
    pub fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// Starts it, its id being in the pidfile before its first instruction. After the first start
    /// a pidfile that cannot be written does not keep the server from running, unless what is
    /// lacking may be had in a moment; what came of writing it is told beside the id.
    pub fn start(&mut self, null: &impl AsFd, output: &Output) -> Result<Started, FailedStart> {
        let (first, pidfile) = (self.starts == 0, &mut self.pidfile);
        let (mut child, mut written) = (Pid::from_raw(0), Ok(()));
        let announce = |pid| {
            child = pid;
            written = pidfile.as_mut().map_or(Ok(()), |pidfile| pidfile.write(pid));
            written.or_else(|reason| if first || is_shortage(reason) { written } else { Ok(()) })
        };
        let since = since_boot();
        if let Err(failure) = spawn(&self.spec, output.of_server(null), announce) {
            self.remove_pidfile();
            return Err(FailedStart { pid: child, failure });
        }
        self.life = Some(Life { pid: child, since });
        self.starts += 1;
        Ok((child, written))
    }

    /// The start has succeeded: what the pidfile held before is forgotten.
    pub fn commit(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            pidfile.commit();
        }
    }

    /// Sends it a signal, if it is alive.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        self.life.map_or(Ok(()), |life| signals::send(life.pid, signal))
    }

    /// Takes note that a child has been reaped; its death, if it was the server.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> Option<Death> {
        let life = self.life.take_if(|life| life.pid == pid)?;
        self.remove_pidfile();
        let uptime = since_boot().saturating_sub(life.since);
        Some(Death { pid, cause: Cause::Ended(exit), uptime })
    }

    fn remove_pidfile(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            pidfile.remove();
        }
    }
}

impl FailedStart {
    /// The death of a server that never lived.
    pub fn death(&self) -> Death {
        let cause = Cause::NotStarted(self.failure);
        Death { pid: self.pid, cause, uptime: Duration::ZERO }
    }
}
