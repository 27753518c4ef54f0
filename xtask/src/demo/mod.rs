//! `cargo xtask demo`: vsrun's main job on a small server, step by step, with its
//! log files shown as they grow. Every step waits for what it announces.

mod follow;
mod stage;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;

use crate::steps::{Failure, cargo, run as step};
use stage::Stage;

/// The user that the server runs as where root shows the demo.
const USER: &str = "nobody";

/// Builds vsrun and shows it.
pub fn run() -> Result<(), Failure> {
    step(&mut cargo("build --locked --release --package vsrun"))?;
    let user = geteuid().is_root().then_some(USER);
    match user {
        Some(user) => println!("\nThe server runs as {user}; vsrun and its pidfiles stay root's."),
        None => println!("\nNot root: the server runs as you. As root it would run as {USER}."),
    }

    // An interrupt reaches vsrun as well, which ends; the demo sees that and cleans up.
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_block().map_err(|error| format!("cannot block SIGINT: {error}"))?;

    let mut stage = Stage::set(user)?;
    narrate(1, "A server that ticks is started under a manager, with its output in files.");
    println!("  $ {}", stage.command_line());
    stage.start()?;
    stage.wait_for_a_new_server()?;

    narrate(2, "The server crashes. The handler is told how, agrees, and it is started again.");
    stage.kill_server(Signal::SIGSEGV)?;
    stage.wait_for_a_new_server()?;

    narrate(3, "SIGHUP asks the manager for a restart. That is no accident: no handler.");
    stage.signal_manager(Signal::SIGHUP)?;
    stage.wait_for_a_new_server()?;

    narrate(4, "SIGTERM asks the manager to stop the server and to leave.");
    stage.signal_manager(Signal::SIGTERM)?;
    let status = stage.wait_for_the_end()?;

    println!(
        "\nvsrun ended with {status}, and its pidfiles are gone. What it leaves are the logs:"
    );
    stage.list_logs()?;
    Ok(())
}

fn narrate(number: u32, text: &str) {
    println!("\n{number}. {text}");
}
