//! `cargo xtask soak`: many managers with servers that crash, logs that rotate
//! and signals at random, for as long as one likes. What they hold is sampled
//! and must stay flat.

mod fleet;
mod plot;
mod record;
mod sample;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::document;
pub use fleet::serve;
use fleet::{Fleet, is_child_of};
use record::Record;
use xtask::steps::{Failure, cargo, cargo_target, root, run as step};

/// Between two looks at everything.
const SAMPLING: Duration = Duration::from_secs(5);
/// Between two acts.
const TICK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Settings {
    /// For how long, in minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// How many managers
    #[arg(long, default_value_t = 200)]
    managers: usize,
    /// What the random choices begin with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The vsrun to try, instead of one that is built
    #[arg(long)]
    program: Option<PathBuf>,
    /// Keep the table in docs/faults.md and the plot in docs/soak.svg
    #[arg(long)]
    write: bool,
}

/// Runs the managers, and fails if anything did not stay flat or was wrong.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    let program = match &settings.program {
        Some(program) => program.clone(),
        None => {
            step(&mut cargo("build --locked --release --bin vsrun"))?;
            cargo_target().join("release/vsrun")
        }
    };
    // What managers leave behind becomes a child of this process, and can be found.
    set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let scratch = Scratch::new(&program)?;
    let seed = settings.seed;
    println!("xtask: {} managers in {}, seed {seed}", settings.managers, scratch.0.display());
    let mut fleet = Fleet::start(&scratch.0, settings.managers, seed)?;
    let mut record = Record::default();
    let lived = live(&mut fleet, &mut record, settings.minutes);
    record.violations.extend(fleet.stop());
    record.violations.extend(leftovers());
    record.restarts = fleet.restarts();
    record.acts = fleet.acts();
    lived?;
    let table = record.table(settings.managers);
    println!("{table}");
    if settings.write {
        document::put(&root().join("docs/faults.md"), "soak", &table)?;
        plot::draw(&record, &root().join("docs/soak.svg"))?;
    }
    let violations = record.judged();
    if violations.is_empty() {
        return Ok(());
    }
    let (many, list) = (violations.len(), violations.join("\n  "));
    Err(Failure::Message(format!("{many} times something was wrong:\n  {list}")))
}

fn live(fleet: &mut Fleet, record: &mut Record, minutes: f64) -> Result<(), Failure> {
    let interrupted = interruption()?;
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(minutes * 60.0);
    let mut next_look = begun + SAMPLING;
    while Instant::now() < end {
        if matches!(interrupted.read_signal(), Ok(Some(_))) {
            return Err(Failure::Message("interrupted".to_owned()));
        }
        fleet.act();
        if Instant::now() >= next_look {
            next_look += SAMPLING;
            record.add(begun.elapsed(), fleet.look());
        }
        sleep(TICK);
    }
    Ok(())
}

/// Ctrl-C and SIGTERM, to be read: the managers are stopped first.
fn interruption() -> Result<SignalFd, Failure> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let opened = signals
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK));
    opened.map_err(|error| Failure::Message(format!("cannot open a signalfd: {error}")))
}

/// What is still there when every manager has ended; it is ended too.
fn leftovers() -> Vec<String> {
    let own = std::process::id() as i32;
    let mut told = HashSet::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    // An orphan may just be on its way out.
    while Instant::now() < deadline {
        let left = sample::children(own);
        if left.is_empty() {
            return Vec::new();
        }
        left.iter().for_each(|pid| fleet::reap(*pid));
        sleep(TICK);
    }
    for pid in sample::children(own) {
        told.insert(format!("left behind: process {pid} ({})", sample::command(pid)));
        if is_child_of(pid, own) {
            fleet::end(pid);
        }
    }
    told.into_iter().collect()
}

/// A directory that everybody may enter, with the programs in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(program: &Path) -> Result<Scratch, Failure> {
        let scratch =
            Scratch(std::env::temp_dir().join(format!("vsrun-soak-{}", std::process::id())));
        let own = std::env::current_exe().unwrap_or_default();
        let made = fs::create_dir(&scratch.0)
            .and_then(|()| fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::copy(program, scratch.0.join("vsrun")))
            .and_then(|_| fs::copy(own, scratch.0.join("server")))
            .and_then(|_| fs::create_dir(scratch.0.join("bin")))
            .and_then(|()| fleet::write_script(&scratch.0.join("bin/logger"), fleet::LOGGER));
        made.map_err(|error| format!("cannot fill {}: {error}", scratch.0.display()))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is a temporary file.
        let _ = fs::remove_dir_all(&self.0);
    }
}
