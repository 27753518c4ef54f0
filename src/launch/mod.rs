//! Doing it: the order of things from the first instruction to the server's.

mod background;

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use nix::sys::stat::{Mode, umask};
use nix::unistd::getpid;

use crate::cli::{self, Asked};
use crate::error::Error;
use crate::logs::Output;
use crate::logs::directory::LogDirectory;
use crate::manager;
use crate::message::{complain, escaped, write_line};
use crate::pidfile::claim::Claim;
use crate::pidfile::{Before, Pidfile};
use crate::plan::{Ground, Management, Plan};
use crate::sys::failure::Failure;
use crate::sys::spawn::{Streams, check, exec_here};
use crate::sys::{fds, signals};
use background::{Outcome, Side, detach};

/// All of vsrun.
pub fn main() -> ExitCode {
    fds::close_inherited();
    signals::take_over();
    // What vsrun creates has the modes it asks for; what it executes gets the caller's umask.
    let umask = umask(Mode::empty());
    let status = match cli::parse(std::env::args_os()) {
        Ok(Asked::Server(cli)) => Plan::new(cli, umask).and_then(|plan| run(&plan)),
        Ok(Asked::Text(text)) => print(&text),
        Err(error) => Err(error),
    };
    ExitCode::from(status.unwrap_or_else(|error| {
        complain(format_args!("{error}"));
        error.status()
    }))
}

fn print(text: &str) -> Result<u8, Error> {
    let mut output = std::io::stdout();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| Error::cannot("write to", "standard output", fds::errno(error)))?;
    Ok(0)
}

fn run(plan: &Plan) -> Result<u8, Error> {
    let null = fds::null().map_err(|reason| Error::cannot("open", "/dev/null", reason))?;
    if let Some(management) = &plan.manager {
        check_handler(plan, management, &null)?;
    }
    match plan.ground {
        Ground::Foreground => serve(plan, null, &mut Outcome::unwatched()),
        Ground::Background => match detach(plan)? {
            Side::Caller(status) => Ok(status),
            Side::Away(mut outcome) => {
                let status = serve(plan, null, &mut outcome).unwrap_or_else(|error| {
                    complain(format_args!("{error}"));
                    error.status()
                });
                outcome.report(status);
                Ok(status)
            }
        },
    }
}

/// Whether the handler is there and may be executed, as the user who will run it.
fn check_handler(plan: &Plan, management: &Management, null: &OwnedFd) -> Result<(), Error> {
    let spec = plan.handler(&management.handler, [].into_iter());
    let streams = Streams { input: null.as_fd(), output: None };
    let program = ("handler", management.handler.as_os_str());
    check(&spec, streams).map_err(|failure| plan.error(program, &spec, failure))
}

fn serve(plan: &Plan, null: OwnedFd, outcome: &mut Outcome) -> Result<u8, Error> {
    let claim = plan.manager.as_ref().map(|management| Claim::stake(&management.pidfile));
    let claim = claim.transpose()?;
    let pidfile = plan.pidfile.as_ref().map(|path| Pidfile::open(path, Before::Replaceable));
    let pidfile = pidfile.transpose()?;
    let output = Output::open(plan)?;
    match (claim, &plan.manager) {
        (Some(claim), Some(management)) => {
            manager::run(plan, management, null, claim, pidfile, output, || outcome.report(0))
        }
        _ => become_server(plan, &null, pidfile, output),
    }
}

/// Turns this process into the server. Returns only when that fails.
fn become_server(
    plan: &Plan,
    null: &OwnedFd,
    mut pidfile: Option<Pidfile>,
    output: Output,
) -> Result<u8, Error> {
    let spec = plan.server(output.directory().map(LogDirectory::path));
    let stream = output.of_server().map(|stream| stream.try_clone_to_owned()).transpose();
    let stream = stream
        .map_err(|error| Error::cannot("place the standard streams", "", fds::errno(error)))?;
    if let Some(pidfile) = &mut pidfile {
        let written = pidfile.write(getpid());
        written.map_err(|reason| Error::cannot("write pidfile", pidfile.path(), reason))?;
    }
    if let Some(own) = output.of_vsrun() {
        let (pid, command) = (getpid(), plan.command_line());
        let text = format_args!("starting server {pid}: {}", escaped(&command));
        // A log that cannot be written now keeps no server from starting.
        let _ = write_line(own, output.style(), text);
    }
    let files = match output {
        Output::Files(mut files) => {
            while files.directory.expire_some() {}
            Some(files)
        }
        Output::Inherited | Output::Syslog(_) => None,
    };
    let streams = Streams { input: null.as_fd(), output: stream.as_ref().map(AsFd::as_fd) };
    let failure = guarded((pidfile, files), || exec_here(&spec, streams))
        .map_err(|error| Error::cannot("start a thread", "", fds::errno(error)))?;
    Err(plan.error(("command", &plan.command[0]), &spec, failure))
}

/// Executes, and drops `traces` if that fails. Another thread does that, since this one may have
/// given up the root and the privilege that it takes; an exec that succeeds ends it (execve(2)).
fn guarded<T: Send + 'static>(
    traces: T,
    execute: impl FnOnce() -> Failure,
) -> std::io::Result<Failure> {
    let (failed, heard) = mpsc::channel::<()>();
    let guardian = thread::Builder::new().spawn(move || {
        // What is heard is that the other end is gone.
        let _ = heard.recv();
        drop(traces);
    })?;
    let failure = execute();
    drop(failed);
    // A guardian that panicked has aborted the process.
    let _ = guardian.join();
    Ok(failure)
}
