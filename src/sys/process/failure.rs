//! Why there is no child, as data that fits through a channel. The message is
//! made where it is written.

use nix::errno::{Errno, ErrnoSentinel};

use super::wait::Exit;

/// What a child was doing when the system refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Opening the channel to the child.
    Channel,
    /// Forking.
    Fork,
    /// Leaving the caller's session.
    Session,
    /// Placing the standard streams.
    Streams,
    /// Changing the root directory.
    Root,
    /// Changing the working directory.
    WorkDir,
    /// Leaving the caller's session keyring.
    Keyring,
    /// Setting the supplementary groups.
    Groups,
    /// Setting the group.
    Group,
    /// Setting the user.
    User,
    /// Giving up capabilities.
    Capabilities,
    /// Proving that root's privilege cannot be regained.
    Proof,
    /// Getting to the exec in time.
    HeldUp,
    /// Executing the program.
    Execute,
    /// Finding what the program's first line or header names.
    Interpret,
}

/// Every stage in its place, and what is being done then, to stand between "cannot" and an object.
const STAGES: [(Stage, &str); 15] = [
    (Stage::Channel, "open a channel"),
    (Stage::Fork, "fork"),
    (Stage::Session, "leave the session"),
    (Stage::Streams, "place the standard streams"),
    (Stage::Root, "change root to"),
    (Stage::WorkDir, "change directory to"),
    (Stage::Keyring, "leave the caller's keyring for user"),
    (Stage::Groups, "set the groups of user"),
    (Stage::Group, "set the group of user"),
    (Stage::User, "change to user"),
    (Stage::Capabilities, "drop the capabilities of user"),
    (Stage::Proof, "drop all privilege for user"),
    (Stage::HeldUp, "execute command"),
    (Stage::Execute, "execute command"),
    (Stage::Interpret, "find the interpreter of command"),
];

impl Stage {
    /// The stage with this number.
    pub fn from_number(number: u8) -> Option<Stage> {
        STAGES.get(usize::from(number)).map(|(stage, _)| *stage)
    }

    /// What was being done, to stand between "cannot" and the object.
    pub fn doing(self) -> &'static str {
        STAGES[self as usize].1
    }
}

/// A report from a child: the stage's number and the reason's.
pub(super) type Report = [u8; 5];

/// What the system refused, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What was being done.
    pub stage: Stage,
    /// The system's reason.
    pub reason: Errno,
}

impl Refusal {
    /// Encodes it, in the child. Async-signal-safe.
    pub(super) fn to_report(self) -> Report {
        let [a, b, c, d] = (self.reason as i32).to_ne_bytes();
        [self.stage as u8, a, b, c, d]
    }

    /// Decodes it, in the parent.
    pub(super) fn from_report([stage, reason @ ..]: Report) -> Refusal {
        let stage = Stage::from_number(stage).unwrap_or(Stage::Channel);
        Refusal {
            stage,
            reason: Errno::from_raw(i32::from_ne_bytes(reason)),
        }
    }
}

/// Gives a refusal's reason the stage at which it came.
pub fn at(stage: Stage) -> impl Fn(Errno) -> Refusal {
    move |reason| Refusal { stage, reason }
}

/// What a system call that was made at a stage has returned.
pub(in crate::sys) fn checked<T: ErrnoSentinel + PartialEq>(
    stage: Stage,
    result: T,
) -> Result<(), Refusal> {
    Errno::result(result).map(drop).map_err(at(stage))
}

/// How a child ended, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its process ended.
    Exited(Exit),
    /// The system refused something before its program was executed.
    Refused(Refusal),
}

impl End {
    /// Whether there is no child for a shortage that may soon be over. Keys have a quota of their
    /// own, which the end of other processes gives back (keyrings(7)).
    pub fn is_shortage(self) -> bool {
        match self {
            End::Refused(Refusal {
                stage: Stage::Keyring,
                reason: Errno::EDQUOT,
            }) => true,
            End::Refused(Refusal { reason, .. }) => is_shortage(reason),
            End::Exited(_) => false,
        }
    }

    /// Whether arguments and environment together were more than the kernel takes (see E2BIG in
    /// execve(2)).
    pub fn is_too_large(self) -> bool {
        matches!(
            self,
            End::Refused(Refusal {
                reason: Errno::E2BIG,
                ..
            })
        )
    }
}

/// Whether the system lacks something that it may soon have again: processes, memory (for a socket
/// that is ENOBUFS), descriptors.
pub fn is_shortage(reason: Errno) -> bool {
    use Errno::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(reason, EAGAIN | ENOMEM | ENOBUFS | EMFILE | ENFILE)
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::Refused(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_survives_the_way_through_the_channel() {
        for (stage, doing) in STAGES {
            assert_eq!(stage.doing(), doing);
            let refusal = at(stage)(Errno::EPERM);
            assert_eq!(Refusal::from_report(refusal.to_report()), refusal);
        }
    }
}
