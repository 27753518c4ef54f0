//! Lives of a manager, told event by event.

use super::*;

/// A machine whose server runs.
fn running() -> Machine {
    let (mut machine, now) = (Machine::new(Moment::now()), Moment::now());
    step(&mut machine, Event::Ready, now);
    step(&mut machine, Event::Started, now);
    machine
}

/// Lets the server die after this life, the handler consent, and the server come back; how long
/// that was put off.
fn delay_after(machine: &mut Machine, uptime: Duration) -> Duration {
    let now = Moment::now();
    step(
        machine,
        Event::ServerEnded(Death {
            uptime,
            ..killed(9)
        }),
        now,
    );
    let actions = step(machine, Event::HandlerEnded(Verdict::Restart), now);
    let delay = machine
        .deadline()
        .map_or(Duration::ZERO, |deadline| deadline.since(now));
    if !delay.is_zero() {
        assert_eq!(actions, [Action::Say(Note::RestartsIn(delay))]);
        step(machine, Event::TimePassed, now + delay);
    }
    assert_eq!(machine.state, State::Starting);
    step(machine, Event::Started, now + delay);
    delay
}

fn delays_in_ms(machine: &mut Machine, count: usize) -> Vec<u128> {
    (0..count)
        .map(|_| delay_after(machine, SHORT).as_millis())
        .collect()
}

/// Lets a shortage be tried again this often; the delays.
fn retries_in_ms(machine: &mut Machine, count: usize) -> Vec<u128> {
    let now = Moment::now();
    let mut delays = Vec::new();
    for _ in 0..count {
        step(machine, Event::ResourcesLacked, now);
        let delay = machine.deadline().expect("another try").since(now);
        delays.push(delay.as_millis());
        step(machine, Event::TimePassed, now + delay);
    }
    delays
}

#[test]
fn the_first_start_waits_until_it_may_begin_and_is_confirmed() {
    let (mut machine, now) = (Machine::new(Moment::now()), Moment::now());
    assert_eq!(
        step(&mut machine, Event::Requested(Request::Restart), now),
        []
    );
    assert_eq!(step(&mut machine, Event::Ready, now), [Action::StartServer]);
    let confirmed = [Action::ConfirmStart, Action::SayStarted];
    assert_eq!(step(&mut machine, Event::Started, now), confirmed);
    // Logger has been started again, which is no reason to start a server.
    step(&mut machine, Event::ServerEnded(killed(9)), now);
    step(&mut machine, Event::HandlerEnded(Verdict::Restart), now);
    step(&mut machine, Event::ServerEnded(killed(9)), now);
    assert_eq!(step(&mut machine, Event::Ready, now), []);
}

#[test]
fn a_first_start_that_fails_is_the_end_and_runs_no_handler() {
    let failures = [Event::StartFailed(refused()), Event::ResourcesLacked];
    for (ready, failure) in [
        (true, failures[0]),
        (true, failures[1]),
        (false, Event::LoggerFailed),
    ] {
        let (mut machine, now) = (Machine::new(Moment::now()), Moment::now());
        if ready {
            step(&mut machine, Event::Ready, now);
        }
        assert_eq!(step(&mut machine, failure, now), []);
        assert_eq!(machine.outcome(), Some(Outcome::StartFailed));
    }
}

#[test]
fn a_stop_before_the_first_start_is_over_ends_with_0() {
    let now = Moment::now();
    for ready in [false, true] {
        let mut machine = Machine::new(now);
        if ready {
            step(&mut machine, Event::Ready, now);
        }
        step(&mut machine, Event::Requested(Request::Exit), now);
        step(&mut machine, Event::StartFailed(killed(15)), now);
        assert_eq!(machine.outcome(), Some(Outcome::Status(0)));
    }
}

#[test]
fn a_handlers_refusal_ends_with_the_status_of_the_death() {
    for (dead, status) in [(exited(3), 3), (killed(9), 137), (killed(64), 192)] {
        let mut machine = running();
        step(&mut machine, Event::ServerEnded(dead), Moment::now());
        step(
            &mut machine,
            Event::HandlerEnded(Verdict::Refuse),
            Moment::now(),
        );
        assert_eq!(machine.outcome(), Some(Outcome::Status(status)));
    }
}

#[test]
fn restarts_are_spaced_at_once_then_doubling_from_100_ms_to_30_s() {
    let expected = [
        0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000,
    ];
    assert_eq!(delays_in_ms(&mut running(), 12), expected);
}

#[test]
fn a_life_of_10_s_resets_the_spacing_and_a_shorter_one_does_not() {
    let mut machine = running();
    delays_in_ms(&mut machine, 3);
    let almost = delay_after(&mut machine, Duration::from_millis(9_999));
    assert_eq!(almost.as_millis(), 400);
    assert_eq!(
        delay_after(&mut machine, Duration::from_secs(10)).as_millis(),
        0
    );
    assert_eq!(delays_in_ms(&mut machine, 2), [100, 200]);
}

#[test]
fn a_request_resets_the_spacing() {
    let now = Moment::now();
    let mut machine = running();
    delays_in_ms(&mut machine, 4);
    step(&mut machine, Event::Requested(Request::Restart), now);
    step(&mut machine, Event::ServerEnded(killed(15)), now);
    step(&mut machine, Event::Started, now);
    assert_eq!(delays_in_ms(&mut machine, 2), [0, 100]);
}

#[test]
fn an_exec_that_fails_again_and_again_is_spaced_like_any_death() {
    let (mut machine, now) = (running(), Moment::now());
    delay_after(&mut machine, SHORT);
    step(&mut machine, Event::ServerEnded(killed(9)), now);
    let mut delays = Vec::new();
    for _ in 0..4 {
        step(&mut machine, Event::HandlerEnded(Verdict::Restart), now);
        delays.push(
            machine
                .deadline()
                .map_or(0, |deadline| deadline.since(now).as_millis()),
        );
        step(&mut machine, Event::TimePassed, now);
        step(&mut machine, Event::StartFailed(refused()), now);
    }
    assert_eq!(delays, [100, 200, 400, 800]);
}

#[test]
fn what_is_lacking_is_tried_again_from_100_ms_to_5_s_and_for_ever() {
    let retries = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
    for state in [State::Starting, State::Handling(killed(9))] {
        let mut machine = machine_in(state, Moment::now());
        assert_eq!(retries_in_ms(&mut machine, 8), retries);
        assert!(
            retries_in_ms(&mut machine, 1000)
                .iter()
                .all(|delay| *delay == 5000)
        );
        assert_eq!(machine.state, state);
    }
}

#[test]
fn a_shortage_that_is_over_is_forgotten_and_does_not_space_restarts() {
    let mut machine = machine_in(State::Starting, Moment::now());
    retries_in_ms(&mut machine, 5);
    step(&mut machine, Event::Started, Moment::now());
    assert_eq!(delays_in_ms(&mut machine, 2), [0, 100]);
    step(&mut machine, Event::ServerEnded(killed(9)), Moment::now());
    assert_eq!(retries_in_ms(&mut machine, 3), [100, 200, 400]);
}

#[test]
fn a_server_that_does_not_end_is_looked_at_every_2_s_and_mentioned_once_after_10_s() {
    let (mut machine, now) = (running(), Moment::now());
    step(&mut machine, Event::Requested(Request::Exit), now);
    for count in 1..10 {
        let due = now + Duration::from_secs(2 * count);
        assert_eq!(machine.deadline(), Some(due));
        let actions = step(&mut machine, Event::TimePassed, due);
        let said = actions.contains(&Action::SayServerStays);
        assert_eq!(
            (said, actions.last()),
            (count == 5, Some(&Action::CheckServer))
        );
    }
}

#[test]
fn a_sigterm_that_could_not_be_sent_is_sent_again_after_a_second() {
    let (mut machine, now) = (running(), Moment::now());
    step(&mut machine, Event::Requested(Request::Exit), now);
    let said = step(&mut machine, Event::StopNotSent, now);
    assert_eq!(said, [Action::SayFailure]);
    let due = now + Duration::from_secs(1);
    assert_eq!(machine.deadline(), Some(due));
    let again = [Action::CheckServer, Action::StopServer];
    assert_eq!(step(&mut machine, Event::TimePassed, due), again);
    // It is refused again, which has been said.
    assert_eq!(step(&mut machine, Event::StopNotSent, due), []);
}
