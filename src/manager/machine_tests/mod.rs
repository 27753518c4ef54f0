//! The machine's tests: the table cell by cell (table), single cases of what
//! counts as what (cases) and of how long is waited (times), and what holds
//! whatever happens (orders, requests, waits) in a small simulated world.

// What a test does not ask about is none of its business.
#![allow(clippy::wildcard_enum_match_arm)]

mod cases;
mod orders;
mod reach;
mod requests;
mod rounds;
mod table;
mod times;
mod waits;
mod world;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::super::report::Cause;
use super::*;
use crate::sys::failure::{Refusal, Stage};
use crate::sys::wait::Exit;

const SHORT: Duration = Duration::from_millis(1);

fn death(cause: Cause) -> Death {
    Death { pid: Pid::from_raw(7), cause, uptime: SHORT }
}

fn exited(status: u8) -> Death {
    death(Cause::Ended(Exit::Status(status)))
}

fn killed(number: i32) -> Death {
    death(Cause::Ended(Exit::Signal { number, core: false }))
}

fn not_started() -> Death {
    death(Cause::NotStarted(Refusal { stage: Stage::Execute, reason: Errno::ENOENT }))
}

/// A machine in any state; those that wait for a time have one.
fn machine_in(state: State, deadline: Instant) -> Machine {
    let deadline = match state {
        State::Starting | State::Running | State::Done(_) => None,
        State::Stopping(_) | State::Handling(_) | State::Interrupting(_) | State::Waiting(_) => {
            Some(deadline)
        }
    };
    Machine { state, deadline, ..Machine::default() }
}
