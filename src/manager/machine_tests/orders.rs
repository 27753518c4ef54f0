//! What is ordered and what is not, whatever happens: servers, handlers,
//! signals, and the end.

use proptest::prelude::*;

use super::rounds::{any_life, endless_life};
use super::world::{Process, Step, World};
use super::*;

/// The exit status that stands for a death (1.2).
fn status_of(death: &Death) -> u8 {
    match death.cause {
        Cause::Ended(Exit::Status(status)) => status,
        Cause::Ended(Exit::Signal { number, .. }) => 128 + u8::try_from(number).expect("a signal"),
        Cause::NotStarted(_) => 127,
    }
}

fn is_content(death: &Death) -> bool {
    death.cause == Cause::Ended(Exit::Status(0))
}

/// Whether this step ended the manager; with which status.
fn ended_with(step: &Step) -> Option<u8> {
    match (step.before.state, step.after.state) {
        (State::Done(_), _) => None,
        (_, State::Done(status)) => Some(status),
        _ => None,
    }
}

proptest! {
    #[test]
    fn there_is_never_more_than_one_server(rounds in any_life()) {
        for step in World::after(&rounds).steps.iter().filter(|step| step.starts()) {
            prop_assert_eq!(step.before.server, Process::Absent, "{:#?}", step);
        }
    }

    #[test]
    fn a_server_and_a_handler_never_run_side_by_side(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            if step.starts() || step.asks_handler() {
                prop_assert_eq!(step.before.server, Process::Absent, "{:#?}", step);
                prop_assert_eq!(step.before.handler, Process::Absent, "{:#?}", step);
            }
        }
    }

    #[test]
    fn no_signal_goes_to_a_server_or_handler_that_is_known_to_be_gone(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            match step.action {
                Some(Action::StopServer) => prop_assert_ne!(step.before.server, Process::Absent),
                Some(Action::StopHandler | Action::KillHandler) => {
                    prop_assert_ne!(step.before.handler, Process::Absent);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_server_is_asked_to_end_by_each_request_and_by_nothing_else(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            let is_request = matches!(step.event, Event::Asked(_));
            let runs = step.before.server != Process::Absent;
            let is_asked = step.action == Some(Action::StopServer);
            prop_assert_eq!(is_asked, is_request && runs, "{:#?}", step);
        }
    }

    #[test]
    fn a_handler_is_asked_to_end_on_request_and_killed_5_s_after_that(rounds in any_life()) {
        let mut last = None;
        for step in World::after(&rounds).steps {
            match step.action {
                Some(Action::RunHandler(_)) => last = None,
                Some(Action::StopHandler) => {
                    prop_assert!(last.is_none(), "{:#?}", step);
                    prop_assert!(matches!(step.event, Event::Asked(_)), "{:#?}", step);
                    last = Some(step.now);
                }
                Some(Action::KillHandler) => {
                    let grace = Duration::from_secs(5);
                    prop_assert!(last.is_some_and(|at| step.now - at >= grace), "{:#?}", step);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_handler_is_asked_once_about_each_death_and_about_no_other(rounds in any_life()) {
        let (mut untold, mut told) = (None, None);
        for step in World::after(&rounds).steps {
            match step.event {
                Event::ServerEnded(death) => untold = Some(death),
                // There was no handler that could have been told.
                Event::ResourcesLacked if matches!(step.before.state, State::Handling(_)) => {
                    untold = told;
                }
                _ => {}
            }
            if let Some(Action::RunHandler(death)) = step.action {
                prop_assert_eq!(Some(death), untold, "{:#?}", step);
                told = untold.take();
            }
        }
    }

    #[test]
    fn a_server_that_is_content_ends_the_manager_with_0_and_without_a_handler(
        rounds in any_life(),
    ) {
        for step in World::after(&rounds).steps {
            if let Some(Action::RunHandler(death)) = step.action {
                prop_assert!(!is_content(&death), "{:#?}", step);
            }
            match step.event {
                Event::ServerEnded(death) if is_content(&death) && step.asked.is_none() => {
                    prop_assert_eq!((ended_with(&step), step.action), (Some(0), None));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_handlers_0_brings_the_server_back_and_anything_else_ends_with_the_deaths_status(
        rounds in any_life(),
    ) {
        let mut dead = None;
        for step in World::after(&rounds).steps {
            match step.event {
                Event::ServerEnded(death) => dead = Some(death),
                Event::HandlerEnded(Verdict::Restart) if step.asked.is_none() => {
                    let waits = step.after.state == State::Waiting(Next::Start);
                    prop_assert!(step.starts() || waits, "{:#?}", step);
                }
                Event::HandlerEnded(Verdict::Refuse) if step.asked.is_none() => {
                    prop_assert_eq!(ended_with(&step), dead.as_ref().map(status_of));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_manager_ends_by_a_content_server_a_refusal_or_a_request_and_in_no_other_way(
        rounds in any_life(),
    ) {
        for step in World::after(&rounds).steps {
            if ended_with(&step).is_none() {
                continue;
            }
            prop_assert_eq!(step.after.server, Process::Absent, "{:#?}", step);
            prop_assert_eq!(step.after.handler, Process::Absent, "{:#?}", step);
            let due = match step.event {
                Event::ServerEnded(death) => step.asked.is_some() || is_content(&death),
                Event::HandlerEnded(verdict) => step.asked.is_some() || verdict == Verdict::Refuse,
                Event::Asked(then) => then == Then::Exit,
                Event::ResourcesLacked => step.asked == Some(Then::Exit),
                Event::Started | Event::TimePassed => false,
            };
            prop_assert!(due, "{:#?}", step);
        }
    }

    #[test]
    fn the_end_is_final(rounds in any_life(), status: u8) {
        let mut world = World::after(&rounds);
        if !world.is_over() {
            world.machine.enter(State::Done(status));
        }
        let end = world.machine.state();
        let deaths = [exited(0), exited(1), killed(15), killed(9), not_started()];
        let answers = [Verdict::Restart, Verdict::Refuse].map(Event::HandlerEnded);
        let requests = [Then::Restart, Then::Exit].map(Event::Asked);
        let others = [Event::Started, Event::ResourcesLacked, Event::TimePassed];
        let events = deaths.map(Event::ServerEnded).into_iter();
        for event in events.chain(answers).chain(requests).chain(others) {
            prop_assert_eq!(world.machine.step(event, world.now), None);
            prop_assert_eq!((world.machine.state(), world.machine.deadline()), (end, None));
        }
    }

    #[test]
    fn without_a_request_a_refusal_or_a_content_server_a_manager_never_ends(
        rounds in endless_life(),
    ) {
        prop_assert!(!World::after(&rounds).is_over());
    }
}
