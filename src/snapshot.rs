//! The manager's memory as one value, and its one encoding: `NAME=value` lines,
//! of which unknown ones are ignored and missing ones have defaults. Pure.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::death::Death;
use crate::sys::clock::Moment;
use crate::sys::process::failure::{End, Refusal, Stage};
use crate::sys::process::wait::Exit;

/// The version of the encoding.
pub const FORMAT: u32 = 1;

/// What a manager's machine remembers. Times are those of CLOCK_MONOTONIC, so that a value holds
/// until the machine is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// The state.
    pub state: State,
    /// When something is due.
    pub deadline: Option<Moment>,
    /// Whether the server has been executed once.
    pub has_run: bool,
    /// When the server was asked to end.
    pub stop_since: Option<Moment>,
    /// Whether it was said that the server does not end.
    pub stop_is_said: bool,
    /// Whether the signal that asks it to end is to be sent again.
    pub stop_is_unsent: bool,
    /// Whether it was said that this signal cannot be sent.
    pub stop_refusal_is_said: bool,
    /// The delay before the next restart.
    pub restart_delay: Duration,
    /// The delay before what the system lacked resources for is tried again.
    pub attempt_delay: Duration,
}

/// What a request asks for, and what a stop is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The server is started again.
    Restart,
    /// The manager exits.
    Exit,
}

/// What a delay is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The server is started.
    Start,
    /// The handler is run for this death.
    RunHandler(Death),
}

/// The state of a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A process is on its way to become the server.
    Starting,
    /// The server runs.
    Running,
    /// The server was asked to end.
    Stopping(Request),
    /// The handler runs for this death.
    Handling(Death),
    /// The handler was asked to end.
    Interrupting(Request),
    /// Nothing runs until some time has passed, or until the first start may begin.
    Waiting(Next),
    /// It is over.
    Done(Outcome),
}

/// How a manager ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this exit status.
    Status(u8),
    /// The first start has failed.
    StartFailed,
}

/// Why a text is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotError {
    /// It has another format, or none.
    Format,
    /// This line cannot be understood.
    Line(String),
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format={FORMAT}")?;
        writeln!(f, "state={}", state_name(self.state))?;
        if let Some(death) = death_of(self.state) {
            writeln!(f, "death={}", encode_death(death))?;
        }
        if let State::Done(Outcome::Status(status)) = self.state {
            writeln!(f, "status={status}")?;
        }
        let moments = [("deadline", self.deadline), ("stop-since", self.stop_since)];
        for (name, moment) in moments {
            if let Some(moment) = moment {
                writeln!(f, "{name}={}", moment.as_nanos())?;
            }
        }
        let flags = [
            ("has-run", self.has_run),
            ("stop-is-said", self.stop_is_said),
            ("stop-is-unsent", self.stop_is_unsent),
            ("stop-refusal-is-said", self.stop_refusal_is_said),
        ];
        for (name, flag) in flags {
            writeln!(f, "{name}={}", u8::from(flag))?;
        }
        writeln!(f, "restart-delay={}", self.restart_delay.as_nanos())?;
        writeln!(f, "attempt-delay={}", self.attempt_delay.as_nanos())
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Snapshot, SnapshotError> {
        let values = Values(text);
        if values.find("format") != Some(&FORMAT.to_string()) {
            return Err(SnapshotError::Format);
        }
        let death = values.read("death", decode_death)?;
        let status = values.read("status", |text| text.parse().ok())?;
        let state = values.read("state", |name| state_of(name, death, status))?;
        Ok(Snapshot {
            state: state.ok_or_else(|| SnapshotError::Line("state".to_owned()))?,
            deadline: values.read("deadline", moment)?,
            has_run: values.read("has-run", flag)?.unwrap_or(false),
            stop_since: values.read("stop-since", moment)?,
            stop_is_said: values.read("stop-is-said", flag)?.unwrap_or(false),
            stop_is_unsent: values.read("stop-is-unsent", flag)?.unwrap_or(false),
            stop_refusal_is_said: values.read("stop-refusal-is-said", flag)?.unwrap_or(false),
            restart_delay: values.read("restart-delay", nanos)?.unwrap_or_default(),
            attempt_delay: values.read("attempt-delay", nanos)?.unwrap_or_default(),
        })
    }
}

/// The `NAME=value` lines of a text.
struct Values<'a>(&'a str);

impl<'a> Values<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        let pairs = self.0.lines().filter_map(|line| line.split_once('='));
        pairs
            .into_iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    }

    fn read<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, SnapshotError> {
        let Some(text) = self.find(name) else {
            return Ok(None);
        };
        match decode(text) {
            Some(value) => Ok(Some(value)),
            None => Err(SnapshotError::Line(format!("{name}={text}"))),
        }
    }
}

fn moment(text: &str) -> Option<Moment> {
    text.parse().ok().map(Moment::from_nanos)
}

fn nanos(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_nanos)
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Stopping(Request::Restart) => "stopping-to-restart",
        State::Stopping(Request::Exit) => "stopping-to-exit",
        State::Handling(_) => "handling",
        State::Interrupting(Request::Restart) => "interrupting-to-restart",
        State::Interrupting(Request::Exit) => "interrupting-to-exit",
        State::Waiting(Next::Start) => "waiting-to-start",
        State::Waiting(Next::RunHandler(_)) => "waiting-to-handle",
        State::Done(Outcome::Status(_)) => "done",
        State::Done(Outcome::StartFailed) => "start-failed",
    }
}

fn state_of(name: &str, death: Option<Death>, status: Option<u8>) -> Option<State> {
    Some(match name {
        "starting" => State::Starting,
        "running" => State::Running,
        "stopping-to-restart" => State::Stopping(Request::Restart),
        "stopping-to-exit" => State::Stopping(Request::Exit),
        "handling" => State::Handling(death?),
        "interrupting-to-restart" => State::Interrupting(Request::Restart),
        "interrupting-to-exit" => State::Interrupting(Request::Exit),
        "waiting-to-start" => State::Waiting(Next::Start),
        "waiting-to-handle" => State::Waiting(Next::RunHandler(death?)),
        "done" => State::Done(Outcome::Status(status?)),
        "start-failed" => State::Done(Outcome::StartFailed),
        _ => return None,
    })
}

fn death_of(state: State) -> Option<Death> {
    match state {
        State::Handling(death) | State::Waiting(Next::RunHandler(death)) => Some(death),
        _ => None,
    }
}

/// The process, its uptime in nanoseconds, and how it ended.
fn encode_death(death: Death) -> String {
    let mut text = format!("{} {} ", death.pid, death.uptime.as_nanos());
    // Writing to memory does not fail.
    let _ = match death.end {
        End::Exited(Exit::Status(status)) => write!(text, "status {status}"),
        End::Exited(Exit::Signal { number, core }) => {
            write!(text, "signal {number} {}", u8::from(core))
        }
        End::Refused(Refusal { stage, reason }) => {
            write!(text, "refused {} {}", stage as u8, reason as i32)
        }
    };
    text
}

fn decode_death(text: &str) -> Option<Death> {
    let words: Vec<&str> = text.split(' ').collect();
    let [pid, uptime, end @ ..] = words.as_slice() else {
        return None;
    };
    let end = match end {
        ["status", status] => End::Exited(Exit::Status(status.parse().ok()?)),
        ["signal", number, core] => End::Exited(Exit::Signal {
            number: number.parse().ok()?,
            core: flag(core)?,
        }),
        ["refused", stage, reason] => {
            let stage = Stage::from_number(stage.parse().ok()?)?;
            End::Refused(Refusal {
                stage,
                reason: Errno::from_raw(reason.parse().ok()?),
            })
        }
        _ => return None,
    };
    Some(Death {
        pid: Pid::from_raw(pid.parse().ok()?),
        end,
        uptime: nanos(uptime)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![
            any::<u8>().prop_map(|status| End::Exited(Exit::Status(status))),
            (1..65, any::<bool>())
                .prop_map(|(number, core)| End::Exited(Exit::Signal { number, core })),
            (0..14_u8, 1..120).prop_map(|(stage, reason)| {
                let stage = Stage::from_number(stage).expect("a stage");
                End::Refused(Refusal {
                    stage,
                    reason: Errno::from_raw(reason),
                })
            }),
        ]
    }

    fn times() -> impl Strategy<Value = Duration> {
        any::<u64>().prop_map(Duration::from_nanos)
    }

    fn deaths() -> impl Strategy<Value = Death> {
        (0..i32::MAX, ends(), times()).prop_map(|(pid, end, uptime)| Death {
            pid: Pid::from_raw(pid),
            end,
            uptime,
        })
    }

    fn states() -> impl Strategy<Value = State> {
        let then = prop::sample::select(vec![Request::Restart, Request::Exit]);
        prop_oneof![
            Just(State::Starting),
            Just(State::Running),
            then.clone().prop_map(State::Stopping),
            deaths().prop_map(State::Handling),
            then.prop_map(State::Interrupting),
            Just(State::Waiting(Next::Start)),
            deaths().prop_map(|death| State::Waiting(Next::RunHandler(death))),
            any::<u8>().prop_map(|status| State::Done(Outcome::Status(status))),
            Just(State::Done(Outcome::StartFailed)),
        ]
    }

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        let moments = || prop::option::of(any::<u64>().prop_map(Moment::from_nanos));
        (
            states(),
            moments(),
            moments(),
            any::<[bool; 4]>(),
            times(),
            times(),
        )
            .prop_map(
                |(state, deadline, stop_since, flags, restart_delay, attempt_delay)| Snapshot {
                    state,
                    deadline,
                    has_run: flags[0],
                    stop_since,
                    stop_is_said: flags[1],
                    stop_is_unsent: flags[2],
                    stop_refusal_is_said: flags[3],
                    restart_delay,
                    attempt_delay,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(snapshot in snapshots()) {
            prop_assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*", value in "\\PC*", name in 0..9_usize) {
            let _ = text.parse::<Snapshot>();
            let names = ["state", "death", "status", "deadline", "has-run", "stop-since",
                "stop-is-said", "restart-delay", "attempt-delay"];
            let _ = format!("format=1\nstate=running\n{}={value}\n", names[name]).parse::<Snapshot>();
        }

        #[test]
        fn unknown_lines_change_nothing(snapshot in snapshots(), name in "x-[a-z]{1,9}", value in "\\PC*") {
            prop_assert_eq!(format!("{snapshot}{name}={value}\n").parse(), Ok(snapshot));
        }
    }

    #[test]
    fn another_format_is_refused() {
        assert_eq!(
            "format=2\nstate=running\n".parse::<Snapshot>(),
            Err(SnapshotError::Format)
        );
        assert_eq!(
            "state=running\n".parse::<Snapshot>(),
            Err(SnapshotError::Format)
        );
    }
}
