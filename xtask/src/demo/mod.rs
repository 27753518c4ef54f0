//! `cargo xtask demo`: shows step by step what vsrun does with a small server. The lines of its logs
//! are printed as they are written. Each step waits for the effect that it announces.

mod follow;
mod stage;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;

use crate::steps::{Failure, cargo, run as step};
use stage::Stage;

/// The server's user, if root runs the demo.
const USER: &str = "nobody";

/// Builds vsrun and shows it.
pub fn run() -> Result<(), Failure> {
    step(&mut cargo("build --locked --release --package vsrun"))?;
    let user = geteuid().is_root().then_some(USER);
    match user {
        Some(user) => println!("\nThe server runs as {user}, vsrun as root."),
        None => println!("\nThe server runs as you. If root runs the demo, it runs as {USER}."),
    }

    // vsrun receives Ctrl-C too and ends. Then the demo ends and removes its files.
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt
        .thread_block()
        .map_err(|error| format!("cannot block SIGINT: {error}"))?;

    let mut stage = Stage::new(user)?;
    println!(
        "Until the demo ends, its files are in {}.",
        stage.directory().display()
    );
    narrate(
        1,
        "vsrun starts a server and stays as its manager. Output goes to log files.",
    );
    stage.start("./handler")?;
    stage.wait_for_a_new_server()?;

    narrate(2, "The server crashes. The handler permits a restart.");
    stage.kill_server(Signal::SIGSEGV)?;
    stage.wait_for_a_new_server()?;

    narrate(3, "SIGHUP requests a restart. No handler runs.");
    stage.signal_manager(Signal::SIGHUP)?;
    stage.wait_for_a_new_server()?;

    narrate(
        4,
        "SIGTERM requests a stop: of the server, then of the manager.",
    );
    stage.signal_manager(Signal::SIGTERM)?;
    stage.wait_for_the_end()?;

    narrate(5, "The same server with a handler that refuses a restart.");
    stage.start("./refuse")?;
    stage.wait_for_a_new_server()?;
    stage.kill_server(Signal::SIGSEGV)?;
    stage.wait_for_the_end()?;

    println!("\nThe logs, which the demo removes now:");
    stage.list_logs()?;
    Ok(())
}

fn narrate(number: u32, text: &str) {
    println!("\n{number}. {text}");
}
