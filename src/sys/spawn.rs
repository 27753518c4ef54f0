//! The one door through which programs are executed. A [`ChildSpec`] is
//! complete before the fork; between fork and exec there are system calls on
//! prepared data, nothing else: no allocation, no formatting, no panic.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::failure::{Failure, Report, Stage, at};
use super::fork::{Fork, fork, leave};
use super::identity::{self, Identity};
use super::program::{Program, execute, may_execute};
use super::wait::{Exit, wait_for};
use super::{fds, signals};

/// Which session a child belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The caller's, with its terminal.
    Inherited,
    /// One of its own, without a terminal (see setsid(2)).
    Own,
}

/// Whose child a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parentage {
    /// The caller's, to be reaped by it.
    Ours,
    /// An orphan from the start.
    Orphan,
}

/// Everything that a child is to be, settled before it exists.
#[derive(Debug)]
pub struct ChildSpec {
    /// What it executes.
    pub program: Program,
    /// Its session.
    pub session: Session,
    /// Its parent.
    pub parentage: Parentage,
    /// Its root directory, where it is not the caller's.
    pub root: Option<CString>,
    /// Its working directory, inside that root, where it is not the caller's.
    pub work_dir: Option<CString>,
    /// Its user and groups, where they are not the caller's.
    pub identity: Option<Identity>,
    /// Its umask.
    pub umask: Mode,
}

/// The descriptors that a child starts from. All must be above 2.
#[derive(Debug, Clone, Copy)]
pub struct Handles<'a> {
    /// Standard input.
    pub input: BorrowedFd<'a>,
    /// Standard output and error, where they are not the caller's.
    pub output: Option<BorrowedFd<'a>>,
    /// The working directory, where its path is not in the spec. One that lies outside the root
    /// is not entered.
    pub work_dir: Option<BorrowedFd<'a>>,
}

/// Starts a child. It is held just before the exec until `announce` has made its id known; when
/// this returns, the exec has succeeded.
pub fn spawn(
    spec: &ChildSpec,
    handles: Handles<'_>,
    announce: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Pid, Failure> {
    start(spec, handles, Task::Execute, announce)
}

/// Checks, by a child that becomes what `spec` says, that the program could be executed.
pub fn check(spec: &ChildSpec, handles: Handles<'_>) -> Result<(), Failure> {
    let child = start(spec, handles, Task::Check, |_| Ok(()))?;
    match wait_for(child).map_err(at(Stage::Fork))? {
        Exit::Status(0) => Ok(()),
        Exit::Status(_) | Exit::Signal { .. } => Err(at(Stage::Channel)(Errno::EPIPE)),
    }
}

/// Becomes the program, in this process. Returns only with a failure, standard error being the
/// caller's again; what was changed of the identity and the root stays changed.
pub fn exec_here(spec: &ChildSpec, handles: Handles<'_>) -> Failure {
    let errors = match fds::standard_error().try_clone_to_owned() {
        Ok(errors) => errors,
        Err(error) => return at(Stage::Streams)(fds::errno(error)),
    };
    let failure = match become_child(spec, handles) {
        Ok(()) => execute(&spec.program),
        Err(failure) => failure,
    };
    signals::take_back();
    // The failure is reported by the exit status even if no line can be written.
    let _ = nix::unistd::dup2_stderr(&errors);
    failure
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Execute,
    Check,
}

/// The exit status of a child that did not become its program. Nobody but this file sees it.
const FAILED: i32 = 125;
/// What the parent sends when the child may go on.
const GO: [u8; 1] = [1];

fn start(
    spec: &ChildSpec,
    handles: Handles<'_>,
    task: Task,
    announce: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Pid, Failure> {
    let (ours, theirs) = channel().map_err(at(Stage::Channel))?;
    let child = match fork().map_err(at(Stage::Fork))? {
        Fork::Child => {
            // Or the child would never see the end of the channel.
            drop(ours);
            run_child(spec, handles, task, theirs.as_raw_fd())
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let outcome = announce(child).map_err(at(Stage::Announce)).and_then(|()| release(&ours));
    // A child that is still held ends when the channel closes.
    drop(ours);
    if outcome.is_err() || spec.parentage == Parentage::Orphan {
        // Whoever ended in between has been reaped, which is as good.
        let _ = wait_for(child);
    }
    outcome.map(|()| child)
}

fn channel() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Lets the child go and waits until it has executed its program, or for its report.
fn release(channel: &OwnedFd) -> Result<(), Failure> {
    let mut is_held = loop {
        match send(channel.as_raw_fd(), &GO, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => break false,
            // It has given up, and left a report behind unless it was killed.
            Err(Errno::EPIPE | Errno::ECONNRESET) => break true,
            Err(Errno::EINTR) => {}
            Err(reason) => return Err(at(Stage::Channel)(reason)),
        }
    };
    let mut report = Report::default();
    loop {
        match recv(channel.as_raw_fd(), &mut report, MsgFlags::empty()) {
            Ok(0) if is_held => return Err(at(Stage::Channel)(Errno::ECONNRESET)),
            Ok(0) => return Ok(()),
            Ok(_) => return Err(Failure::from_report(report)),
            // It ended before it heard that it may go.
            Err(Errno::ECONNRESET) => is_held = true,
            Err(Errno::EINTR) => {}
            Err(reason) => return Err(at(Stage::Channel)(reason)),
        }
    }
}

// From here on everything is async-signal-safe.

fn run_child(spec: &ChildSpec, handles: Handles<'_>, task: Task, channel: RawFd) -> ! {
    if spec.parentage == Parentage::Orphan {
        match fork() {
            Ok(Fork::Child) => {}
            Ok(Fork::Parent(_)) => leave(0),
            Err(reason) => give_up(channel, Failure { stage: Stage::Fork, reason }),
        }
    }
    if let Err(failure) = become_child(spec, handles) {
        give_up(channel, failure);
    }
    // A parent that died without a word does not want this child any more.
    if !matches!(recv(channel, &mut GO.clone(), MsgFlags::empty()), Ok(1)) {
        leave(FAILED);
    }
    let failure = match task {
        Task::Execute => execute(&spec.program),
        Task::Check => match may_execute(&spec.program) {
            Ok(()) => leave(0),
            Err(reason) => Failure { stage: Stage::Execute, reason },
        },
    };
    give_up(channel, failure)
}

fn give_up(channel: RawFd, failure: Failure) -> ! {
    // Without a parent nobody is left to be told.
    let _ = send(channel, &failure.to_report(), MsgFlags::MSG_NOSIGNAL);
    leave(FAILED)
}

/// Everything up to the exec, in the order that keeps each step possible and safe.
fn become_child(spec: &ChildSpec, handles: Handles<'_>) -> Result<(), Failure> {
    if spec.session == Session::Own {
        // SAFETY: setsid touches no memory.
        checked(Stage::Session, unsafe { libc::setsid() })?;
    }
    place(handles.input, libc::STDIN_FILENO)?;
    if let Some(output) = handles.output {
        place(output, libc::STDOUT_FILENO)?;
        place(output, libc::STDERR_FILENO)?;
    }
    if let Some(root) = &spec.root {
        // SAFETY: the path outlives the call.
        checked(Stage::Root, unsafe { libc::chroot(root.as_ptr()) })?;
        // SAFETY: the path is a constant.
        checked(Stage::Root, unsafe { libc::chdir(c"/".as_ptr()) })?;
    }
    if let Some(work_dir) = &spec.work_dir {
        // SAFETY: the path outlives the call.
        checked(Stage::WorkDir, unsafe { libc::chdir(work_dir.as_ptr()) })?;
    } else if let Some(work_dir) = handles.work_dir {
        // SAFETY: the descriptor is open.
        let refused = unsafe { libc::fchdir(work_dir.as_raw_fd()) } != 0;
        // A log directory that is lost, or out of reach, costs no server.
        if refused || (spec.root.is_some() && !is_inside_root()) {
            // SAFETY: the path is a constant.
            checked(Stage::WorkDir, unsafe { libc::chdir(c"/".as_ptr()) })?;
        }
    }
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::umask(spec.umask.bits()) };
    if let Some(identity) = &spec.identity {
        identity::assume(identity)?;
    }
    fds::close_all_on_exec();
    Ok(())
}

/// Whether the working directory can be reached from the root directory: the path of one that
/// cannot does not begin with a slash (see getcwd(2)).
fn is_inside_root() -> bool {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    let (start, size) = (path.as_mut_ptr(), path.len());
    // SAFETY: the buffer has that size and outlives the call.
    unsafe { libc::syscall(libc::SYS_getcwd, start, size) > 0 && path[0] == b'/' }
}

/// dup2(2) takes close-on-exec away, the two numbers being different.
fn place(stream: BorrowedFd<'_>, number: RawFd) -> Result<(), Failure> {
    // SAFETY: descriptors 0 to 2 are open and belong to the streams.
    checked(Stage::Streams, unsafe { libc::dup2(stream.as_raw_fd(), number) })
}

fn checked(stage: Stage, result: libc::c_int) -> Result<(), Failure> {
    Errno::result(result).map(drop).map_err(at(stage))
}
