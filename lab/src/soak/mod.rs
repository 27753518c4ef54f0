//! `cargo xtask soak`: runs many managers for a given time, with servers that crash, logs that
//! rotate, and random signals. Their memory and descriptors are sampled and must not grow.

mod fleet;
mod plot;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use xtask::steps::{Failure, cargo, cargo_target, root, run as step};

use crate::document;
use crate::process::{children, name};
use crate::scratch::{Scratch, write_program};
use fleet::Fleet;
pub use fleet::serve;
use record::Record;

/// The time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// The time between two signals.
const TICK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Settings {
    /// For how long, in minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// How many managers
    #[arg(long, default_value_t = 200)]
    managers: usize,
    /// The seed of the random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this vsrun, instead of building one
    #[arg(long)]
    program: Option<PathBuf>,
    /// Write the table into docs/faults.md and the plot into docs/soak.svg
    #[arg(long)]
    write: bool,
}

/// Runs the managers. Growth and every other violation are failures.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    let program = match &settings.program {
        Some(program) => program.clone(),
        None => {
            step(&mut cargo("build --locked --release --bin vsrun"))?;
            cargo_target().join("release/vsrun")
        }
    };
    // What managers leave behind becomes a child of this process.
    set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let scratch = Scratch::new("soak")?;
    copy_programs(&program, scratch.path())
        .map_err(|error| format!("cannot fill '{}': {error}", scratch.path().display()))?;
    let (count, seed) = (settings.managers, settings.seed);
    println!(
        "xtask: {count} managers in {}, seed {seed}",
        scratch.path().display()
    );
    let mut fleet = Fleet::start(scratch.path(), count, seed)?;
    let mut record = Record::default();
    let disturbed = disturb(&mut fleet, &mut record, settings.minutes);
    record.violations.extend(fleet.stop());
    record.violations.extend(leftovers());
    record.restarts = fleet.restarts();
    record.signals = fleet.signals();
    disturbed?;
    let table = record.table(settings.managers);
    println!("{table}");
    if settings.write {
        document::put(&root().join("docs/faults.md"), "soak", &table)?;
        plot::draw(&record, &root().join("docs/soak.svg"))?;
    }
    let violations = record.violations();
    if violations.is_empty() {
        return Ok(());
    }
    let (many, list) = (violations.len(), violations.join("\n  "));
    Err(Failure::Message(format!(
        "soak: {many} violations:\n  {list}"
    )))
}

/// Sends random signals and samples the managers.
fn disturb(fleet: &mut Fleet, record: &mut Record, minutes: f64) -> Result<(), Failure> {
    let interrupts = interrupts()?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(minutes * 60.0);
    let mut next_sample = start + SAMPLE_INTERVAL;
    while Instant::now() < end {
        if matches!(interrupts.read_signal(), Ok(Some(_))) {
            return Err(Failure::Message("interrupted".to_owned()));
        }
        fleet.send_signal();
        if Instant::now() >= next_sample {
            next_sample += SAMPLE_INTERVAL;
            record.add(start.elapsed(), fleet.sample());
        }
        sleep(TICK);
    }
    Ok(())
}

/// Blocks SIGINT and SIGTERM, and returns a descriptor to read them: the managers must be stopped
/// first.
fn interrupts() -> Result<SignalFd, Failure> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let opened = signals
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK));
    opened.map_err(|error| Failure::Message(format!("cannot open a signalfd: {error}")))
}

/// Waits for the end of this process's children, kills those that remain, and returns them as
/// violations.
fn leftovers() -> Vec<String> {
    let own = std::process::id() as i32;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let left = children(own);
        if left.is_empty() {
            return Vec::new();
        }
        left.iter().for_each(|pid| fleet::reap(*pid));
        sleep(TICK);
    }
    let mut violations = Vec::new();
    for pid in children(own) {
        violations.push(format!("left behind: process {pid} ({})", name(pid)));
        fleet::kill_child(pid);
    }
    violations
}

fn copy_programs(vsrun: &Path, directory: &Path) -> io::Result<()> {
    fs::copy(vsrun, directory.join("vsrun"))?;
    fs::copy(std::env::current_exe()?, directory.join("server"))?;
    fs::create_dir(directory.join("bin"))?;
    write_program(&directory.join("bin/logger"), fleet::LOGGER)
}
