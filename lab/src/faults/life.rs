//! What must be so while a server lives: its pidfile, and who it is.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use super::place::Place;
use super::scenarios::Scenario;

/// Whether the pidfile holds the id of a server that has just told that it lives.
pub fn told_pidfile(scenario: &Scenario, place: &Place, pid: Pid) -> Result<(), String> {
    if !scenario.options.contains("-p server.pid") {
        return Ok(());
    }
    let path = place.work().join("server.pid");
    let held = fs::read_to_string(&path).unwrap_or_default();
    if held != format!("{pid}\n") {
        return Err(format!("server {pid} runs while server.pid holds '{}'", held.trim()));
    }
    match fs::symlink_metadata(&path) {
        Ok(about) if (about.mode(), about.uid()) == (0o10_0644, 0) => Ok(()),
        about => Err(format!("server.pid is {about:?}")),
    }
}

/// What servers, handlers and loggers that are to be nobody still were.
pub fn kept_privilege(scenario: &Scenario, place: &Place, lives: &[Pid]) -> Vec<String> {
    if !scenario.has_user() {
        return Vec::new();
    }
    let is_nobody = |name: &str, value: &str| match name {
        "Uid:" | "Gid:" | "Groups:" => {
            !value.is_empty() && value.split_whitespace().all(|id| id == "65534")
        }
        // The bounding set is no privilege by itself, and vsrun leaves it as it is.
        "CapBnd:" => true,
        _ => value.chars().all(|digit| digit == '0'),
    };
    let statuses = place.statuses();
    let mut kept = Vec::new();
    for (pid, told) in &statuses {
        let more = told.lines().filter(|line| {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            !is_nobody(name, value)
        });
        kept.extend(more.map(|line| format!("process {pid} was not just nobody: {line}")));
        if told.lines().count() != 8 {
            kept.push(format!("process {pid} has told too little of itself: {told}"));
        }
    }
    let silent = lives.iter().filter(|pid| !statuses.contains_key(&pid.to_string()));
    kept.extend(silent.map(|pid| format!("server {pid} has told nothing of itself")));
    kept
}
