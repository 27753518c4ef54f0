//! `cargo xtask fuzz`: builds the fuzz targets and runs them, over the committed
//! inputs first and at random from there. Works with stable Rust: the flags are
//! cargo-fuzz's, without a sanitizer, which would want more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use xtask::steps::{Failure, cargo, cargo_target, empty, root, run as step};

/// The crate's manifest, from the root.
const MANIFEST: &str = "lab/fuzz/Cargo.toml";

/// Coverage that libFuzzer reads, and every check that a debug build has.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing -Cdebug-assertions";

#[derive(Args)]
pub struct Settings {
    /// How many random inputs each target tries, the same ones every time
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    runs: u64,
    /// Run each target for this time instead, and continue from the inputs found so far
    #[arg(long, value_name = "NUMBER")]
    seconds: Option<u64>,
    /// Try only this input, as after a failure
    #[arg(long, value_name = "FILE", conflicts_with = "seconds", requires = "targets")]
    input: Option<PathBuf>,
    /// Add to the committed inputs those that --seconds found and that reach more of the code
    #[arg(long, conflicts_with_all = ["seconds", "input"])]
    merge: bool,
    /// Check the targets with clippy instead of running them
    #[arg(long, conflicts_with_all = ["seconds", "input", "merge", "targets"])]
    clippy: bool,
    /// The targets, instead of all
    targets: Vec<String>,
}

/// What is to be done with the targets.
#[derive(Debug, Clone)]
enum Job {
    /// So many inputs in each, besides the committed ones: the same ones every time.
    Runs(u64),
    /// So many seconds with each, from where the last time ended.
    Seconds(u64),
    /// One input, as after a finding.
    Input(PathBuf),
    /// The fewest of the found inputs that reach what the committed ones do not are added to them.
    Merge,
}

impl Settings {
    fn job(&self) -> Job {
        match (self.seconds, &self.input) {
            _ if self.merge => Job::Merge,
            (_, Some(input)) => Job::Input(input.clone()),
            (Some(seconds), None) => Job::Seconds(seconds),
            (None, None) => Job::Runs(self.runs),
        }
    }
}

/// Does this with the targets named, or with all.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    let (job, targets) = (settings.job(), &settings.targets);
    let host = host()?;
    if settings.clippy {
        return step(cargo_for_fuzzing("clippy", &host).args(["--", "-D", "warnings"]));
    }
    let all = targets_of_the_crate()?;
    if let Some(unknown) = targets.iter().find(|target| !all.contains(target)) {
        return Err(format!("no fuzz target '{unknown}'; there are {}", all.join(", ")).into());
    }
    step(cargo_for_fuzzing("build", &host).arg("--bins"))?;
    let programs = target_dir().join(host).join("release");
    for target in if targets.is_empty() { &all } else { targets } {
        let places = Places::of(target);
        let mut program = Command::new(programs.join(target));
        program.stdin(Stdio::null());
        match &job {
            Job::Runs(runs) => {
                empty(&places.found)?;
                program.args(["-seed=1", "-verbosity=0"]).arg(format!("-runs={runs}"));
                places.explore(target, program)?;
            }
            Job::Seconds(seconds) => {
                program.arg("-print_final_stats=1").arg(format!("-max_total_time={seconds}"));
                places.explore(target, program)?;
            }
            Job::Input(input) => step(program.arg(input))?,
            Job::Merge => places.merge(program)?,
        }
    }
    Ok(())
}

/// A cargo command about the fuzz crate with the flags of its build, so that it finds what is
/// built already.
fn cargo_for_fuzzing(verb: &str, host: &str) -> Command {
    let mut command = cargo(verb);
    command
        .args(["--locked", "--release", "--manifest-path", MANIFEST, "--target", host])
        .arg("--target-dir")
        .arg(target_dir())
        // Whatever else is set would win, or would be built anew.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", RUSTFLAGS);
    command
}

/// What rustc builds for here. Named to cargo, it keeps the flags from build scripts.
fn host() -> Result<String, Failure> {
    let asked = Command::new("rustc").args(["--print", "host-tuple"]).output();
    let asked = asked.map_err(|error| format!("cannot run rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
}

fn target_dir() -> PathBuf {
    cargo_target().join("fuzz")
}

/// The names of the files in lab/fuzz/targets.
fn targets_of_the_crate() -> Result<Vec<String>, Failure> {
    let cannot = |error| format!("cannot read 'lab/fuzz/targets': {error}");
    let mut targets = Vec::new();
    for entry in fs::read_dir(root().join("lab/fuzz/targets")).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        targets.extend(file.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Where a target's inputs are.
struct Places {
    /// The committed ones.
    corpus: PathBuf,
    /// Those that reached something new.
    found: PathBuf,
    /// Those that broke it.
    broke: PathBuf,
}

impl Places {
    fn of(target: &str) -> Places {
        let place = |kind: &str| target_dir().join(kind).join(target);
        let corpus = root().join("lab/fuzz/corpus").join(target);
        Places { corpus, found: place("found"), broke: place("broke") }
    }

    /// Runs a target from the committed inputs and the found ones.
    fn explore(&self, target: &str, mut program: Command) -> Result<(), Failure> {
        create(&self.found)?;
        create(&self.broke)?;
        program
            .arg("-timeout=60")
            // What it says goes before the name of a file.
            .arg(format!("-artifact_prefix={}/", self.broke.display()))
            // New ones go to the directory that is named first.
            .args([&self.found, &self.corpus]);
        step(&mut program).map_err(|failure| {
            let repeat = newest(&self.broke).map_or_else(String::new, |input| {
                format!("; to repeat: cargo xtask fuzz {target} --input {}", input.display())
            });
            format!("{failure}{repeat}").into()
        })
    }

    /// Adds found inputs to the committed ones. Parts of the code count, and not how often they
    /// are reached, which would take hundreds of files.
    fn merge(&self, mut program: Command) -> Result<(), Failure> {
        create(&self.found)?;
        let merge = ["-set_cover_merge=1", "-use_counters=0"];
        step(program.args(merge).args([&self.corpus, &self.found]))
    }
}

fn newest(directory: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    files
        .max_by_key(|file| file.metadata().and_then(|about| about.modified()).ok())
        .map(|f| f.path())
}

fn create(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot create '{}': {error}", directory.display()).into())
}
