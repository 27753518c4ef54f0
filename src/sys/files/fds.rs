//! Descriptors: the ones vsrun starts with, pipes, `/dev/null`. Every one above
//! 2 that is opened here closes on exec.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::pipe2;

use super::entry;

/// The size asked for a pipe to logger, in bytes: the default of fs.pipe-max-size (pipe(7)).
const PIPE_SIZE: i32 = 1 << 20;

/// `/dev/null`, open for reading and writing.
static NULL: OnceLock<OwnedFd> = OnceLock::new();

/// Opens `/dev/null` for reading and writing: first on each of descriptors 0 to 2 that is closed,
/// for good, and then above them, for [`null`]. To be called before anything else is opened, which
/// could take the place of a closed standard stream.
pub fn open_null() -> Result<(), Errno> {
    loop {
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        if null.as_raw_fd() > libc::STDERR_FILENO {
            let _ = NULL.set(null);
            return Ok(());
        }
        fcntl(&null, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let _ = null.into_raw_fd();
    }
}

/// `/dev/null`, as [`open_null`] opened it.
pub fn null() -> BorrowedFd<'static> {
    match NULL.get() {
        Some(null) => null.as_fd(),
        None => unreachable!("it is opened before anything that needs it"),
    }
}

/// Closes every descriptor above 2 but [`null`]: only at the start, when all others are inherited.
pub fn close_inherited() {
    let kept = NULL.get().map_or(libc::STDERR_FILENO, AsRawFd::as_raw_fd);
    let below = kept == libc::STDERR_FILENO || kept == 3 || close_range(3, kept - 1, 0);
    if below && close_range(kept + 1, RawFd::MAX, 0) {
        return;
    }
    // Before Linux 5.9 there is no close_range(2).
    let listed = listed().unwrap_or_default();
    let all = if listed.is_empty() {
        3..soft_limit()
    } else {
        0..0
    };
    for fd in listed.into_iter().chain(all).filter(|fd| *fd != kept) {
        // SAFETY: nothing else has been opened yet that belongs to this process; a number that is
        // not open is refused with EBADF.
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
pub(in crate::sys) fn close_all_on_exec() {
    close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

/// Deals with the descriptors from `first` to `last`; whether the kernel can (see close_range(2)).
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> bool {
    // SAFETY: it is called with 0 only for descriptors that are inherited, and CLOSE_RANGE_CLOEXEC
    // closes nothing.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    closed == 0
}

/// The reason in an error of the standard library.
pub fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// Standard error, which is open from start to end.
pub fn standard_error() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 is filled at the first instruction, replaced, and never closed. Without
    // a null device to fill it, a write to it is refused.
    unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) }
}

/// A pipe, read end first, of the largest size that anyone may ask for.
pub fn large_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    // A smaller pipe works as well, only sooner full.
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((read, write))
}

/// Opens what `fd` leads to once more, so that a write does not wait for a reader, while the other
/// holders of a pipe or terminal are not affected. A copy of `fd` where that is impossible (without
/// `/proc`, or for a pipe of another user), and for files, which never wait.
pub fn open_nonblocking(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let waits = matches!(kind(fd), Some(SFlag::S_IFIFO | SFlag::S_IFCHR));
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = if waits { reopen(fd, flags).ok() } else { None };
    opened.map_or_else(|| fd.try_clone_to_owned(), Ok)
}

/// Opens what `fd` leads to once more, by `/proc`.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Writes without waiting, if that is possible; how much was written.
pub fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> usize {
    if !can_write(fd) {
        return 0;
    }
    let written = match kind(fd) {
        Some(SFlag::S_IFSOCK) => send(
            fd.as_raw_fd(),
            bytes,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        ),
        _ => nix::unistd::write(fd, bytes),
    };
    written.unwrap_or(0)
}

/// Writes, and waits for a slow reader even where another process has set O_NONBLOCK. A line that
/// cannot be written is dropped: there is no other place for it.
pub fn write_blocking(fd: BorrowedFd<'_>, bytes: &[u8]) {
    while matches!(
        nix::unistd::write(fd, bytes),
        Err(Errno::EAGAIN | Errno::EINTR)
    ) {
        let _ = poll(
            &mut [PollFd::new(fd, PollFlags::POLLOUT)],
            PollTimeout::NONE,
        );
    }
}

fn kind(fd: BorrowedFd<'_>) -> Option<SFlag> {
    fstat(fd).ok().map(|about| entry::kind(&about))
}

/// Whether there is something to be read.
pub fn can_read(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::POLLIN)
}

/// Whether a write would not have to wait.
fn can_write(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::POLLOUT)
}

fn is_ready(fd: BorrowedFd<'_>, for_what: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, for_what)];
    let asked = poll(&mut fds, PollTimeout::ZERO);
    asked.is_ok()
        && fds[0]
            .revents()
            .is_some_and(|ready| ready.contains(for_what))
}

/// Redirects vsrun's own standard input from `/dev/null`, and its standard output and error to
/// `output`, if there is one.
pub fn redirect_own(output: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    nix::unistd::dup2_stdin(null())?;
    if let Some(output) = output {
        nix::unistd::dup2_stdout(output)?;
        nix::unistd::dup2_stderr(output)?;
    }
    Ok(())
}
