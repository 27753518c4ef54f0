//! Why there is no child, as data that fits through a pipe. The words for it
//! are found when it is told.

use nix::errno::Errno;

/// What a child was doing when the system refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Opening the channel to the child.
    Channel,
    /// Forking.
    Fork,
    /// Making the child known, before it is let go.
    Announce,
    /// Leaving the caller's session.
    Session,
    /// Placing the standard streams.
    Streams,
    /// Changing the root directory.
    Root,
    /// Changing the working directory.
    WorkDir,
    /// Setting the supplementary groups.
    Groups,
    /// Setting the group.
    Group,
    /// Setting the user.
    User,
    /// Giving up capabilities.
    Capabilities,
    /// Proving that root's privilege cannot be had back.
    Proof,
    /// Executing the program.
    Execute,
}

impl Stage {
    /// What was being done, to stand between "cannot" and the object.
    pub fn doing(self) -> &'static str {
        match self {
            Stage::Channel => "open a channel",
            Stage::Fork => "fork",
            Stage::Announce => "write pidfile",
            Stage::Session => "leave the session",
            Stage::Streams => "place the standard streams",
            Stage::Root => "change root to",
            Stage::WorkDir => "change directory to",
            Stage::Groups => "set the groups of user",
            Stage::Group => "set the group of user",
            Stage::User => "change to user",
            Stage::Capabilities => "drop the capabilities of user",
            Stage::Proof => "drop all privilege for user",
            Stage::Execute => "execute command",
        }
    }
}

/// The stages that a child can report, in the order of their numbers on the channel.
const REPORTED: [Stage; 11] = [
    Stage::Fork,
    Stage::Session,
    Stage::Streams,
    Stage::Root,
    Stage::WorkDir,
    Stage::Groups,
    Stage::Group,
    Stage::User,
    Stage::Capabilities,
    Stage::Proof,
    Stage::Execute,
];

/// A report from a child: the stage's number and the reason's.
pub(super) type Report = [u8; 5];

/// Why there is no child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub stage: Stage,
    /// The system's reason.
    pub reason: Errno,
}

impl Failure {
    /// For the side that failed. Async-signal-safe.
    pub(super) fn to_report(self) -> Report {
        let number = REPORTED.iter().position(|stage| *stage == self.stage);
        let [a, b, c, d] = (self.reason as i32).to_ne_bytes();
        [number.unwrap_or(REPORTED.len()) as u8, a, b, c, d]
    }

    /// For the side that is told.
    pub(super) fn from_report([stage, reason @ ..]: Report) -> Failure {
        let stage = REPORTED.get(usize::from(stage)).copied().unwrap_or(Stage::Channel);
        Failure { stage, reason: Errno::from_raw(i32::from_ne_bytes(reason)) }
    }
}

/// Gives a refusal the stage at which it came.
pub fn at(stage: Stage) -> impl Fn(Errno) -> Failure {
    move |reason| Failure { stage, reason }
}
