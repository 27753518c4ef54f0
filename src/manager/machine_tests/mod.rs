//! The machine's tests: the table cell by cell (table), single lives event by
//! event (lives), and what holds in every sequence of events (sequences).

mod lives;
mod sequences;
mod table;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::*;
use crate::sys::process::failure::{Refusal, Stage};

const SHORT: Duration = Duration::from_millis(1);

fn death(end: End) -> Death {
    Death {
        pid: Pid::from_raw(7),
        end,
        uptime: SHORT,
    }
}

fn exited(status: u8) -> Death {
    death(End::Exited(Exit::Status(status)))
}

fn killed(number: i32) -> Death {
    death(End::Exited(Exit::Signal {
        number,
        core: false,
    }))
}

fn refused() -> Death {
    death(End::Refused(Refusal {
        stage: Stage::Execute,
        reason: Errno::ENOENT,
    }))
}

/// A machine whose server has run once, in any state; states that wait for a time have one.
fn machine_in(state: State, deadline: Moment) -> Machine {
    let deadline = match state {
        State::Starting | State::Running | State::Done(_) => None,
        State::Stopping(_) | State::Handling(_) | State::Interrupting(_) | State::Waiting(_) => {
            Some(deadline)
        }
    };
    Machine {
        state,
        deadline,
        has_run: true,
        ..Machine::new(Moment::now())
    }
}

/// The actions that an event leads to.
fn step(machine: &mut Machine, event: Event, now: Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    machine.step(event, now, &mut actions);
    actions
}
