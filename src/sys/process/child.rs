//! How a child becomes what its spec says, between its fork and its exec: by
//! system calls on prepared data, and nothing else. No allocation, no formatting,
//! no panic.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use super::failure::{Refusal, Stage, checked};
use super::spec::{ChildSpec, Descriptors, Session, WorksIn};
use crate::sys::files::fds;
use crate::sys::identity;

/// Everything up to the exec, in the order that keeps each step possible and safe.
pub(super) fn become_child(
    spec: &ChildSpec,
    descriptors: Descriptors<'_>,
) -> Result<WorksIn, Refusal> {
    if spec.session == Session::Own {
        // SAFETY: setsid touches no memory.
        checked(Stage::Session, unsafe { libc::setsid() })?;
    }
    place_streams(descriptors)?;
    if let Some(root) = &spec.root {
        enter_new_root(root)?;
    }
    let entered = enter_work_dir(spec, descriptors);
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::umask(spec.umask.bits()) };
    if let Some(identity) = &spec.identity {
        identity::change_to(identity)?;
    }
    match entered {
        // Where root may not, as on NFS with root_squash, the user may.
        Err(refusal) if spec.identity.is_some() && is_forbidden(refusal.reason) => {
            enter_work_dir(spec, descriptors)?;
        }
        entered => entered?,
    }
    let works_in = leave_unreachable_dir(spec, descriptors)?;
    fds::close_all_on_exec();
    Ok(works_in)
}

fn place_streams(descriptors: Descriptors<'_>) -> Result<(), Refusal> {
    place(descriptors.input, libc::STDIN_FILENO)?;
    if let Some(output) = descriptors.output {
        place(output, libc::STDOUT_FILENO)?;
        place(output, libc::STDERR_FILENO)?;
    }
    Ok(())
}

fn enter_new_root(root: &CStr) -> Result<(), Refusal> {
    // SAFETY: the path outlives the call.
    checked(Stage::Root, unsafe { libc::chroot(root.as_ptr()) })?;
    // SAFETY: the path is a constant.
    checked(Stage::Root, unsafe { libc::chdir(c"/".as_ptr()) })
}

fn is_forbidden(reason: Errno) -> bool {
    matches!(reason, Errno::EACCES | Errno::EPERM)
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

/// Leaves a lent working directory that the child cannot reach by its path for the root directory.
/// The kernel gives a directory outside the root no path that begins with a slash (see getcwd(2)),
/// and a user may not search every directory. Root never follows that path, in which others may
/// have put a link.
fn leave_unreachable_dir(
    spec: &ChildSpec,
    descriptors: Descriptors<'_>,
) -> Result<WorksIn, Refusal> {
    let is_lent = spec.work_dir.is_none() && descriptors.work_dir.is_some();
    if !is_lent || (spec.root.is_none() && spec.identity.is_none()) {
        return Ok(WorksIn::Planned);
    }
    let mut path = [0_u8; libc::PATH_MAX as usize];
    let (start, size) = (path.as_mut_ptr(), path.len());
    // SAFETY: the kernel writes at most `size` bytes, to a buffer of that size.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, start, size) };
    let has_path = length > 0 && path[0] == b'/';
    let identity = spec.identity.as_ref();
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
