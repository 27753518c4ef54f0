//! `cargo xtask fuzz`: builds the fuzz targets with stable Rust and runs them. The compiler's flags
//! are those of cargo-fuzz, without a sanitizer, which needs a nightly toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use xtask::steps::{Failure, cargo, cargo_target, empty, root, run as step};

/// The crate of the targets, from the root.
const CRATE: &str = "lab/fuzz";

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
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "seconds",
        requires = "targets"
    )]
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

/// Builds the targets and runs those named, or all.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    let host = host()?;
    if settings.clippy {
        return step(cargo_with_flags("clippy", &host).args(["--", "-D", "warnings"]));
    }
    let all = all_targets()?;
    if let Some(unknown) = settings.targets.iter().find(|target| !all.contains(target)) {
        return Err(format!("no fuzz target '{unknown}'; there are {}", all.join(", ")).into());
    }
    step(cargo_with_flags("build", &host).arg("--bins"))?;
    let programs = target_dir().join(host).join("release");
    for name in if settings.targets.is_empty() {
        &all
    } else {
        &settings.targets
    } {
        Target::new(name, &programs).run(settings)?;
    }
    Ok(())
}

/// A cargo command for the targets. All use the same flags, so that nothing is built twice.
fn cargo_with_flags(verb: &str, host: &str) -> Command {
    let mut command = cargo(verb);
    command
        .args(["--locked", "--release", "--target", host, "--manifest-path"])
        .arg(format!("{CRATE}/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir())
        // It would take precedence.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", RUSTFLAGS);
    command
}

/// This machine's target triple. With `--target`, cargo keeps the flags from build scripts.
fn host() -> Result<String, Failure> {
    let output = Command::new("rustc")
        .args(["--print", "host-tuple"])
        .output();
    let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn target_dir() -> PathBuf {
    cargo_target().join("fuzz")
}

fn all_targets() -> Result<Vec<String>, Failure> {
    let directory = root().join(CRATE).join("targets");
    let cannot = |error| format!("cannot read '{}': {error}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        names.extend(
            file.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

/// A fuzz target and the directories of its inputs.
struct Target<'a> {
    name: &'a str,
    program: PathBuf,
    /// The committed inputs.
    corpus: PathBuf,
    /// Inputs that reached more of the code.
    found: PathBuf,
    /// Inputs that made the target fail.
    failed: PathBuf,
}

impl Target<'_> {
    fn new<'a>(name: &'a str, programs: &Path) -> Target<'a> {
        let directory = |kind: &str| target_dir().join(kind).join(name);
        Target {
            name,
            program: programs.join(name),
            corpus: root().join(CRATE).join("corpus").join(name),
            found: directory("found"),
            failed: directory("failed"),
        }
    }

    fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let mut program = Command::new(&self.program);
        program.stdin(Stdio::null());
        if settings.merge {
            create(&self.found)?;
            // Counters would keep inputs that only run the same code more often: hundreds of files.
            program.args(["-set_cover_merge=1", "-use_counters=0"]);
            return step(program.args([&self.corpus, &self.found]));
        }
        if let Some(input) = &settings.input {
            return step(program.arg(input));
        }
        if let Some(seconds) = settings.seconds {
            create(&self.found)?;
            program
                .arg("-print_final_stats=1")
                .arg(format!("-max_total_time={seconds}"));
        } else {
            // Earlier finds would change what a run does.
            empty(&self.found)?;
            program
                .args(["-seed=1", "-verbosity=0"])
                .arg(format!("-runs={}", settings.runs));
        }
        self.explore(program)
    }

    /// Tries random inputs made from the committed and the found ones.
    fn explore(&self, mut program: Command) -> Result<(), Failure> {
        create(&self.failed)?;
        program
            .arg("-timeout=60")
            .arg(format!("-artifact_prefix={}/", self.failed.display()))
            // libFuzzer adds new inputs to the first directory.
            .args([&self.found, &self.corpus]);
        step(&mut program).map_err(|failure| match newest(&self.failed) {
            Some(input) => {
                let (name, input) = (self.name, input.display());
                format!("{failure}; to repeat: cargo xtask fuzz {name} --input {input}").into()
            }
            None => failure,
        })
    }
}

fn newest(directory: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(directory).ok()?.flatten();
    let newest = files.max_by_key(|file| file.metadata().and_then(|data| data.modified()).ok());
    newest.map(|file| file.path())
}

fn create(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot create '{}': {error}", directory.display()).into())
}
