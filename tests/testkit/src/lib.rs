//! Harness for vsrun's integration tests: real processes in a private directory, looked at from
//! outside through files, `/proc` and statuses.
//!
//! A test makes a [`Sandbox`], starts vsrun with [`Sandbox::vsrun`], and waits for what it expects
//! with [`wait_for`]. Tests are threads of one process: nothing here changes the working directory,
//! umask, environment or signals of that process, and no two sandboxes share a path.
//!
//! ```no_run
//! use testkit::{Report, Sandbox};
//!
//! // In an integration test of vsrun: Sandbox::new(env!("CARGO_BIN_EXE_vsrun")).
//! let sandbox = Sandbox::new("/usr/sbin/vsrun");
//! let report = sandbox.path("report");
//! let outcome = sandbox.vsrun().command(sandbox.probe().report(&report).exit(3)).run();
//! outcome.expect_code(3);
//! assert!(Report::wait(&report).ignored.is_empty());
//! ```

mod census;
mod clock;
mod handler;
mod invocation;
mod lock;
mod log_directory;
mod observation;
mod pidfd;
mod probe;
mod proc_files;
mod process;
mod report;
mod requirement;
mod running;
mod sandbox;
mod scene;
mod shell_tests;
mod signals;
mod surroundings;
mod terminal;
mod wait;

pub use clock::Clock;
pub use handler::{Handler, HandlerRun, HandlerScript};
pub use invocation::Invocation;
pub use lock::lock;
pub use log_directory::LogDirectory;
pub use nix::sys::resource::Resource;
pub use probe::{OnTerm, Probe};
pub use proc_files::{Capabilities, Ids, Stat, Status};
pub use process::Process;
pub use report::Report;
pub use requirement::{require_program, require_root};
pub use running::{Outcome, Running};
pub use sandbox::Sandbox;
pub use scene::{
    detach, expect_no_files, expect_nothing_left, managed, probe, refusing, started, starts, stop,
    traced, wait_for_message, wait_for_signals,
};
pub use shell_tests::run_shell_tests;
pub use signals::{SignalSet, signal_name, signal_number};
pub use wait::{Look, holds_for, wait_for, wait_for_within};

/// The signal numbers of signal(7), as the methods that take a signal expect them.
pub mod signal {
    pub use nix::libc::{
        SIGABRT, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGRTMAX,
        SIGRTMIN, SIGSEGV, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH,
    };
}
