//! What a manager says of its own decisions. Pure.

use std::fmt;
use std::time::Duration;

use crate::death::Death;
use crate::snapshot::Request;

/// A line for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// A request will be fulfilled.
    Requested(Request),
    /// The server is gone.
    ServerEnded(Death),
    /// The handler has run for long.
    HandlerRuns,
    /// The handler has refused a restart, or could not be run.
    RestartRefused,
    /// The server is started after this delay.
    RestartsIn(Duration),
    /// What the system had no resources for is tried again after this delay.
    TriesAgainIn(Duration),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Requested(Request::Restart) => f.write_str("asked to restart the server"),
            Note::Requested(Request::Exit) => f.write_str("asked to stop"),
            Note::ServerEnded(death) => death.fmt(f),
            Note::HandlerRuns => f.write_str("the handler is still running; waiting for it"),
            Note::RestartRefused => f.write_str("the server is not restarted"),
            Note::RestartsIn(delay) => write!(f, "restarting the server in {delay:?}"),
            Note::TriesAgainIn(delay) => write!(f, "trying again in {delay:?}"),
        }
    }
}
