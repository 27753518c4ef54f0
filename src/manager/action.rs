//! What a manager does, as data. Pure.

use super::notes::Note;
use crate::death::Death;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the server.
    StartServer,
    /// The first start has succeeded: keep what it made.
    ConfirmStart,
    /// Say that the server was started; the first time, report it to the caller.
    SayStarted,
    /// Say why the start or the handler has failed.
    SayFailure,
    /// Say so if this life of the server left processes behind.
    SayLeftovers(Death),
    /// Ask the server to end, by SIGTERM.
    StopServer,
    /// Look whether the server has ended and cannot be reaped.
    CheckServer,
    /// Say that the server does not end.
    SayServerStays,
    /// Send the server a signal.
    SignalServer(i32),
    /// Run the handler for a death.
    RunHandler(Death),
    /// Ask the handler and what it started to end, by SIGTERM.
    StopHandler,
    /// Kill the handler and what it started, or find that it has ended and cannot be reaped.
    KillHandler,
    /// Say something.
    Say(Note),
}
