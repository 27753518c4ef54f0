//! `cargo xtask check`: what CI runs besides the tests. After a check that failed the others still
//! run, and the last lines list all failures.

use std::process::Stdio;

use crate::completions;
use crate::generated::Mode;
use crate::lab;
use crate::man;
use crate::steps::{Failure, cargo, run as step};

/// The fuzz targets' manifest. They are a workspace of their own.
const FUZZ: &str = "lab/fuzz/Cargo.toml";

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
    note(step(cargo("fmt --check --manifest-path").arg(FUZZ)));
    note(step(&mut cargo(
        "clippy --locked --workspace --all-targets -- -D warnings",
    )));
    let mut doc = cargo("doc --locked --workspace --no-deps");
    note(step(doc.env("RUSTDOCFLAGS", "-Dwarnings")));
    note(man::run(Mode::Check));
    note(completions::run(Mode::Check));
    note(step(&mut lab::command("guard")));
    note(step(&mut lab::command("soak --minutes 0.3 --managers 12")));
    note(step(&mut lab::command("fuzz")));
    note(step(&mut lab::command("fuzz --clippy")));
    note(step(&mut lab::command("faults --sample --if-possible")));
    note(deny());
    note(advisories());
    if failures.is_empty() {
        println!("xtask: all checks passed");
        return Ok(());
    }
    let (many, list) = (failures.len(), failures.join("\n  "));
    Err(Failure::Message(format!("{many} checks failed:\n  {list}")))
}

fn deny() -> Result<(), Failure> {
    if !cargo_knows_deny() {
        println!("xtask: cargo-deny is absent and will be built, which takes some minutes");
        step(&mut cargo("install --locked cargo-deny"))?;
    }
    let checks = ["--locked", "check", "bans", "licenses", "sources"];
    step(cargo("deny --workspace").args(checks))?;
    // The crates of the fuzz targets do not use every licence that is allowed.
    let few = ["--allow", "license-not-encountered"];
    step(
        cargo("deny --manifest-path")
            .arg(FUZZ)
            .args(checks)
            .args(few),
    )
}

/// Runs it by cargo, which also searches its own bin directory.
fn cargo_knows_deny() -> bool {
    let mut version = cargo("deny --version");
    version.stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Checks for known vulnerabilities. Where their database cannot be downloaded, a line says that
/// nothing was checked.
fn advisories() -> Result<(), Failure> {
    let fetched = cargo("deny fetch db").output();
    let reason = match &fetched {
        Ok(output) if output.status.success() => {
            let checks = ["--locked", "check", "advisories"];
            step(cargo("deny --workspace").args(checks))?;
            return step(cargo("deny --manifest-path").arg(FUZZ).args(checks));
        }
        Ok(output) => last_line(&output.stderr),
        Err(error) => error.to_string(),
    };
    println!("xtask: advisories: not checked: the database cannot be fetched: {reason}");
    Ok(())
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("no reason given").trim().to_owned()
}
