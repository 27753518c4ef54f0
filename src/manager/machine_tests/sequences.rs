//! What holds whatever happens. A sequence of random choices is turned into
//! events that can happen, and every step is checked.

use proptest::prelude::*;

use super::*;

/// A manager's surroundings: which processes there are.
struct World {
    machine: Machine,
    now: Moment,
    /// Whether there is a process that is, or is to become, the server.
    server: bool,
    is_executed: bool,
    handler: bool,
    /// The strongest request since the last start.
    requested: Option<Request>,
    /// The death that no handler has answered yet.
    dead: Option<Death>,
    /// What may end the manager has happened.
    may_end: bool,
}

impl World {
    fn new() -> World {
        let now = Moment::now();
        let mut world = World {
            machine: Machine::new(now),
            now,
            server: false,
            is_executed: false,
            handler: false,
            requested: None,
            dead: None,
            may_end: false,
        };
        world.feed(Event::Ready);
        world.feed(Event::Started);
        world
    }

    /// The events that can happen now.
    fn possible(&self) -> Vec<Event> {
        let mut events = vec![
            Event::Requested(Request::Restart),
            Event::Requested(Request::Exit),
            Event::SignalArrived(12),
            Event::LoggerFailed,
            Event::Ready,
        ];
        let deaths = [
            killed(9),
            killed(15),
            exited(1),
            Death {
                uptime: Duration::from_secs(10),
                ..killed(11)
            },
        ];
        match (self.server, self.is_executed) {
            (true, true) => {
                events.extend(deaths.map(Event::ServerEnded));
                events.push(Event::ServerEnded(exited(0)));
            }
            (true, false) => events.extend([
                Event::Started,
                Event::Started,
                Event::StartFailed(refused()),
                Event::StartFailed(killed(15)),
                Event::ResourcesLacked,
            ]),
            (false, _) => {}
        }
        if self.handler {
            events.extend([
                Event::HandlerEnded(Verdict::Restart),
                Event::HandlerEnded(Verdict::Restart),
                Event::HandlerEnded(Verdict::Refuse),
                Event::HandlerFailed,
                Event::HandlerTooLarge,
                Event::ResourcesLacked,
            ]);
        }
        if self.machine.deadline().is_some() {
            events.extend([Event::TimePassed, Event::TimePassed]);
        }
        if matches!(self.machine.state, State::Stopping(_)) {
            events.push(Event::StopNotSent);
        }
        events
    }

    /// Records what an event says of the processes and of what may follow.
    fn record(&mut self, event: Event) {
        match event {
            Event::Started => self.is_executed = true,
            Event::StartFailed(death) | Event::ServerEnded(death) => {
                (self.server, self.is_executed) = (false, false);
                self.dead = Some(death);
                self.may_end |= death.end == End::Exited(Exit::Status(0));
            }
            Event::ResourcesLacked if self.handler => self.handler = false,
            Event::ResourcesLacked => self.server = false,
            Event::HandlerEnded(verdict) => {
                self.handler = false;
                self.may_end |= verdict == Verdict::Refuse;
            }
            Event::HandlerFailed => {
                self.handler = false;
                self.may_end = true;
            }
            Event::Requested(then) => {
                self.may_end |= then == Request::Exit;
                if self.requested != Some(Request::Exit) {
                    self.requested = Some(then);
                }
            }
            Event::TimePassed => {
                self.now = self.now.max(self.machine.deadline().expect("a deadline"));
            }
            Event::HandlerTooLarge => self.handler = false,
            Event::Ready | Event::LoggerFailed | Event::SignalArrived(_) | Event::StopNotSent => {}
        }
    }

    /// Lets an event happen, and checks what the machine makes of it.
    fn feed(&mut self, event: Event) {
        let requested = self.requested;
        self.record(event);
        for action in step(&mut self.machine, event, self.now) {
            match action {
                Action::StartServer => {
                    assert!(!self.server && !self.handler, "a second process");
                    assert_ne!(self.requested, Some(Request::Exit), "a start after a stop");
                    (self.server, self.is_executed, self.requested) = (true, false, None);
                }
                Action::RunHandler(death) => {
                    assert!(!self.server && !self.handler, "a second process");
                    assert_eq!(self.requested, None, "a handler after a request");
                    assert_eq!(Some(death), self.dead, "another death");
                    self.handler = true;
                }
                Action::StopServer | Action::SignalServer(_) | Action::CheckServer => {
                    assert!(self.server, "a signal for no server");
                }
                Action::StopHandler | Action::KillHandler => {
                    assert!(self.handler, "a signal for no handler");
                }
                Action::Say(Note::RestartsIn(delay)) => {
                    assert!(delay <= Duration::from_secs(30), "{delay:?}");
                    assert_eq!(requested, None, "a delay after a request");
                }
                Action::Say(Note::TriesAgainIn(delay)) => {
                    assert!(delay <= Duration::from_secs(5), "{delay:?}");
                }
                Action::ConfirmStart
                | Action::SayStarted
                | Action::SayFailure
                | Action::SayLeftovers(_)
                | Action::SayServerStays
                | Action::Say(_) => {}
            }
        }
        self.check_rest(event);
    }

    /// Checks what the machine waits for after an event.
    fn check_rest(&self, event: Event) {
        let deadline = self.machine.deadline();
        if self.machine.outcome().is_some() {
            assert!(self.may_end, "an end without a reason");
            assert!(!self.server && !self.handler, "a process that is left");
            assert_eq!(deadline, None);
        } else if !self.server && !self.handler {
            assert!(deadline.is_some(), "nothing to wait for");
        } else if self.server && self.requested.is_none() {
            assert_eq!(deadline, None, "a wake-up at rest");
        }
        if event == Event::TimePassed {
            assert!(
                deadline.is_none_or(|next| next > self.now),
                "a deadline that has passed"
            );
        }
    }

    /// Ends whatever runs, without a further request.
    fn wind_up(&mut self) {
        for _ in 0..8 {
            let event = match (self.server, self.is_executed, self.handler) {
                (true, true, _) => Event::ServerEnded(killed(15)),
                (true, false, _) => Event::StartFailed(killed(15)),
                (false, _, true) => Event::HandlerEnded(Verdict::Refuse),
                (false, _, false) => return,
            };
            self.feed(event);
        }
    }
}

/// The world after events that the choices pick from the possible ones.
fn after(choices: &[u8]) -> World {
    let mut world = World::new();
    for choice in choices {
        if world.machine.outcome().is_some() {
            break;
        }
        let possible = world.possible();
        world.feed(possible[usize::from(*choice) % possible.len()]);
    }
    world
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..60)
}

proptest! {
    /// The checks of every step: never two processes, no signal to a process that is gone, requests
    /// win, delays have an end, nothing wakes a manager at rest, and no end without a reason.
    #[test]
    fn every_sequence_of_events_keeps_the_rules(choices in choices()) {
        after(&choices);
    }

    #[test]
    fn from_wherever_it_is_a_stop_ends_with_0_once_what_runs_has_ended(choices in choices()) {
        let mut world = after(&choices);
        if world.machine.outcome().is_none() {
            world.feed(Event::Requested(Request::Exit));
            world.wind_up();
            prop_assert_eq!(world.machine.outcome(), Some(Outcome::Status(0)));
        }
    }

    #[test]
    fn from_wherever_it_is_a_restart_starts_the_server_once_what_runs_has_ended(
        choices in choices(),
    ) {
        let mut world = after(&choices);
        if world.machine.outcome().is_none() && world.requested != Some(Request::Exit) {
            world.feed(Event::Requested(Request::Restart));
            if world.requested.is_some() {
                let event = match (world.is_executed, world.handler) {
                    (true, _) => Event::ServerEnded(killed(15)),
                    (false, true) => Event::HandlerEnded(Verdict::Refuse),
                    (false, false) => Event::StartFailed(killed(15)),
                };
                world.feed(event);
            }
            prop_assert_eq!(world.machine.state, State::Starting);
        }
    }

    #[test]
    fn a_machine_restored_from_its_snapshot_goes_on_alike(choices in choices(), more in choices()) {
        let mut world = after(&choices);
        let text = world.machine.snapshot().to_string();
        let snapshot = text.parse().expect("a snapshot");
        let mut other = Machine::restore(&snapshot, world.now);
        for choice in more {
            if world.machine.outcome().is_some() {
                break;
            }
            let possible = world.possible();
            let event = possible[usize::from(choice) % possible.len()];
            world.record(event);
            let actions = step(&mut world.machine, event, world.now);
            prop_assert_eq!(step(&mut other, event, world.now), actions);
            prop_assert_eq!(other.snapshot(), world.machine.snapshot());
        }
    }

    #[test]
    fn the_end_is_final(choices in choices()) {
        let mut world = after(&choices);
        if world.machine.outcome().is_none() {
            world.feed(Event::Requested(Request::Exit));
            world.wind_up();
        }
        let outcome = world.machine.outcome();
        for event in world.possible() {
            prop_assert_eq!(step(&mut world.machine, event, world.now), vec![]);
            prop_assert_eq!((world.machine.outcome(), world.machine.deadline()), (outcome, None));
        }
    }
}
