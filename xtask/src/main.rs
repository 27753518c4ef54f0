//! vsrun's own chores: `cargo xtask VERB`. This file only picks the verb.

mod check;
mod completions;
mod demo;
mod generated;
mod man;
mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use generated::Mode;

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
        /// Arguments for `cargo test`, as in `cargo xtask test -- --test docs`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Build vsrun and show its main job: start, crash, handler, restart, stop
    Demo,
    /// Run everything that CI runs besides the tests
    Check,
    /// Make man/vsrun.8 from man/vsrun.8.in and the options' definition
    Man {
        /// Write nothing; fail if the committed page is out of date
        #[arg(long)]
        check: bool,
    },
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
