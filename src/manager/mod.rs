//! Staying resident: a server is watched, and restarted when it dies. The
//! machine decides; the event loop tells it what happened; what it answers is
//! carried out here.

mod event_loop;
mod handler;
pub mod machine;
pub mod policy;
pub mod report;
mod server;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Pid, chdir};

use crate::error::Error;
use crate::logs::Output;
use crate::message::Messages;
use crate::pidfile::Pidfile;
use crate::pidfile::claim::Claim;
use crate::plan::{Management, Plan};
use crate::sys::directory::Directory;
use crate::sys::failure::{Failure, Stage, at};
use crate::sys::fds;
use crate::sys::fork::adopt_orphans;
use crate::sys::memory;
use crate::sys::signals::Inbox;
use crate::sys::spawn::works_there;
use handler::Handler;
use machine::{Action, Event, Machine, Patience, State, Verdict};
use policy::{is_lacking, is_shortage, is_too_large};
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
    command: String,
    /// Whether the first start waits for logger.
    awaits_logger: bool,
    next_review: Option<Instant>,
    /// The server was to be told to end and could not be: when that is tried again.
    untold: Option<Instant>,
    /// Whether it has left the directory in which it was started.
    has_left: bool,
    /// What is to be called when the server has been executed for the first time.
    up: Option<&'a mut dyn FnMut()>,
    /// Goes last.
    claim: Claim,
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
    let enters_log_dir = enters_log_dir(plan, management, &null, &output);
    // Its descendants stay its own: so it knows what a server leaves behind. A kernel without this
    // (before Linux 3.4) costs a line.
    let _ = adopt_orphans();
    let mut manager = Manager {
        plan,
        machine: Machine::default(),
        handler: Handler::new(plan, &management.handler, enters_log_dir),
        server: Server::new(plan.server(), pidfile),
        next_review: plan.log_dir().is_some().then(|| Instant::now() + policy::REVIEW),
        command: plan.shown_command_line(),
        awaits_logger: output.syslog().is_some(),
        messages,
        inbox: Inbox::open().map_err(|reason| Error::cannot("open a signalfd", "", reason))?,
        null,
        output,
        untold: None,
        has_left: false,
        up: Some(up),
        claim,
    };
    manager.tell_notices();
    if !manager.awaits_logger {
        manager.start_first()?;
    }
    let status = manager.live()?;
    manager.finish();
    Ok(status)
}

/// Whether the server's user may enter the log directory.
fn enters_log_dir(plan: &Plan, management: &Management, null: &OwnedFd, output: &Output) -> bool {
    let has_directory = plan.log_dir().is_some();
    if plan.user.is_none() || !has_directory {
        return true;
    }
    let spec = plan.handler(&management.handler, [].into_iter());
    works_there(&spec, output.of_handler(null))
}

impl Manager<'_> {
    /// Lets the first process go that is to become the server.
    fn start_first(&mut self) -> Result<(), Error> {
        self.awaits_logger = false;
        let started = self.let_server_go();
        started.map(drop).map_err(|failed| self.server_error(failed.failure))
    }

    /// The start has succeeded: what it made stays, and vsrun's own output goes where it is to go.
    fn commit(&mut self) {
        self.server.commit();
        self.claim.commit();
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
            Action::CheckServer(patience) => return self.check_server(patience),
            Action::StopHandler => self.signal_handler(libc::SIGTERM),
            Action::KillHandler => {
                if self.handler.end().is_some() {
                    return Some(Event::HandlerEnded(Verdict::Refuse));
                }
                self.signal_handler(libc::SIGKILL);
            }
            Action::Say(note) => self.messages.say(&note),
        }
        None
    }

    fn stop_server(&mut self) {
        let sent = self.server.stop();
        self.untold = sent.err().map(|_| Instant::now() + policy::STOP_AGAIN);
        self.note("signal the server", "", sent);
    }

    /// Looks whether the server has ended without notice.
    fn check_server(&mut self, patience: Patience) -> Option<Event> {
        if let Some(death) = self.server.end() {
            self.note_death(&death);
            return Some(Event::ServerEnded(death));
        }
        self.server.abandon_start();
        if let (Patience::Notice, Some(pid)) = (patience, self.server.pid()) {
            let notice = "has not ended since SIGTERM; waiting for it";
            self.messages.say(&format_args!("server {pid} {notice}"));
        }
        None
    }

    fn signal_handler(&mut self, signal: i32) {
        let sent = self.handler.signal(signal);
        self.note("signal handler", self.handler.name(), sent);
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
        self.messages.say(&format_args!("started server {pid}: {}", self.command));
        if let Some(up) = up {
            up();
            memory::return_freed();
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
        let renewed = files.renew();
        if files.is_vsrun_log_new() {
            self.redirect_own(self.output.of_vsrun());
            self.messages.redirect(fds::standard_error());
        }
        let log_dir = self.plan.log_dir().unwrap_or(Path::new(""));
        self.note("renew the log files in", log_dir, renewed);
        self.tell_notices();
    }

    fn tell_notices(&mut self) {
        self.output.take_notices().iter().for_each(|notice| self.messages.say(notice));
    }

    fn run_handler(&mut self, death: &Death) -> Option<Event> {
        let run = self.handler.run(death, self.server.restarts(), &self.null, &self.output);
        run.err().map(|failure| self.not_run(failure))
    }

    /// What follows from a handler that could not be executed. One whose environment is too large
    /// for the kernel is executed again with a smaller one.
    fn handler_failed(&mut self, failure: Failure) -> Option<Event> {
        if is_too_large(&failure) && self.handler.shrink() {
            if let State::Handling(death) = self.machine.state() {
                return self.run_handler(&death);
            }
        }
        Some(self.not_run(failure))
    }

    fn not_run(&mut self, failure: Failure) -> Event {
        self.messages.say(&self.plan.error(self.handler.spec(), failure));
        let refused = Event::HandlerEnded(Verdict::Refuse);
        if is_lacking(&failure) { Event::ResourcesLacked } else { refused }
    }

    /// Says how the server has ended.
    fn note_death(&mut self, death: &Death) {
        self.note_removal();
        let tenths = death.uptime.as_millis() / 100;
        let (pid, seconds, tenth) = (death.pid, tenths / 10, tenths % 10);
        let cause = death.cause.named();
        self.messages.say(&format_args!("server {pid} {cause} after {seconds}.{tenth} s"));
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
