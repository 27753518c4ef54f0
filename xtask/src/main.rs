//! `cargo xtask`: builds, checks and packages vsrun.

mod check;
mod completions;
mod demo;
mod generated;
mod lab;
mod leftovers;
mod man;
mod package;
mod source;
mod test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use generated::Mode;
use package::Checks;
use xtask::steps;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, checks and packages vsrun"
)]
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
    /// Build vsrun and show what it does: start, crash, restart, stop, refusal
    Demo,
    /// Run everything that CI runs besides the tests
    Check,
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
    /// Make the shell completions from the options' definition
    Completions {
        /// Write nothing; fail if a committed file is out of date
        #[arg(long)]
        check: bool,
    },
    /// Compare vsrun with other programs, in one run
    #[command(disable_help_flag = true)]
    Bench(Lab),
    /// Make every system call of vsrun fail once, as root
    #[command(disable_help_flag = true)]
    Faults(Lab),
    /// Run the fuzz targets on the committed inputs and on random ones
    #[command(disable_help_flag = true)]
    Fuzz(Lab),
    /// Check that a start and a manager at rest need no more than before
    #[command(disable_help_flag = true)]
    Guard(Lab),
    /// Run many managers of crashing servers, and check that they do not grow
    #[command(disable_help_flag = true)]
    Soak(Lab),
}

/// What `lab` parses.
#[derive(Args)]
struct Lab {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Test { arguments } => test::run(&arguments),
        Verb::Demo => demo::run(),
        Verb::Check => check::run(),
        Verb::Deb {
            directory,
            no_check,
        } => package::deb(directory.as_deref(), Checks::from_no_check(no_check)),
        Verb::Rpm {
            directory,
            no_check,
        } => package::rpm(directory.as_deref(), Checks::from_no_check(no_check)),
        Verb::Dist { destdir, prefix } => package::dist(&destdir, &prefix),
        Verb::Man { check } => man::run(Mode::from_check(check)),
        Verb::Completions { check } => completions::run(Mode::from_check(check)),
        Verb::Bench(Lab { arguments }) => lab::execute("bench", &arguments),
        Verb::Faults(Lab { arguments }) => lab::execute("faults", &arguments),
        Verb::Fuzz(Lab { arguments }) => lab::execute("fuzz", &arguments),
        Verb::Guard(Lab { arguments }) => lab::execute("guard", &arguments),
        Verb::Soak(Lab { arguments }) => lab::execute("soak", &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            failure.status()
        }
    }
}
