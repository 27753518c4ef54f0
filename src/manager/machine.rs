//! The manager's decisions: for every state, what each event leads to. Pure:
//! time, ids and statuses come in as data, and what is to be done goes out as
//! data. The table is in docs/architecture.md.
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::{Duration, Instant};

use nix::libc;

use super::policy;
use super::report::{Death, Note};
use crate::backoff::{Backoff, STABLE_LIFE};

/// What a stop is followed by.
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
    /// The server is being started.
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
    /// The server could not be executed.
    StartFailed(Death),
    /// The system lacked what it takes to start the server or the handler: memory, processes,
    /// descriptors.
    ResourcesLacked,
    /// The server is gone.
    ServerEnded(Death),
    /// The handler is gone; whether it wants the server back.
    HandlerEnded(Verdict),
    /// Somebody wants the server stopped and the manager gone.
    StopAsked,
    /// Somebody wants the server restarted.
    RestartAsked,
    /// A signal came in that is meant for the server.
    SignalReceived(i32),
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
    /// Start the server; its outcome is the next event.
    StartServer,
    /// Send the server a signal.
    SignalServer(i32),
    /// Ask the handler about a death.
    RunHandler(Death),
    /// Send the handler and whatever it started a signal.
    SignalHandler(i32),
    /// Say something.
    Say(Note),
}

/// What is to be done, in order.
pub type Actions = [Option<Action>; 2];

const NOTHING: Actions = [None, None];

fn only(action: Action) -> Actions {
    [Some(action), None]
}

/// A manager's state and its memory of recent deaths.
#[derive(Debug)]
pub struct Machine {
    state: State,
    deadline: Option<Instant>,
    restarts: Backoff,
    attempts: Backoff,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Machine {
    /// The manager of a server that has just been started.
    pub fn new() -> Machine {
        Machine {
            state: State::Running,
            deadline: None,
            restarts: Backoff::of_restarts(),
            attempts: Backoff::of_attempts(),
        }
    }

    /// Where the manager stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Event::TimePassed`] is wanted, if at all.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes an event that happened at `now`, and tells what is to be done.
    pub fn step(&mut self, event: Event, now: Instant) -> Actions {
        match self.state {
            State::Starting => self.starting(event, now),
            State::Running => self.running(event, now),
            State::Stopping(then) => self.stopping(then, event, now),
            State::Handling(death) => self.handling(death, event, now),
            State::Interrupting(then) => self.interrupting(then, event),
            State::Waiting(next) => self.waiting(next, event, now),
            State::Done(_) => NOTHING,
        }
    }

    /// The outcome of a start comes before anything else; a request that came first waits for it.
    fn starting(&mut self, event: Event, now: Instant) -> Actions {
        match event {
            Event::Started => {
                self.attempts.reset();
                self.enter(State::Running)
            }
            Event::StartFailed(death) | Event::ServerEnded(death) => self.died(death, now),
            Event::ResourcesLacked => self.try_again(Next::Start, now),
            Event::StopAsked => self.enter(State::Stopping(Then::Exit)),
            Event::RestartAsked => self.enter(State::Stopping(Then::Restart)),
            Event::HandlerEnded(_) | Event::SignalReceived(_) | Event::TimePassed => NOTHING,
        }
    }

    fn running(&mut self, event: Event, now: Instant) -> Actions {
        match event {
            Event::ServerEnded(death) | Event::StartFailed(death) => self.died(death, now),
            Event::StopAsked => self.stop(Then::Exit, now),
            Event::RestartAsked => self.stop(Then::Restart, now),
            Event::SignalReceived(signal) => only(Action::SignalServer(signal)),
            Event::Started
            | Event::ResourcesLacked
            | Event::HandlerEnded(_)
            | Event::TimePassed => NOTHING,
        }
    }

    fn stopping(&mut self, then: Then, event: Event, now: Instant) -> Actions {
        match event {
            // The request came while the server was being started.
            Event::Started => self.stop(then, now),
            Event::ServerEnded(_) | Event::StartFailed(_) => self.go_on(then),
            Event::ResourcesLacked => match then {
                Then::Exit => self.enter(State::Done(0)),
                Then::Restart => self.try_again(Next::Start, now),
            },
            Event::StopAsked => {
                self.state = State::Stopping(Then::Exit);
                NOTHING
            }
            Event::SignalReceived(signal) => only(Action::SignalServer(signal)),
            Event::TimePassed => {
                self.deadline = None;
                only(Action::Say(Note::ServerStays))
            }
            Event::RestartAsked | Event::HandlerEnded(_) => NOTHING,
        }
    }

    fn handling(&mut self, death: Death, event: Event, now: Instant) -> Actions {
        match event {
            Event::HandlerEnded(Verdict::Restart) => {
                self.attempts.reset();
                let delay = self.restarts.delay();
                if delay.is_zero() {
                    self.start()
                } else {
                    self.wait(Next::Start, delay, Note::RestartsIn(delay), now)
                }
            }
            Event::HandlerEnded(Verdict::Refuse) => {
                self.enter(State::Done(death.status()));
                only(Action::Say(Note::Refused))
            }
            Event::ResourcesLacked => self.try_again(Next::Ask(death), now),
            Event::StopAsked => self.interrupt(Then::Exit, now),
            Event::RestartAsked => self.interrupt(Then::Restart, now),
            Event::TimePassed => {
                self.deadline = None;
                only(Action::Say(Note::HandlerStays))
            }
            Event::Started
            | Event::StartFailed(_)
            | Event::ServerEnded(_)
            | Event::SignalReceived(_) => NOTHING,
        }
    }

    fn interrupting(&mut self, then: Then, event: Event) -> Actions {
        match event {
            Event::HandlerEnded(_) => self.go_on(then),
            Event::StopAsked => {
                self.state = State::Interrupting(Then::Exit);
                NOTHING
            }
            Event::TimePassed => {
                self.deadline = None;
                only(Action::SignalHandler(libc::SIGKILL))
            }
            Event::Started
            | Event::StartFailed(_)
            | Event::ResourcesLacked
            | Event::ServerEnded(_)
            | Event::RestartAsked
            | Event::SignalReceived(_) => NOTHING,
        }
    }

    fn waiting(&mut self, next: Next, event: Event, now: Instant) -> Actions {
        match event {
            Event::TimePassed => match next {
                Next::Start => self.start(),
                Next::Ask(death) => self.ask(death, now),
            },
            Event::StopAsked => self.go_on(Then::Exit),
            Event::RestartAsked => self.go_on(Then::Restart),
            Event::Started
            | Event::StartFailed(_)
            | Event::ResourcesLacked
            | Event::ServerEnded(_)
            | Event::HandlerEnded(_)
            | Event::SignalReceived(_) => NOTHING,
        }
    }

    fn enter(&mut self, state: State) -> Actions {
        self.state = state;
        self.deadline = None;
        NOTHING
    }

    fn enter_until(&mut self, state: State, deadline: Instant) {
        self.state = state;
        self.deadline = Some(deadline);
    }

    fn start(&mut self) -> Actions {
        self.enter(State::Starting);
        only(Action::StartServer)
    }

    fn stop(&mut self, then: Then, now: Instant) -> Actions {
        self.enter_until(State::Stopping(then), now + policy::STOP_NOTICE);
        only(Action::SignalServer(libc::SIGTERM))
    }

    /// What was asked for can be done now. A request clears the record of deaths.
    fn go_on(&mut self, then: Then) -> Actions {
        self.restarts.reset();
        self.attempts.reset();
        match then {
            Then::Exit => self.enter(State::Done(0)),
            Then::Restart => self.start(),
        }
    }

    /// The server is gone and nobody asked for it.
    fn died(&mut self, death: Death, now: Instant) -> Actions {
        if death.uptime >= STABLE_LIFE {
            self.restarts.reset();
        }
        if policy::is_voluntary(&death) {
            self.enter(State::Done(0))
        } else if policy::may_be_requested(&death) {
            self.enter_until(State::Waiting(Next::Ask(death)), now + policy::SETTLING);
            NOTHING
        } else {
            self.ask(death, now)
        }
    }

    fn ask(&mut self, death: Death, now: Instant) -> Actions {
        self.enter_until(State::Handling(death), now + policy::HANDLER_NOTICE);
        only(Action::RunHandler(death))
    }

    fn interrupt(&mut self, then: Then, now: Instant) -> Actions {
        self.enter_until(State::Interrupting(then), now + policy::HANDLER_GRACE);
        only(Action::SignalHandler(libc::SIGTERM))
    }

    fn try_again(&mut self, next: Next, now: Instant) -> Actions {
        let delay = self.attempts.delay();
        self.wait(next, delay, Note::TriesAgainIn(delay), now)
    }

    fn wait(&mut self, next: Next, delay: Duration, note: Note, now: Instant) -> Actions {
        self.enter_until(State::Waiting(next), now + delay);
        only(Action::Say(note))
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
