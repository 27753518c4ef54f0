//! Whether what was seen of a run may be.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::fault::{Fault, Kind};
use super::place::{Place, Tree};
use super::run::Seen;
use super::scenarios::{EXPIRED, Scenario, Step};
use super::tracer::End;

/// What a manager takes away, whoever made it.
const PIDFILES: [&str; 3] = ["server.pid", "manager.pid", "manager.pid.lock"];
/// Of a server that the scenario has killed.
const KILLED: i32 = 128 + 9;
/// vsrun itself failed.
const FAILED: i32 = 125;
const STDERR: u64 = 2;

/// What a run has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that the scenario wants.
    Done,
    /// One line, a status of vsrun's own, and nothing left behind.
    Refused,
    /// A manager has given up in good order, after it had run the server.
    GaveUp,
    /// vsrun was killed, and a fresh start in the same place did all that the scenario wants.
    Killed,
    /// Done, refused or given up, but a file whose removal failed is still there.
    Kept,
    /// The call was not made this time.
    NotReached,
    /// Anything else: what was wrong.
    Violation(String),
}

impl Outcome {
    /// Its word on the line that a run prints.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::GaveUp => "gave-up",
            Outcome::Killed => "killed",
            Outcome::Kept => "kept",
            Outcome::NotReached => "not-reached",
            Outcome::Violation(_) => "violation",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Violation(why) => write!(f, "violation\t{why}"),
            other => f.write_str(other.word()),
        }
    }
}

/// `Err` holds what was wrong; `Ok(None)` is a run that was cut short by a kill, and is to be
/// followed by a fresh start.
pub type Judged = Result<Option<Outcome>, Vec<String>>;

/// What the directory held before the start.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    pub tree: &'a Tree,
    /// What of it may be changed or gone afterwards.
    pub strays: &'a BTreeSet<PathBuf>,
}

/// Judges a run.
pub fn judge(
    scenario: &Scenario,
    place: &Place,
    before: Before<'_>,
    fault: Option<&Fault>,
    seen: &Seen,
) -> Judged {
    let (errors, messages) = (place.errors(), place.messages());
    let mut wrong = seen.wrong.clone();
    if messages.contains("panicked") || messages.contains("memory allocation") {
        wrong.push("a panic or an abort".to_owned());
    }
    if !messages.contains("cannot write pidfile") {
        wrong.extend(seen.unwritten.iter().cloned());
    }
    if !place.seen("stale").is_empty() && !was_removal(fault, seen, Path::new("server.pid")) {
        wrong.push("a handler ran while the dead server's pidfile was there".to_owned());
    }
    let is_killed = fault.is_some_and(|fault| fault.kind == Kind::Kill);
    let is_done = seen.completed && !scenario.is_bad();
    let gave_up = !is_done && scenario.is_managed() && !seen.lives.is_empty();
    let outcome = match () {
        () if is_done => Some(Outcome::Done),
        () if is_killed => {
            wrong.extend(told_twice(scenario, &errors));
            None
        }
        () if gave_up => {
            wrong.extend(gave_up_badly(scenario, &messages, seen));
            Some(Outcome::GaveUp)
        }
        () => {
            wrong.extend(refused_badly(scenario, &errors, fault, seen));
            Some(if seen.completed { Outcome::Done } else { Outcome::Refused })
        }
    };
    let now = match place.tree() {
        Ok(now) => now,
        Err(error) => return Err(vec![format!("cannot read the directory: {error}")]),
    };
    let ran = is_done || gave_up;
    wrong.extend(lost(scenario, before, &now, !seen.lives.is_empty()));
    // A directory that is said to have been removed has no old logs.
    let is_told = messages.contains("cannot ") || is_killed || call(fault) == "getdents64";
    if is_done && !is_told {
        wrong.extend(unexpired(before, &now));
    }
    let left = if is_killed { Vec::new() } else { left_behind(scenario, before, &now, ran) };
    // A directory cannot go before what is in it.
    let unremoved = left.iter().all(|path| {
        left.iter().any(|inner| inner.starts_with(path) && was_removal(fault, seen, inner))
    });
    if !unremoved {
        wrong.extend(left.iter().map(|path| format!("'{}' is left behind", path.display())));
    }
    match (wrong.is_empty(), left.is_empty()) {
        (true, true) => Ok(outcome),
        // What cannot be removed stays, and what cannot be seen to be vsrun's own is not removed.
        (true, false) => Ok(Some(Outcome::Kept)),
        (false, _) => Err(wrong),
    }
}

fn call(fault: Option<&Fault>) -> &str {
    fault.map_or("", |fault| fault.point.call.as_str())
}

/// Whether the call that failed was to remove this file, or to look at it.
fn was_removal(fault: Option<&Fault>, seen: &Seen, path: &Path) -> bool {
    let looked_at = seen.struck.as_ref().and_then(|struck| struck.looked_at.as_deref());
    fault.is_some() && looked_at.is_some_and(|looked_at| path.ends_with(looked_at))
}

/// What is wrong with how a start was refused: the status, or how often that was said.
fn refused_badly(
    scenario: &Scenario,
    errors: &str,
    fault: Option<&Fault>,
    seen: &Seen,
) -> Option<String> {
    let Some(End::Status(status)) = seen.status else {
        return Some(format!("neither done nor refused: {:?}", seen.status));
    };
    let call = call(fault);
    let is_missing = fault.is_some_and(|fault| fault.kind == Kind::Error(Errno::ENOENT));
    let right: &[i32] = match call {
        "execve" if is_missing => &[127],
        "execve" => &[126],
        // It may look for the program.
        "access" | "faccessat2" | "newfstatat" | "openat" | "statx" => &[FAILED, 126],
        _ => &[FAILED],
    };
    let is_right = right.contains(&status) || scenario.is_bad() && status == scenario.status;
    if !is_right {
        return Some(format!("status {status} instead of {right:?}"));
    }
    // What cannot be written is not read.
    let is_mute = call.starts_with("write")
        && seen.struck.as_ref().is_some_and(|struck| struck.descriptor == STDERR);
    match own_lines(errors) {
        1 => None,
        0 if is_mute => None,
        lines => Some(format!("{lines} lines for one failure")),
    }
}

/// What is wrong with how a manager gave up: that it said nothing, or the status, which is the last
/// server's unless the start was over long before. Where vsrun could not see how its first start
/// went, it has taken that server back.
fn gave_up_badly(scenario: &Scenario, messages: &str, seen: &Seen) -> Option<String> {
    let last = if scenario.steps[0] == Step::Exit { 0 } else { KILLED };
    let is_right = |status| status == last || status == FAILED && seen.lives.len() == 1;
    if !matches!(seen.status, Some(End::Status(status)) if is_right(status)) {
        return Some(format!("a manager gave up with {:?} instead of {last}", seen.status));
    }
    (!messages.contains("cannot ")).then(|| "a manager gave up without a word".to_owned())
}

/// What is wrong with what the others say when one is killed: one line, besides the one for what
/// is wrong with the scenario.
fn told_twice(scenario: &Scenario, errors: &str) -> Option<String> {
    let told = errors.lines().filter(|line| is_error(line)).count();
    (told > 1 + usize::from(scenario.is_bad()))
        .then(|| format!("{told} errors told for one failure"))
}

/// How many lines vsrun has told, but for the warning that no syslog daemon is there.
fn own_lines(errors: &str) -> usize {
    let own = errors.lines().filter(|line| line.starts_with("vsrun: "));
    own.filter(|line| !line.contains("/dev/log") && line.contains(": ")).count()
}

/// Whether a line tells of a failure, and not of what a manager has done.
fn is_error(line: &str) -> bool {
    let told = ["cannot ", "already managed", "the background process died"];
    line.starts_with("vsrun: ") && told.iter().any(|told| line.contains(told))
}

/// Whether the scenario leaves a file of this name as it likes, once a server has run.
fn may_differ(scenario: &Scenario, name: &str) -> bool {
    scenario.leaves.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start) && !name.ends_with("precious"),
        None => name == *known,
    })
}

/// What is there and was not, or not so. A manager that was there has taken its pidfiles away, and
/// those that it found.
fn left_behind(scenario: &Scenario, before: Before<'_>, now: &Tree, ran: bool) -> Vec<PathBuf> {
    let is_over = ran && scenario.is_managed();
    let left = now.iter().filter(|(path, about)| {
        let name = path.to_string_lossy();
        match before.tree.get(*path) {
            _ if PIDFILES.contains(&name.as_ref()) && is_over => true,
            _ if ran && may_differ(scenario, &name) => false,
            _ if before.strays.contains(*path) => false,
            old => old != Some(*about),
        }
    });
    left.map(|(path, _)| path.clone()).collect()
}

/// What was there and is nowhere now. A server's pidfile is written anew, a log is renamed or, if
/// it is empty, used, and one that has expired is deleted once a server runs.
fn lost(scenario: &Scenario, before: Before<'_>, now: &Tree, ran: bool) -> Vec<String> {
    let old = before.tree.iter().filter(|(path, about)| {
        let name = path.to_string_lossy();
        let is_empty = |about: &str| about.lines().count() == 1;
        let is_renamed = || now.values().any(|now| now == *about);
        let is_expired = ran && EXPIRED.contains(&name.as_ref());
        !(name == "server.pid"
            || before.strays.contains(*path)
            || now.get(*path) == Some(*about)
            || is_expired
            || may_differ(scenario, &name) && (is_empty(about) || is_renamed()))
    });
    old.map(|(path, _)| format!("'{}' is lost", path.display())).collect()
}

/// Which logs should have been deleted.
fn unexpired(before: Before<'_>, now: &Tree) -> Vec<String> {
    let old = EXPIRED.iter().map(Path::new).filter(|path| before.tree.contains_key(*path));
    let left = old.filter(|path| now.get(*path) == before.tree.get(*path));
    left.map(|path| format!("'{}' has not been deleted", path.display())).collect()
}
