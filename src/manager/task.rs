//! A program that a manager runs, one process at a time: the server, the
//! handler, logger.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::death::Death;
use crate::sys::clock::since_boot;
use crate::sys::process::failure::End;
use crate::sys::process::spawn::{Child, Held, spawn};
use crate::sys::process::spec::{ChildSpec, Descriptors, WorksIn};
use crate::sys::process::wait::{Exit, end_of};
use crate::sys::signals;

/// A program and the process that runs it.
#[derive(Debug)]
pub struct Task {
    /// What its process is to be.
    pub spec: ChildSpec,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    child: Child,
    /// CLOCK_BOOTTIME at its fork.
    since: Duration,
}

impl Task {
    /// A program that no process runs yet.
    pub fn new(spec: ChildSpec) -> Task {
        Task { spec, life: None }
    }

    /// Forks a process that waits for [`Task::release`].
    pub fn fork(&self, descriptors: Descriptors<'_>) -> Result<Held, End> {
        spawn(&self.spec, descriptors)
    }

    /// Starts a process whose id is not written down.
    pub fn start(&mut self, descriptors: Descriptors<'_>) -> Result<(), End> {
        let held = self.fork(descriptors)?;
        self.release(held)
    }

    /// Lets a process go on to its exec. What comes of that is for [`Task::outcome`] to tell.
    pub fn release(&mut self, held: Held) -> Result<(), End> {
        let since = since_boot();
        self.life = Some(Life {
            child: held.release()?,
            since,
        });
        Ok(())
    }

    /// Its process, while it has one.
    pub fn pid(&self) -> Option<Pid> {
        self.life.as_ref().map(|life| life.child.pid())
    }

    /// Whether it has a process that has not executed the program yet.
    pub fn is_starting(&self) -> bool {
        self.channel().is_some()
    }

    /// What can be read when [`Task::outcome`] is known.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.life.as_ref().and_then(|life| life.child.channel())
    }

    /// What has come of a start, once, when it is known: the process, or what became of it.
    pub fn outcome(&mut self) -> Option<Result<Pid, Death>> {
        let child = &mut self.life.as_mut()?.child;
        let (pid, outcome) = (child.pid(), child.outcome()?);
        Some(outcome.map(|()| pid).map_err(|end| {
            self.life = None;
            Death {
                pid,
                end,
                uptime: Duration::ZERO,
            }
        }))
    }

    /// Where its process works, when it has executed the program.
    pub fn works_in(&self) -> WorksIn {
        self.life
            .as_ref()
            .map_or(WorksIn::Planned, |life| life.child.works_in())
    }

    /// Records that a process has been reaped. None if it is not this task's.
    pub fn reaped(&mut self, pid: Pid, exit: Exit) -> Option<Death> {
        let life = self.life.take_if(|life| life.child.pid() == pid)?;
        let uptime = since_boot().saturating_sub(life.since);
        Some(Death {
            pid,
            end: End::Exited(exit),
            uptime,
        })
    }

    /// The end of its process, where that may come without notice.
    pub fn find_end(&mut self) -> Option<Death> {
        let pid = self.pid()?;
        self.reaped(pid, end_of(pid)?)
    }

    /// Sends its process a signal, if it has one.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        self.pid().map_or(Ok(()), |pid| signals::send(pid, signal))
    }

    /// Sends the process group that its process leads a signal, if it has one.
    pub fn signal_group(&self, signal: i32) -> Result<(), Errno> {
        let Some(leader) = self.pid() else {
            return Ok(());
        };
        match signals::send_to_group(leader, signal) {
            // A process that has just been forked leads no group yet.
            Err(Errno::ESRCH) => signals::send(leader, signal),
            sent => sent,
        }
    }

    /// Kills a process that has not executed the program yet. [`Task::outcome`] reports its end.
    pub fn kill_start(&self) {
        if self.is_starting() {
            // It has not been reaped. One that may not be killed ends by itself.
            let _ = self.signal(libc::SIGKILL);
        }
    }
}
