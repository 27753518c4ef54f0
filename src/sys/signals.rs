//! Signals: what vsrun starts with, what its children get, and what a manager
//! reads. Raw system calls, because the C library hides two real-time signals
//! that other processes may still send.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// What a write may bring about that is an error to vsrun, and no death: a closed pipe, a limit on
/// the size of files.
const IGNORED: [libc::c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];
/// The highest signal number.
const LAST: libc::c_int = 64;
/// The kernel's signal set: one bit a signal (see rt_sigprocmask(2)).
type Set = u64;
const SET_SIZE: usize = size_of::<Set>();
const NONE: Set = 0;
/// All but the ignored ones: a signal that is blocked waits, ignored or not.
const BLOCKED: Set = !(1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGXFSZ - 1));

/// Sets every disposition to the default and unblocks every signal, whatever the caller left,
/// except that a write that fails is an error and no death.
pub fn reset() {
    for signal in 1..=LAST {
        set_default(signal);
    }
    ignore_failed_writes();
    set_mask(NONE);
}

/// Blocks the signals that are not ignored: from here on what was begun is brought to an end.
pub fn block() {
    set_mask(BLOCKED);
}

/// What a program that is executed gets: default dispositions and an empty mask.
/// Async-signal-safe.
pub fn reset_for_exec() {
    for signal in IGNORED {
        set_default(signal);
    }
    set_mask(NONE);
}

/// Undoes [`reset_for_exec`] after an exec that failed.
pub(super) fn undo_reset_for_exec() {
    set_mask(BLOCKED);
    ignore_failed_writes();
}

fn ignore_failed_writes() {
    for signal in IGNORED {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn set_default(signal: libc::c_int) {
    // All zero is SIG_DFL with no flags on every architecture, and no kernel's struct is longer.
    let action = [0_u64; 8];
    let none = std::ptr::null::<u64>();
    // SAFETY: `action` outlives the call. The kernel refuses SIGKILL and SIGSTOP.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            none,
            SET_SIZE,
        )
    };
}

fn set_mask(mask: Set) {
    let (how, none) = (libc::SIG_SETMASK, std::ptr::null::<Set>());
    // SAFETY: `mask` outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const mask,
            none,
            SET_SIZE,
        )
    };
}

/// The signals that this process is sent, the ignored ones excepted (see signalfd(2)).
#[derive(Debug)]
pub struct Requests(OwnedFd);

impl Requests {
    /// Blocks them and opens a signalfd. What is pending already can be read from it.
    pub fn open() -> Result<Requests, Errno> {
        let mask = BLOCKED;
        // The C library unblocks its own two when it restores a mask, in the name service say.
        set_mask(mask);
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        let number = libc::SYS_signalfd4;
        // SAFETY: `mask` outlives the call.
        let fd = unsafe { libc::syscall(number, -1, &raw const mask, SET_SIZE, flags) };
        let fd = Errno::result(fd)?;
        // SAFETY: the descriptor is new, and belongs to nothing else.
        Ok(Requests(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// Takes the number of the next signal, if there is one.
    pub fn take(&self) -> Option<i32> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let read = nix::unistd::read(&self.0, &mut info).ok()?;
        let (number, _) = info[..read].split_first_chunk::<4>()?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Requests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The name of a signal without SIG, as in `SEGV` or `RTMIN+3` (see signal(7)).
#[derive(Debug, Clone, Copy)]
pub struct SignalName(pub libc::c_int);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, first) = (self.0, libc::SIGRTMIN());
        match Signal::try_from(number) {
            Ok(signal) => f.write_str(signal.as_str().trim_start_matches("SIG")),
            Err(_) if number == first => f.write_str("RTMIN"),
            Err(_) if number > first => write!(f, "RTMIN+{}", number - first),
            Err(_) => write!(f, "{number}"),
        }
    }
}

/// Sends a signal to one process.
pub fn send(to: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill touches no memory.
    Errno::result(unsafe { libc::kill(to.as_raw(), signal) }).map(drop)
}

/// Sends a signal to every process of the group that `leader` leads.
pub fn send_to_group(leader: Pid, signal: i32) -> Result<(), Errno> {
    send(Pid::from_raw(-leader.as_raw()), signal)
}
