//! Signals as the kernel has them: nix's `Signal` does not have the real-time ones, and the C
//! library hides two that it uses itself and that posix_spawn(3) leaves ignored.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ptr;

use nix::libc::{self, c_int};

const NAMES: [(&str, c_int); 22] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("XCPU", libc::SIGXCPU),
    ("WINCH", libc::SIGWINCH),
];

/// Returns the name of a signal without `SIG`, if it has one here.
pub fn signal_name(number: c_int) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|(_, known)| *known == number)
        .map(|(name, _)| *name)
}

/// Returns the number of a signal that is written as a number or as a name without `SIG`.
pub fn signal_number(text: &str) -> Option<c_int> {
    let named = NAMES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number);
    named
        .or_else(|| text.parse().ok())
        .filter(|number| (1..=64).contains(number))
}

/// A set of signals as the kernel shows it: bit N-1 stands for signal N.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// Tells whether no signal is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Tells whether signal `number` is in the set.
    pub fn contains(self, number: c_int) -> bool {
        self.numbers().any(|member| member == number)
    }

    /// Returns the numbers of the signals in the set, lowest first.
    pub fn numbers(self) -> impl Iterator<Item = c_int> {
        (1..=64).filter(move |number| self.0 >> (number - 1) & 1 == 1)
    }
}

impl FromIterator<c_int> for SignalSet {
    fn from_iter<I: IntoIterator<Item = c_int>>(numbers: I) -> Self {
        SignalSet(
            numbers
                .into_iter()
                .fold(0, |bits, number| bits | 1 << (number - 1)),
        )
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |number| signal_name(number).map_or(number.to_string(), str::to_owned);
        formatter
            .debug_set()
            .entries(self.numbers().map(name))
            .finish()
    }
}

/// The kernel's `struct sigaction` with room to spare: the handler comes first, and all zeroes mean
/// no flags and an empty mask.
type KernelAction = [libc::sighandler_t; 8];

/// The size of the kernel's `sigset_t`.
const SIGNAL_SET_BYTES: usize = 8;

/// Returns whether this process ignores signal `number`.
pub(crate) fn is_ignored(number: c_int) -> bool {
    let mut action: KernelAction = [0; 8];
    let none: *const KernelAction = ptr::null();
    // SAFETY: a null new action only asks; the old one is ours and large enough.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            none,
            &mut action,
            SIGNAL_SET_BYTES,
        )
    };
    asked == 0 && action[0] == libc::SIG_IGN
}

/// Makes this process ignore signal `number`, or not: `SIG_IGN` or `SIG_DFL`. Only a system call.
pub(crate) fn set_disposition(number: c_int, disposition: libc::sighandler_t) -> io::Result<()> {
    let mut action: KernelAction = [0; 8];
    action[0] = disposition;
    let none: *mut KernelAction = ptr::null_mut();
    // SAFETY: the new action is ours and complete, and installs no code; a null old one is allowed.
    let set = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            &action,
            none,
            SIGNAL_SET_BYTES,
        )
    };
    if set < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_first_and_the_last_signal() {
        let set: SignalSet = [1, 64].into_iter().collect();
        assert_eq!(set, SignalSet(0x8000_0000_0000_0001));
        assert!(set.contains(64) && !set.contains(2));
        assert_eq!(format!("{set:?}"), r#"{"HUP", "64"}"#);
    }

    #[test]
    fn a_signal_is_read_as_name_or_number() {
        assert_eq!(signal_number("SEGV"), Some(libc::SIGSEGV));
        assert_eq!(signal_number("40"), Some(40));
        assert_eq!(signal_number("0"), None);
        assert_eq!(signal_number("SEGVX"), None);
    }
}
