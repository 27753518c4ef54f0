//! Judges what was seen of a run.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::fault::{Fault, Kind};
use super::run::Seen;
use super::sandbox::{Sandbox, Tree};
use super::scenarios::{EXPIRED, Scenario, Step};
use super::tracer::End;

/// The files that a manager removes, even if it found them.
const PIDFILES: [&str; 3] = ["server.pid", "manager.pid", "manager.pid.lock"];
/// The status of a server that SIGKILL ended.
const KILLED: i32 = 128 + 9;
/// The status of a failure of vsrun itself.
const FAILED: i32 = 125;
const STDERR: u64 = 2;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that the scenario requires.
    Done,
    /// One line, the right status, and nothing left behind.
    Refused,
    /// A manager that had run the server said why it could not go on, and removed everything.
    GaveUp,
    /// vsrun was killed, and a fresh start did everything that the scenario requires.
    Killed,
    /// As the first three, but a file remains, because the failed call was to remove or check it.
    NotRemoved,
    /// The run did not make the call this time.
    NotReached,
    /// Anything else.
    Violation(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::GaveUp => "gave-up",
            Outcome::Killed => "killed",
            Outcome::NotRemoved => "not-removed",
            Outcome::NotReached => "not-reached",
            Outcome::Violation(violation) => return write!(f, "violation\t{violation}"),
        })
    }
}

/// `Err` holds the violations. `Ok(None)` is a run that a kill cut short; a fresh start must follow.
pub type Judged = Result<Option<Outcome>, Vec<String>>;

/// The directory before the start.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    pub tree: &'a Tree,
    /// Files in it that may be changed or removed.
    pub leftovers: &'a BTreeSet<PathBuf>,
}

/// Judges a run.
pub fn judge(
    scenario: &Scenario,
    sandbox: &Sandbox,
    before: Before<'_>,
    fault: Option<&Fault>,
    seen: &Seen,
) -> Judged {
    let (errors, messages) = (sandbox.errors(), sandbox.messages());
    let mut violations = seen.violations.clone();
    if messages.contains("panicked") || messages.contains("memory allocation") {
        violations.push("a panic or an abort".to_owned());
    }
    if !messages.contains("cannot write pidfile") {
        violations.extend(seen.not_in_pidfile.iter().cloned());
    }
    if !sandbox.written("stale").is_empty() && !concerned(fault, seen, Path::new("server.pid")) {
        violations.push("a handler ran while the dead server's pidfile was there".to_owned());
    }
    let is_killed = fault.is_some_and(|fault| fault.kind == Kind::Kill);
    let is_done = seen.completed && !scenario.is_bad();
    let has_run = !seen.servers.is_empty();
    let gave_up = !is_done && !is_killed && scenario.is_managed() && has_run;
    let outcome = if is_done {
        Some(Outcome::Done)
    } else if is_killed {
        violations.extend(repeated_error(scenario, &errors));
        None
    } else if gave_up {
        violations.extend(wrong_end(scenario, &messages, seen));
        Some(Outcome::GaveUp)
    } else {
        violations.extend(wrong_refusal(scenario, &errors, fault, seen));
        Some(if seen.completed {
            Outcome::Done
        } else {
            Outcome::Refused
        })
    };
    let now = match sandbox.tree() {
        Ok(now) => now,
        Err(error) => return Err(vec![format!("cannot read the directory: {error}")]),
    };
    violations.extend(lost(scenario, before, &now, has_run, &messages));
    // getdents64(2) fails with ENOENT for a directory that was removed, which has no old logs.
    let is_excused = messages.contains("cannot ") || is_killed || call(fault) == "getdents64";
    if is_done && !is_excused {
        violations.extend(unexpired(before, &now));
    }
    let left = match is_killed {
        true => Vec::new(),
        false => left_behind(scenario, before, &now, is_done || gave_up),
    };
    // A directory cannot be removed before the files in it.
    let is_fault = left.iter().all(|path| {
        left.iter()
            .any(|inner| inner.starts_with(path) && concerned(fault, seen, inner))
    });
    if !is_fault {
        violations.extend(
            left.iter()
                .map(|path| format!("'{}' is left behind", path.display())),
        );
    }
    match (violations.is_empty(), left.is_empty()) {
        (true, true) => Ok(outcome),
        (true, false) => Ok(Some(Outcome::NotRemoved)),
        (false, _) => Err(violations),
    }
}

fn call(fault: Option<&Fault>) -> &str {
    fault.map_or("", |fault| fault.point.call.as_str())
}

/// Whether the call that failed was to remove or to check this file.
fn concerned(fault: Option<&Fault>, seen: &Seen, path: &Path) -> bool {
    let name = seen
        .failed_call
        .as_ref()
        .and_then(|call| call.file_name.as_deref());
    fault.is_some() && name.is_some_and(|name| path.ends_with(name))
}

/// A refused start with a wrong status, or without exactly one line.
fn wrong_refusal(
    scenario: &Scenario,
    errors: &str,
    fault: Option<&Fault>,
    seen: &Seen,
) -> Option<String> {
    let Some(End::Status(status)) = seen.end else {
        return Some(format!("neither done nor refused: {:?}", seen.end));
    };
    let call = call(fault);
    let is_missing = fault.is_some_and(|fault| fault.kind == Kind::Error(Errno::ENOENT));
    let right: &[i32] = match call {
        "execve" if is_missing => &[127],
        "execve" => &[126],
        // The call may be part of the search for the program.
        "access" | "faccessat2" | "newfstatat" | "openat" | "statx" => &[FAILED, 126],
        _ => &[FAILED],
    };
    let is_right = right.contains(&status) || scenario.is_bad() && status == scenario.status;
    if !is_right {
        return Some(format!("status {status} instead of {right:?}"));
    }
    // The line cannot be seen if its write failed.
    let is_unwritten = call.starts_with("write")
        && seen
            .failed_call
            .as_ref()
            .is_some_and(|call| call.descriptor == STDERR);
    match own_lines(errors) {
        1 => None,
        0 if is_unwritten => None,
        lines => Some(format!("{lines} lines for one failure")),
    }
}

/// A manager that gave up without a message or with a wrong status. Right is the last server's. If
/// the first start failed at its end, the server was stopped again, and 125 is right too.
fn wrong_end(scenario: &Scenario, messages: &str, seen: &Seen) -> Option<String> {
    let last = if scenario.steps[0] == Step::Exit {
        0
    } else {
        KILLED
    };
    let is_right = |status| status == last || status == FAILED && seen.servers.len() == 1;
    if !matches!(seen.end, Some(End::Status(status)) if is_right(status)) {
        return Some(format!(
            "a manager gave up with {:?} instead of {last}",
            seen.end
        ));
    }
    (!messages.contains("cannot ")).then(|| "a manager gave up without a message".to_owned())
}

/// More than one error after a kill, besides the scenario's own.
fn repeated_error(scenario: &Scenario, errors: &str) -> Option<String> {
    let count = errors.lines().filter(|line| is_error(line)).count();
    (count > 1 + usize::from(scenario.is_bad())).then(|| format!("{count} errors for one failure"))
}

/// The number of vsrun's lines, without the warning that there is no syslog daemon.
fn own_lines(errors: &str) -> usize {
    let own = errors.lines().filter(|line| line.starts_with("vsrun: "));
    own.filter(|line| !line.contains("/dev/log") && line.contains(": "))
        .count()
}

/// Whether a line is an error, not a report of a manager.
fn is_error(line: &str) -> bool {
    let errors = ["cannot ", "already managed", "the background process died"];
    line.starts_with("vsrun: ") && errors.iter().any(|error| line.contains(error))
}

/// Whether the scenario may change a file of this name once a server has run.
fn may_differ(scenario: &Scenario, name: &str) -> bool {
    scenario
        .leaves
        .iter()
        .any(|known| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start) && !name.ends_with("precious"),
            None => name == *known,
        })
}

/// Files that are new or changed, and must not be. At its end a manager has removed all pidfiles,
/// even those that it found.
fn left_behind(scenario: &Scenario, before: Before<'_>, now: &Tree, has_run: bool) -> Vec<PathBuf> {
    let is_over = has_run && scenario.is_managed();
    let left = now.iter().filter(|(path, entry)| {
        let name = path.to_string_lossy();
        match before.tree.get(*path) {
            _ if PIDFILES.contains(&name.as_ref()) && is_over => true,
            _ if has_run && may_differ(scenario, &name) => false,
            _ if before.leftovers.contains(*path) => false,
            old => old != Some(*entry),
        }
    });
    left.map(|(path, _)| path.clone()).collect()
}

/// Files that are gone and must not be. A server's pidfile is replaced. A log is renamed, used if it
/// is empty, or appended to with a message. An expired log is deleted once a server runs.
fn lost(
    scenario: &Scenario,
    before: Before<'_>,
    now: &Tree,
    has_run: bool,
    messages: &str,
) -> Vec<String> {
    let says_so = messages.contains("appending to the old file");
    let lost = before.tree.iter().filter(|(path, entry)| {
        let name = path.to_string_lossy();
        let is_unchanged = now.get(*path) == Some(*entry);
        let is_expired = has_run && EXPIRED.contains(&name.as_ref());
        let is_empty = entry.lines().count() == 1;
        let is_renamed = || now.values().any(|now| now == *entry);
        let is_appended_to = || {
            says_so
                && now
                    .get(*path)
                    .is_some_and(|now| now.starts_with(entry.as_str()))
        };
        let is_kept = may_differ(scenario, &name) && (is_empty || is_renamed() || is_appended_to());
        let may_go = name == "server.pid" || before.leftovers.contains(*path) || is_expired;
        !(is_unchanged || is_kept || may_go)
    });
    lost.map(|(path, _)| format!("'{}' is lost", path.display()))
        .collect()
}

/// Logs that have expired and were not deleted.
fn unexpired(before: Before<'_>, now: &Tree) -> Vec<String> {
    let old = EXPIRED
        .iter()
        .map(Path::new)
        .filter(|path| before.tree.contains_key(*path));
    let left = old.filter(|path| now.get(*path) == before.tree.get(*path));
    left.map(|path| format!("'{}' has not been deleted", path.display()))
        .collect()
}
