//! Finding processes, and waiting for children.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};

use crate::process::{self, state};

/// Receives SIGCHLD, which also announces events of traced processes.
pub struct Sigchld(SignalFd);

impl Sigchld {
    /// Blocks SIGCHLD in this thread.
    pub fn block() -> Result<Sigchld, Errno> {
        let set = SigSet::from(Signal::SIGCHLD);
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Sigchld)
    }

    /// Waits for 5 ms, or until the signal arrives.
    pub fn wait(&self) {
        // The caller checks everything again, whatever ended the wait.
        let _ = poll(
            &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(5u8),
        );
        while let Ok(Some(_)) = self.0.read_signal() {}
    }
}

/// Whether a process runs. A dead one that has not been reaped does not.
pub fn is_running(pid: Pid) -> bool {
    process::is_running(pid.as_raw())
}

/// The parent of a process. None for a thread, whose parent is that of its process.
pub fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok().map(Pid::from_raw)
    };
    value("PPid:").filter(|_| value("Tgid:") == Some(pid))
}

/// All running descendants of this process. It is a subreaper, so orphans are among them.
pub fn descendants() -> Vec<Pid> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        if let Some((_, parent)) = state(pid) {
            parents.insert(pid, parent);
        }
    }
    let own = getpid().as_raw();
    let descends = |mut pid: i32| loop {
        match parents.get(&pid) {
            Some(parent) if *parent == own => return true,
            Some(parent) => pid = *parent,
            None => return false,
        }
    };
    let pids = parents
        .keys()
        .copied()
        .filter(|pid| descends(*pid))
        .map(Pid::from_raw);
    pids.filter(|pid| is_running(*pid)).collect()
}

/// Describes a process and its current system call.
pub fn description(pid: Pid) -> String {
    let read = |name: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .replace('\0', " ")
            .trim()
            .to_owned()
    };
    let (state, parent) = state(pid.as_raw()).unwrap_or(('?', 0));
    let (line, call, function) = (read("cmdline"), read("syscall"), read("wchan"));
    format!("process {pid} (parent {parent}, {state}) of '{line}': call {call}, in {function}")
}

/// Kills processes.
pub fn kill_all(pids: &[Pid]) {
    for pid in pids {
        // It may have ended.
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

/// Waits until a condition is true. Returns false if the time is up.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
