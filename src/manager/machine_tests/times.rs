//! How long is waited: figure by figure.

use super::*;

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
