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
use crate::logs::Output;
use crate::message::{Messages, escaped};
use crate::pidfile::Pidfile;
use crate::pidfile::claim::Claim;
use crate::plan::{Management, Plan};
use crate::sys::directory::Directory;
use crate::sys::failure::{Failure, Stage, at};
use crate::sys::fds;
use crate::sys::signals::Inbox;
use handler::Handler;
use machine::{Action, Event, Machine, State, Verdict};
use policy::{is_lacking, is_shortage};
use report::{Death, Note};
use server::{FailedStart, Server};

struct Manager<'a> {
    plan: &'a Plan,
    machine: Machine,
    server: Server,
    handler: Handler,
    output: Output,
    messages: Messages,
    inbox: Inbox,
    null: OwnedFd,
    command: OsString,
    next_review: Option<Instant>,
    /// The server was to be told to end and could not be: when that is tried again.
    untold: Option<Instant>,
    /// Whether it has left the directory in which it was started.
    has_left: bool,
    /// What is to be called when the server has been executed for the first time.
    up: Option<&'a mut dyn FnMut()>,
    /// Held to the end, and goes last.
    _claim: Claim,
}

/// Starts the server, calls `up`, and manages the server to its end; the exit status. An error
/// means that the server was not started and nothing is left of the attempt.
pub fn run<'a>(
    plan: &'a Plan,
    management: &Management,
    null: OwnedFd,
    claim: Claim,
    mut output: Output,
    pidfile: Option<Pidfile>,
    up: &'a mut dyn FnMut(),
) -> Result<u8, Error> {
    // A manager keeps nothing busy but its log directory. One whose server is to work where the
    // caller stood leaves when that has been let go.
    if plan.caller_dir().is_none() {
        let own_dir = plan.log_dir().unwrap_or(Path::new("/"));
        let logs = output.files().map(|files| files.directory.directory());
        let entered = logs.map_or_else(|| chdir(own_dir), |logs| logs.enter());
        entered.map_err(|reason| Error::cannot("change directory to", own_dir, reason))?;
    }
    let own_output = output.of_vsrun().unwrap_or(fds::standard_error());
    let messages = Messages::new(own_output, output.style())
        .map_err(|reason| Error::cannot("place the standard streams", "", reason))?;
    let mut manager = Manager {
        plan,
        machine: Machine::default(),
        handler: Handler::new(plan, &management.handler),
        server: Server::new(plan.server(), pidfile),
        next_review: plan.log_dir().is_some().then(|| Instant::now() + policy::REVIEW),
        command: plan.command_line(),
        messages,
        inbox: Inbox::open().map_err(|reason| Error::cannot("open a signalfd", "", reason))?,
        null,
        output,
        untold: None,
        has_left: false,
        up: Some(up),
        _claim: claim,
    };
    if let Err(failed) = manager.let_server_go() {
        return Err(manager.server_error(failed.failure));
    }
    let status = manager.live()?;
    manager.finish();
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
            let before = self.machine.state();
            let action = self.machine.step(event, Instant::now());
            if let (Event::Asked(then), true) = (event, self.machine.state() != before) {
                self.messages.say(&Note::Asked(then));
            }
            next = action.and_then(|action| self.perform(action));
        }
    }

    /// Does what the machine wants; what came of it, where that is known at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartServer => return self.start_server(),
            Action::RunHandler(death) => return self.run_handler(&death),
            Action::StopServer => self.stop_server(),
            Action::SignalHandler(signal) => {
                let sent = self.handler.signal(signal);
                self.note("signal handler", self.handler.name(), sent);
            }
            Action::Say(note) => self.messages.say(&note),
        }
        None
    }

    fn stop_server(&mut self) {
        let sent = self.server.signal(libc::SIGTERM);
        self.untold = sent.err().map(|_| Instant::now() + policy::STOP_AGAIN);
        self.note("signal the server", "", sent);
    }

    fn signal_server(&mut self, signal: i32) {
        let sent = self.server.signal(signal);
        self.note("signal the server", "", sent);
    }

    /// Lets a process go that is to become the server; what kept it from going.
    fn start_server(&mut self) -> Option<Event> {
        self.renew_logs();
        match self.let_server_go() {
            Ok(written) => {
                let pidfile = self.plan.pidfile.as_deref().unwrap_or(Path::new(""));
                self.note("write pidfile", pidfile, written);
                None
            }
            Err(failed) => Some(self.not_started(&failed)),
        }
    }

    /// Likewise, from where it is to work; what came of writing its pidfile.
    fn let_server_go(&mut self) -> Result<Result<(), Errno>, FailedStart> {
        // The first one starts where the caller stood. For a later one the manager goes there and
        // comes back: a directory held for the child would cost a restart one more descriptor.
        let caller_dir = self.plan.caller_dir();
        if let Some(dir) = caller_dir.filter(|_| self.has_left) {
            match Directory::open(dir).and_then(|dir| dir.enter()) {
                Ok(()) => {}
                Err(reason) if is_shortage(reason) => {
                    return Err(FailedStart::without_process(at(Stage::WorkDir)(reason)));
                }
                Err(reason) => {
                    let cannot = Error::cannot("change directory to", dir, reason);
                    self.messages.say(&format_args!("{cannot}; the server works in '/'"));
                }
            }
        }
        let started = self.server.start(&self.null, &self.output);
        if caller_dir.is_some() {
            // Where it keeps nothing busy. If it cannot go there, that costs no server.
            self.has_left |= chdir("/").is_ok();
        }
        started
    }

    /// The server has been executed.
    fn started(&mut self, pid: Pid) {
        let up = self.up.take();
        if up.is_some() {
            self.commit();
        }
        self.messages.say(&format_args!("started server {pid}: {}", escaped(&self.command)));
        if let Some(up) = up {
            up();
        }
        self.feed(Event::Started);
    }

    fn not_started(&mut self, failed: &FailedStart) -> Event {
        // One that was asked to end before it was the server has ended as it should.
        let is_asked = matches!(self.machine.state(), State::Stopping(_));
        if !(is_asked && matches!(failed.failure, Failure::Died(_))) {
            self.messages.say(&self.server_error(failed.failure));
        }
        self.note_removal();
        let lacking = is_lacking(&failed.failure);
        if lacking { Event::ResourcesLacked } else { Event::ServerEnded(failed.death()) }
    }

    fn renew_logs(&mut self) {
        let Some(files) = self.output.files() else { return };
        let restored = files.restore();
        let renewed = files.renew();
        if restored == Ok(true) {
            self.redirect_own(self.output.of_vsrun());
            self.messages.redirect(fds::standard_error());
        }
        let log_dir = self.plan.log_dir().unwrap_or(Path::new(""));
        self.note("renew the log files in", log_dir, restored.and(renewed));
    }

    fn run_handler(&mut self, death: &Death) -> Option<Event> {
        let run = self.handler.run(death, self.server.restarts(), &self.null, &self.output);
        run.err().map(|failure| self.not_run(failure))
    }

    fn not_run(&mut self, failure: Failure) -> Event {
        self.messages.say(&self.plan.error(self.handler.spec(), failure));
        let refused = Event::HandlerEnded(Verdict::Refuse);
        if is_lacking(&failure) { Event::ResourcesLacked } else { refused }
    }

    fn note_removal(&mut self) {
        let pidfile = self.plan.pidfile.as_deref().unwrap_or(Path::new(""));
        let removal = self.server.removal();
        self.note("remove pidfile", pidfile, removal);
    }

    fn server_error(&self, failure: Failure) -> Error {
        self.plan.error(self.server.spec(), failure)
    }

    fn note(&mut self, doing: &'static str, object: impl AsRef<OsStr>, outcome: Result<(), Errno>) {
        if let Err(reason) = outcome {
            self.messages.say(&Error::cannot(doing, object, reason));
        }
    }
}
