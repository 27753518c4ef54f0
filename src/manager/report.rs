//! How a death is told: to the handler, in the log, and by the exit status. Pure.

use std::fmt;
use std::time::Duration;

use nix::unistd::Pid;

use super::machine::Then;
use crate::error::{FAILED, exec_status, said};
use crate::sys::failure::{Failure, Refusal, Stage};
use crate::sys::wait::Exit;

/// The end of one life of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// The process that is gone; 0 if it did not come to one.
    pub pid: Pid,
    /// What ended it.
    pub cause: Cause,
    /// How long it lived.
    pub uptime: Duration,
}

/// What ended a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server ended.
    Ended(Exit),
    /// It could not be executed.
    NotStarted(Refusal),
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Cause {
        match failure {
            Failure::Refused(refusal) => Cause::NotStarted(refusal),
            Failure::Died(exit) => Cause::Ended(exit),
        }
    }
}

/// What a manager says of its own decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Somebody wants this, and it will be done.
    Asked(Then),
    /// The handler does not end.
    HandlerStays,
    /// The handler does not want the server back, or could not be asked.
    Refused,
    /// The server is started after this delay.
    RestartsIn(Duration),
    /// What the system had no resources for is tried again after this delay.
    TriesAgainIn(Duration),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Asked(Then::Restart) => f.write_str("asked to restart the server"),
            Note::Asked(Then::Exit) => f.write_str("asked to stop"),
            Note::HandlerStays => f.write_str("the handler is still running; waiting for it"),
            Note::Refused => f.write_str("the server is not restarted"),
            Note::RestartsIn(delay) => write!(f, "restarting the server in {delay:?}"),
            Note::TriesAgainIn(delay) => write!(f, "trying again in {delay:?}"),
        }
    }
}

impl Death {
    /// The exit status that stands for this death: 128 and the signal's number for a signal.
    pub fn status(&self) -> u8 {
        match self.cause {
            Cause::Ended(Exit::Status(status)) => status,
            Cause::Ended(Exit::Signal { number, .. }) => 128 + number as u8,
            Cause::NotStarted(Refusal { stage: Stage::Execute | Stage::Interpret, reason }) => {
                exec_status(reason)
            }
            Cause::NotStarted(_) => FAILED,
        }
    }

    /// Shows each variable that tells a handler of this death.
    pub fn for_each_variable(&self, mut set: impl FnMut(&str, &dyn fmt::Display)) {
        set("VSRUN_SERVER_UPTIME", &self.uptime.as_secs());
        if self.pid.as_raw() > 0 {
            set("VSRUN_SERVER_PID", &self.pid);
        }
        set("VSRUN_SERVER_EXPLAIN", &self.cause);
        let (exited, core) = match self.cause {
            Cause::Ended(Exit::Signal { number, core }) => {
                set("VSRUN_SERVER_TERMSIG", &number);
                (0, core)
            }
            Cause::Ended(Exit::Status(_)) | Cause::NotStarted(_) => {
                set("VSRUN_SERVER_EXITSTATUS", &self.status());
                (1, false)
            }
        };
        set("VSRUN_SERVER_EXITED", &exited);
        set("VSRUN_SERVER_COREDUMP", &u8::from(core));
    }
}

impl Cause {
    /// The cause as messages show it, with the name of a signal.
    pub fn named(self) -> NamedCause {
        NamedCause(self)
    }
}

/// The result of [`Cause::named`].
#[derive(Debug)]
pub struct NamedCause(Cause);

impl fmt::Display for NamedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Ended(exit) => exit.named().fmt(f),
            Cause::NotStarted(_) => self.0.fmt(f),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Ended(exit) => exit.fmt(f),
            Cause::NotStarted(Refusal { stage, reason }) => {
                write!(f, "could not be started: cannot {}: {}", stage.doing(), said(*reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn told(cause: Cause) -> (u8, Vec<String>) {
        let death = Death { pid: Pid::from_raw(7), cause, uptime: Duration::from_millis(2900) };
        let mut variables = Vec::new();
        death.for_each_variable(|name, value| variables.push(format!("{name}={value}")));
        variables.iter_mut().for_each(|line| *line = line.replace("VSRUN_SERVER_", ""));
        variables.sort();
        (death.status(), variables)
    }

    #[test]
    fn an_exit_is_told_with_its_status() {
        let (status, variables) = told(Cause::Ended(Exit::Status(3)));
        assert_eq!(status, 3);
        let expected = [
            "COREDUMP=0",
            "EXITED=1",
            "EXITSTATUS=3",
            "EXPLAIN=exited with status 3",
            "PID=7",
            "UPTIME=2",
        ];
        assert_eq!(variables, expected);
    }

    #[test]
    fn a_death_by_signal_is_told_with_its_number() {
        let (status, variables) = told(Cause::Ended(Exit::Signal { number: 15, core: false }));
        assert_eq!(status, 143);
        let expected = [
            "COREDUMP=0",
            "EXITED=0",
            "EXPLAIN=terminated by signal 15",
            "PID=7",
            "TERMSIG=15",
            "UPTIME=2",
        ];
        assert_eq!(variables, expected);
    }

    #[test]
    fn a_core_dump_is_told() {
        let (status, variables) = told(Cause::Ended(Exit::Signal { number: 11, core: true }));
        assert_eq!(status, 139);
        assert!(variables.contains(&"EXPLAIN=dumped core with signal 11".to_owned()));
        assert!(variables.contains(&"COREDUMP=1".to_owned()));
    }

    #[test]
    fn a_server_that_could_not_be_executed_is_told_as_an_exit() {
        let refusal = Refusal { stage: Stage::Execute, reason: Errno::ENOENT };
        let (status, variables) = told(Cause::NotStarted(refusal));
        assert_eq!(status, 127);
        assert!(variables.contains(&"EXITED=1".to_owned()));
        assert!(variables.contains(&"EXITSTATUS=127".to_owned()));
        let explained =
            "EXPLAIN=could not be started: cannot execute command: No such file or directory";
        assert!(variables.contains(&explained.to_owned()));
    }
}
