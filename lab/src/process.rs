//! What `/proc` shows of processes (see proc(5)).

use std::fs;

/// A process's state and its parent's id. None if there is no such process.
pub fn state(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name comes before, and may contain anything, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process runs. A dead one that has not been reaped does not.
pub fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The children of a process's first thread.
pub fn children(pid: i32) -> Vec<i32> {
    let ids = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    ids.unwrap_or_default()
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

/// The name of the program that a process executes.
pub fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// A process's memory in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub private_dirty: u64,
    /// Each page divided by the number of processes that share it.
    pub proportional: u64,
    pub resident: u64,
}

/// None if there is no such process.
pub fn memory(pid: i32) -> Option<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let value = |name: &str| kib(rollup.lines().find_map(|line| line.strip_prefix(name))?);
    Some(Memory {
        private_dirty: value("Private_Dirty:")?,
        proportional: value("Pss:")?,
        resident: value("Rss:")?,
    })
}

/// The number in a text such as `"  12 kB"`.
pub fn kib(text: &str) -> Option<u64> {
    text.trim().trim_end_matches(" kB").parse().ok()
}
