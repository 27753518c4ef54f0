//! What a manager holds a death for, and how long it waits. Pure.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::report::{Cause, Death};
use crate::sys::failure::{Failure, Refusal, Stage};
use crate::sys::wait::Exit;

/// How long a death that looks like a requested one waits for the request.
pub const SETTLING: Duration = Duration::from_millis(100);
/// How often the end of a server is looked for that was asked to end: one that is traced may have
/// ended without notice (see ptrace(2)).
pub const STOP_CHECK: Duration = Duration::from_secs(2);
/// After so long the manager says that a server ignores SIGTERM.
pub const STOP_NOTICE: Duration = Duration::from_secs(10);
/// After so long a SIGTERM that could not be sent is sent again.
pub const STOP_AGAIN: Duration = Duration::from_secs(1);
/// After so long the manager says that a handler is still running.
pub const HANDLER_NOTICE: Duration = Duration::from_secs(60);
/// After so long a handler that was told to end is killed.
pub const HANDLER_GRACE: Duration = Duration::from_secs(5);
/// How often the end of a handler is looked for that was killed.
pub const KILL_CHECK: Duration = Duration::from_secs(1);
/// How often old log files are looked over while a manager lives.
pub const REVIEW: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the system lacks something that it may have again in a moment: processes, memory (for a
/// socket that is ENOBUFS), descriptors.
pub fn is_shortage(reason: Errno) -> bool {
    use Errno::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(reason, EAGAIN | ENOMEM | ENOBUFS | EMFILE | ENFILE)
}

/// Whether it was for such a lack that there is no child. Keys have a quota of their own, which the
/// end of other processes gives back (keyrings(7)).
pub fn is_lacking(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(Refusal { stage: Stage::Keyring, reason: Errno::EDQUOT }) => true,
        Failure::Refused(Refusal { reason, .. }) => is_shortage(*reason),
        Failure::Died(_) => false,
    }
}

/// Whether the arguments and the environment together were more than the kernel takes (see E2BIG
/// in execve(2)).
pub fn is_too_large(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(Refusal { reason: Errno::E2BIG, .. }))
}

/// Whether the server meant to end: with exit status 0.
pub fn is_voluntary(death: &Death) -> bool {
    matches!(death.cause, Cause::Ended(Exit::Status(0)))
}

/// Whether a death is one that a request to stop brings about: where SIGTERM goes to manager and
/// server at once, the death may be seen first.
pub fn may_be_requested(death: &Death) -> bool {
    let stops = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
    matches!(death.cause, Cause::Ended(Exit::Signal { number, .. }) if stops.contains(&number))
}
