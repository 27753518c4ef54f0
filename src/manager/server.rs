//! The server: one life at a time, with its pidfile.

use nix::libc;
use nix::unistd::Pid;

use super::task::Task;
use crate::death::Death;
use crate::error::Error;
use crate::pidfile::Pidfile;
use crate::sys::process::failure::{End, is_shortage};
use crate::sys::process::spec::{ChildSpec, Descriptors, WorksIn};
use crate::sys::process::wait::Exit;

/// The server and its pidfile.
#[derive(Debug)]
pub struct Server {
    /// Its program and process.
    pub task: Task,
    pidfile: Option<Pidfile>,
    starts: u64,
    works_in: WorksIn,
    /// What came of removing the pidfile.
    removal: Result<(), Error>,
}

/// Why a start failed at once.
#[derive(Debug)]
pub enum StartError {
    /// There is no process, or it ended.
    Ended(End),
    /// The pidfile could not be written.
    Pidfile(Error),
}

impl Server {
    /// A server that has not been started.
    pub fn new(spec: ChildSpec, pidfile: Option<Pidfile>) -> Server {
        let works_in = WorksIn::Planned;
        Server {
            task: Task::new(spec),
            pidfile,
            starts: 0,
            works_in,
            removal: Ok(()),
        }
    }

    /// How often it has been started again.
    pub fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// Where the last process works, or has worked, that executed it.
    pub fn works_in(&self) -> WorksIn {
        self.works_in
    }

    /// Starts a process whose id is in the pidfile before it executes the server. Where the server
    /// has run before, a pidfile that cannot be written does not keep it down, unless that is for a
    /// shortage that may soon be over: the result says what came of writing it.
    pub fn start(&mut self, descriptors: Descriptors<'_>) -> Result<Result<(), Error>, StartError> {
        let held = self.task.fork(descriptors).map_err(StartError::Ended)?;
        let mut written = Ok(());
        if let Some(pidfile) = &mut self.pidfile {
            if let Err(reason) = pidfile.write(held.pid()) {
                let error = Error::cannot("write pidfile", pidfile.path(), reason);
                if self.starts == 0 || is_shortage(reason) {
                    drop(held);
                    self.remove_pidfile();
                    return Err(StartError::Pidfile(error));
                }
                written = Err(error);
            }
        }
        if let Err(end) = self.task.release(held) {
            self.remove_pidfile();
            return Err(StartError::Ended(end));
        }
        Ok(written)
    }

    /// What has come of a start, once, when it is known.
    pub fn outcome(&mut self) -> Option<Result<Pid, Death>> {
        let outcome = self.task.outcome()?;
        match outcome {
            Ok(_) => {
                self.starts += 1;
                self.works_in = self.task.works_in();
            }
            Err(_) => self.remove_pidfile(),
        }
        Some(outcome)
    }

    /// Records that a process has been reaped. None if it is not the server's.
    pub fn reaped(&mut self, pid: Pid, exit: Exit) -> Option<Death> {
        let death = self.task.reaped(pid, exit)?;
        self.remove_pidfile();
        Some(death)
    }

    /// Its end, where that may come without notice.
    pub fn find_end(&mut self) -> Option<Death> {
        let death = self.task.find_end()?;
        self.remove_pidfile();
        Some(death)
    }

    /// Asks it to end. A process that has not executed the server yet may have been stopped by its
    /// user, and has to go on to take the signal.
    pub fn stop(&self) -> Result<(), Error> {
        let sent = self.signal(libc::SIGTERM);
        if self.task.is_starting() {
            let _ = self.task.signal(libc::SIGCONT);
        }
        sent
    }

    /// Sends it a signal, if it has a process.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let sent = self.task.signal(signal);
        sent.map_err(|reason| Error::cannot("signal the server", "", reason))
    }

    /// The first start has succeeded: the pidfile stays.
    pub fn commit(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            pidfile.commit();
        }
    }

    fn remove_pidfile(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            let removed = pidfile.remove();
            self.removal =
                removed.map_err(|reason| Error::cannot("remove pidfile", pidfile.path(), reason));
        }
    }

    /// What came of removing the pidfile, once.
    pub fn take_removal(&mut self) -> Result<(), Error> {
        std::mem::replace(&mut self.removal, Ok(()))
    }
}
