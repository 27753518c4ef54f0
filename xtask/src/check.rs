//! `cargo xtask check`: what CI runs besides the tests. Every check runs, also
//! after one that failed; the failures are told together at the end.

use std::process::Stdio;

use crate::completions;
use crate::faults;
use crate::fuzz::{self, cargo_for_fuzzing};
use crate::generated::Mode;
use crate::guard;
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
    note(guard::run(false));
    note(soak::run(&soak::Settings::short()));
    note(fuzzing());
    note(refused_calls());
    note(deny());
    note(advisories());
    if failures.is_empty() {
        println!("xtask: all checks passed");
        return Ok(());
    }
    let (many, list) = (failures.len(), failures.join("\n  "));
    Err(Failure::Told(format!("{many} checks failed:\n  {list}")))
}

/// The fuzz crate is a workspace of its own, so that the checks above pass it by.
fn fuzzing() -> Result<(), Failure> {
    step(cargo("fmt --check").args(["--manifest-path", fuzz::MANIFEST]))?;
    fuzz::run(&fuzz::Job::Runs(fuzz::RUNS), &[])?;
    step(cargo_for_fuzzing("clippy", &fuzz::host()?).args(["--", "-D", "warnings"]))
}

/// Lets a sample of vsrun's calls fail, or says that none did.
fn refused_calls() -> Result<(), Failure> {
    if let Some(why) = faults::hindrance() {
        println!("xtask: faults: not checked: {why}");
        return Ok(());
    }
    faults::run(&faults::Options::sample())
}

fn deny() -> Result<(), Failure> {
    if !cargo_knows_deny() {
        println!("xtask: cargo-deny is absent and will be built, which takes some minutes");
        step(&mut cargo("install --locked cargo-deny"))?;
    }
    let checks = ["--locked", "check", "bans", "licenses", "sources"];
    step(cargo("deny --workspace").args(checks))?;
    // The few crates of fuzzing need not make use of every licence that is allowed.
    let few = ["--allow", "license-not-encountered"];
    step(cargo("deny --manifest-path").arg(fuzz::MANIFEST).args(checks).args(few))
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
            let checks = ["--locked", "check", "advisories"];
            step(cargo("deny --workspace").args(checks))?;
            return step(cargo("deny --manifest-path").arg(fuzz::MANIFEST).args(checks));
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
