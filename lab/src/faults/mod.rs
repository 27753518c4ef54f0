//! `cargo xtask faults`: makes every system call of vsrun fail once with each plausible error, and
//! kills the process once at each. This file runs one scenario once; `matrix` runs all.

mod calls;
mod fault;
mod matrix;
mod processes;
mod run;
mod sandbox;
mod scenarios;
mod server;
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
use processes::Sigchld;
use run::{Run, Seen};
use sandbox::Sandbox;
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
    /// Only about N runs, spread over all scenarios and calls
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "800")]
    sample: Option<usize>,
    /// Succeed where nothing can be tested, and print why
    #[arg(long)]
    if_possible: bool,
    /// How many runs at a time, instead of one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Write the table into docs/faults.md
    #[arg(long)]
    write: bool,
    /// Only the run with this fault, as violations print it
    #[arg(long, value_name = "PROCESS/CALL/ORDINAL=ERROR", requires = "only")]
    at: Option<Fault>,
    /// Only list the calls that the scenario makes
    #[arg(long, requires = "only")]
    list: bool,
}

/// Does what the settings say.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    if let Some(why) = obstacle() {
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

/// The reason why nothing can be tested here.
fn obstacle() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("only root can change users and trace the processes");
    }
    (!cfg!(target_arch = "x86_64")).then_some("the tracer supports x86-64 only")
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
    let known = || {
        SCENARIOS
            .iter()
            .map(|scenario| scenario.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| format!("no scenario '{name}'; there are {}", known()))
}

/// All calls of a scenario without a fault, in their order.
fn points(scenario: &Scenario, program: &Path) -> Result<Vec<Point>, String> {
    let (outcome, tracer) = {
        let setup = Setup::new(scenario)?;
        let (seen, tracer) = setup.start(program, Task::List)?;
        (setup.judge(None, &seen), tracer)
    };
    match outcome {
        Ok(Some(Outcome::Done)) => Ok(tracer.points),
        Ok(other) => Err(format!("{} without a fault: {other:?}", scenario.name)),
        Err(wrong) => Err(format!(
            "{} without a fault: {}",
            scenario.name,
            wrong.join("; ")
        )),
    }
}

/// Runs a scenario with one fault. If the fault is a kill, runs it once more without.
fn once(scenario: &Scenario, program: &Path, fault: &Fault) -> Result<Outcome, String> {
    let mut setup = Setup::new(scenario)?;
    let (seen, _) = setup.start(program, Task::Inject(fault.clone()))?;
    match setup.judge(Some(fault), &seen) {
        Err(wrong) => Ok(Outcome::Violation(wrong.join("; "))),
        Ok(_) if seen.failed_call.is_none() => Ok(Outcome::NotReached),
        Ok(Some(outcome)) if fault.kind != Kind::Kill => Ok(outcome),
        Ok(Some(outcome)) if setup.is_unchanged() => Ok(outcome),
        Ok(_) => {
            setup.prepare_fresh_start()?;
            let (seen, _) = setup.start(program, Task::Watch)?;
            Ok(match setup.judge(None, &seen) {
                Ok(Some(Outcome::Done)) => Outcome::Killed,
                Ok(other) => Outcome::Violation(format!("the fresh start: {other:?}")),
                Err(wrong) => Outcome::Violation(format!("the fresh start: {}", wrong.join("; "))),
            })
        }
    }
}

/// A sandbox, and its content before vsrun was started.
struct Setup<'a> {
    scenario: &'a Scenario,
    sandbox: Sandbox,
    before: sandbox::Tree,
    /// The files that a killed start has left.
    leftovers: BTreeSet<PathBuf>,
    sigchld: Sigchld,
}

impl Setup<'_> {
    fn new(scenario: &Scenario) -> Result<Setup<'_>, String> {
        set_child_subreaper(true)
            .map_err(|reason| format!("cannot become a subreaper: {reason}"))?;
        let sigchld =
            Sigchld::block().map_err(|reason| format!("cannot wait for children: {reason}"))?;
        let sandbox = Sandbox::new(scenario).map_err(|failure| failure.to_string())?;
        let before = sandbox
            .tree()
            .map_err(|error| format!("cannot read the directory: {error}"))?;
        Ok(Setup {
            scenario,
            sandbox,
            before,
            leftovers: BTreeSet::new(),
            sigchld,
        })
    }

    fn start(&self, program: &Path, task: Task) -> Result<(Seen, Tracer), String> {
        let program = program.to_string_lossy();
        Ok(Run::start(self.scenario, &self.sandbox, &self.sigchld, &program, task)?.finish())
    }

    fn judge(&self, fault: Option<&Fault>, seen: &Seen) -> Judged {
        let before = Before {
            tree: &self.before,
            leftovers: &self.leftovers,
        };
        judge(self.scenario, &self.sandbox, before, fault, seen)
    }

    /// Whether the directory is as it was before the start.
    fn is_unchanged(&self) -> bool {
        self.sandbox.tree().is_ok_and(|now| now == self.before)
    }

    /// Prepares another start, which may change or remove what the last one left.
    fn prepare_fresh_start(&mut self) -> Result<(), String> {
        let cannot = |error| format!("cannot read the directory: {error}");
        self.sandbox.forget().map_err(cannot)?;
        let now = self.sandbox.tree().map_err(cannot)?;
        self.leftovers = now
            .keys()
            .filter(|path| !self.before.contains_key(*path))
            .cloned()
            .collect();
        self.before = now;
        Ok(())
    }
}
