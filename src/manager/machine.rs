//! The manager's decisions: for every state, what each event leads to. Pure:
//! time, ids and statuses come in as data, and what is to be done goes out as
//! data. The table is in docs/architecture.md.
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use nix::libc;

use super::action::Action;
use super::event::{Event, Verdict};
use super::notes::Note;
use super::stopping::Stop;
use crate::backoff::Backoff;
use crate::death::Death;
use crate::limits;
use crate::snapshot::{Next, Outcome, Request, Snapshot, State};
use crate::sys::clock::Moment;
use crate::sys::process::failure::End;
use crate::sys::process::wait::Exit;

/// A manager's state and its memory of recent deaths.
#[derive(Debug)]
pub struct Machine {
    state: State,
    deadline: Option<Moment>,
    /// Whether the server has been executed once.
    has_run: bool,
    stop: Stop,
    restarts: Backoff,
    attempts: Backoff,
}

impl Machine {
    /// The manager of a server that is to be started at [`Event::Ready`].
    pub fn new(now: Moment) -> Machine {
        Machine {
            state: State::Waiting(Next::Start),
            deadline: None,
            has_run: false,
            stop: Stop::new(now),
            restarts: Backoff::of_restarts(),
            attempts: Backoff::of_attempts(),
        }
    }

    /// Everything that it remembers.
    pub fn snapshot(&self) -> Snapshot {
        let is_stopping = matches!(self.state, State::Stopping(_));
        Snapshot {
            state: self.state,
            deadline: self.deadline,
            has_run: self.has_run,
            stop_since: is_stopping.then_some(self.stop.since),
            stop_is_said: is_stopping && self.stop.is_said,
            stop_is_unsent: is_stopping && self.stop.is_unsent,
            stop_refusal_is_said: is_stopping && self.stop.is_refusal_said,
            restart_delay: self.restarts.next(),
            attempt_delay: self.attempts.next(),
        }
    }

    /// A machine with the memory of a snapshot.
    pub fn restore(snapshot: &Snapshot, now: Moment) -> Machine {
        let mut machine = Machine {
            state: snapshot.state,
            deadline: snapshot.deadline,
            has_run: snapshot.has_run,
            stop: Stop {
                since: snapshot.stop_since.unwrap_or(now),
                is_said: snapshot.stop_is_said,
                is_unsent: snapshot.stop_is_unsent,
                is_refusal_said: snapshot.stop_refusal_is_said,
            },
            ..Machine::new(now)
        };
        machine.restarts.resume(snapshot.restart_delay);
        machine.attempts.resume(snapshot.attempt_delay);
        machine
    }

    /// How it ended, when it is over.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Done(outcome) => Some(outcome),
            State::Starting
            | State::Running
            | State::Stopping(_)
            | State::Handling(_)
            | State::Interrupting(_)
            | State::Waiting(_) => None,
        }
    }

    /// When [`Event::TimePassed`] is wanted, if at all.
    pub fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    /// Takes an event that happened at `now`, and adds what is to be done to `actions`, in order.
    /// At most one of them leads to a further event at once.
    pub fn step(&mut self, event: Event, now: Moment, actions: &mut Vec<Action>) {
        use {Event::*, State::*};
        match (self.state, event) {
            (Waiting(_), LoggerFailed) if !self.has_run => self.finish(Outcome::StartFailed),
            (Done(_), LoggerFailed) => {}
            (_, LoggerFailed) => actions.push(Action::SayFailure),

            (Starting, Started) => self.started(actions),
            (Starting, StartFailed(_) | ResourcesLacked) if !self.has_run => {
                self.finish(Outcome::StartFailed);
            }
            (Starting, StartFailed(death)) => {
                actions.push(Action::SayFailure);
                self.server_down(death, now, actions);
            }
            (Starting, ResourcesLacked) => {
                actions.push(Action::SayFailure);
                self.try_again(Next::Start, now, actions);
            }
            (Running, ServerEnded(death)) => {
                actions.push(Action::Say(Note::ServerEnded(death)));
                self.died(death, now, actions);
            }
            // A process that has not become the server yet is ended like the server.
            (Starting | Running, Requested(then)) => {
                actions.push(Action::Say(Note::Requested(then)));
                self.stop(then, now, actions);
            }
            (Running | Stopping(_), SignalArrived(signal)) => {
                actions.push(Action::SignalServer(signal));
            }

            (Stopping(then), ServerEnded(death)) => {
                actions.push(Action::Say(Note::ServerEnded(death)));
                self.fulfil(then, actions);
            }
            (Stopping(then), StartFailed(death)) => {
                // A process that SIGTERM ended before its exec is no failure.
                if matches!(death.end, End::Refused(_)) {
                    actions.push(Action::SayFailure);
                }
                self.fulfil(then, actions);
            }
            (Stopping(then), ResourcesLacked) => {
                actions.push(Action::SayFailure);
                self.fulfil(then, actions);
            }
            (Stopping(_), Started) => self.started_late(actions),
            // An exit stays an exit. SIGTERM is sent again because some servers ignore the first one.
            (Stopping(Request::Restart), Requested(then)) => {
                self.turn(Stopping(then), then, actions);
                actions.push(Action::StopServer);
            }
            (Stopping(Request::Exit), Requested(_)) => actions.push(Action::StopServer),
            (Stopping(_), StopNotSent) => {
                self.deadline = Some(self.stop.not_sent(now, actions));
            }
            (Stopping(_), TimePassed) => {
                self.deadline = Some(self.stop.on_time_passed(now, actions))
            }

            (Handling(_), HandlerEnded(Verdict::Restart)) => self.restart(now, actions),
            (Handling(death), HandlerEnded(Verdict::Refuse)) => self.refuse(death, actions),
            (Handling(death), HandlerFailed) => {
                actions.push(Action::SayFailure);
                self.refuse(death, actions);
            }
            (Handling(death), HandlerTooLarge) => self.run_handler(death, now, actions),
            (Handling(death), ResourcesLacked) => {
                actions.push(Action::SayFailure);
                self.try_again(Next::RunHandler(death), now, actions);
            }
            (Handling(_), Requested(then)) => {
                actions.push(Action::Say(Note::Requested(then)));
                self.enter_for(Interrupting(then), limits::HANDLER_GRACE, now);
                actions.push(Action::StopHandler);
            }
            (Handling(_), TimePassed) => {
                self.deadline = None;
                actions.push(Action::Say(Note::HandlerRuns));
            }

            (Interrupting(then), HandlerEnded(_) | HandlerTooLarge) => self.fulfil(then, actions),
            (Interrupting(then), HandlerFailed | ResourcesLacked) => {
                actions.push(Action::SayFailure);
                self.fulfil(then, actions);
            }
            (Interrupting(Request::Restart), Requested(then)) => {
                self.turn(Interrupting(then), then, actions);
            }
            (Interrupting(_), TimePassed) => {
                self.deadline = Some(now + limits::KILL_CHECK);
                actions.push(Action::KillHandler);
            }

            (Waiting(Next::Start), Ready) if !self.has_run => self.start(actions),
            // The first start fulfils a request to restart.
            (Waiting(Next::Start), Requested(Request::Restart)) if !self.has_run => {}
            (Waiting(_), Requested(then)) => {
                actions.push(Action::Say(Note::Requested(then)));
                self.fulfil(then, actions);
            }
            (Waiting(Next::Start), TimePassed) => self.start(actions),
            (Waiting(Next::RunHandler(death)), TimePassed) => self.run_handler(death, now, actions),

            // What cannot happen in a state, and whatever happens when all is over.
            (
                Starting,
                Ready | ServerEnded(_) | HandlerEnded(_) | HandlerFailed | HandlerTooLarge
                | SignalArrived(_) | StopNotSent | TimePassed,
            )
            | (
                Running,
                Ready | Started | StartFailed(_) | HandlerFailed | HandlerTooLarge
                | ResourcesLacked | HandlerEnded(_) | StopNotSent | TimePassed,
            )
            | (Stopping(_), Ready | HandlerEnded(_) | HandlerFailed | HandlerTooLarge)
            | (
                Handling(_),
                Ready | Started | StartFailed(_) | ServerEnded(_) | SignalArrived(_) | StopNotSent,
            )
            | (Interrupting(Request::Exit), Requested(_))
            | (
                Interrupting(_),
                Ready | Started | StartFailed(_) | ServerEnded(_) | SignalArrived(_) | StopNotSent,
            )
            | (
                Waiting(_),
                Ready | Started | StartFailed(_) | HandlerFailed | HandlerTooLarge
                | ResourcesLacked | ServerEnded(_) | HandlerEnded(_) | SignalArrived(_)
                | StopNotSent,
            )
            | (
                Done(_),
                Ready | Started | StartFailed(_) | HandlerFailed | HandlerTooLarge
                | ResourcesLacked | ServerEnded(_) | HandlerEnded(_) | Requested(_)
                | SignalArrived(_) | StopNotSent | TimePassed,
            ) => {}
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.deadline = None;
    }

    fn enter_for(&mut self, state: State, duration: Duration, now: Moment) {
        self.state = state;
        self.deadline = Some(now + duration);
    }

    /// Enters another state with the deadline that holds already.
    fn turn(&mut self, state: State, then: Request, actions: &mut Vec<Action>) {
        if self.state != state {
            actions.push(Action::Say(Note::Requested(then)));
        }
        self.state = state;
    }

    fn finish(&mut self, outcome: Outcome) {
        self.enter(State::Done(outcome));
    }

    fn start(&mut self, actions: &mut Vec<Action>) {
        self.enter(State::Starting);
        actions.push(Action::StartServer);
    }

    fn started(&mut self, actions: &mut Vec<Action>) {
        self.attempts.reset();
        self.enter(State::Running);
        self.started_late(actions);
    }

    /// The server has been executed, perhaps after it was asked to end.
    fn started_late(&mut self, actions: &mut Vec<Action>) {
        if !self.has_run {
            actions.push(Action::ConfirmStart);
        }
        self.has_run = true;
        actions.push(Action::SayStarted);
    }

    fn stop(&mut self, then: Request, now: Moment, actions: &mut Vec<Action>) {
        self.stop = Stop::new(now);
        self.enter_for(State::Stopping(then), limits::STOP_CHECK, now);
        actions.push(Action::StopServer);
    }

    /// Fulfils a request, which clears the record of deaths and attempts.
    fn fulfil(&mut self, then: Request, actions: &mut Vec<Action>) {
        self.restarts.reset();
        self.attempts.reset();
        match then {
            Request::Exit => self.finish(Outcome::Status(0)),
            Request::Restart => self.start(actions),
        }
    }

    fn died(&mut self, death: Death, now: Moment, actions: &mut Vec<Action>) {
        if is_voluntary(&death) {
            actions.push(Action::SayLeftovers(death));
            return self.finish(Outcome::Status(0));
        }
        self.server_down(death, now, actions);
    }

    /// The server has ended unexpectedly.
    fn server_down(&mut self, death: Death, now: Moment, actions: &mut Vec<Action>) {
        if death.uptime >= limits::STABLE_LIFE {
            self.restarts.reset();
        }
        if may_be_requested(&death) {
            self.enter_for(
                State::Waiting(Next::RunHandler(death)),
                limits::REQUEST_WAIT,
                now,
            );
        } else {
            self.run_handler(death, now, actions);
        }
    }

    fn run_handler(&mut self, death: Death, now: Moment, actions: &mut Vec<Action>) {
        self.enter_for(State::Handling(death), limits::HANDLER_NOTICE, now);
        actions.push(Action::RunHandler(death));
    }

    /// The handler wants the server back: at once, or after a delay if it dies too often.
    fn restart(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.attempts.reset();
        match self.restarts.delay() {
            Duration::ZERO => self.start(actions),
            delay => self.wait(Next::Start, delay, Note::RestartsIn(delay), now, actions),
        }
    }

    fn refuse(&mut self, death: Death, actions: &mut Vec<Action>) {
        self.finish(Outcome::Status(death.status()));
        actions.push(Action::Say(Note::RestartRefused));
    }

    fn try_again(&mut self, next: Next, now: Moment, actions: &mut Vec<Action>) {
        let delay = self.attempts.delay();
        self.wait(next, delay, Note::TriesAgainIn(delay), now, actions);
    }

    fn wait(
        &mut self,
        next: Next,
        delay: Duration,
        note: Note,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.enter_for(State::Waiting(next), delay, now);
        actions.push(Action::Say(note));
    }
}

/// Whether the server ended voluntarily: with exit status 0.
fn is_voluntary(death: &Death) -> bool {
    death.end == End::Exited(Exit::Status(0))
}

/// Whether a death is one that a request to stop brings about: where SIGTERM goes to manager and
/// server at once, the death may be seen first.
fn may_be_requested(death: &Death) -> bool {
    let stops = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
    matches!(death.end, End::Exited(Exit::Signal { number, .. }) if stops.contains(&number))
}

#[cfg(test)]
#[path = "machine_tests/mod.rs"]
mod tests;
