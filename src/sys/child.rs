//! What a child is to be, and how it becomes that between its fork and its
//! exec: by system calls on prepared data, and nothing else. No allocation, no
//! formatting, no panic.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::Mode;

use super::failure::{Refusal, Stage, checked};
use super::fds;
use super::identity::{self, Identity};
use super::program::Program;

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
pub struct Descriptors<'a> {
    /// Standard input.
    pub input: BorrowedFd<'a>,
    /// Standard output and error, where they are not the caller's.
    pub output: Option<BorrowedFd<'a>>,
    /// The working directory, where its path is not in the spec. One that lies outside the root
    /// is not entered.
    pub work_dir: Option<BorrowedFd<'a>>,
}

/// Where a child works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorksIn {
    /// In the directory that was planned.
    Planned,
    /// In its root directory, since it cannot reach the planned one.
    Root,
}

/// Everything up to the exec, in the order that keeps each step possible and safe.
pub(super) fn become_child(
    spec: &ChildSpec,
    descriptors: Descriptors<'_>,
) -> Result<WorksIn, Refusal> {
    if spec.session == Session::Own {
        // SAFETY: setsid touches no memory.
        checked(Stage::Session, unsafe { libc::setsid() })?;
    }
    place(descriptors.input, libc::STDIN_FILENO)?;
    if let Some(output) = descriptors.output {
        place(output, libc::STDOUT_FILENO)?;
        place(output, libc::STDERR_FILENO)?;
    }
    if let Some(root) = &spec.root {
        // SAFETY: the path outlives the call.
        checked(Stage::Root, unsafe { libc::chroot(root.as_ptr()) })?;
        // SAFETY: the path is a constant.
        checked(Stage::Root, unsafe { libc::chdir(c"/".as_ptr()) })?;
    }
    let entered = enter_work_dir(spec, descriptors);
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::umask(spec.umask.bits()) };
    if let Some(identity) = &spec.identity {
        identity::change_to(identity)?;
        if let Err(Refusal {
            reason: Errno::EACCES | Errno::EPERM,
            ..
        }) = entered
        {
            // Where root may not, as on NFS with root_squash, the user may.
            enter_work_dir(spec, descriptors)?;
        } else {
            entered?;
        }
    } else {
        entered?;
    }
    let is_lent = spec.work_dir.is_none() && descriptors.work_dir.is_some();
    let works_in = if is_lent && (spec.root.is_some() || spec.identity.is_some()) {
        leave_unreachable_dir(spec.identity.as_ref())?
    } else {
        WorksIn::Planned
    };
    fds::close_all_on_exec();
    Ok(works_in)
}

/// Enters the working directory: by its path, or by a descriptor where no path is set. If the log
/// directory cannot be entered, the server starts in `/`.
fn enter_work_dir(spec: &ChildSpec, descriptors: Descriptors<'_>) -> Result<(), Refusal> {
    if let Some(work_dir) = &spec.work_dir {
        // SAFETY: the path outlives the call.
        return checked(Stage::WorkDir, unsafe { libc::chdir(work_dir.as_ptr()) });
    }
    let Some(work_dir) = descriptors.work_dir else {
        return Ok(());
    };
    // SAFETY: the descriptor is open.
    if unsafe { libc::fchdir(work_dir.as_raw_fd()) } == 0 {
        return Ok(());
    }
    enter_root()
}

fn enter_root() -> Result<(), Refusal> {
    // SAFETY: the path is a constant.
    checked(Stage::WorkDir, unsafe { libc::chdir(c"/".as_ptr()) })
}

/// Goes to the root directory unless the working directory can be reached by its path: the kernel
/// gives one outside the root no path that begins with a slash (see getcwd(2)), and a user may not
/// search every directory. Root never follows that path, in which others may have put a link.
fn leave_unreachable_dir(identity: Option<&Identity>) -> Result<WorksIn, Refusal> {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    let (start, size) = (path.as_mut_ptr(), path.len());
    // SAFETY: the kernel writes at most `size` bytes, to a buffer of that size.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, start, size) };
    let has_path = length > 0 && path[0] == b'/';
    let is_root = identity.is_none_or(|identity| identity.uid.is_root());
    // SAFETY: the kernel has written a path that ends in NUL.
    if has_path && (is_root || unsafe { libc::chdir(path.as_ptr().cast()) } == 0) {
        return Ok(WorksIn::Planned);
    }
    enter_root()?;
    Ok(WorksIn::Root)
}

/// dup2(2) takes close-on-exec away, the two numbers being different.
fn place(stream: BorrowedFd<'_>, number: RawFd) -> Result<(), Refusal> {
    // SAFETY: no `OwnedFd` has a number below 3 (see `fds::open_null`).
    checked(Stage::Streams, unsafe {
        libc::dup2(stream.as_raw_fd(), number)
    })
}
