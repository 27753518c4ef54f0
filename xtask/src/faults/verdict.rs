//! Whether what was seen of a run may be.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::fault::{Fault, Kind};
use super::place::{Place, Tree};
use super::run::Seen;
use super::scenarios::Scenario;
use super::tracer::End;

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
            let is_told = messages.contains("cannot ");
            wrong.extend((!is_told).then(|| "a manager gave up without a word".to_owned()));
            Some(Outcome::GaveUp)
        }
        () => {
            wrong.extend(refused_badly(&errors, fault, seen));
            Some(if seen.completed { Outcome::Done } else { Outcome::Refused })
        }
    };
    let left = match place.tree() {
        Ok(_) if is_killed => Vec::new(),
        Ok(tree) => left_behind(scenario, before, &tree, is_done || gave_up),
        Err(error) => vec![format!("cannot read the directory: {error}")],
    };
    match (wrong.is_empty(), left.is_empty()) {
        (true, true) => Ok(outcome),
        // What cannot be removed stays, and what cannot be seen to be vsrun's own is not removed.
        (true, false) if was_removal(fault, seen, &left) => Ok(Some(Outcome::Kept)),
        _ => Err(wrong.into_iter().chain(left).collect()),
    }
}

/// Whether the call that failed was to remove something, or to look at what was left behind.
fn was_removal(fault: Option<&Fault>, seen: &Seen, left: &[String]) -> bool {
    let looked_at = seen.looked_at.as_ref().map(|name| format!("{name}' is "));
    fault.is_some_and(|fault| matches!(fault.point.call.as_str(), "unlink" | "unlinkat" | "rmdir"))
        || looked_at.is_some_and(|it| left.iter().any(|left| left.contains(&it)))
}

/// What is wrong with how a start was refused: the status, or how often that was said.
fn refused_badly(errors: &str, fault: Option<&Fault>, seen: &Seen) -> Option<String> {
    if !matches!(seen.status, Some(End::Status(125..=127))) {
        return Some(format!("neither done nor refused: {:?}", seen.status));
    }
    // What cannot be written is not read.
    let is_mute = fault.is_some_and(|fault| fault.point.call.starts_with("write"));
    match own_lines(errors) {
        1 => None,
        0 if is_mute => None,
        lines => Some(format!("{lines} lines for one failure")),
    }
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

/// How the directory differs from what it was, or from what the scenario leaves.
fn left_behind(scenario: &Scenario, before: Before<'_>, now: &Tree, ran: bool) -> Vec<String> {
    let may_differ = |path: &str| {
        ran && scenario.leaves.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => path.starts_with(start) && !path.ends_with("precious"),
            None => path == *name,
        })
    };
    let mut found = Vec::new();
    for (path, about) in now {
        let name = path.to_string_lossy();
        match before.tree.get(path) {
            _ if may_differ(&name) || before.strays.contains(path) => {}
            None => found.push(format!("'{name}' is left behind")),
            Some(old) if old != about => {
                found.push(format!("'{name}' is not what it was: {about:?} instead of {old:?}"));
            }
            Some(_) => {}
        }
    }
    let is_kept = |name: &str| ran && (may_differ(name) || name == "server.pid");
    let kept = before.tree.keys().filter(|path| !before.strays.contains(*path));
    let gone = kept.filter(|path| !now.contains_key(*path));
    for path in gone.filter(|path| !is_kept(&path.to_string_lossy())) {
        found.push(format!("'{}' is gone", path.display()));
    }
    found
}
