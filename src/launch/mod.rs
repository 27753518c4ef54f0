//! Doing it: the order of things from the first instruction to the server's.

mod background;
mod unmanaged;

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::sys::stat::{Mode, umask};
use nix::unistd::getpid;

use crate::cli::{self, Asked};
use crate::error::{Error, FAILED};
use crate::logs::Output;
use crate::manager;
use crate::message::complain;
use crate::pidfile::claim::{Claim, open_server_pidfile};
use crate::plan::{Ground, Management, Plan};
use crate::sys::child::Handles;
use crate::sys::spawn::check;
use crate::sys::{fds, signals};
use background::{Side, leave_leader, leave_session};

/// All of vsrun; its exit status.
pub fn main() -> u8 {
    fds::close_inherited();
    // Before anything else is opened, which could take the place of a closed standard stream.
    let null = fds::null();
    signals::reset();
    // What vsrun creates has the modes it asks for; what it executes gets the caller's umask.
    let umask = umask(Mode::empty());
    settle(match cli::parse(std::env::args_os()) {
        Ok(Asked::Server(cli)) => null
            .map_err(|reason| Error::cannot("open", "/dev/null", reason))
            .and_then(|null| run(&Plan::new(cli, umask)?, null)),
        Ok(Asked::Text(text)) => print(&text),
        Err(error) => Err(error),
    })
}

/// The exit status of an outcome; an error is told.
fn settle(outcome: Result<u8, Error>) -> u8 {
    outcome.unwrap_or_else(|error| {
        complain(&error);
        error.status()
    })
}

fn print(text: &str) -> Result<u8, Error> {
    let mut output = std::io::stdout();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| Error::cannot("write to", "standard output", fds::errno(error)))?;
    Ok(0)
}

fn run(plan: &Plan, null: OwnedFd) -> Result<u8, Error> {
    if let Some(management) = &plan.manager {
        check_handler(plan, management, &null)?;
    }
    signals::hold();
    if plan.ground == Ground::Background {
        if let Side::Behind(status) = leave_session()? {
            return Ok(status);
        }
    }
    match (&plan.manager, plan.ground) {
        (None, _) => unmanaged::start(plan, &null),
        (Some(management), Ground::Foreground) => manage(plan, management, null, &mut || {}),
        (Some(management), Ground::Background) => match leave_leader()? {
            Side::Behind(status) => Ok(status),
            Side::Away(mut report) => {
                let mut up = || {
                    if !report.tell(0) {
                        // What is said to have failed is not to run: a request like any other.
                        let _ = signals::send(getpid(), libc::SIGTERM);
                    }
                };
                let status = settle(manage(plan, management, null, &mut up));
                // Where nothing has been told by now no server ran, be it that somebody stopped it.
                report.tell(status.max(FAILED));
                Ok(status)
            }
        },
    }
}

/// Whether the handler is there and may be executed, as the user who will run it.
fn check_handler(plan: &Plan, management: &Management, null: &OwnedFd) -> Result<(), Error> {
    let spec = plan.handler(&management.handler, [].into_iter());
    let handles = Handles { input: null.as_fd(), output: None, work_dir: None };
    check(&spec, handles).map_err(|failure| plan.error(&spec, failure))
}

fn manage(
    plan: &Plan,
    management: &Management,
    null: OwnedFd,
    up: &mut dyn FnMut(),
) -> Result<u8, Error> {
    let claim = Claim::stake(&management.pidfile)?;
    // First, since it may make the directory that the pidfile is to stand in.
    let output = Output::open(plan)?;
    let path = plan.pidfile.as_ref();
    let pidfile = path.map(|path| open_server_pidfile(path, Some(&claim))).transpose()?;
    manager::run(plan, management, null, claim, output, pidfile, up)
}
