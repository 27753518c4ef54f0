//! Measurements and checks of vsrun that take longer than a test may. `cargo xtask` hands the verbs
//! below over to this program.

mod bench;
mod document;
mod faults;
mod fuzz;
mod guard;
mod process;
mod scratch;
mod soak;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Verb {
    /// Compare vsrun with other programs, in one run
    Bench(bench::Settings),
    /// Make every system call of vsrun fail once, as root
    Faults(faults::Settings),
    /// Run the fuzz targets on the committed inputs and on random ones
    Fuzz(fuzz::Settings),
    /// Check that a start and a manager at rest need no more than before
    Guard(guard::Settings),
    /// Run many managers of crashing servers, and check that they do not grow
    Soak(soak::Settings),
    /// Be a server of `soak`
    #[command(hide = true)]
    SoakServer,
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Bench(settings) => bench::run(&settings),
        Verb::Faults(settings) => faults::run(&settings),
        Verb::Fuzz(settings) => fuzz::run(&settings),
        Verb::Guard(settings) => guard::run(&settings),
        Verb::Soak(settings) => soak::run(&settings),
        Verb::SoakServer => soak::serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            failure.status()
        }
    }
}
