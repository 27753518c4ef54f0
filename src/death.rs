//! How a life of the server ended, and how that is shown: to the handler, in
//! the log, and by the exit status. Pure.

use std::fmt;
use std::time::Duration;

use nix::unistd::Pid;

use crate::error::{FAILED, exec_status, strerror};
use crate::sys::process::failure::{End, Refusal, Stage};
use crate::sys::process::wait::Exit;
use crate::variables;

/// The end of one life of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// The process that is gone; 0 if there was none.
    pub pid: Pid,
    /// How it ended.
    pub end: End,
    /// How long it lived.
    pub uptime: Duration,
}

impl Death {
    /// The death of a server that had no process.
    pub fn without_life(end: End) -> Death {
        Death {
            pid: Pid::from_raw(0),
            end,
            uptime: Duration::ZERO,
        }
    }

    /// The exit status that stands for this death: 128 and the signal's number for a signal.
    pub fn status(&self) -> u8 {
        match self.end {
            End::Exited(Exit::Status(status)) => status,
            End::Exited(Exit::Signal { number, .. }) => 128 + number as u8,
            End::Refused(Refusal {
                stage: Stage::Execute | Stage::Interpret,
                reason,
            }) => exec_status(reason),
            End::Refused(_) => FAILED,
        }
    }

    /// Calls `set` with each variable that describes this death to a handler.
    pub fn for_each_variable(&self, mut set: impl FnMut(&str, &dyn fmt::Display)) {
        set(variables::UPTIME, &self.uptime.as_secs());
        if self.pid.as_raw() > 0 {
            set(variables::PID, &self.pid);
        }
        set(variables::EXPLAIN, &self.end);
        let (exited, core) = match self.end {
            End::Exited(Exit::Signal { number, core }) => {
                set(variables::TERMSIG, &number);
                (0, core)
            }
            End::Exited(Exit::Status(_)) | End::Refused(_) => {
                set(variables::EXITSTATUS, &self.status());
                (1, false)
            }
        };
        set(variables::EXITED, &exited);
        set(variables::COREDUMP, &u8::from(core));
    }
}

impl fmt::Display for Death {
    /// The death as the log shows it, with the name of a signal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.uptime.as_millis() / 100;
        let (seconds, tenth) = (tenths / 10, tenths % 10);
        write!(f, "server {} ", self.pid)?;
        match self.end {
            End::Exited(exit) => exit.named().fmt(f)?,
            End::Refused(_) => self.end.fmt(f)?,
        }
        write!(f, " after {seconds}.{tenth} s")
    }
}

impl fmt::Display for End {
    /// The end as a handler's variables show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(exit) => exit.fmt(f),
            End::Refused(Refusal { stage, reason }) => {
                write!(
                    f,
                    "could not be started: cannot {}: {}",
                    stage.doing(),
                    strerror(*reason)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn shown(end: End) -> (u8, Vec<String>) {
        let death = Death {
            pid: Pid::from_raw(7),
            end,
            uptime: Duration::from_millis(2900),
        };
        let mut variables = Vec::new();
        death.for_each_variable(|name, value| variables.push(format!("{name}={value}")));
        variables
            .iter_mut()
            .for_each(|line| *line = line.replace("VSRUN_SERVER_", ""));
        variables.sort();
        (death.status(), variables)
    }

    #[test]
    fn an_exit_is_shown_with_its_status() {
        let (status, variables) = shown(End::Exited(Exit::Status(3)));
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
    fn a_death_by_signal_is_shown_with_its_number() {
        let (status, variables) = shown(End::Exited(Exit::Signal {
            number: 15,
            core: false,
        }));
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
    fn a_core_dump_is_shown() {
        let (status, variables) = shown(End::Exited(Exit::Signal {
            number: 11,
            core: true,
        }));
        assert_eq!(status, 139);
        assert!(variables.contains(&"EXPLAIN=dumped core with signal 11".to_owned()));
        assert!(variables.contains(&"COREDUMP=1".to_owned()));
    }

    #[test]
    fn a_server_that_could_not_be_executed_is_shown_as_an_exit() {
        let refusal = Refusal {
            stage: Stage::Execute,
            reason: Errno::ENOENT,
        };
        let (status, variables) = shown(End::Refused(refusal));
        assert_eq!(status, 127);
        assert!(variables.contains(&"EXITED=1".to_owned()));
        assert!(variables.contains(&"EXITSTATUS=127".to_owned()));
        let explained =
            "EXPLAIN=could not be started: cannot execute command: No such file or directory";
        assert!(variables.contains(&explained.to_owned()));
    }
}
