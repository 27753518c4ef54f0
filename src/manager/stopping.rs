//! The progress of a stop: what is done while the server takes its time. Pure.

use super::action::Action;
use crate::limits;
use crate::sys::clock::Moment;

/// A stop under way.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// When the server was asked to end.
    pub since: Moment,
    /// Whether it was said that the server does not end.
    pub is_said: bool,
    /// Whether the signal that asks it to end is to be sent again.
    pub is_unsent: bool,
    /// Whether it was said that the signal cannot be sent.
    pub is_refusal_said: bool,
}

impl Stop {
    /// A stop that begins now.
    pub fn new(now: Moment) -> Stop {
        Stop {
            since: now,
            is_said: false,
            is_unsent: false,
            is_refusal_said: false,
        }
    }

    /// Records that the signal could not be sent; when it is sent again.
    pub fn not_sent(&mut self, now: Moment, actions: &mut Vec<Action>) -> Moment {
        self.is_unsent = true;
        if !self.is_refusal_said {
            self.is_refusal_said = true;
            actions.push(Action::SayFailure);
        }
        now + limits::STOP_AGAIN
    }

    /// Adds what is due while the server has not ended; when to look again.
    pub fn on_time_passed(&mut self, now: Moment, actions: &mut Vec<Action>) -> Moment {
        let is_unsent = std::mem::take(&mut self.is_unsent);
        let is_late = now.since(self.since) >= limits::STOP_NOTICE;
        if is_late && !self.is_said && !is_unsent {
            self.is_said = true;
            actions.push(Action::SayServerStays);
        }
        actions.push(Action::CheckServer);
        if is_unsent {
            actions.push(Action::StopServer);
        }
        now + limits::STOP_CHECK
    }
}
