//! What must be true while a server lives: its pidfile holds its id, and it has no privileges.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use super::sandbox::Sandbox;
use super::scenarios::Scenario;

/// Checks the pidfile of a server that has just started.
pub fn check_pidfile(scenario: &Scenario, sandbox: &Sandbox, pid: Pid) -> Result<(), String> {
    if !scenario.options.contains("-p server.pid") {
        return Ok(());
    }
    let path = sandbox.work().join("server.pid");
    let content = fs::read_to_string(&path).unwrap_or_default();
    if content != format!("{pid}\n") {
        return Err(format!(
            "server {pid} runs while server.pid holds '{}'",
            content.trim()
        ));
    }
    match fs::symlink_metadata(&path) {
        Ok(metadata) if (metadata.mode(), metadata.uid()) == (0o10_0644, 0) => Ok(()),
        metadata => Err(format!("server.pid is {metadata:?}")),
    }
}

/// The privileges of servers, handlers and loggers that run as nobody.
pub fn privileges(scenario: &Scenario, sandbox: &Sandbox, servers: &[Pid]) -> Vec<String> {
    if !scenario.has_user() {
        return Vec::new();
    }
    let is_nobody = |name: &str, value: &str| match name {
        "Uid:" | "Gid:" | "Groups:" => {
            !value.is_empty() && value.split_whitespace().all(|id| id == "65534")
        }
        // The bounding set alone gives no privilege, and vsrun does not change it.
        "CapBnd:" => true,
        _ => value.chars().all(|digit| digit == '0'),
    };
    let identities = sandbox.identities();
    let mut violations = Vec::new();
    for (pid, lines) in &identities {
        let privileges = lines.lines().filter(|line| {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            !is_nobody(name, value)
        });
        violations
            .extend(privileges.map(|line| format!("process {pid} is not only nobody: {line}")));
        if lines.lines().count() != 8 {
            violations.push(format!(
                "process {pid} has not written all of its ids: {lines}"
            ));
        }
    }
    let unknown = servers
        .iter()
        .filter(|pid| !identities.contains_key(&pid.to_string()));
    violations.extend(unknown.map(|pid| format!("server {pid} has not written its ids")));
    violations
}
