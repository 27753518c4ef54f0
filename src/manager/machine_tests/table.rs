//! The transition table cell by cell.

use super::*;

/// A cell of the table.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// Nothing happens, and the deadline stays.
    Same,
    /// A state with the deadline that there was.
    Keep(State, Option<Action>),
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
    let stop = |then| For(Stopping(then), 2_000, Some(Action::StopServer));
    let stop_again = |then| Keep(Stopping(then), Some(Action::StopServer));
    let check = |then| For(Stopping(then), 2_000, Some(Action::CheckServer(Patience::Quiet)));
    let interrupt = |then| For(Interrupting(then), 5_000, Some(Action::StopHandler));
    let kill = |then| For(Interrupting(then), 1_000, Some(Action::KillHandler));
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
                stop_again(restart),
                stop_again(exit),
                check(restart),
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
                stop_again(exit),
                stop_again(exit),
                check(exit),
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
                Keep(Interrupting(exit), None),
                kill(restart),
            ],
        ),
        (
            Interrupting(exit),
            [Same, done, Same, Same, Same, Same, done, done, Same, Same, kill(exit)],
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
                Cell::Keep(state, action) => (state, old_deadline, action),
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
