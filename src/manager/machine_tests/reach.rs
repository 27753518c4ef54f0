//! The simulated world is worth something only if everything that can happen
//! happens in it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::rounds::any_life;
use super::world::World;
use super::*;

fn row(state: State) -> &'static str {
    match state {
        State::Starting => "Starting",
        State::Running => "Running",
        State::Stopping(Then::Restart) => "Stopping(Restart)",
        State::Stopping(Then::Exit) => "Stopping(Exit)",
        State::Handling(_) => "Handling",
        State::Interrupting(Then::Restart) => "Interrupting(Restart)",
        State::Interrupting(Then::Exit) => "Interrupting(Exit)",
        State::Waiting(Next::Start) => "Waiting(Start)",
        State::Waiting(Next::Ask(_)) => "Waiting(Ask)",
        State::Done(_) => "Done",
    }
}

fn column(event: Event) -> &'static str {
    match event {
        Event::Started => "Started",
        Event::ResourcesLacked => "ResourcesLacked",
        Event::ServerEnded(_) => "ServerEnded",
        Event::HandlerEnded(Verdict::Restart) => "HandlerEnded(Restart)",
        Event::HandlerEnded(Verdict::Refuse) => "HandlerEnded(Refuse)",
        Event::Asked(Then::Restart) => "Asked(Restart)",
        Event::Asked(Then::Exit) => "Asked(Exit)",
        Event::TimePassed => "TimePassed",
    }
}

/// The cells of the table that can happen.
fn possible() -> BTreeSet<(&'static str, &'static str)> {
    let requests = ["Asked(Restart)", "Asked(Exit)"];
    let handler_ends = ["ResourcesLacked", "HandlerEnded(Restart)", "HandlerEnded(Refuse)"];
    let start_ends = ["Started", "ResourcesLacked", "ServerEnded"];
    let rows: [(&[&str], &[&str], &[&str]); 5] = [
        (&["Starting"], &start_ends, &[]),
        (&["Running"], &["ServerEnded"], &[]),
        (&["Stopping(Restart)", "Stopping(Exit)"], &start_ends, &["TimePassed"]),
        (
            &["Handling", "Interrupting(Restart)", "Interrupting(Exit)"],
            &handler_ends,
            &["TimePassed"],
        ),
        (&["Waiting(Start)", "Waiting(Ask)"], &[], &["TimePassed"]),
    ];
    let mut cells = BTreeSet::from([("Done", "Asked(Restart)"), ("Done", "Asked(Exit)")]);
    for (states, ends, time) in rows {
        for state in states {
            let events = requests.iter().chain(ends).chain(time);
            cells.extend(events.map(|event| (*state, *event)));
        }
    }
    cells
}

#[test]
fn the_random_lives_go_through_every_cell_that_can_happen_and_no_other() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..2000 {
        let life = any_life().new_tree(&mut runner).expect("a life").current();
        let steps = World::after(&life).steps;
        seen.extend(steps.iter().map(|step| (row(step.before.state), column(step.event))));
    }
    assert_eq!(seen, possible());
}
