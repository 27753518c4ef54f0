//! What counts as what, case by case.

use super::*;

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
fn a_handler_that_does_not_end_is_mentioned_once() {
    let state = State::Handling(killed(9));
    let mut machine = machine_in(state, Instant::now());
    machine.step(Event::TimePassed, Instant::now());
    assert_eq!((machine.state(), machine.deadline()), (state, None));
}

#[test]
fn a_server_that_does_not_end_is_looked_at_every_2_s_and_mentioned_after_10_s() {
    let now = Instant::now();
    let mut machine = machine_in(State::Running, now);
    machine.step(Event::Asked(Then::Exit), now);
    for count in 1..10 {
        let due = now + Duration::from_secs(2 * count);
        assert_eq!(machine.deadline(), Some(due));
        let patience = if count == 5 { Patience::Notice } else { Patience::Quiet };
        let action = machine.step(Event::TimePassed, due);
        assert_eq!(action, Some(Action::CheckServer(patience)));
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
