//! All runs, on all cores, and their results. Each run is a process, because it traces and reaps all
//! of its children.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use super::fault::{Fault, Kind, Point};
use super::scenarios::{SCENARIOS, Scenario};
use super::table::{Row, markdown, write};
use super::{Settings, points};
use xtask::steps::Failure;

struct Job {
    scenario: usize,
    fault: Fault,
}

struct Work<'a> {
    scenarios: Vec<&'a Scenario>,
    program: &'a Path,
    jobs: Mutex<std::vec::IntoIter<Job>>,
    results: Mutex<Results>,
}

struct Results {
    rows: Vec<Row>,
    finished: usize,
    total: usize,
    since: Instant,
}

/// Runs all faults that the settings select, and prints the results.
pub fn run(settings: &Settings, only: Option<&Scenario>, program: &Path) -> Result<(), Failure> {
    let scenarios: Vec<&Scenario> = match only {
        Some(scenario) => vec![scenario],
        None => SCENARIOS.iter().collect(),
    };
    let mut rows = Vec::new();
    let mut jobs = Vec::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        let mut points = points(scenario, program)?;
        points.retain(|point| {
            settings
                .call
                .as_ref()
                .is_none_or(|call| *call == point.call)
        });
        rows.push(row(scenario, &points));
        let faults = points.iter().flat_map(Fault::all_at);
        jobs.extend(faults.map(|fault| Job {
            scenario: number,
            fault,
        }));
    }
    if let Some(count) = settings.sample {
        jobs = spread(jobs, count);
    }
    let total = jobs.len();
    let workers = settings
        .jobs
        .or_else(|| thread::available_parallelism().ok().map(Into::into));
    let results = Results {
        rows,
        finished: 0,
        total,
        since: Instant::now(),
    };
    println!("xtask: faults: {total} runs");
    let jobs = Mutex::new(jobs.into_iter());
    let work = Work {
        scenarios,
        program,
        jobs,
        results: Mutex::new(results),
    };
    thread::scope(|scope| {
        for _ in 0..workers.unwrap_or(1) {
            scope.spawn(|| run_jobs(&work));
        }
    });
    let results = work
        .results
        .into_inner()
        .map_err(|_| "a worker panicked".to_owned())?;
    let table = markdown(&results.rows);
    println!(
        "\n{table}\n{total} runs took {} s",
        results.since.elapsed().as_secs()
    );
    if settings.write {
        write(&table)?;
    }
    match results.rows.iter().map(Row::violations).sum() {
        0usize => Ok(()),
        some => Err(Failure::Message(format!("faults: {some} violations"))),
    }
}

fn row(scenario: &Scenario, points: &[Point]) -> Row {
    let mut row = Row {
        name: scenario.name.to_owned(),
        calls: points.len(),
        ..Row::default()
    };
    for fault in points.iter().flat_map(Fault::all_at) {
        row.names.insert(fault.point.call.clone());
        if let Kind::Error(error) = fault.kind {
            row.errors.insert(format!("{error:?}"));
        }
    }
    row
}

/// Every n-th job, and the first job for each call of each scenario.
fn spread(jobs: Vec<Job>, count: usize) -> Vec<Job> {
    let stride = jobs.len().div_ceil(count.max(1)).max(1);
    let mut known = BTreeSet::new();
    let jobs = jobs.into_iter().enumerate();
    let chosen = jobs.filter(|(number, job)| {
        known.insert((job.scenario, job.fault.point.call.clone())) || number % stride == 0
    });
    chosen.map(|(_, job)| job).collect()
}

/// Runs jobs until there are no more.
fn run_jobs(work: &Work<'_>) {
    loop {
        let job = work.jobs.lock().ok().and_then(|mut jobs| jobs.next());
        let Some(job) = job else { return };
        let scenario = work.scenarios[job.scenario];
        let outcome = run_in_process(scenario, &job.fault, work.program);
        let Ok(mut results) = work.results.lock() else {
            return;
        };
        results.add(&job, scenario, &outcome);
    }
}

fn run_in_process(scenario: &Scenario, fault: &Fault, program: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args([
        "faults",
        "--only",
        scenario.name,
        "--at",
        &fault.to_string(),
        "--program",
    ]);
    let output = command.arg(program).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(output) => format!(
            "violation\t{}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => format!("violation\tthe run cannot be started: {error}"),
    }
}

impl Results {
    fn add(&mut self, job: &Job, scenario: &Scenario, outcome: &str) {
        let (word, violation) = outcome.split_once('\t').unwrap_or((outcome, ""));
        if self.rows[job.scenario].count(word) {
            println!("violation: {violation}");
            println!(
                "  cargo xtask faults --only {} --at {}",
                scenario.name, job.fault
            );
        }
        self.finished += 1;
        if self.finished % 250 == 0 {
            let seconds = self.since.elapsed().as_secs();
            println!(
                "xtask: faults: {} of {} in {seconds} s",
                self.finished, self.total
            );
        }
    }
}
