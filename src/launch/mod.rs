//! Starts the server: the steps from vsrun's first instruction to the server's,
//! in order.

mod background;
mod unmanaged;

use std::ffi::OsString;
use std::io::Write as _;

use nix::libc;
use nix::sys::stat::{Mode, umask};
use nix::unistd::getpid;

use crate::cli::{self, Parsed};
use crate::error::{Error, FAILED};
use crate::manager::{self, Start};
use crate::message::print_error;
use crate::output::Output;
use crate::pidfile::claim::{Claim, open_server_pidfile};
use crate::plan::{Management, Plan};
use crate::sys::files::fds;
use crate::sys::process::spawn::check;
use crate::sys::process::spec::Descriptors;
use crate::sys::signals;
use background::{ForkSide, leave_leader, leave_session};

/// All of vsrun, given its arguments, its name first; its exit status.
pub fn main(arguments: Vec<OsString>) -> u8 {
    let null = fds::open_null();
    signals::reset();
    // What vsrun creates has the modes it asks for; what it executes gets the caller's umask.
    let umask = umask(Mode::empty());
    report(match cli::parse(arguments) {
        Ok(Parsed::Server(cli)) => {
            fds::close_inherited();
            null.map_err(|reason| Error::cannot("open", "/dev/null", reason))
                .and_then(|()| run(&Plan::new(cli, umask)?))
        }
        Ok(Parsed::Text(text)) => print(&text),
        Err(error) => Err(error),
    })
}

/// The exit status of an outcome, whose error is written to standard error.
fn report(outcome: Result<u8, Error>) -> u8 {
    outcome.unwrap_or_else(|error| {
        print_error(&error);
        error.status()
    })
}

fn print(text: &str) -> Result<u8, Error> {
    let mut output = std::io::stdout();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    written.map_err(|error| Error::cannot("write to", "standard output", fds::errno(error)))?;
    Ok(0)
}

fn run(plan: &Plan) -> Result<u8, Error> {
    if let Some(management) = &plan.manager {
        check_handler(plan, management)?;
    }
    signals::block();
    if plan.background {
        if let ForkSide::Caller(status) = leave_session()? {
            return Ok(status);
        }
    }
    match &plan.manager {
        None => unmanaged::start(plan),
        Some(management) if plan.background => manage_in_background(plan, management),
        Some(management) => manage(plan, management, &mut || {}),
    }
}

/// Whether the handler is there and may be executed, as the user who will run it.
fn check_handler(plan: &Plan, management: &Management) -> Result<(), Error> {
    let spec = plan.handler(&management.handler, [].into_iter());
    let descriptors = Descriptors {
        input: fds::null(),
        output: None,
        work_dir: None,
    };
    check(&spec, descriptors).map_err(|end| plan.error(&spec, end))
}

fn manage_in_background(plan: &Plan, management: &Management) -> Result<u8, Error> {
    let mut outcome = match leave_leader()? {
        ForkSide::Caller(status) => return Ok(status),
        ForkSide::Background(outcome) => outcome,
    };
    let mut on_started = || {
        if !outcome.report(0) {
            // The process that waited was killed, so the caller sees a failed start: stop the server.
            let _ = signals::send(getpid(), libc::SIGTERM);
        }
    };
    let status = report(manage(plan, management, &mut on_started));
    // Where nothing has been reported by now no server ran, if only because it was stopped.
    outcome.report(status.max(FAILED));
    Ok(status)
}

fn manage(plan: &Plan, management: &Management, on_started: &mut dyn FnMut()) -> Result<u8, Error> {
    let claim = Claim::acquire(&management.pidfile)?;
    // First, since it may make the directory that the pidfile is to stand in.
    let output = Output::open(plan)?;
    let path = plan.pidfile.as_ref();
    let pidfile = path
        .map(|path| open_server_pidfile(path, Some(&claim)))
        .transpose()?;
    manager::run(Start {
        plan,
        management,
        claim,
        output,
        pidfile,
        on_started,
    })
}
