//! The manager's decisions: for every state, what each event leads to. Pure:
//! time, ids and statuses come in as data, and what is to be done goes out as
//! data. The table is in docs/architecture.md.
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::{Duration, Instant};

use super::policy;
use super::report::{Death, Note};
use crate::backoff::{Backoff, STABLE_LIFE};

/// What somebody wants, and what a stop is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
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
    /// The handler is asked about this death.
    Ask(Death),
}

/// Where the manager stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A process is on its way to become the server.
    Starting,
    /// The server runs.
    Running,
    /// The server was told to end.
    Stopping(Then),
    /// The handler was asked about this death and has not answered.
    Handling(Death),
    /// The handler was told to end.
    Interrupting(Then),
    /// Nothing runs until some time has passed.
    Waiting(Next),
    /// The manager exits with this status.
    Done(u8),
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The server has been executed.
    Started,
    /// The system lacked what it takes to start the server or the handler: memory, processes,
    /// descriptors.
    ResourcesLacked,
    /// The server is gone, or could not be executed.
    ServerEnded(Death),
    /// The handler is gone; its answer.
    HandlerEnded(Verdict),
    /// Somebody wants the server restarted, or stopped and the manager gone.
    Asked(Then),
    /// The deadline has passed.
    TimePassed,
}

/// A handler's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start the server again.
    Restart,
    /// Do not.
    Refuse,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the server.
    StartServer,
    /// Ask the server to end, by SIGTERM.
    StopServer,
    /// Look whether the server has ended and cannot be reaped; say so the second time that it has
    /// not ended.
    CheckServer(Patience),
    /// Ask the handler about a death.
    RunHandler(Death),
    /// Ask the handler and whatever it started to end, by SIGTERM.
    StopHandler,
    /// Kill the handler and whatever it started; or find that it has ended and cannot be reaped.
    KillHandler,
    /// Say something.
    Say(Note),
}

/// How long a server has been asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Less than [`policy::STOP_NOTICE`], or longer than that.
    Quiet,
    /// For [`policy::STOP_NOTICE`].
    Notice,
}

/// A manager's state and its memory of recent deaths.
#[derive(Debug)]
pub struct Machine {
    state: State,
    deadline: Option<Instant>,
    /// How often the end of the server has been looked for since it was asked to end.
    checks: u32,
    restarts: Backoff,
    attempts: Backoff,
}

impl Default for Machine {
    /// The manager of a server that is being started.
    fn default() -> Machine {
        Machine {
            state: State::Starting,
            deadline: None,
            checks: 0,
            restarts: Backoff::of_restarts(),
            attempts: Backoff::of_attempts(),
        }
    }
}

impl Machine {
    /// Where the manager stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Event::TimePassed`] is wanted, if at all.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes an event that happened at `now`, and tells what is to be done, if anything.
    pub fn step(&mut self, event: Event, now: Instant) -> Option<Action> {
        use {Event::*, State::*};
        match (self.state, event) {
            (Starting, Started) => {
                self.attempts.reset();
                self.enter(Running)
            }
            (Starting | Running, ServerEnded(death)) => self.died(death, now),
            (Starting, ResourcesLacked) => self.try_again(Next::Start, now),
            // A process that has not become the server yet is ended like the server.
            (Starting | Running, Asked(then)) => self.stop(then, now),

            (Stopping(then), ServerEnded(_) | ResourcesLacked) => self.go_on(then),
            // Nothing turns an exit into a restart. A server may have refused the first signal.
            (Stopping(Then::Restart), Asked(then)) => {
                self.state = Stopping(then);
                Some(Action::StopServer)
            }
            (Stopping(Then::Exit), Asked(_)) => Some(Action::StopServer),
            (Stopping(_), TimePassed) => self.check_server(now),

            (Handling(_), HandlerEnded(Verdict::Restart)) => self.space(now),
            (Handling(death), HandlerEnded(Verdict::Refuse)) => {
                self.enter(Done(death.status()));
                Some(Action::Say(Note::Refused))
            }
            (Handling(death), ResourcesLacked) => self.try_again(Next::Ask(death), now),
            (Handling(_), Asked(then)) => self.interrupt(then, now),
            (Handling(_), TimePassed) => self.notice(Action::Say(Note::HandlerStays)),

            (Interrupting(then), HandlerEnded(_) | ResourcesLacked) => self.go_on(then),
            (Interrupting(Then::Restart), Asked(then)) => self.change(Interrupting(then)),
            (Interrupting(_), TimePassed) => {
                self.deadline = Some(now + policy::KILL_CHECK);
                Some(Action::KillHandler)
            }

            (Waiting(_), Asked(then)) => self.go_on(then),
            (Waiting(Next::Start), TimePassed) => self.start(),
            (Waiting(Next::Ask(death)), TimePassed) => self.ask(death, now),

            // What cannot happen in a state, and whatever happens when all is over.
            (Starting, HandlerEnded(_) | TimePassed)
            | (Running, Started | ResourcesLacked | HandlerEnded(_) | TimePassed)
            | (Stopping(_), Started | HandlerEnded(_))
            | (Handling(_), Started | ServerEnded(_))
            | (Interrupting(Then::Exit), Asked(_))
            | (Interrupting(_), Started | ServerEnded(_))
            | (Waiting(_), Started | ResourcesLacked | ServerEnded(_) | HandlerEnded(_))
            | (
                Done(_),
                Started | ResourcesLacked | ServerEnded(_) | HandlerEnded(_) | Asked(_)
                | TimePassed,
            ) => None,
        }
    }

    fn enter(&mut self, state: State) -> Option<Action> {
        (self.state, self.deadline) = (state, None);
        None
    }

    /// Enters another state with the deadline that holds already.
    fn change(&mut self, state: State) -> Option<Action> {
        self.state = state;
        None
    }

    fn enter_for(
        &mut self,
        state: State,
        duration: Duration,
        now: Instant,
        action: Action,
    ) -> Option<Action> {
        (self.state, self.deadline) = (state, Some(now + duration));
        Some(action)
    }

    /// Acts on a deadline once.
    fn notice(&mut self, action: Action) -> Option<Action> {
        self.deadline = None;
        Some(action)
    }

    fn start(&mut self) -> Option<Action> {
        self.enter(State::Starting);
        Some(Action::StartServer)
    }

    fn stop(&mut self, then: Then, now: Instant) -> Option<Action> {
        self.checks = 0;
        self.enter_for(State::Stopping(then), policy::STOP_CHECK, now, Action::StopServer)
    }

    fn check_server(&mut self, now: Instant) -> Option<Action> {
        self.checks = self.checks.saturating_add(1);
        self.deadline = Some(now + policy::STOP_CHECK);
        let is_due = policy::STOP_CHECK * self.checks == policy::STOP_NOTICE;
        Some(Action::CheckServer(if is_due { Patience::Notice } else { Patience::Quiet }))
    }

    fn interrupt(&mut self, then: Then, now: Instant) -> Option<Action> {
        let grace = policy::HANDLER_GRACE;
        self.enter_for(State::Interrupting(then), grace, now, Action::StopHandler)
    }

    /// What was asked for can be done now. A request clears the record of deaths and attempts.
    fn go_on(&mut self, then: Then) -> Option<Action> {
        self.restarts.reset();
        self.attempts.reset();
        match then {
            Then::Exit => self.enter(State::Done(0)),
            Then::Restart => self.start(),
        }
    }

    /// The server is gone and nobody asked for it.
    fn died(&mut self, death: Death, now: Instant) -> Option<Action> {
        if death.uptime >= STABLE_LIFE {
            self.restarts.reset();
        }
        if policy::is_voluntary(&death) {
            self.enter(State::Done(0))
        } else if policy::may_be_requested(&death) {
            self.enter(State::Waiting(Next::Ask(death)));
            self.deadline = Some(now + policy::SETTLING);
            None
        } else {
            self.ask(death, now)
        }
    }

    fn ask(&mut self, death: Death, now: Instant) -> Option<Action> {
        let ask = Action::RunHandler(death);
        self.enter_for(State::Handling(death), policy::HANDLER_NOTICE, now, ask)
    }

    /// The handler wants the server back: at once, or after a delay if it dies too often.
    fn space(&mut self, now: Instant) -> Option<Action> {
        self.attempts.reset();
        match self.restarts.delay() {
            Duration::ZERO => self.start(),
            delay => self.wait(Next::Start, delay, Note::RestartsIn(delay), now),
        }
    }

    fn try_again(&mut self, next: Next, now: Instant) -> Option<Action> {
        let delay = self.attempts.delay();
        self.wait(next, delay, Note::TriesAgainIn(delay), now)
    }

    fn wait(&mut self, next: Next, delay: Duration, note: Note, now: Instant) -> Option<Action> {
        self.enter_for(State::Waiting(next), delay, now, Action::Say(note))
    }
}

#[cfg(test)]
#[path = "machine_tests/mod.rs"]
mod tests;
