//! `cargo xtask check`: what CI runs besides the tests. Every check runs, also
//! after one that failed; the failures are told together at the end.

use std::process::Stdio;

use crate::completions;
use crate::generated::Mode;
use crate::man;
use crate::soak;
use crate::steps::{Failure, cargo, run as step};

/// Runs all checks.
pub fn run() -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut note = |done: Result<(), Failure>| {
        if let Err(failure) = done {
            eprintln!("xtask: {failure}");
            failures.push(failure.to_string());
        }
    };
    note(step(&mut cargo("fmt --all --check")));
    note(step(&mut cargo("clippy --locked --workspace --all-targets -- -D warnings")));
    let mut doc = cargo("doc --locked --workspace --no-deps");
    note(step(doc.env("RUSTDOCFLAGS", "-Dwarnings")));
    note(man::run(Mode::Check));
    note(completions::run(Mode::Check));
    note(soak::run(&soak::Settings::short()));
    note(deny());
    note(advisories());
    if failures.is_empty() {
        println!("xtask: all checks passed");
        return Ok(());
    }
    let (many, list) = (failures.len(), failures.join("\n  "));
    Err(Failure::Told(format!("{many} checks failed:\n  {list}")))
}

fn deny() -> Result<(), Failure> {
    if !cargo_knows_deny() {
        println!("xtask: cargo-deny is absent and will be built, which takes some minutes");
        step(&mut cargo("install --locked cargo-deny"))?;
    }
    step(&mut cargo("deny --workspace --locked check bans licenses sources"))
}

/// Asks cargo, which also looks into its own bin directory.
fn cargo_knows_deny() -> bool {
    let mut asked = cargo("deny --version");
    asked.stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

/// Checks for known vulnerabilities, or says that nothing was checked: the database is a download
/// of its own, and a machine without it must not pass in silence.
fn advisories() -> Result<(), Failure> {
    let fetched = cargo("deny fetch db").output();
    let reason = match &fetched {
        Ok(output) if output.status.success() => {
            return step(&mut cargo("deny --workspace --locked check advisories"));
        }
        Ok(output) => last_line(&output.stderr),
        Err(error) => error.to_string(),
    };
    println!("xtask: advisories: not checked: the database cannot be fetched: {reason}");
    Ok(())
}

fn last_line(told: &[u8]) -> String {
    let told = String::from_utf8_lossy(told);
    let last = told.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("no reason given").trim().to_owned()
}
