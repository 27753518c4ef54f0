//! The transition table cell by cell, its times, and what holds whatever happens.

use nix::errno::Errno;
use nix::unistd::Pid;
use proptest::prelude::*;

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

/// A cell of the table.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// Nothing happens, and the deadline stays.
    Same,
    /// Another state with the same deadline.
    Keep(State),
    /// A state without a deadline.
    To(State, Option<Action>),
    /// A state with a deadline so many milliseconds from now.
    For(State, u64, Option<Action>),
}

/// The events in the order of the table's columns: a start that succeeded; one that lacked
/// something; deaths of the server by a crash, by a signal that stops servers, by a voluntary exit,
/// by an exec that failed; the handler's answers; requests; the deadline.
fn columns() -> [Event; 11] {
    [
        Event::Started,
        Event::ResourcesLacked,
        Event::ServerEnded(killed(11)),
        Event::ServerEnded(killed(15)),
        Event::ServerEnded(exited(0)),
        Event::ServerEnded(not_started()),
        Event::HandlerEnded(Verdict::Restart),
        Event::HandlerEnded(Verdict::Refuse),
        Event::Asked(Then::Restart),
        Event::Asked(Then::Exit),
        Event::TimePassed,
    ]
}

fn table() -> [(State, [Cell; 11]); 10] {
    use Cell::{For, Keep, Same, To};
    use State::{Done, Handling, Interrupting, Running, Starting, Stopping, Waiting};
    let (exit, restart) = (Then::Exit, Then::Restart);
    let (crash, termed, unborn) = (killed(11), killed(15), not_started());
    // Death 9 is the one that the handler is being asked about.
    let old = killed(9);
    let start = To(Starting, Some(Action::StartServer));
    let ask = |death| For(Handling(death), 60_000, Some(Action::RunHandler(death)));
    let settle = |death| For(Waiting(Next::Ask(death)), 100, None);
    let stop = |then| For(Stopping(then), 10_000, Some(Action::StopServer));
    let interrupt = |then| {
        let end = Action::SignalHandler(libc::SIGTERM);
        For(Interrupting(then), 5_000, Some(end))
    };
    let again = |next| {
        let note = Note::TriesAgainIn(Duration::from_millis(100));
        For(Waiting(next), 100, Some(Action::Say(note)))
    };
    let done = To(Done(0), None);
    [
        (
            Starting,
            [
                To(Running, None),
                again(Next::Start),
                ask(crash),
                settle(termed),
                done,
                ask(unborn),
                Same,
                Same,
                stop(restart),
                stop(exit),
                Same,
            ],
        ),
        (
            Running,
            [
                Same,
                Same,
                ask(crash),
                settle(termed),
                done,
                ask(unborn),
                Same,
                Same,
                stop(restart),
                stop(exit),
                Same,
            ],
        ),
        (
            Stopping(restart),
            [
                Same,
                start,
                start,
                start,
                start,
                start,
                Same,
                Same,
                Same,
                Keep(Stopping(exit)),
                To(Stopping(restart), Some(Action::Say(Note::ServerStays))),
            ],
        ),
        (
            Stopping(exit),
            [
                Same,
                done,
                done,
                done,
                done,
                done,
                Same,
                Same,
                Same,
                Same,
                To(Stopping(exit), Some(Action::Say(Note::ServerStays))),
            ],
        ),
        (
            Handling(old),
            [
                Same,
                again(Next::Ask(old)),
                Same,
                Same,
                Same,
                Same,
                start,
                To(Done(128 + 9), Some(Action::Say(Note::Refused))),
                interrupt(restart),
                interrupt(exit),
                To(Handling(old), Some(Action::Say(Note::HandlerStays))),
            ],
        ),
        (
            Interrupting(restart),
            [
                Same,
                start,
                Same,
                Same,
                Same,
                Same,
                start,
                start,
                Same,
                Keep(Interrupting(exit)),
                To(Interrupting(restart), Some(Action::SignalHandler(libc::SIGKILL))),
            ],
        ),
        (
            Interrupting(exit),
            [
                Same,
                done,
                Same,
                Same,
                Same,
                Same,
                done,
                done,
                Same,
                Same,
                To(Interrupting(exit), Some(Action::SignalHandler(libc::SIGKILL))),
            ],
        ),
        (
            Waiting(Next::Start),
            [Same, Same, Same, Same, Same, Same, Same, Same, start, done, start],
        ),
        (
            Waiting(Next::Ask(old)),
            [Same, Same, Same, Same, Same, Same, Same, Same, start, done, ask(old)],
        ),
        (Done(3), [Same; 11]),
    ]
}

#[test]
fn every_cell_of_the_table_is_as_decided() {
    let now = Instant::now();
    let before = now + Duration::from_secs(7);
    for (state, row) in table() {
        for (event, cell) in columns().into_iter().zip(row) {
            let mut machine = machine_in(state, before);
            let old_deadline = machine.deadline();
            let action = machine.step(event, now);
            let expected = match cell {
                Cell::Same => (state, old_deadline, None),
                Cell::Keep(state) => (state, old_deadline, None),
                Cell::To(state, action) => (state, None, action),
                Cell::For(state, ms, action) => {
                    (state, Some(now + Duration::from_millis(ms)), action)
                }
            };
            let seen = (machine.state(), machine.deadline(), action);
            assert_eq!(seen, expected, "{event:?} in {state:?}");
        }
    }
}

#[test]
fn a_manager_begins_with_a_server_on_its_way_and_waits_for_nothing_else() {
    let machine = Machine::default();
    assert_eq!((machine.state(), machine.deadline()), (State::Starting, None));
}

#[test]
fn only_an_exit_with_status_0_is_voluntary() {
    for status in 0..=u8::MAX {
        let mut machine = Machine::default();
        machine.step(Event::ServerEnded(exited(status)), Instant::now());
        let voluntary = machine.state() == State::Done(0);
        assert_eq!(voluntary, status == 0, "status {status}");
    }
}

#[test]
fn only_deaths_by_term_int_hup_and_quit_wait_for_a_request() {
    let stops = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
    for signal in 1..=64 {
        let mut machine = Machine::default();
        let action = machine.step(Event::ServerEnded(killed(signal)), Instant::now());
        assert_eq!(action.is_none(), stops.contains(&signal), "signal {signal}");
    }
}

#[test]
fn a_refusal_ends_with_the_status_that_stands_for_the_death() {
    let ends = [(exited(5), 5), (killed(64), 192), (killed(15), 143), (not_started(), 127)];
    for (death, status) in ends {
        let mut machine = machine_in(State::Handling(death), Instant::now());
        machine.step(Event::HandlerEnded(Verdict::Refuse), Instant::now());
        assert_eq!(machine.state(), State::Done(status));
    }
}

#[test]
fn what_is_noticed_is_noticed_once() {
    for state in [State::Stopping(Then::Exit), State::Handling(killed(9))] {
        let mut machine = machine_in(state, Instant::now());
        machine.step(Event::TimePassed, Instant::now());
        assert_eq!((machine.state(), machine.deadline()), (state, None));
    }
}

#[test]
fn a_further_request_does_not_put_off_what_was_to_happen_to_the_first() {
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(3));
    for state in [State::Running, State::Handling(killed(9))] {
        let mut machine = machine_in(state, now);
        machine.step(Event::Asked(Then::Restart), now);
        let deadline = machine.deadline();
        machine.step(Event::Asked(Then::Exit), later);
        machine.step(Event::Asked(Then::Restart), later);
        assert_eq!(machine.deadline(), deadline);
    }
}

/// Lets the server die after this life, the handler consent, and the server come back; how long
/// that was put off.
fn delay_after(machine: &mut Machine, uptime: Duration) -> Duration {
    let now = Instant::now();
    machine.step(Event::ServerEnded(Death { uptime, ..killed(9) }), now);
    let action = machine.step(Event::HandlerEnded(Verdict::Restart), now);
    let delay = machine.deadline().map_or(Duration::ZERO, |deadline| deadline - now);
    if !delay.is_zero() {
        assert_eq!(action, Some(Action::Say(Note::RestartsIn(delay))));
        machine.step(Event::TimePassed, now + delay);
    }
    assert_eq!(machine.state(), State::Starting);
    machine.step(Event::Started, now + delay);
    delay
}

fn delays_in_ms(machine: &mut Machine, count: usize) -> Vec<u128> {
    (0..count).map(|_| delay_after(machine, SHORT).as_millis()).collect()
}

#[test]
fn restarts_are_spaced_at_once_then_doubling_from_100_ms_to_30_s() {
    let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000];
    assert_eq!(delays_in_ms(&mut Machine::default(), 12), expected);
}

#[test]
fn a_life_of_10_s_resets_the_spacing_and_a_shorter_one_does_not() {
    let mut machine = Machine::default();
    delays_in_ms(&mut machine, 3);
    let almost = delay_after(&mut machine, Duration::from_millis(9_999));
    assert_eq!(almost.as_millis(), 400);
    assert_eq!(delay_after(&mut machine, Duration::from_secs(10)).as_millis(), 0);
    assert_eq!(delays_in_ms(&mut machine, 2), [100, 200]);
}

#[test]
fn a_request_resets_the_spacing_wherever_it_is_made() {
    let now = Instant::now();
    let deaths = [killed(9), killed(15)];
    for made_in in ["running", "delay", "handler", "settling"] {
        let mut machine = Machine::default();
        delays_in_ms(&mut machine, 4);
        match made_in {
            "running" => {}
            "settling" => drop(machine.step(Event::ServerEnded(deaths[1]), now)),
            _ => drop(machine.step(Event::ServerEnded(deaths[0]), now)),
        }
        if made_in == "delay" {
            machine.step(Event::HandlerEnded(Verdict::Restart), now);
        }
        machine.step(Event::Asked(Then::Restart), now);
        match made_in {
            "running" => drop(machine.step(Event::ServerEnded(deaths[1]), now)),
            "handler" => drop(machine.step(Event::HandlerEnded(Verdict::Refuse), now)),
            _ => {}
        }
        assert_eq!(machine.state(), State::Starting, "{made_in}");
        machine.step(Event::Started, now);
        assert_eq!(delays_in_ms(&mut machine, 2), [0, 100], "{made_in}");
    }
}

#[test]
fn an_exec_that_fails_again_and_again_is_spaced_like_any_death() {
    let (mut machine, now) = (Machine::default(), Instant::now());
    delay_after(&mut machine, SHORT);
    machine.step(Event::ServerEnded(killed(9)), now);
    let mut delays = Vec::new();
    for _ in 0..4 {
        machine.step(Event::HandlerEnded(Verdict::Restart), now);
        delays.push(machine.deadline().map_or(0, |deadline| (deadline - now).as_millis()));
        machine.step(Event::TimePassed, now);
        machine.step(Event::ServerEnded(not_started()), now);
    }
    assert_eq!(delays, [100, 200, 400, 800]);
}

/// What is lacking is tried again this often; the delays.
fn retries_in_ms(machine: &mut Machine, count: usize) -> Vec<u128> {
    let now = Instant::now();
    let mut delays = Vec::new();
    for _ in 0..count {
        let action = machine.step(Event::ResourcesLacked, now);
        let delay = machine.deadline().expect("another try") - now;
        assert_eq!(action, Some(Action::Say(Note::TriesAgainIn(delay))));
        delays.push(delay.as_millis());
        machine.step(Event::TimePassed, now + delay);
    }
    delays
}

const RETRIES: [u128; 8] = [100, 200, 400, 800, 1600, 3200, 5000, 5000];

#[test]
fn a_start_that_lacks_something_is_tried_again_from_100_ms_to_5_s_and_for_ever() {
    let mut machine = machine_in(State::Starting, Instant::now());
    assert_eq!(retries_in_ms(&mut machine, 8), RETRIES);
    assert!(retries_in_ms(&mut machine, 1000).iter().all(|delay| *delay == 5000));
    assert_eq!(machine.state(), State::Starting);
}

#[test]
fn a_handler_that_lacks_something_is_tried_again_about_the_same_death() {
    let dead = killed(9);
    let mut machine = machine_in(State::Handling(dead), Instant::now());
    assert_eq!(retries_in_ms(&mut machine, 8), RETRIES);
    assert_eq!(machine.state(), State::Handling(dead));
}

#[test]
fn a_shortage_that_is_over_is_forgotten_and_does_not_space_restarts() {
    let mut machine = machine_in(State::Starting, Instant::now());
    retries_in_ms(&mut machine, 5);
    machine.step(Event::Started, Instant::now());
    assert_eq!(delays_in_ms(&mut machine, 2), [0, 100]);
    machine.step(Event::ServerEnded(killed(9)), Instant::now());
    assert_eq!(retries_in_ms(&mut machine, 3), [100, 200, 400]);
    machine.step(Event::HandlerEnded(Verdict::Restart), Instant::now());
    machine.step(Event::TimePassed, Instant::now());
    assert_eq!(machine.state(), State::Starting);
    assert_eq!(retries_in_ms(&mut machine, 2), [100, 200]);
}

/// The processes that a machine's actions bring about, and what was asked of it.
#[derive(Debug)]
struct World {
    machine: Machine,
    now: Instant,
    /// A start has been ordered, and its outcome is not known yet.
    starting: bool,
    server: bool,
    handler: bool,
    /// A handler has been ordered that the system could not start: that is told next.
    stillborn: Option<Event>,
    /// A request has been made, and no start was ordered since.
    asked: bool,
    /// The manager is to end.
    asked_to_exit: bool,
}

impl World {
    fn new() -> World {
        World {
            machine: Machine::default(),
            now: Instant::now(),
            starting: true,
            server: false,
            handler: false,
            stillborn: None,
            asked: false,
            asked_to_exit: false,
        }
    }

    /// What may happen next. Nothing comes between an order for a handler and the news that there
    /// is none.
    fn possible(&self) -> Vec<Event> {
        if let Some(event) = self.stillborn {
            return vec![event];
        }
        let mut events = vec![Event::Asked(Then::Restart), Event::Asked(Then::Exit)];
        if self.starting {
            let outcomes =
                [Event::Started, Event::ResourcesLacked, Event::ServerEnded(not_started())];
            // Twice, so that there are not mostly requests.
            events.extend(outcomes.into_iter().chain(outcomes));
        }
        if self.server {
            let long = Death { uptime: STABLE_LIFE, ..killed(6) };
            let deaths = [exited(0), exited(1), killed(9), killed(15), long];
            events.extend(deaths.map(Event::ServerEnded));
        }
        if self.handler {
            events.extend([Verdict::Restart, Verdict::Refuse].map(Event::HandlerEnded));
            events.push(Event::ResourcesLacked);
        }
        if self.machine.deadline().is_some() {
            events.extend([Event::TimePassed; 3]);
        }
        events
    }

    fn happen(&mut self, event: Event, luck: u8) {
        let over = matches!(self.machine.state(), State::Done(_));
        match event {
            Event::Started => (self.starting, self.server) = (false, true),
            Event::ServerEnded(_) => (self.starting, self.server) = (false, false),
            Event::ResourcesLacked => (self.starting, self.handler) = (false, false),
            Event::HandlerEnded(_) => self.handler = false,
            Event::Asked(then) => {
                self.asked = true;
                self.asked_to_exit |= then == Then::Exit;
            }
            Event::TimePassed => self.now = self.machine.deadline().expect("a deadline"),
        }
        self.stillborn = None;
        let state = self.machine.state();
        let action = self.machine.step(event, self.now);
        if over {
            assert_eq!((self.machine.state(), action), (state, None), "something after the end");
        }
        if let Some(action) = action {
            self.perform(action, luck);
        }
        self.now += Duration::from_millis(luck.into());
    }

    fn perform(&mut self, action: Action, luck: u8) {
        let alone = !self.starting && !self.server && !self.handler;
        match action {
            Action::StartServer => {
                assert!(alone, "a server beside something that runs");
                assert!(!self.asked_to_exit, "a server after a request to exit");
                (self.starting, self.asked) = (true, false);
            }
            Action::RunHandler(_) => {
                assert!(alone, "a handler beside something that runs");
                assert!(!self.asked, "a handler after a request");
                match luck % 8 {
                    0 => self.stillborn = Some(Event::ResourcesLacked),
                    1 => self.stillborn = Some(Event::HandlerEnded(Verdict::Refuse)),
                    _ => self.handler = true,
                }
            }
            Action::StopServer => {
                assert!(self.starting || self.server, "a signal to a server that is gone");
            }
            Action::SignalHandler(_) => assert!(self.handler, "a signal to a handler that is gone"),
            Action::Say(_) => {}
        }
    }

    fn check(&self) {
        let runs = self.starting || self.server || self.handler || self.stillborn.is_some();
        let over = matches!(self.machine.state(), State::Done(_));
        if over {
            assert!(!runs, "the end while something runs");
            assert_eq!(self.machine.deadline(), None);
        } else {
            assert!(runs || self.machine.deadline().is_some(), "nothing will ever happen");
        }
        if self.asked_to_exit {
            assert_eq!(over, !runs, "the end comes once what runs has ended, and not before");
        }
    }

    /// Lets what runs come to its end, whatever it was told, until the request is fulfilled.
    fn wind_up(&mut self) {
        while self.asked {
            let event = if self.starting {
                Event::Started
            } else if self.server {
                Event::ServerEnded(killed(15))
            } else if self.handler {
                Event::HandlerEnded(Verdict::Refuse)
            } else {
                return;
            };
            self.happen(event, 2);
            self.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_one_thing_runs_at_a_time_and_requests_are_obeyed(
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 0..200),
        exit_odds in 1..40_usize,
    ) {
        let mut world = World::new();
        for (choice, luck) in choices {
            let possible = world.possible();
            let mut event = possible[usize::from(choice) % possible.len()];
            // Requests to exit are rarer than others, or most sequences would be short.
            if event == Event::Asked(Then::Exit) && usize::from(luck) % exit_odds != 0 {
                event = Event::Asked(Then::Restart);
            }
            world.happen(event, luck);
            world.check();
        }
    }

    #[test]
    fn from_wherever_it_is_a_stop_request_leads_to_the_end_with_0(
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 0..60),
    ) {
        let mut world = World::new();
        for (choice, luck) in choices {
            let mut possible = world.possible();
            possible.retain(|event| *event != Event::Asked(Then::Exit));
            world.happen(possible[usize::from(choice) % possible.len()], luck);
        }
        if let Some(event) = world.stillborn {
            world.happen(event, 2);
        }
        let over = matches!(world.machine.state(), State::Done(_));
        world.happen(Event::Asked(Then::Exit), 2);
        world.check();
        world.wind_up();
        prop_assert!(matches!(world.machine.state(), State::Done(_)));
        prop_assert!(over || world.machine.state() == State::Done(0));
    }

    #[test]
    fn from_wherever_it_is_a_restart_request_leads_to_a_start_without_a_handler(
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 0..60),
    ) {
        let mut world = World::new();
        for (choice, luck) in choices {
            let mut possible = world.possible();
            possible.retain(|event| *event != Event::Asked(Then::Exit));
            world.happen(possible[usize::from(choice) % possible.len()], luck);
        }
        if let Some(event) = world.stillborn {
            world.happen(event, 2);
        }
        if !matches!(world.machine.state(), State::Done(_)) {
            world.happen(Event::Asked(Then::Restart), 2);
            world.wind_up();
            prop_assert!(world.starting, "{:?}", world.machine.state());
        }
    }
}
