//! What a request leads to, wherever it is made.

use proptest::prelude::*;

use super::rounds::{Round, any_life};
use super::world::{Process, Step, World};
use super::*;

/// What becomes of what runs after a request.
fn aftermath() -> impl Strategy<Value = Vec<Round>> {
    any_life().prop_filter("something happens", |rounds| !rounds.is_empty())
}

/// Whether a request lets a process that runs be told to end, or changes nothing.
fn is_told_to_end(step: &Step) -> bool {
    match (step.before.server, step.before.handler) {
        (Process::Absent, Process::Absent) => false,
        (_, Process::Absent) => step.action == Some(Action::StopServer),
        _ => step.action == Some(Action::StopHandler),
    }
}

proptest! {
    #[test]
    fn from_wherever_it_is_a_stop_ends_with_0_once_what_runs_has_ended(
        rounds in any_life(),
        rest in aftermath(),
    ) {
        let mut world = World::after(&rounds);
        if !world.is_over() {
            world.ask(Then::Exit);
            world.wind_up(&rest);
            prop_assert_eq!(world.machine.state(), State::Done(0), "{:#?}", world.steps);
        }
    }

    #[test]
    fn from_wherever_it_is_a_restart_leads_to_a_start_once_what_runs_has_ended(
        rounds in any_life(),
        rest in aftermath(),
    ) {
        let mut world = World::after(&rounds);
        if !world.is_over() && world.asked != Some(Then::Exit) {
            let before = world.steps.len();
            world.ask(Then::Restart);
            world.wind_up(&rest);
            let first = world.steps[before..].iter().find(|step| {
                step.starts() || step.asks_handler() || matches!(step.after.state, State::Done(_))
            });
            prop_assert!(first.is_some_and(Step::starts), "{:#?}", world.steps);
        }
    }

    #[test]
    fn a_request_to_exit_is_never_turned_into_a_restart(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            if step.asked == Some(Then::Exit) || step.event == Event::Asked(Then::Exit) {
                prop_assert!(!step.starts(), "{:#?}", step);
            }
        }
    }

    #[test]
    fn a_handler_is_never_run_once_a_request_has_been_made(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            if step.asked.is_some() || matches!(step.event, Event::Asked(_)) {
                prop_assert!(!step.asks_handler(), "{:#?}", step);
            }
        }
    }

    #[test]
    fn a_request_tells_what_runs_to_end_and_is_fulfilled_at_once_where_nothing_runs(
        rounds in any_life(),
    ) {
        for step in World::after(&rounds).steps {
            let Event::Asked(then) = step.event else { continue };
            if step.asked.is_some() || matches!(step.before.state, State::Done(_)) {
                continue;
            }
            let nothing_runs = (step.before.server, step.before.handler)
                == (Process::Absent, Process::Absent);
            let as_wanted = match then {
                _ if !nothing_runs => is_told_to_end(&step),
                Then::Restart => step.starts(),
                Then::Exit => step.after.state == State::Done(0),
            };
            prop_assert!(as_wanted, "{:#?}", step);
        }
    }

    #[test]
    fn whatever_ends_after_a_request_fulfils_it_at_once(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            let ended = match step.event {
                Event::ServerEnded(_) | Event::HandlerEnded(_) | Event::ResourcesLacked => true,
                Event::Started | Event::Asked(_) | Event::TimePassed => false,
            };
            match step.asked.filter(|_| ended) {
                Some(Then::Restart) => prop_assert!(step.starts(), "{:#?}", step),
                Some(Then::Exit) => prop_assert_eq!(step.after.state, State::Done(0)),
                None => {}
            }
        }
    }

    #[test]
    fn requests_to_restart_after_any_request_are_one_with_it(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            if step.asked.is_some() && step.event == Event::Asked(Then::Restart) {
                let (before, after) = (step.before, step.after);
                let (before, after) =
                    ((before.state, before.deadline), (after.state, after.deadline));
                prop_assert_eq!(after, before, "{:#?}", step);
            }
        }
    }

    #[test]
    fn a_request_to_exit_turns_a_restart_into_an_exit(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            if step.asked == Some(Then::Restart) && step.event == Event::Asked(Then::Exit) {
                prop_assert_eq!(step.before.deadline, step.after.deadline, "{:#?}", step);
            }
        }
    }
}
