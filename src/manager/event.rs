//! What happens to a manager, as data. Pure.

use crate::death::Death;
use crate::snapshot::Request;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// What the first start waits for is there.
    Ready,
    /// Logger could not be started.
    LoggerFailed,
    /// The server has been executed.
    Started,
    /// The server could not be started. Its process is gone, if there was one.
    StartFailed(Death),
    /// The handler could not be run.
    HandlerFailed,
    /// The handler could not be run because its environment was too large, which is smaller now.
    HandlerTooLarge,
    /// The system had no memory, process or descriptor for the start or the handler.
    ResourcesLacked,
    /// The server is gone.
    ServerEnded(Death),
    /// The handler is gone.
    HandlerEnded(Verdict),
    /// A request arrived.
    Requested(Request),
    /// A signal for the server arrived.
    SignalArrived(i32),
    /// The signal that asks the server to end could not be sent.
    StopNotSent,
    /// The deadline has passed.
    TimePassed,
}

/// A handler's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start the server again.
    Restart,
    /// Do not.
    Refuse,
}
