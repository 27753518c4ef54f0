//! logger(1), as long as a manager lives: started again when it dies, with
//! growing delays.

use nix::unistd::Pid;

use super::task::Task;
use crate::backoff::Backoff;
use crate::limits;
use crate::sys::clock::Moment;
use crate::sys::process::failure::End;
use crate::sys::process::spec::{ChildSpec, Descriptors};
use crate::sys::process::wait::Exit;

/// logger and when it is started next.
#[derive(Debug)]
pub struct Logger {
    /// Its program and process.
    pub task: Task,
    backoff: Backoff,
    next_start: Option<Moment>,
}

impl Logger {
    /// A logger that is due now.
    pub fn new(spec: ChildSpec, now: Moment) -> Logger {
        let backoff = Backoff::of_restarts();
        Logger {
            task: Task::new(spec),
            backoff,
            next_start: Some(now),
        }
    }

    /// Starts logger if it is due.
    pub fn start_if_due(&mut self, descriptors: Descriptors<'_>, now: Moment) -> Result<(), End> {
        if self.next_start.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.next_start = None;
        let started = self.task.start(descriptors);
        started.inspect_err(|_| self.put_off(now))
    }

    /// What has come of a start, once, when it is known.
    pub fn outcome(&mut self, now: Moment) -> Option<Result<(), End>> {
        let outcome = self.task.outcome()?;
        if outcome.is_err() {
            self.put_off(now);
        }
        Some(outcome.map(drop).map_err(|death| death.end))
    }

    /// Records that a process has been reaped. False if it is not logger's.
    pub fn reaped(&mut self, pid: Pid, exit: Exit, now: Moment) -> bool {
        let Some(death) = self.task.reaped(pid, exit) else {
            return false;
        };
        if death.uptime >= limits::STABLE_LIFE {
            self.backoff.reset();
        }
        self.put_off(now);
        true
    }

    /// When [`Logger::start_if_due`] is wanted.
    pub fn deadline(&self) -> Option<Moment> {
        self.next_start
    }

    /// Lets it take the last lines: one that waits for its time is due now, and one that has been
    /// held up on its way is ended.
    pub fn hurry(&mut self, now: Moment) {
        self.task.kill_start();
        self.next_start = self.next_start.map(|_| now);
    }

    fn put_off(&mut self, now: Moment) {
        self.next_start = Some(now + self.backoff.delay());
    }
}
