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
use super::wait::wait_for;
use super::words::Words;
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

/// A program and what it is told.
#[derive(Debug)]
pub struct Program {
    /// The paths to try in turn, as execvp(3) does.
    pub candidates: Vec<CString>,
    /// The arguments, the name first.
    pub arguments: Words,
    /// The environment.
    pub environment: Words,
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

/// A child's standard streams. Both descriptors must be above 2.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    /// Standard input.
    pub input: BorrowedFd<'a>,
    /// Standard output and error, where they are not the caller's.
    pub output: Option<BorrowedFd<'a>>,
}

/// Starts a child. It is held just before the exec until `announce` has made its id known; when
/// this returns, the exec has succeeded.
pub fn spawn(
    spec: &ChildSpec,
    streams: Streams<'_>,
    announce: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Pid, Failure> {
    start(spec, streams, Task::Execute, announce)
}

/// Checks, by a child that becomes what `spec` says, that the program could be executed.
pub fn check(spec: &ChildSpec, streams: Streams<'_>) -> Result<(), Failure> {
    let child = start(spec, streams, Task::Check, |_| Ok(()))?;
    wait_for(child).map(drop).map_err(at(Stage::Fork))
}

/// Becomes the program, in this process. Returns only with a failure, standard error being the
/// caller's again; what was changed of the identity and the root stays changed.
pub fn exec_here(spec: &ChildSpec, streams: Streams<'_>) -> Failure {
    let errors = match fds::standard_error().try_clone_to_owned() {
        Ok(errors) => errors,
        Err(error) => {
            let reason = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            return Failure { stage: Stage::Streams, reason };
        }
    };
    let failure = match become_child(spec, streams) {
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

/// What the parent sends when the child may go on.
const GO: [u8; 1] = [1];

fn start(
    spec: &ChildSpec,
    streams: Streams<'_>,
    task: Task,
    announce: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Pid, Failure> {
    let (ours, theirs) = channel().map_err(at(Stage::Channel))?;
    let child = match fork().map_err(at(Stage::Fork))? {
        Fork::Child => run_child(spec, streams, task, theirs.as_raw_fd()),
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
    // Where nobody receives this, a report waits.
    let _ = send(channel.as_raw_fd(), &GO, MsgFlags::MSG_NOSIGNAL);
    let mut report = Report::default();
    loop {
        match recv(channel.as_raw_fd(), &mut report, MsgFlags::empty()) {
            Ok(0) => return Ok(()),
            Ok(_) => break,
            // A child that gave up before it was let go has left its report behind.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(reason) => return Err(at(Stage::Channel)(reason)),
        }
    }
    Err(Failure::from_report(report))
}

// From here on everything is async-signal-safe.

fn run_child(spec: &ChildSpec, streams: Streams<'_>, task: Task, channel: RawFd) -> ! {
    if spec.parentage == Parentage::Orphan {
        match fork() {
            Ok(Fork::Child) => {}
            Ok(Fork::Parent(_)) => leave(0),
            Err(reason) => give_up(channel, Failure { stage: Stage::Fork, reason }),
        }
    }
    if let Err(failure) = become_child(spec, streams) {
        give_up(channel, failure);
    }
    // A parent that died without a word does not want this child any more.
    if !matches!(recv(channel, &mut GO.clone(), MsgFlags::empty()), Ok(1)) {
        leave(0);
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
    leave(0)
}

/// Everything up to the exec, in the order that keeps each step possible and safe.
fn become_child(spec: &ChildSpec, streams: Streams<'_>) -> Result<(), Failure> {
    if spec.session == Session::Own {
        // SAFETY: setsid touches no memory.
        checked(Stage::Session, unsafe { libc::setsid() })?;
    }
    place(streams.input, libc::STDIN_FILENO)?;
    if let Some(output) = streams.output {
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
    }
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::umask(spec.umask.bits()) };
    if let Some(identity) = &spec.identity {
        identity::assume(identity)?;
    }
    fds::close_all_on_exec();
    Ok(())
}

/// dup2(2) takes close-on-exec away, the two numbers being different.
fn place(stream: BorrowedFd<'_>, number: RawFd) -> Result<(), Failure> {
    // SAFETY: descriptors 0 to 2 are open and belong to the streams.
    checked(Stage::Streams, unsafe { libc::dup2(stream.as_raw_fd(), number) })
}

fn execute(program: &Program) -> Failure {
    signals::give_back();
    let (arguments, environment) = (program.arguments.pointers(), program.environment.pointers());
    let reason = try_each(program, |path| {
        // SAFETY: path and arrays end as execve(2) wants and outlive the call.
        Errno::result(unsafe { libc::execve(path, arguments, environment) }).map(drop)
    });
    Failure { stage: Stage::Execute, reason: reason.err().unwrap_or(Errno::ENOENT) }
}

fn may_execute(program: &Program) -> Result<(), Errno> {
    try_each(program, |path| {
        let mut about = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the path and the buffer outlive the call.
        Errno::result(unsafe { libc::stat(path, about.as_mut_ptr()) })?;
        // SAFETY: stat succeeded and filled the buffer.
        let kind = unsafe { about.assume_init() }.st_mode & libc::S_IFMT;
        if kind != libc::S_IFREG {
            return Err(Errno::EACCES);
        }
        // SAFETY: the path outlives the call.
        Errno::result(unsafe { libc::access(path, libc::X_OK) }).map(drop)
    })
}

/// Tries the candidates in turn, as execvp(3) does: one that is not there is passed over, and one
/// that may not be executed is remembered.
fn try_each(
    program: &Program,
    attempt: impl Fn(*const libc::c_char) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut reason = Errno::ENOENT;
    for path in &program.candidates {
        match attempt(path.as_ptr()) {
            Ok(()) => return Ok(()),
            Err(Errno::EACCES) => reason = Errno::EACCES,
            Err(Errno::ENOENT | Errno::ENOTDIR) if program.candidates.len() > 1 => {}
            Err(other) => return Err(other),
        }
    }
    Err(reason)
}

fn checked(stage: Stage, result: libc::c_int) -> Result<(), Failure> {
    Errno::result(result).map(drop).map_err(at(stage))
}
