//! Staying resident: a server is watched, and restarted when it dies. The
//! machine decides; the event loop tells it what happened; what it answers is
//! carried out here.

mod event_loop;
mod handler;
pub mod machine;
pub mod policy;
pub mod report;
mod server;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Pid, chdir};

use crate::error::Error;
use crate::logs::{Output, syslog};
use crate::message::{Messages, Style, escaped};
use crate::pidfile::Pidfile;
use crate::pidfile::claim::Claim;
use crate::plan::{Management, Plan};
use crate::sys::fds;
use crate::sys::signals::Inbox;
use crate::sys::wait::reap;
use handler::Handler;
use machine::{Action, Event, Machine, Verdict};
use policy::is_shortage;
use report::Death;
use server::Server;

struct Manager {
    machine: Machine,
    server: Server,
    handler: Handler,
    output: Output,
    messages: Messages,
    inbox: Inbox,
    null: OwnedFd,
    command: OsString,
    next_review: Option<Instant>,
}

/// Starts the server, calls `up`, and manages the server to its end; the exit status. An error
/// means that the server was not started and nothing is left of the attempt.
pub fn run(
    plan: &Plan,
    management: &Management,
    null: OwnedFd,
    claim: Claim,
    pidfile: Option<Pidfile>,
    output: Output,
    up: impl FnOnce(),
) -> Result<u8, Error> {
    let log_dir = output.directory().map(|directory| directory.path().to_owned());
    // A manager stays where it keeps nothing busy, or in its log directory.
    let own_dir = log_dir.as_deref().unwrap_or(Path::new("/"));
    let entered =
        output.directory().map_or_else(|| chdir(own_dir), |logs| logs.directory().enter());
    entered.map_err(|reason| Error::cannot("change directory to", own_dir, reason))?;
    let spec = plan.server(log_dir.as_deref());
    let mut manager = Manager {
        machine: Machine::default(),
        handler: Handler::new(plan, &management.handler, &spec, log_dir.as_deref()),
        server: Server::new(spec, pidfile),
        next_review: log_dir.is_some().then(|| Instant::now() + event_loop::REVIEW),
        command: plan.command_line(),
        messages: Messages::new(Style::Plain),
        inbox: Inbox::open().map_err(|reason| Error::cannot("open a signalfd", "", reason))?,
        null,
        output,
    };
    let started = manager.server.start(&manager.null, &manager.output);
    let (pid, _) = started.map_err(|stillbirth| {
        let program = ("command", plan.command[0].as_os_str());
        plan.error(program, manager.server.spec(), stillbirth.failure)
    })?;
    manager.settle_in(pid);
    up();
    let status = manager.live();
    manager.finish();
    drop(manager);
    // The manager's own pidfile and its lock go last.
    drop(claim);
    Ok(status)
}

impl Manager {
    /// The start has succeeded: what it made stays, and vsrun's own output goes where it is to go.
    fn settle_in(&mut self, pid: Pid) {
        self.server.commit();
        self.output.commit();
        self.redirect();
        self.say_started(pid);
    }

    fn redirect(&mut self) {
        self.messages.set_style(self.output.style());
        self.redirect_to(self.output.of_vsrun());
    }

    fn redirect_to(&self, output: Option<std::os::fd::BorrowedFd<'_>>) {
        // dup2(2) onto an open descriptor needs nothing that could be lacking.
        let _ = fds::redirect_own(self.null.as_fd(), output);
    }

    fn feed(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next {
            next = self.machine.step(event, Instant::now()).and_then(|action| self.perform(action));
        }
    }

    /// Does what the machine wants; what came of it, where that is known at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartServer => return Some(self.start_server()),
            Action::RunHandler(death) => return self.run_handler(&death),
            Action::StopServer => self.signal_server(libc::SIGTERM),
            Action::SignalHandler(signal) => {
                let sent = self.handler.signal(signal);
                self.note("cannot signal the handler", sent);
            }
            Action::Say(note) => self.messages.say(format_args!("{note}")),
        }
        None
    }

    fn signal_server(&mut self, signal: i32) {
        let sent = self.server.signal(signal);
        self.note("cannot signal the server", sent);
    }

    fn start_server(&mut self) -> Event {
        if let Output::Files(files) = &mut self.output {
            let renewed = files.renew();
            self.redirect();
            self.note("cannot renew the log files", renewed);
        }
        match self.server.start(&self.null, &self.output) {
            Ok((pid, pidfile)) => {
                self.note("cannot write pidfile", pidfile);
                self.say_started(pid);
                Event::Started
            }
            Err(stillbirth) => {
                let death = stillbirth.death();
                self.messages.say(format_args!("server {}", death.cause));
                let lacking = is_shortage(stillbirth.failure.reason);
                if lacking { Event::ResourcesLacked } else { Event::ServerEnded(death) }
            }
        }
    }

    fn run_handler(&mut self, death: &Death) -> Option<Event> {
        let run = self.handler.run(death, self.server.restarts(), &self.null, &self.output);
        let failure = run.err()?;
        let (doing, reason) = (failure.stage.doing(), failure.reason);
        self.messages.say(format_args!("handler: cannot {doing}: {}", reason.desc()));
        let refused = Event::HandlerEnded(Verdict::Refuse);
        Some(if is_shortage(reason) { Event::ResourcesLacked } else { refused })
    }

    fn say_started(&mut self, pid: Pid) {
        self.messages.say(format_args!("started server {pid}: {}", escaped(&self.command)));
    }

    fn note(&mut self, trouble: &str, outcome: Result<(), Errno>) {
        if let Err(reason) = outcome {
            self.messages.say(format_args!("{trouble}: {}", reason.desc()));
        }
    }

    /// Lets logger take the last lines.
    fn finish(&mut self) {
        let Output::Syslog(syslog) = std::mem::replace(&mut self.output, Output::Inherited) else {
            return;
        };
        // vsrun's own standard streams hold the pipe too.
        self.redirect_to(Some(self.null.as_fd()));
        let Some(logger) = syslog.close() else { return };
        let deadline = Instant::now() + syslog::LAST_LINES;
        while !std::iter::from_fn(reap).any(|(pid, _)| pid == logger) && Instant::now() < deadline {
            self.wait(Some(deadline));
            while self.inbox.take().is_some() {}
        }
    }
}
