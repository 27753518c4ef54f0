//! Carrying out what the machine decides. Each action's immediate result, if
//! any, is the next event.

use nix::libc;
use nix::unistd::chdir;

use super::Manager;
use super::action::Action;
use super::event::{Event, Verdict};
use super::server::StartError;
use crate::death::Death;
use crate::error::Error;
use crate::sys::clock::{Moment, since_boot};
use crate::sys::files::directory::Directory;
use crate::sys::files::fds;
use crate::sys::memory;
use crate::sys::process::failure::{End, Stage, at, is_shortage};
use crate::sys::process::wait::children_since;

impl Manager<'_> {
    /// Passes an event to the machine and carries out its actions.
    pub(super) fn handle_event(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let mut actions = std::mem::take(&mut self.actions);
            self.machine.step(event, Moment::now(), &mut actions);
            for action in actions.drain(..) {
                if let Some(event) = self.perform(action) {
                    next = Some(event);
                }
            }
            // Its memory is used again.
            self.actions = actions;
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartServer => return self.start_server(),
            Action::ConfirmStart => self.confirm_start(),
            Action::SayStarted => self.say_started(),
            Action::SayFailure => self.say_failure(),
            Action::SayLeftovers(death) => self.say_leftovers(&death),
            Action::StopServer => {
                if let Err(error) = self.server.stop() {
                    self.failure = Some(error);
                    return Some(Event::StopNotSent);
                }
            }
            Action::CheckServer => return self.check_server(),
            Action::SayServerStays => self.say_server_stays(),
            Action::SignalServer(signal) => {
                let sent = self.server.signal(signal);
                self.report(sent);
            }
            Action::RunHandler(death) => return self.run_handler(&death),
            Action::StopHandler => self.signal_handler(libc::SIGTERM),
            Action::KillHandler => {
                if self.handler.task.find_end().is_some() {
                    return Some(Event::HandlerEnded(Verdict::Refuse));
                }
                // If it may not be signalled, that was said at SIGTERM.
                let _ = self.handler.signal(libc::SIGKILL);
            }
            Action::Say(note) => self.messages.say(&note),
        }
        None
    }

    /// Starts a process that is to become the server. Returns the event of a start that failed at
    /// once.
    fn start_server(&mut self) -> Option<Event> {
        let is_first = self.on_started.is_some();
        if !is_first {
            self.renew_logs();
        }
        match self.start_in_caller_dir() {
            Ok(written) => {
                self.report(written);
                None
            }
            Err(StartError::Ended(end)) => Some(self.server_not_started(Death::without_life(end))),
            Err(StartError::Pidfile(error)) => {
                self.failure = Some(error);
                Some(Event::ResourcesLacked)
            }
        }
    }

    /// Starts the server from where it is to work.
    fn start_in_caller_dir(&mut self) -> Result<Result<(), Error>, StartError> {
        // The first one starts where the caller stood. For a later one the manager goes there and
        // comes back: a directory held for the child would cost a restart one more descriptor.
        let caller_dir = self.plan.caller_dir();
        if let Some(dir) = caller_dir.filter(|_| self.has_left) {
            match Directory::open(dir).and_then(|dir| dir.enter()) {
                Ok(()) => {}
                Err(reason) if is_shortage(reason) => {
                    return Err(StartError::Ended(at(Stage::WorkDir)(reason).into()));
                }
                Err(reason) => {
                    let cannot = Error::cannot("change directory to", dir, reason);
                    self.messages
                        .say(&format_args!("{cannot}; the server works in '/'"));
                }
            }
        }
        let started = self.server.start(self.output.of_server());
        if caller_dir.is_some() {
            // `/` keeps no other file system busy. A failure does not affect the server.
            self.has_left |= chdir("/").is_ok();
        }
        started
    }

    /// The event for a server that was not executed.
    pub(super) fn server_not_started(&mut self, death: Death) -> Event {
        self.report_removal();
        self.failure = Some(self.plan.error(&self.server.task.spec, death.end));
        if death.end.is_shortage() {
            Event::ResourcesLacked
        } else {
            Event::StartFailed(death)
        }
    }

    /// The event for a handler that was not executed. One whose environment is too large for the
    /// kernel gets a smaller one.
    pub(super) fn handler_not_started(&mut self, end: End) -> Event {
        if end.is_too_large() && self.handler.shrink() {
            return Event::HandlerTooLarge;
        }
        self.failure = Some(self.plan.error(&self.handler.task.spec, end));
        if end.is_shortage() {
            Event::ResourcesLacked
        } else {
            Event::HandlerFailed
        }
    }

    /// Reports a logger that was not executed.
    pub(super) fn logger_not_started(&mut self, end: End) {
        if let Some(logger) = &self.logger {
            let error = self.plan.error(&logger.task.spec, end);
            let pending = self.failure.replace(error);
            self.handle_event(Event::LoggerFailed);
            // A server or handler that failed in the same round has its event still to come.
            if pending.is_some() {
                self.failure = pending;
            }
        }
    }

    fn run_handler(&mut self, death: &Death) -> Option<Event> {
        let started = self
            .handler
            .start(death, &self.server, self.output.of_handler());
        started.err().map(|end| self.handler_not_started(end))
    }

    fn signal_handler(&mut self, signal: i32) {
        let sent = self.handler.signal(signal);
        self.report(sent);
    }

    /// Looks whether the server has ended without notice.
    fn check_server(&mut self) -> Option<Event> {
        let Some(death) = self.server.find_end() else {
            self.server.task.kill_start();
            return None;
        };
        self.report_removal();
        Some(Event::ServerEnded(death))
    }

    /// The first start has succeeded: what it made stays, and vsrun's own output is redirected.
    fn confirm_start(&mut self) {
        self.server.commit();
        self.output.commit();
        self.redirect_own();
    }

    fn say_started(&mut self) {
        if let Some(pid) = self.server.task.pid() {
            self.messages
                .say(&format_args!("started server {pid}: {}", self.command));
        }
        if let Some(on_started) = self.on_started.take() {
            on_started();
            memory::return_freed();
        }
    }

    fn say_failure(&mut self) {
        if let Some(failure) = self.failure.take() {
            self.messages.say(&failure);
        }
    }

    fn say_server_stays(&mut self) {
        if let Some(pid) = self.server.task.pid() {
            let notice = "has not ended since SIGTERM; waiting for it";
            self.messages.say(&format_args!("server {pid} {notice}"));
        }
    }

    /// Reports a process that the server left behind: a server that daemonizes exits with status 0
    /// and leaves one.
    fn say_leftovers(&mut self, death: &Death) {
        let logger = self.logger.as_ref().and_then(|logger| logger.task.pid());
        let born = since_boot().saturating_sub(death.uptime);
        let left = children_since(born)
            .into_iter()
            .find(|child| Some(*child) != logger);
        if let Some(left) = left {
            self.messages.say(&format_args!(
                "the server has left process {left} behind; if it has put itself into the \
                 background, tell it to stay in the foreground"
            ));
        }
    }

    fn renew_logs(&mut self) {
        let Some(files) = self.output.files() else {
            return;
        };
        let renewed = files.renew();
        if files.is_vsrun_log_new() {
            self.redirect_own();
            self.messages.redirect(fds::standard_error());
        }
        self.report(renewed);
        self.say_notices();
    }

    pub(super) fn say_notices(&mut self) {
        self.output
            .take_notices()
            .iter()
            .for_each(|notice| self.messages.say(notice));
    }

    /// Deletes some old log files; whether there are more to look at.
    pub(super) fn expire_logs(&mut self) -> bool {
        // A start that fails leaves the old files as they were.
        let has_started = self.on_started.is_none();
        let Some(files) = self.output.files().filter(|_| has_started) else {
            return false;
        };
        files.directory.expire_some().unwrap_or_else(|undeleted| {
            self.messages.say(&undeleted);
            false
        })
    }

    /// Reports a pidfile that could not be removed.
    pub(super) fn report_removal(&mut self) {
        let removal = self.server.take_removal();
        self.report(removal);
    }

    fn report(&mut self, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            self.messages.say(&error);
        }
    }
}
