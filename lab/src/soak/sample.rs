//! What a process holds, as `/proc` tells it (see proc(5)).

use std::fs;

/// What one manager holds at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holding {
    /// Open descriptors.
    pub descriptors: usize,
    /// Memory that is its own alone, in KiB.
    pub private_dirty: u64,
    /// Its share of all its memory, in KiB.
    pub proportional: u64,
}

/// None if the process is gone.
pub fn holding(pid: i32) -> Option<Holding> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    };
    let (private_dirty, proportional) = (kib("Private_Dirty:"), kib("Pss:"));
    Some(Holding { descriptors, private_dirty, proportional })
}

/// The children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    listed.unwrap_or_default().split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// A process's state and its parent.
pub fn state(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The name of the program that a process executes.
pub fn command(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
