//! The transition table cell by cell, for a server that has run before.

use super::*;

/// A cell of the table: the next state, its deadline, and what is done.
#[derive(Debug, Clone)]
enum Cell {
    /// Nothing happens, and the deadline stays.
    Same,
    /// A state with the deadline that there was.
    Keep(State, Vec<Action>),
    /// A state without a deadline.
    To(State, Vec<Action>),
    /// A state with a deadline so many milliseconds from now.
    For(State, u64, Vec<Action>),
}

const COLUMNS: usize = 17;

/// The events in the order of the table's columns.
fn columns() -> [Event; COLUMNS] {
    [
        Event::Ready,
        Event::LoggerFailed,
        Event::Started,
        Event::StartFailed(refused()),
        Event::HandlerFailed,
        Event::HandlerTooLarge,
        Event::ResourcesLacked,
        Event::ServerEnded(killed(11)),
        Event::ServerEnded(killed(15)),
        Event::ServerEnded(exited(0)),
        Event::HandlerEnded(Verdict::Restart),
        Event::HandlerEnded(Verdict::Refuse),
        Event::Requested(Request::Restart),
        Event::Requested(Request::Exit),
        Event::SignalArrived(10),
        Event::StopNotSent,
        Event::TimePassed,
    ]
}

fn table() -> Vec<(State, [Cell; COLUMNS])> {
    use Action::*;
    use Cell::{For, Keep, Same, To};
    use State::{Done, Handling, Interrupting, Running, Starting, Stopping, Waiting};
    let (exit, restart) = (Request::Exit, Request::Restart);
    // Death 9 is the one that the handler was run for.
    let (crash, old) = (killed(11), killed(9));
    let asked = |then| Say(Note::Requested(then));
    let ended = |death| Say(Note::ServerEnded(death));
    let start = |before: &[Action]| To(Starting, [before, &[StartServer]].concat());
    let run = |death, before: &[Action]| {
        For(
            Handling(death),
            60_000,
            [before, &[RunHandler(death)]].concat(),
        )
    };
    let stop = |then| For(Stopping(then), 2_000, vec![asked(then), StopServer]);
    let interrupt = |then| For(Interrupting(then), 5_000, vec![asked(then), StopHandler]);
    let again = |next| {
        let note = Note::TriesAgainIn(Duration::from_millis(100));
        For(Waiting(next), 100, vec![SayFailure, Say(note)])
    };
    let done = |actions: &[Action]| To(Done(Outcome::Status(0)), actions.to_vec());
    let refuse = |before: &[Action]| {
        let refusal = [before, &[Say(Note::RestartRefused)]].concat();
        To(Done(Outcome::Status(128 + 9)), refusal)
    };
    let stopping = |then, next: &dyn Fn(&[Action]) -> Cell| {
        let forward = Keep(Stopping(then), vec![SignalServer(10)]);
        let more = match then {
            Request::Restart => vec![asked(exit), StopServer],
            Request::Exit => vec![StopServer],
        };
        [
            Same,
            Keep(Stopping(then), vec![SayFailure]),
            Keep(Stopping(then), vec![SayStarted]),
            next(&[SayFailure]),
            Same,
            Same,
            next(&[SayFailure]),
            next(&[ended(crash)]),
            next(&[ended(killed(15))]),
            next(&[ended(exited(0))]),
            Same,
            Same,
            Keep(Stopping(then), vec![StopServer]),
            Keep(Stopping(exit), more),
            forward,
            For(Stopping(then), 1_000, vec![SayFailure]),
            For(Stopping(then), 2_000, vec![CheckServer]),
        ]
    };
    let interrupting = |then, next: &dyn Fn(&[Action]) -> Cell| {
        let more = if then == restart {
            vec![asked(exit)]
        } else {
            vec![]
        };
        [
            Same,
            Keep(Interrupting(then), vec![SayFailure]),
            Same,
            Same,
            next(&[SayFailure]),
            next(&[]),
            next(&[SayFailure]),
            Same,
            Same,
            Same,
            next(&[]),
            next(&[]),
            Same,
            Keep(Interrupting(exit), more),
            Same,
            Same,
            For(Interrupting(then), 1_000, vec![KillHandler]),
        ]
    };
    let waiting = |next, then: Cell| {
        [
            Same,
            Keep(Waiting(next), vec![SayFailure]),
            Same,
            Same,
            Same,
            Same,
            Same,
            Same,
            Same,
            Same,
            Same,
            Same,
            start(&[asked(restart)]),
            done(&[asked(exit)]),
            Same,
            Same,
            then,
        ]
    };
    vec![
        (
            Starting,
            [
                Same,
                Keep(Starting, vec![SayFailure]),
                To(Running, vec![SayStarted]),
                run(refused(), &[SayFailure]),
                Same,
                Same,
                again(Next::Start),
                Same,
                Same,
                Same,
                Same,
                Same,
                stop(restart),
                stop(exit),
                Same,
                Same,
                Same,
            ],
        ),
        (
            Running,
            [
                Same,
                Keep(Running, vec![SayFailure]),
                Same,
                Same,
                Same,
                Same,
                Same,
                run(crash, &[ended(crash)]),
                For(
                    Waiting(Next::RunHandler(killed(15))),
                    100,
                    vec![ended(killed(15))],
                ),
                done(&[ended(exited(0)), SayLeftovers(exited(0))]),
                Same,
                Same,
                stop(restart),
                stop(exit),
                Keep(Running, vec![SignalServer(10)]),
                Same,
                Same,
            ],
        ),
        (Stopping(restart), stopping(restart, &start)),
        (Stopping(exit), stopping(exit, &done)),
        (
            Handling(old),
            [
                Same,
                Keep(Handling(old), vec![SayFailure]),
                Same,
                Same,
                refuse(&[SayFailure]),
                run(old, &[]),
                again(Next::RunHandler(old)),
                Same,
                Same,
                Same,
                start(&[]),
                refuse(&[]),
                interrupt(restart),
                interrupt(exit),
                Same,
                Same,
                To(Handling(old), vec![Say(Note::HandlerRuns)]),
            ],
        ),
        (Interrupting(restart), interrupting(restart, &start)),
        (Interrupting(exit), interrupting(exit, &done)),
        (Waiting(Next::Start), waiting(Next::Start, start(&[]))),
        (
            Waiting(Next::RunHandler(old)),
            waiting(Next::RunHandler(old), run(old, &[])),
        ),
        (Done(Outcome::Status(3)), [const { Cell::Same }; COLUMNS]),
    ]
}

#[test]
fn every_cell_of_the_table_is_as_decided() {
    let now = Moment::now();
    let before = now + Duration::from_secs(7);
    for (state, row) in table() {
        for (event, cell) in columns().into_iter().zip(row) {
            let mut machine = machine_in(state, before);
            let old_deadline = machine.deadline();
            let actions = step(&mut machine, event, now);
            let expected = match cell {
                Cell::Same => (state, old_deadline, vec![]),
                Cell::Keep(state, actions) => (state, old_deadline, actions),
                Cell::To(state, actions) => (state, None, actions),
                Cell::For(state, ms, actions) => {
                    (state, Some(now + Duration::from_millis(ms)), actions)
                }
            };
            assert_eq!(
                (machine.state, machine.deadline, actions),
                expected,
                "{event:?} {state:?}"
            );
        }
    }
}

/// A state, event or action as the table in docs/architecture.md shows it: without what it carries.
fn short(value: impl std::fmt::Debug) -> String {
    let text = format!("{value:?}").replace("Say(", "Say ");
    let cut = ["(Death", "(9)", "(10)", "(100"]
        .iter()
        .filter_map(|it| text.find(it))
        .min();
    let mut text = text[..cut.unwrap_or(text.len())].to_owned();
    while text.matches('(').count() > text.matches(')').count() {
        text.push(')');
    }
    while text.matches('(').count() < text.matches(')').count() {
        text.pop();
    }
    text
}

/// The table as docs/architecture.md shows it: a row for each cell in which something happens.
fn document() -> String {
    let mut text = String::from("| state | event | next state | actions |\n|---|---|---|---|\n");
    for (state, row) in table() {
        for (event, cell) in columns().into_iter().zip(row) {
            let (next, deadline, actions) = match cell {
                Cell::Same => continue,
                // In every state alike.
                Cell::Keep(..) if event == Event::LoggerFailed => continue,
                Cell::Keep(state, actions) => (state, String::new(), actions),
                Cell::To(state, actions) => (state, String::new(), actions),
                Cell::For(state, ms, actions) => (state, format!(", {ms} ms"), actions),
            };
            let event = if let Event::ServerEnded(death) = event {
                format!("ServerEnded, {}", death.end)
            } else {
                short(event)
            };
            let actions: Vec<String> = actions.iter().map(short).collect();
            let (actions, from, to) = (actions.join(", "), short(state), short(next));
            text += &format!("| {from} | {event} | {to}{deadline} | {actions} |\n");
        }
    }
    text
}

#[test]
fn the_table_in_the_architecture_document_is_this_one() {
    let page = include_str!("../../../docs/architecture.md");
    let table = document();
    assert!(
        page.contains(&table),
        "docs/architecture.md has another table than this:\n{table}"
    );
}
