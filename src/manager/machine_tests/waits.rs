//! What is waited for and how long, whatever happens.

use proptest::prelude::*;

use super::rounds::{any_life, endless_life};
use super::world::{Process, World};
use super::*;

/// The delay of a restart after so many deaths in a row (1.5).
fn delay_after(deaths: u32) -> Duration {
    let ms = match deaths {
        0 => 0,
        _ => 100_u64.saturating_mul(1 << (deaths - 1).min(20)).min(30_000),
    };
    Duration::from_millis(ms)
}

proptest! {
    #[test]
    fn every_wait_has_an_end(rounds in any_life()) {
        for (now, sight, _) in World::after(&rounds).rests {
            let nothing_runs = (sight.server, sight.handler) == (Process::Absent, Process::Absent);
            match (sight.state, sight.deadline) {
                (State::Done(_), deadline) => prop_assert_eq!(deadline, None),
                (_, None) => prop_assert!(!nothing_runs, "{:#?}", sight),
                (_, Some(deadline)) => {
                    prop_assert!(deadline > now, "{:#?} at {:?}", sight, now);
                    prop_assert!(deadline <= now + Duration::from_secs(60), "{:#?}", sight);
                }
            }
        }
    }

    #[test]
    fn nothing_wakes_a_manager_whose_server_runs_or_is_being_started(rounds in any_life()) {
        for (_, sight, asked) in World::after(&rounds).rests {
            if sight.server != Process::Absent && asked.is_none() {
                prop_assert_eq!(sight.deadline, None, "{:#?}", sight);
            }
        }
    }

    #[test]
    fn what_lasts_is_mentioned_once_and_not_before_10_s(rounds in any_life()) {
        let mut since = None;
        for step in World::after(&rounds).steps {
            match step.action {
                Some(Action::StopServer) => {
                    since = since.filter(|_| step.asked.is_some()).or(Some(step.now));
                }
                Some(Action::RunHandler(_)) => since = Some(step.now),
                Some(Action::CheckServer(Patience::Notice) | Action::Say(Note::HandlerStays)) => {
                    let long = since.is_some_and(|at| step.now - at >= Duration::from_secs(10));
                    prop_assert!(long, "{:#?}", step);
                    since = None;
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_death_by_a_stop_signal_waits_100_ms_for_its_request_and_no_other_waits(
        rounds in any_life(),
    ) {
        let mut settling = None;
        for step in World::after(&rounds).steps {
            if let (Event::ServerEnded(death), None) = (step.event, step.asked) {
                settling = match death.cause {
                    Cause::Ended(Exit::Signal { number: 1 | 2 | 3 | 15, .. }) => {
                        Some(step.now + Duration::from_millis(100))
                    }
                    _ => None,
                };
                let asks = step.action == Some(Action::RunHandler(death));
                let over = step.after.state == State::Done(0);
                match settling {
                    Some(_) => prop_assert_eq!((step.action, step.after.deadline), (None, settling)),
                    None => prop_assert!(asks || over, "{:#?}", step),
                }
            }
            if step.asks_handler() {
                prop_assert!(settling.is_none_or(|until| step.now >= until), "{:#?}", step);
            }
        }
    }

    #[test]
    fn restarts_are_spaced_and_a_life_of_10_s_or_a_request_resets_that(
        rounds in endless_life(),
    ) {
        let mut deaths = 0;
        for step in World::after(&rounds).steps {
            match step.event {
                Event::Asked(_) => deaths = 0,
                Event::ServerEnded(death) if death.uptime >= Duration::from_secs(10) => deaths = 0,
                Event::HandlerEnded(Verdict::Restart) if step.asked.is_none() => {
                    let delay = delay_after(deaths);
                    if delay.is_zero() {
                        prop_assert!(step.starts(), "{:#?}", step);
                    } else {
                        let note = Action::Say(Note::RestartsIn(delay));
                        prop_assert_eq!(step.action, Some(note), "{:#?}", step);
                        prop_assert_eq!(step.after.deadline, Some(step.now + delay));
                    }
                    deaths += 1;
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_lacking_is_tried_again_after_100_ms_doubling_to_5_s_and_is_no_refusal(
        rounds in any_life(),
    ) {
        let second = Duration::from_secs(1);
        let (mut last, mut reset) = (None, true);
        for step in World::after(&rounds).steps {
            match step.event {
                // A request, and what it ends, may reset the delay or leave it as it is.
                Event::Asked(_) => reset = true,
                Event::Started | Event::HandlerEnded(_) if step.asked.is_none() => last = None,
                Event::ResourcesLacked if step.asked.is_none() => {
                    let first = Duration::from_millis(100);
                    let next = last.map_or(first, |last: Duration| (last * 2).min(5 * second));
                    let Some(Action::Say(Note::TriesAgainIn(delay))) = step.action else {
                        return Err(TestCaseError::fail(format!("{step:#?}")));
                    };
                    prop_assert!(delay == next || reset && delay == first, "{:#?}", step);
                    prop_assert_eq!(step.after.deadline, Some(step.now + delay));
                    (last, reset) = (Some(delay), false);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_was_lacking_is_ordered_again_when_its_time_has_come(rounds in any_life()) {
        let mut lacking = None;
        for step in World::after(&rounds).steps {
            match step.event {
                Event::ResourcesLacked if step.asked.is_none() => lacking = Some(step.before.state),
                Event::TimePassed if lacking.is_some() => {
                    let again = match lacking.take() {
                        Some(State::Handling(death)) => Action::RunHandler(death),
                        _ => Action::StartServer,
                    };
                    prop_assert_eq!(step.action, Some(again), "{:#?}", step);
                }
                _ => lacking = None,
            }
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_not_the_next_one_again(rounds in any_life()) {
        for step in World::after(&rounds).steps {
            if step.event == Event::TimePassed {
                let next = step.after.deadline;
                prop_assert!(next.is_none_or(|next| next > step.now), "{:#?}", step);
                let changed = step.action.is_some() || step.before.state != step.after.state;
                prop_assert!(changed, "{:#?}", step);
            }
        }
    }
}
