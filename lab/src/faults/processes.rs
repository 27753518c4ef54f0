//! What /proc tells of processes, and waiting for children.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};
use std::os::fd::AsFd;

/// Wakes when a child or a traced process has something to say.
pub struct Bell(SignalFd);

impl Bell {
    /// Blocks SIGCHLD in this thread, for good.
    pub fn hang() -> Result<Bell, Errno> {
        let children = SigSet::from(Signal::SIGCHLD);
        children.thread_block()?;
        SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Bell)
    }

    /// Waits for a moment, or until it rings.
    pub fn wait(&self) {
        // Whatever ends the wait, everything is looked at again.
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5u8));
        while let Ok(Some(_)) = self.0.read_signal() {}
    }
}

/// Whether a process runs; one that is dead and not reaped does not.
pub fn is_running(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The parent of a process; none of a thread, whose parent is its process's.
pub fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok().map(Pid::from_raw)
    };
    value("PPid:").filter(|_| value("Tgid:") == Some(pid))
}

fn stat(pid: Pid) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Every process that descends from this one and runs; orphans among them, this one being their
/// reaper.
pub fn descendants() -> Vec<Pid> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<i32>().ok();
        if let Some((pid, (_, parent))) = pid.and_then(|pid| Some((pid, stat(Pid::from_raw(pid))?)))
        {
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
    let pids = parents.keys().copied().filter(|pid| descends(*pid)).map(Pid::from_raw);
    pids.filter(|pid| is_running(*pid)).collect()
}

/// Where a process stands, for a report of a hang.
pub fn standing(pid: Pid) -> String {
    let read = |name: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
    };
    let (state, parent) = stat(pid).unwrap_or(('?', 0));
    let (line, call, place) = (read("cmdline"), read("syscall"), read("wchan"));
    format!("process {pid} (parent {parent}, {state}) of '{line}': call {call}, in {place}")
}

/// Kills processes by their ids.
pub fn end(pids: &[Pid]) {
    for pid in pids {
        // One that is gone by now is what is wanted.
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

/// Looks until it is so or the time is up; whether it is so.
pub fn until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
