//! Deaths of children. Raw, because nix loses the status of a death by a
//! real-time signal.

use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::limits;
use crate::sys::clock::Moment;
use crate::sys::files::fds;
use crate::sys::signals::{self, SignalName};

/// How a process ended (see waitpid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(u8),
    /// This signal killed it.
    Signal {
        /// The signal's number; real-time signals too.
        number: i32,
        /// Whether it left a core dump.
        core: bool,
    },
}

impl Exit {
    /// The end as messages show it, with the name of the signal.
    pub fn named(self) -> NamedExit {
        NamedExit(self)
    }
}

/// The result of [`Exit::named`].
#[derive(Debug)]
pub struct NamedExit(Exit);

impl fmt::Display for NamedExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match self.0 {
            Exit::Status(_) => Ok(()),
            Exit::Signal { number, .. } => write!(f, " ({})", SignalName(number)),
        }
    }
}

impl fmt::Display for Exit {
    /// The end as a handler's variables show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "exited with status {status}"),
            Exit::Signal { number, core: true } => write!(f, "dumped core with signal {number}"),
            Exit::Signal {
                number,
                core: false,
            } => write!(f, "terminated by signal {number}"),
        }
    }
}

/// How a child that has not executed anything is found when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinship {
    /// By `__WCLONE` alone, and no SIGCHLD is raised (see clone(2) on a child without a termination
    /// signal; an exec makes it a child like any other).
    Apart,
    /// Like every child.
    Ordinary,
}

/// Finds the next dead child, if there is one, and leaves it to [`reap`]. To be called until there
/// is none: several deaths may stand behind one SIGCHLD.
pub fn next_dead() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let found = loop {
        // SAFETY: `info` outlives the call.
        match Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) }) {
            Err(Errno::EINTR) => {}
            found => break found.is_ok(),
        }
    };
    // SAFETY: it was zeroed, which is a value of the struct, and filled where a child was found.
    let info = unsafe { info.assume_init() };
    // SAFETY: the fields of SIGCHLD are the ones that were filled; without a child the id is 0.
    let pid = unsafe { info.si_pid() };
    (found && pid > 0).then(|| Pid::from_raw(pid))
}

/// Reaps a dead child, whether it has executed anything or not.
pub fn reap(child: Pid) -> Option<Exit> {
    wait(child, libc::WNOHANG | libc::__WALL).ok().flatten()
}

/// Waits for the end of one child, whether it has executed anything or not.
pub fn wait_for(child: Pid) -> Result<Exit, Errno> {
    wait(child, libc::__WALL)?.ok_or(Errno::ECHILD)
}

/// The end of a child that a tracer may keep from being reaped (see ptrace(2)); none while it
/// lives. One that cannot be reaped counts as killed: nothing else ends what is traced for good.
pub fn end_of(child: Pid) -> Option<Exit> {
    let is_dying = |stat: Stat| stat.state == b't' && stat.flags & KILLED_BY_SIGNAL != 0;
    if Stat::of(child).is_some_and(is_dying) {
        // On its way out, where its tracer has stopped it. No signal reaches it any more.
        return Some(KILLED);
    }
    let pidfd = open_pidfd(child).ok()?;
    if !fds::can_read(pidfd.as_fd()) {
        return None;
    }
    Some(reap(child).unwrap_or(KILLED))
}

/// Whether a process lives, a child or not. A zombie does not.
pub fn is_alive(process: Pid) -> bool {
    match open_pidfd(process) {
        // It can be read when the process has ended (see pidfd_open(2)).
        Ok(pidfd) => !fds::can_read(pidfd.as_fd()),
        Err(Errno::ESRCH) => false,
        // Before Linux 5.3 there is no pidfd_open(2). A zombie counts as alive then.
        Err(_) => signals::send(process, 0) != Err(Errno::ESRCH),
    }
}

/// Waits for the end of a child that has been killed, or is about to exit. One that cannot be
/// reaped in time is left to whatever keeps it.
pub(super) fn wait_briefly(child: Pid) -> Exit {
    wait_within_limit(child, libc::__WALL)
        .ok()
        .flatten()
        .unwrap_or(KILLED)
}

/// How a child ended that has closed its channel, if it did so without having executed anything.
/// May be called in a forked copy of a process with one thread.
pub(super) fn ended_before_exec(child: Pid, kinship: Kinship) -> Option<Exit> {
    match kinship {
        // After an exec this finds no child. Before one it has closed its files, and is exiting.
        Kinship::Apart => match wait_within_limit(child, libc::__WCLONE) {
            Ok(exit) => Some(exit.unwrap_or(KILLED)),
            Err(_) => None,
        },
        Kinship::Ordinary => has_not_executed(child).then(|| wait_briefly(child)),
    }
}

/// The children of this process that were started at this time since boot or later, where the kernel
/// lists them (see proc_tid_children(5)).
pub fn children_since(start: Duration) -> Vec<Pid> {
    // SAFETY: sysconf only reads.
    let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })
        .unwrap_or(1)
        .max(1);
    let first = start.as_millis() * u128::from(ticks) / 1000;
    let listed = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let children = listed
        .split_whitespace()
        .filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?)));
    children
        .filter(|child| Stat::of(*child).is_some_and(|it| u128::from(it.start) >= first))
        .collect()
}

const KILLED: Exit = Exit::Signal {
    number: libc::SIGKILL,
    core: false,
};

/// Whether a process is the copy of its parent still, dead or alive. False where `/proc` does not
/// say so.
fn has_not_executed(child: Pid) -> bool {
    Stat::of(child).is_some_and(|stat| stat.flags & FORKED_WITHOUT_EXEC != 0)
}

/// PF_FORKNOEXEC in the kernel's include/linux/sched.h.
const FORKED_WITHOUT_EXEC: u32 = 0x40;
/// PF_SIGNALED, likewise.
const KILLED_BY_SIGNAL: u32 = 0x400;

/// What `/proc` shows of a process (see proc_pid_stat(5)).
struct Stat {
    state: u8,
    flags: u32,
    /// Its start since boot, in clock ticks.
    start: u64,
}

impl Stat {
    fn of(process: Pid) -> Option<Stat> {
        let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may hold anything. Behind it is the third field.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&stat[end + 1..])
            .ok()?
            .split_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let flags = fields.nth(5)?.parse().ok()?;
        let start = fields.nth(12)?.parse().ok()?;
        Some(Stat {
            state,
            flags,
            start,
        })
    }
}

fn open_pidfd(process: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    // SAFETY: the descriptor is new, and belongs to nothing else.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Looks for the end of a child again and again, until the limit.
fn wait_within_limit(child: Pid, flags: i32) -> Result<Option<Exit>, Errno> {
    let deadline = Moment::now() + limits::REAP;
    let mut pause = Duration::from_micros(50);
    loop {
        let exit = wait(child, flags | libc::WNOHANG)?;
        if exit.is_some() || Moment::now() >= deadline {
            return Ok(exit);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn wait(child: Pid, flags: i32) -> Result<Option<Exit>, Errno> {
    let mut status = 0;
    let pid = loop {
        // SAFETY: `status` outlives the call.
        match Errno::result(unsafe { libc::waitpid(child.as_raw(), &mut status, flags) }) {
            Err(Errno::EINTR) => {}
            outcome => break outcome?,
        }
    };
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal {
            number: libc::WTERMSIG(status),
            core: libc::WCOREDUMP(status),
        }
    } else {
        Exit::Status(libc::WEXITSTATUS(status) as u8)
    };
    Ok((pid > 0).then_some(exit))
}
