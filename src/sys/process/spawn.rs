//! The one door through which programs are executed. A [`ChildSpec`] is
//! complete before the fork; the child is held until its id is known, and
//! reports why it did not become its program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::{ForkResult, Pid, pipe2};

use super::child::become_child;
use super::exec::{execute, may_execute};
use super::failure::{End, Refusal, Report, Stage, at};
use super::fork::{fork_child, leave};
use super::spec::{ChildSpec, Descriptors, Parentage, WorksIn};
use super::wait::{Exit, Kinship, ended_before_exec, wait_briefly};
use crate::limits;
use crate::sys::clock::Moment;
use crate::sys::files::fds;
use crate::sys::signals;

/// A child that waits for [`Held::release`] before it executes its program, so that its id can be
/// written down first. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Held(Child);

/// A child that may execute its program.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    kinship: Kinship,
    works_in: WorksIn,
    /// The channel to a child whose exec has not been seen to succeed or fail.
    channel: Option<OwnedFd>,
}

/// Forks a child that is to execute the program of `spec`.
pub fn spawn(spec: &ChildSpec, descriptors: Descriptors<'_>) -> Result<Held, End> {
    fork_into(spec, descriptors, Goal::Execute)
}

/// Checks, by a child that becomes what `spec` says, that the program could be executed.
pub fn check(spec: &ChildSpec, descriptors: Descriptors<'_>) -> Result<(), End> {
    fork_into(spec, descriptors, Goal::Check)?
        .release()?
        .wait_for_exec(Moment::now() + limits::START)
}

/// Becomes the program, in this process. Returns only with a refusal, standard error being the
/// caller's again; what was changed of the identity and the root stays changed.
pub fn exec_here(spec: &ChildSpec, descriptors: Descriptors<'_>) -> Refusal {
    let errors = match fds::standard_error().try_clone_to_owned() {
        Ok(errors) => errors,
        Err(error) => return at(Stage::Streams)(fds::errno(error)),
    };
    let refusal = match become_child(spec, descriptors) {
        Ok(_) => {
            signals::reset_for_exec();
            execute(&spec.program)
        }
        Err(refusal) => refusal,
    };
    signals::undo_reset_for_exec();
    // The refusal is reported by the exit status even if no line can be written.
    while let Err(Errno::EINTR | Errno::EBUSY) = nix::unistd::dup2_stderr(&errors) {}
    refusal
}

/// What a child does once it is what its spec says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Execute,
    Check,
}

/// The exit status of a child that did not become its program. Only this file sees it.
const FAILED: i32 = 125;
/// What a child sends that works in its root directory instead of the planned one. No stage has this
/// number.
const WORKS_IN_ROOT: Report = [u8::MAX; 5];
/// What the parent sends when the child may go on.
const GO: [u8; 1] = [1];

fn fork_into(spec: &ChildSpec, descriptors: Descriptors<'_>, goal: Goal) -> Result<Held, End> {
    let (ours, theirs) = channel().map_err(at(Stage::Channel))?;
    let (forked, kinship) = fork_child().map_err(at(Stage::Fork))?;
    match forked {
        ForkResult::Child => {
            // Or the child would never see the end of the channel.
            drop(ours);
            run_child(spec, descriptors, goal, theirs.as_raw_fd())
        }
        ForkResult::Parent { child: pid } => Ok(Held(Child {
            pid,
            kinship,
            works_in: WorksIn::Planned,
            channel: Some(ours),
        })),
    }
}

impl Held {
    /// Its id.
    pub fn pid(&self) -> Pid {
        self.0.pid
    }

    /// Lets it go on to its exec. What comes of that is for [`Child::outcome`] and
    /// [`Child::wait_for_exec`] to tell.
    pub fn release(mut self) -> Result<Child, End> {
        let mut child = Child {
            channel: self.0.channel.take(),
            ..self.0
        };
        match child.channel.as_ref().map_or(Ok(()), send_go) {
            Ok(()) => Ok(child),
            Err(reason) => Err(child.end(at(Stage::Channel)(reason))),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn channel() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

fn send_go(channel: &OwnedFd) -> Result<(), Errno> {
    loop {
        match send(channel.as_raw_fd(), &GO, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            // A child that is gone already has left a report behind, unless it was killed.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
            Err(reason) => return Err(reason),
        }
    }
}

impl Child {
    /// Its id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Where it works, when it has executed its program.
    pub fn works_in(&self) -> WorksIn {
        self.works_in
    }

    /// What can be read when [`Child::outcome`] is known; none when it has been asked for.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// What has come of the exec: told once, when it is known. A child that did not become its
    /// program is gone by then.
    pub fn outcome(&mut self) -> Option<Result<(), End>> {
        let channel = self.channel.as_ref()?;
        let mut report = Report::default();
        let outcome = loop {
            match recv(channel.as_raw_fd(), &mut report, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return None,
                // A child that ended with GO unread resets the channel (ECONNRESET, once). Its report
                // can still be read.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Ok(0) => break self.is_executed(),
                Ok(_) if report == WORKS_IN_ROOT => self.works_in = WorksIn::Root,
                Ok(_) => break Err(self.end(Refusal::from_report(report))),
                Err(reason) => break Err(self.end(at(Stage::Channel)(reason))),
            }
        };
        self.channel = None;
        Some(outcome)
    }

    /// The channel has closed by an exec, or by an end. The first process of an orphan, and a
    /// child that only checks, end with 0.
    fn is_executed(&self) -> Result<(), End> {
        match ended_before_exec(self.pid, self.kinship) {
            None | Some(Exit::Status(0)) => Ok(()),
            Some(exit) => Err(End::Exited(exit)),
        }
    }

    /// Waits for the outcome. A child that has not executed its program by the deadline is ended.
    pub fn wait_for_exec(&mut self, deadline: Moment) -> Result<(), End> {
        while let Some(channel) = self.channel() {
            let rest = deadline.since(Moment::now()).as_millis();
            if rest == 0 {
                return Err(self.end(at(Stage::HeldUp)(Errno::ETIMEDOUT)));
            }
            let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
            // However the wait ends, another look follows.
            let _ = poll(&mut [PollFd::new(channel, PollFlags::POLLIN)], timeout);
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
        }
        Ok(())
    }

    /// Ends a child that has not executed its program yet. One that has is left alone.
    pub fn abandon(&mut self) {
        if self.channel.is_some() {
            self.end(at(Stage::HeldUp)(Errno::ECANCELED));
        }
    }

    /// Kills and reaps a child that is not to execute its program. SIGKILL also ends a stopped one.
    fn end(&mut self, refusal: Refusal) -> End {
        // It has not been reaped, so that the id is its own. One that may not be killed, being its
        // user's already, ends by itself at the end of the channel (CAP_KILL in capabilities(7)).
        let _ = signals::send(self.pid, libc::SIGKILL);
        self.channel = None;
        wait_briefly(self.pid);
        End::Refused(refusal)
    }
}

// From here on everything is async-signal-safe.

fn run_child(spec: &ChildSpec, descriptors: Descriptors<'_>, goal: Goal, channel: RawFd) -> ! {
    // From here on a signal ends the child, wherever it stands.
    signals::reset_for_exec();
    // Held until the exec.
    let _parent = (spec.parentage == Parentage::Orphan).then(|| become_orphan(channel));
    match become_child(spec, descriptors) {
        Ok(WorksIn::Planned) => {}
        Ok(WorksIn::Root) => {
            // Without this the handler is given the planned directory.
            let _ = send(channel, &WORKS_IN_ROOT, MsgFlags::MSG_NOSIGNAL);
        }
        Err(refusal) => give_up(channel, refusal),
    }
    loop {
        match recv(channel, &mut GO.clone(), MsgFlags::empty()) {
            Ok(1) => break,
            // The parent has died, or dropped the child: do not execute.
            Ok(_) => leave(FAILED),
            Err(Errno::EINTR) => {}
            Err(reason) => give_up(channel, at(Stage::Channel)(reason)),
        }
    }
    let refusal = match goal {
        Goal::Execute => execute(&spec.program),
        Goal::Check => match may_execute(&spec.program) {
            Ok(()) => leave(0),
            Err(reason) => at(Stage::Execute)(reason),
        },
    };
    give_up(channel, refusal)
}

/// Forks, and returns in the child, which becomes an orphan: its parent exits when it has executed
/// its program or has ended, with a status that says which. The parent learns that from the end of
/// what this returns.
fn become_orphan(channel: RawFd) -> OwnedFd {
    let forked = pipe2(OFlag::O_CLOEXEC).and_then(|ends| Ok((ends, fork_child()?)));
    match forked {
        Ok(((_, held), (ForkResult::Child, _))) => held,
        Ok(((closed, held), (ForkResult::Parent { child }, kinship))) => {
            drop(held);
            if !closes_in_time(&closed) {
                // A child that was stopped by its user does not end by itself.
                let _ = signals::send(child, libc::SIGKILL);
                wait_briefly(child);
                give_up(channel, at(Stage::HeldUp)(Errno::ETIMEDOUT));
            }
            leave(match ended_before_exec(child, kinship) {
                None => 0,
                Some(Exit::Status(_)) => FAILED,
                // As shells encode it: an exit status has no other room for it.
                Some(Exit::Signal { number, .. }) => 128 + number,
            })
        }
        Err(reason) => give_up(channel, at(Stage::Fork)(reason)),
    }
}

/// Waits until an orphan has executed its program or has ended.
fn closes_in_time(closed: &OwnedFd) -> bool {
    let limit = PollTimeout::try_from(limits::ORPHAN_START.as_millis()).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(closed.as_fd(), PollFlags::POLLIN)], limit) {
            Err(Errno::EINTR) => {}
            changed => return changed != Ok(0),
        }
    }
}

fn give_up(channel: RawFd, refusal: Refusal) -> ! {
    // A parent that is gone needs no report.
    let _ = send(channel, &refusal.to_report(), MsgFlags::MSG_NOSIGNAL);
    leave(FAILED)
}
