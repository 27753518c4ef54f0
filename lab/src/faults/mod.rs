//! `cargo xtask faults`: every system call that vsrun makes fails once, with
//! each plausible error, and once vsrun is killed there. This file runs one
//! scenario once; `matrix` runs them all.

mod calls;
mod fault;
mod life;
mod matrix;
mod place;
mod processes;
mod run;
mod scenarios;
mod table;
mod tracee;
mod tracer;
mod verdict;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::geteuid;

use fault::{Fault, Kind, Point};
use place::Place;
use processes::Bell;
use run::{Run, Seen};
use scenarios::{SCENARIOS, Scenario};
use tracer::{Task, Tracer};
use verdict::{Before, Judged, Outcome, judge};
use xtask::steps::{Failure, cargo, cargo_target, run as step};

#[derive(Args)]
pub struct Settings {
    /// Test this program instead of a debug build of vsrun
    #[arg(long)]
    program: Option<PathBuf>,
    /// Only this scenario
    #[arg(long)]
    only: Option<String>,
    /// Only calls of this name
    #[arg(long)]
    call: Option<String>,
    /// Only about this many runs, spread over all scenarios and calls
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "800")]
    sample: Option<usize>,
    /// Succeed where nothing can be tested, and print why
    #[arg(long)]
    if_possible: bool,
    /// How many runs at a time, instead of one a core
    #[arg(long)]
    jobs: Option<usize>,
    /// Write the table into docs/faults.md
    #[arg(long)]
    write: bool,
    /// Just one run, as a violation names it; with --only
    #[arg(long, value_name = "PROCESS/CALL/ORDINAL=ERROR", requires = "only")]
    at: Option<Fault>,
    /// Just list the calls that a scenario makes; with --only
    #[arg(long, requires = "only")]
    list: bool,
}

/// Runs the matrix, or what the options leave of it.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    if let Some(why) = hindrance() {
        if settings.if_possible {
            println!("xtask: faults: not checked: {why}");
            return Ok(());
        }
        return Err(Failure::Message(format!("faults: {why}")));
    }
    let program = program(settings)?;
    let only = settings.only.as_deref().map(find).transpose()?;
    match (only, &settings.at, settings.list) {
        (Some(scenario), Some(fault), _) => {
            let outcome = once(scenario, &program, fault)?;
            println!("{outcome}");
            Ok(())
        }
        (Some(scenario), None, true) => {
            for point in points(scenario, &program)? {
                println!("{point}");
            }
            Ok(())
        }
        _ => matrix::run(settings, only, &program),
    }
}

/// Why nothing can be tested here.
fn hindrance() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("not root: there are no users to become and no processes to trace");
    }
    (!cfg!(target_arch = "x86_64")).then_some("the registers of this architecture are not known")
}

fn program(settings: &Settings) -> Result<PathBuf, Failure> {
    if let Some(program) = &settings.program {
        let found = program.canonicalize();
        return Ok(found.map_err(|error| format!("'{}': {error}", program.display()))?);
    }
    step(&mut cargo("build --locked --package vsrun --bin vsrun"))?;
    Ok(cargo_target().join("debug/vsrun"))
}

fn find(name: &str) -> Result<&'static Scenario, String> {
    let known = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| format!("no scenario '{name}'; there are {}", known()))
}

/// The calls of a scenario in which nothing fails, in their order.
fn points(scenario: &Scenario, program: &Path) -> Result<Vec<Point>, String> {
    let (outcome, tracer) = {
        let stage = Stage::set(scenario)?;
        let (seen, tracer) = stage.start(program, Task::List)?;
        (stage.judge(None, &seen), tracer)
    };
    match outcome {
        Ok(Some(Outcome::Done)) => Ok(tracer.points),
        Ok(other) => Err(format!("{} without a fault: {other:?}", scenario.name)),
        Err(wrong) => Err(format!("{} without a fault: {}", scenario.name, wrong.join("; "))),
    }
}

/// Runs a scenario with one fault, and after a kill once more without.
fn once(scenario: &Scenario, program: &Path, fault: &Fault) -> Result<Outcome, String> {
    let mut stage = Stage::set(scenario)?;
    let (seen, _) = stage.start(program, Task::Strike(fault.clone()))?;
    match stage.judge(Some(fault), &seen) {
        Err(wrong) => Ok(Outcome::Violation(wrong.join("; "))),
        Ok(_) if seen.struck.is_none() => Ok(Outcome::NotReached),
        Ok(Some(outcome)) if fault.kind != Kind::Kill => Ok(outcome),
        Ok(Some(outcome)) if stage.is_clean() => Ok(outcome),
        Ok(_) => {
            stage.renew()?;
            let (seen, _) = stage.start(program, Task::Watch)?;
            Ok(match stage.judge(None, &seen) {
                Ok(Some(Outcome::Done)) => Outcome::Killed,
                Ok(other) => Outcome::Violation(format!("the fresh start: {other:?}")),
                Err(wrong) => Outcome::Violation(format!("the fresh start: {}", wrong.join("; "))),
            })
        }
    }
}

/// A place and what it held before vsrun was started there.
struct Stage<'a> {
    scenario: &'a Scenario,
    place: Place,
    before: place::Tree,
    /// What a start that was killed has left.
    strays: BTreeSet<PathBuf>,
    bell: Bell,
}

impl Stage<'_> {
    fn set(scenario: &Scenario) -> Result<Stage<'_>, String> {
        set_child_subreaper(true).map_err(|reason| format!("cannot reap orphans: {reason}"))?;
        let bell = Bell::hang().map_err(|reason| format!("cannot wait for children: {reason}"))?;
        let cannot = |error| format!("cannot make a directory: {error}");
        let place = Place::make(scenario).map_err(cannot)?;
        let before = place.tree().map_err(cannot)?;
        Ok(Stage { scenario, place, before, strays: BTreeSet::new(), bell })
    }

    fn start(&self, program: &Path, task: Task) -> Result<(Seen, Tracer), String> {
        let program = program.to_string_lossy();
        Ok(Run::start(self.scenario, &self.place, &self.bell, &program, task)?.finish())
    }

    fn judge(&self, fault: Option<&Fault>, seen: &Seen) -> Judged {
        let before = Before { tree: &self.before, strays: &self.strays };
        judge(self.scenario, &self.place, before, fault, seen)
    }

    /// Whether the place is as it was; a pidfile that nobody removes aside.
    fn is_clean(&self) -> bool {
        self.place.tree().is_ok_and(|now| now == self.before)
    }

    /// Gets the place ready for another start, which finds what the last one left and may do with
    /// that as it likes.
    fn renew(&mut self) -> Result<(), String> {
        let cannot = |error| format!("cannot look at the directory: {error}");
        self.place.renew().map_err(cannot)?;
        let now = self.place.tree().map_err(cannot)?;
        self.strays = now.keys().filter(|path| !self.before.contains_key(*path)).cloned().collect();
        self.before = now;
        Ok(())
    }
}
