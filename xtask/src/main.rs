//! vsrun's own chores: `cargo xtask VERB`. This file only picks the verb.

mod bench;
mod check;
mod completions;
mod demo;
mod document;
mod faults;
mod fuzz;
mod generated;
mod guard;
mod leftovers;
mod man;
mod package;
mod soak;
mod source;
mod steps;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use generated::Mode;
use package::Checks;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "vsrun's own chores")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the tests need (as root), then run every test
    Test {
        /// Arguments for `cargo test`, as in `cargo xtask test -- --test integration docs::`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Build vsrun and show its main job: start, crash, handler, restart, stop
    Demo,
    /// Run everything that CI runs besides the tests
    Check,
    /// Feed the fuzz targets the committed inputs, and others at random
    Fuzz {
        /// How many inputs each target tries at random, the same ones every time
        #[arg(long, value_name = "NUMBER", default_value_t = fuzz::RUNS)]
        runs: u64,
        /// Go on for so long with each target instead, from where the last time ended
        #[arg(long, value_name = "NUMBER")]
        seconds: Option<u64>,
        /// Try one input only, as after a finding
        #[arg(long, value_name = "FILE", conflicts_with = "seconds", requires = "targets")]
        input: Option<PathBuf>,
        /// Add to the committed inputs what --seconds found and they do not reach
        #[arg(long, conflicts_with_all = ["seconds", "input"])]
        merge: bool,
        /// The targets, instead of all
        targets: Vec<String>,
    },
    /// Let every system call of vsrun fail once, as root
    Faults(faults::Options),
    /// Make man/vsrun.8 from man/vsrun.8.in and the options' definition
    Man {
        /// Write nothing; fail if the committed page is out of date
        #[arg(long)]
        check: bool,
    },
    /// Build the Debian packages, with dpkg-buildpackage
    Deb {
        /// Where, instead of target/deb; what is there is removed
        #[arg(long)]
        directory: Option<PathBuf>,
        /// Leave out the tests that belong to the build
        #[arg(long)]
        no_check: bool,
    },
    /// Build the .rpm packages, with rpmbuild
    Rpm {
        /// Where, instead of target/rpm; what is there is removed
        #[arg(long)]
        directory: Option<PathBuf>,
        /// Leave out the tests that belong to the build
        #[arg(long)]
        no_check: bool,
    },
    /// Build vsrun and install it with all that belongs to it
    Dist {
        /// The root of what is written: / or a directory to pack
        #[arg(long)]
        destdir: PathBuf,
        /// What stands for /usr
        #[arg(long, default_value = "/usr/local")]
        prefix: String,
    },
    /// Run many managers with servers that crash, and see that they stay as small as they were
    Soak(soak::Settings),
    /// Measure vsrun beside its peers, in one run
    Bench(bench::Settings),
    /// See that a start and a manager at rest take no more than before
    Guard {
        /// Write new ceilings, five percent above what is measured
        #[arg(long)]
        write: bool,
    },
    /// What the managers of `soak` manage
    #[command(hide = true)]
    SoakServer,
    /// Make the shell completions from the options' definition
    Completions {
        /// Write nothing; fail if a committed file is out of date
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Test { arguments } => test::run(&arguments),
        Verb::Demo => demo::run(),
        Verb::Check => check::run(),
        Verb::Fuzz { runs, seconds, input, merge, targets } => {
            fuzz::run(&fuzz::Job::of(runs, seconds, input, merge), &targets)
        }
        Verb::Faults(options) => faults::run(&options),
        Verb::Deb { directory, no_check } => {
            package::deb(directory.as_deref(), Checks::from_no_check(no_check))
        }
        Verb::Rpm { directory, no_check } => {
            package::rpm(directory.as_deref(), Checks::from_no_check(no_check))
        }
        Verb::Dist { destdir, prefix } => package::dist(&destdir, &prefix),
        Verb::Guard { write } => guard::run(write),
        Verb::Bench(settings) => bench::run(&settings),
        Verb::Soak(settings) => soak::run(&settings),
        Verb::SoakServer => soak::serve(),
        Verb::Man { check } => man::run(Mode::from_check(check)),
        Verb::Completions { check } => completions::run(Mode::from_check(check)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            failure.status()
        }
    }
}
