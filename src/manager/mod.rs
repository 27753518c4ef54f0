//! Staying resident: a server is watched, and restarted when it dies. The
//! machine decides; the event loop tells it what happened; what it answers is
//! carried out here.

mod event_loop;
mod handler;
pub mod machine;
pub mod policy;
pub mod report;
mod server;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
use crate::sys::failure::Failure;
use crate::sys::fds;
use crate::sys::signals::Inbox;
use crate::sys::wait::reap;
use handler::Handler;
use machine::{Action, Event, Machine, Verdict};
use policy::is_shortage;
use report::Death;
use server::Server;

struct Manager<'a> {
    plan: &'a Plan,
    machine: Machine,
    server: Server,
    handler: Handler<'a>,
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
    // A manager stays where it keeps nothing busy, or in its log directory.
    let own_dir = plan.log_dir().unwrap_or(Path::new("/"));
    let logs = output.directory().map(|logs| logs.directory());
    let entered = logs.map_or_else(|| chdir(own_dir), |logs| logs.enter());
    entered.map_err(|reason| Error::cannot("change directory to", own_dir, reason))?;
    let own_output = output.of_vsrun().unwrap_or(fds::standard_error());
    let messages = Messages::new(own_output, output.style())
        .map_err(|reason| Error::cannot("place the standard streams", "", reason))?;
    let spec = plan.server();
    let mut manager = Manager {
        plan,
        machine: Machine::default(),
        handler: Handler::new(plan, &management.handler, &spec),
        server: Server::new(spec, pidfile),
        next_review: plan.log_dir().is_some().then(|| Instant::now() + event_loop::REVIEW),
        command: plan.command_line(),
        messages,
        inbox: Inbox::open().map_err(|reason| Error::cannot("open a signalfd", "", reason))?,
        null,
        output,
    };
    let (pid, _) = manager
        .server
        .start(&manager.null, &manager.output)
        .map_err(|failed| manager.server_error(failed.failure))?;
    manager.commit();
    manager.say_started(pid);
    up();
    let status = manager.live();
    manager.finish();
    drop(manager);
    // The manager's own pidfile and its lock go last.
    drop(claim);
    Ok(status)
}

impl Manager<'_> {
    /// The start has succeeded: what it made stays, and vsrun's own output goes where it is to go.
    fn commit(&mut self) {
        self.server.commit();
        self.output.commit();
        self.redirect_own(self.output.of_vsrun());
    }

    fn redirect_own(&self, output: Option<BorrowedFd<'_>>) {
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
            Action::StopServer => {
                self.messages.say(&"asking the server to end");
                self.signal_server(libc::SIGTERM);
            }
            Action::SignalHandler(signal) => {
                let sent = self.handler.signal(signal);
                self.note("signal handler", self.handler.path(), sent);
            }
            Action::Say(note) => self.messages.say(&note),
        }
        None
    }

    fn signal_server(&mut self, signal: i32) {
        let sent = self.server.signal(signal);
        self.note("signal the server", "", sent);
    }

    fn start_server(&mut self) -> Event {
        self.renew_logs();
        match self.server.start(&self.null, &self.output) {
            Ok((pid, written)) => {
                let pidfile = self.plan.pidfile.as_deref().unwrap_or(Path::new(""));
                self.note("write pidfile", pidfile, written);
                self.say_started(pid);
                Event::Started
            }
            Err(failed) => {
                self.messages.say(&self.server_error(failed.failure));
                let lacking = is_shortage(failed.failure.reason);
                if lacking { Event::ResourcesLacked } else { Event::ServerEnded(failed.death()) }
            }
        }
    }

    fn renew_logs(&mut self) {
        let Output::Files(files) = &mut self.output else { return };
        let restored = files.restore();
        let renewed = files.renew();
        if restored == Ok(true) {
            self.redirect_own(self.output.of_vsrun());
            self.messages.redirect(fds::standard_error(), self.output.style());
        }
        let log_dir = self.plan.log_dir().unwrap_or(Path::new(""));
        self.note("renew the log files in", log_dir, restored.and(renewed));
    }

    fn run_handler(&mut self, death: &Death) -> Option<Event> {
        let run = self.handler.run(death, self.server.restarts(), &self.null, &self.output);
        let failure = run.err()?;
        self.messages.say(&self.handler.error(self.plan, failure));
        let refused = Event::HandlerEnded(Verdict::Refuse);
        Some(if is_shortage(failure.reason) { Event::ResourcesLacked } else { refused })
    }

    fn server_error(&self, failure: Failure) -> Error {
        self.plan.error(("command", &self.plan.command[0]), self.server.spec(), failure)
    }

    fn say_started(&mut self, pid: Pid) {
        self.messages.say(&format_args!("started server {pid}: {}", escaped(&self.command)));
    }

    fn note(&mut self, doing: &'static str, object: impl AsRef<OsStr>, outcome: Result<(), Errno>) {
        if let Err(reason) = outcome {
            self.messages.say(&Error::cannot(doing, object, reason));
        }
    }

    /// Lets logger take the last lines, for as long as it may.
    fn finish(&mut self) {
        let Output::Syslog(mut syslog) = std::mem::replace(&mut self.output, Output::Inherited)
        else {
            return;
        };
        // vsrun's own streams hold the pipe too.
        self.redirect_own(Some(self.null.as_fd()));
        self.messages.redirect(self.null.as_fd(), Style::Plain);
        syslog.hang_up();
        let deadline = Instant::now() + syslog::LAST_LINES;
        while !syslog.is_drained() && Instant::now() < deadline {
            // A logger that cannot be started is tried again when it is due.
            let _ = syslog.tend(Instant::now());
            self.wait(syslog.deadline().into_iter().chain([deadline]).min());
            while self.inbox.take().is_some() {}
            for (pid, _) in std::iter::from_fn(reap) {
                syslog.ended(pid, Instant::now());
            }
        }
    }
}
