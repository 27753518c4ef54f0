//! Staying resident: a server is watched, and restarted when it dies. The
//! machine decides, events reports to it what happened, and perform carries out
//! its actions.

pub mod action;
pub mod event;
mod events;
mod handler;
mod logger;
pub mod machine;
pub mod notes;
mod perform;
mod server;
mod stopping;
mod task;

use std::path::Path;

use nix::unistd::chdir;

use crate::error::Error;
use crate::limits;
use crate::message::Messages;
use crate::output::Output;
use crate::pidfile::Pidfile;
use crate::pidfile::claim::Claim;
use crate::plan::{Management, Plan};
use crate::snapshot::Outcome;
use crate::sys::clock::Moment;
use crate::sys::files::fds;
use crate::sys::process::fork::adopt_orphans;
use crate::sys::signals::Requests;
use action::Action;
use event::Event;
use handler::Handler;
use logger::Logger;
use machine::Machine;
use server::Server;

/// What a manager starts with.
pub struct Start<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// The handler and the monitor pidfile.
    pub management: &'a Management,
    /// The lock on the monitor pidfile, held to the end.
    pub claim: Claim,
    /// Where output goes.
    pub output: Output,
    /// The server's pidfile.
    pub pidfile: Option<Pidfile>,
    /// Called when the server has been executed for the first time.
    pub on_started: &'a mut dyn FnMut(),
}

struct Manager<'a> {
    plan: &'a Plan,
    machine: Machine,
    /// The machine's answers, in memory that is used again.
    actions: Vec<Action>,
    server: Server,
    handler: Handler,
    logger: Option<Logger>,
    output: Output,
    messages: Messages,
    requests: Requests,
    /// The server's command line, as the log shows it.
    command: String,
    /// Why the last start or handler failed, until that is said.
    failure: Option<Error>,
    next_expiry: Option<Moment>,
    /// Whether it has left the directory in which it was started.
    has_left: bool,
    on_started: Option<&'a mut dyn FnMut()>,
    /// Released last.
    _claim: Claim,
}

/// Starts the server and manages it to its end; the exit status. An error means that the server was
/// not started and nothing is left of the attempt.
pub fn run(start: Start<'_>) -> Result<u8, Error> {
    let mut manager = Manager::new(start)?;
    manager.say_notices();
    if manager.logger.is_none() {
        manager.handle_event(Event::Ready);
    }
    let outcome = manager.run_to_end();
    match (outcome, manager.failure.take()) {
        (Outcome::StartFailed, Some(error)) => Err(error),
        (Outcome::StartFailed, None) => Err(Error::NoOutcome),
        (Outcome::Status(status), _) => {
            manager.finish();
            Ok(status)
        }
    }
}

impl<'a> Manager<'a> {
    fn new(start: Start<'a>) -> Result<Manager<'a>, Error> {
        let Start {
            plan,
            management,
            claim,
            mut output,
            pidfile,
            on_started,
        } = start;
        enter_own_dir(plan, &mut output)?;
        let own_output = output.of_vsrun().unwrap_or(fds::standard_error());
        let messages = Messages::new(own_output, output.style())
            .map_err(|reason| Error::cannot("open the output for messages", "", reason))?;
        // Before Linux 3.4 this fails, and the line about leftover processes is not written.
        let _ = adopt_orphans();
        let now = Moment::now();
        Ok(Manager {
            plan,
            machine: Machine::new(now),
            actions: Vec::new(),
            handler: Handler::new(plan, &management.handler),
            server: Server::new(plan.server(), pidfile),
            logger: plan.logger().map(|spec| Logger::new(spec, now)),
            next_expiry: plan.log_dir().map(|_| now + limits::LOG_EXPIRY),
            command: plan.shown_command_line(),
            messages,
            requests: Requests::open()
                .map_err(|reason| Error::cannot("open a signalfd", "", reason))?,
            output,
            failure: None,
            has_left: false,
            on_started: Some(on_started),
            _claim: claim,
        })
    }

    /// Closes the pipe to logger and waits until logger has read the last lines.
    fn finish(&mut self) {
        let Some(syslog) = self.output.syslog() else {
            return;
        };
        // vsrun's own streams and lines hold the pipe too.
        syslog.hang_up();
        let _ = fds::redirect_own(Some(fds::null()));
        self.messages.redirect(fds::null());
        self.drain_logger();
    }

    /// Sends vsrun's own output where the server's plan says.
    fn redirect_own(&self) {
        // dup2(2) onto an open descriptor needs no resource.
        let _ = fds::redirect_own(self.output.of_vsrun());
    }
}

/// Changes to the log directory or `/`, so that no other file system is kept busy. If the server is
/// to start in the caller's directory, the manager changes to `/` after that start.
fn enter_own_dir(plan: &Plan, output: &mut Output) -> Result<(), Error> {
    if plan.caller_dir().is_some() {
        return Ok(());
    }
    let own_dir = plan.log_dir().unwrap_or(Path::new("/"));
    let entered = match output.files() {
        Some(files) => files.directory.directory().enter(),
        None => chdir(own_dir),
    };
    entered.map_err(|reason| Error::cannot("change directory to", own_dir, reason))
}
