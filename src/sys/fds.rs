//! Descriptors: the ones vsrun starts with, pipes, `/dev/null`. Every one that
//! is opened here closes on exec.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

/// The size asked for a pipe to logger, in bytes: the default of fs.pipe-max-size (pipe(7)).
const PIPE_SIZE: i32 = 1 << 20;

/// Closes every descriptor above 2 that was inherited. Descriptors 0 to 2 are open by then: the
/// runtime of Rust has opened `/dev/null` on those that were not.
pub fn close_inherited() {
    // SAFETY: nothing has been opened yet that anybody here owns.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9 there is no close_range(2).
    for fd in listed().unwrap_or_else(|| (3..soft_limit()).collect()) {
        // SAFETY: as above; a number that is not open is refused with EBADF.
        unsafe { libc::close(fd) };
    }
}

fn listed() -> Option<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd").ok()?;
    let numbers = names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok());
    Some(numbers.filter(|number| *number > 2).collect())
}

fn soft_limit() -> RawFd {
    // SAFETY: sysconf only reads.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    RawFd::try_from(limit).unwrap_or(RawFd::MAX)
}

/// Makes every descriptor above 2 close on exec: what a library may have opened without saying so.
/// Async-signal-safe. Where the kernel cannot (before Linux 5.11), our own do so anyway.
pub(super) fn close_all_on_exec() {
    // SAFETY: only sets flags.
    unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
}

/// Opens `/dev/null` for reading and writing.
pub fn null() -> Result<OwnedFd, Errno> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// The reason in an error of the standard library.
pub fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// Standard error, which is open from start to end.
pub fn standard_error() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 is never closed, only replaced.
    unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) }
}

/// A pipe, read end first, of the largest size that anyone may ask for.
pub fn large_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    // A smaller pipe works as well, only sooner full.
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((read, write))
}

/// Opens a pipe's write end once more, so that writing to it never blocks while the other holders
/// of the pipe are not affected. Needs `/proc`.
pub fn reopened_nonblocking(pipe: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty())
}

/// Tells whether a write would not have to wait.
pub fn can_write(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Puts `input` and `output` in the places of vsrun's own standard streams.
pub fn redirect_own(input: BorrowedFd<'_>, output: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    nix::unistd::dup2_stdin(input)?;
    if let Some(output) = output {
        nix::unistd::dup2_stdout(output)?;
        nix::unistd::dup2_stderr(output)?;
    }
    Ok(())
}
