//! Which processes belong to a sandbox, and their end.
//!
//! The test process is made a child subreaper: whatever a test starts stays among its descendants,
//! even if it daemonizes, and nothing outside them is ever looked at. A descendant belongs to
//! the sandbox whose marker is in its environment; a process that overwrote its environment, to the
//! one that its program, directories or files are in; else to the one of its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{self, Child, Command};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use nix::libc::SIGKILL;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::pidfd::PidFd;
use crate::proc_files::Stat;
use crate::process::Process;
use crate::wait::look_until;

/// The environment variable that holds the path of a process's sandbox.
pub(crate) const MARKER: &str = "VSTEST_SANDBOX";

const PATIENCE: Duration = Duration::from_secs(20);

/// Makes orphans of the tests' processes come to this process instead of to process 1.
pub(crate) fn keep_orphans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_child_subreaper(true).expect("any process may become a subreaper"));
}

/// Returns the living processes of the sandbox in `directory`; `known` belong to it anyway.
pub(crate) fn members(directory: &Path, known: &[Process]) -> Vec<Process> {
    let stats: BTreeMap<i32, Stat> = Stat::all()
        .into_iter()
        .map(|stat| (stat.pid, stat))
        .collect();
    let mut verdicts = BTreeMap::from([(process::id() as i32, Verdict::Descendant)]);
    for pid in stats.keys() {
        judge(*pid, &stats, directory, known, &mut verdicts);
    }
    let alive = stats
        .values()
        .filter(|stat| !matches!(stat.state, 'Z' | 'X'));
    let ours = alive.filter(|stat| verdicts.get(&stat.pid) == Some(&Verdict::Member));
    ours.map(Stat::process).collect()
}

/// Kills every process of the sandbox and reaps what came to this process.
///
/// Looks again after each round, because a process may have forked meanwhile.
pub(crate) fn end_all(directory: &Path, known: &[Process]) -> Result<(), String> {
    let mut killed = BTreeSet::new();
    let is_empty = || {
        let members = members(directory, known);
        members.iter().for_each(|member| kill(*member));
        let ids: Vec<i32> = members.iter().map(|member| member.pid()).collect();
        killed.extend(&ids);
        if ids.is_empty() { Ok(()) } else { Err(ids) }
    };
    let ended = look_until(PATIENCE, is_empty);
    reap(&killed);
    ended
}

/// Starts a child that only its [`Child`] will wait for.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut waited_for = waited_for();
    let child = command.spawn()?;
    waited_for.insert(child.id() as i32);
    Ok(child)
}

/// Tells that a child from [`spawn`] has been waited for.
pub(crate) fn waited(child: &Child) {
    waited_for().remove(&(child.id() as i32));
}

fn waited_for() -> MutexGuard<'static, BTreeSet<i32>> {
    static WAITED_FOR: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps the dead that no other code waits for: zombies would otherwise count against the limits of
/// their users until the test process ends, and for ever where process 1 reaps nothing.
///
/// Children that a test has started by other means share this process's session. So they are
/// distinguished from orphans of servers, which have sessions of their own.
fn reap(killed: &BTreeSet<i32>) {
    let waited_for = waited_for();
    let me = Process::of(process::id() as i32).stat();
    let stats = Stat::all();
    let dead = stats
        .iter()
        .filter(|stat| stat.state == 'Z' && !waited_for.contains(&stat.pid));
    let mine = dead.filter(|stat| me.as_ref().is_some_and(|me| me.pid == stat.ppid));
    let foreign = |stat: &&Stat| me.as_ref().is_some_and(|me| me.sid != stat.sid);
    for stat in mine.filter(|stat| killed.contains(&stat.pid) || foreign(stat)) {
        // The status is of no interest, and the lock keeps other sandboxes from coming between.
        let _ = waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It belongs to the sandbox.
    Member,
    /// It is this process, or a descendant that does not belong to the sandbox.
    Descendant,
    /// It was not started by this process.
    Stranger,
}

fn judge(
    pid: i32,
    stats: &BTreeMap<i32, Stat>,
    directory: &Path,
    known: &[Process],
    verdicts: &mut BTreeMap<i32, Verdict>,
) -> Verdict {
    if let Some(verdict) = verdicts.get(&pid) {
        return *verdict;
    }
    let Some(stat) = stats.get(&pid) else {
        return Verdict::Stranger;
    };
    let verdict = match judge(stat.ppid, stats, directory, known, verdicts) {
        Verdict::Member => Verdict::Member,
        Verdict::Stranger => Verdict::Stranger,
        Verdict::Descendant => {
            let process = stat.process();
            if known.contains(&process) || lives_in(process, directory) {
                Verdict::Member
            } else {
                Verdict::Descendant
            }
        }
    };
    verdicts.insert(pid, verdict);
    verdict
}

fn lives_in(process: Process, directory: &Path) -> bool {
    let Some(exe) = process.exe() else {
        return false;
    };
    // A child of a parallel test that has not executed its program yet still has copies of this
    // process's descriptors. Afterwards they are closed: so the program is looked at first.
    if Some(&exe) == Process::of(process::id() as i32).exe().as_ref() {
        return false;
    }
    let inside = |path: &Path| path.starts_with(directory);
    process
        .env(MARKER)
        .is_some_and(|marker| marker == OsStr::new(directory))
        || inside(&exe)
        || process.cwd().is_some_and(|path| inside(&path))
        || process.root().is_some_and(|path| inside(&path))
        || process
            .open_files()
            .is_some_and(|files| files.values().any(|path| inside(path)))
}

fn kill(process: Process) {
    let Ok(handle) = PidFd::open(process.pid()) else {
        return;
    };
    // The handle may already be that of a later process with this id.
    if process.exists() {
        // It may have died by itself, or this user may not signal it.
        let _ = handle.signal(SIGKILL);
    }
}
