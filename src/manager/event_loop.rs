//! Where a manager waits: turns what the kernel tells into events, and carries
//! out what the machine answers. Decides nothing.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::handler::Handler;
use super::machine::{Action, Event, Machine, State, Verdict};
use super::policy::{self, is_shortage};
use super::report::Death;
use super::server::Server;
use crate::error::Error;
use crate::logs::{Output, syslog};
use crate::message::{Messages, Style, escaped};
use crate::pidfile::Pidfile;
use crate::pidfile::claim::Claim;
use crate::plan::{Management, Plan};
use crate::sys::directory::Directory;
use crate::sys::fds;
use crate::sys::signals::Inbox;
use crate::sys::wait::reap;

/// How often old log files are looked over while a manager lives.
const REVIEW: Duration = Duration::from_secs(24 * 60 * 60);
/// An exit that came so soon may have been a server's way into the background.
const HASTY: Duration = Duration::from_secs(5);

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

/// Starts the server, calls `up`, and manages the server to its end; the exit status. All signals
/// are blocked. An error means that the server was not started and nothing is left of the attempt.
pub fn run(
    plan: &Plan,
    management: &Management,
    claim: Claim,
    pidfile: Option<Pidfile>,
    output: Output,
    up: impl FnOnce(),
) -> Result<u8, Error> {
    let log_dir = output
        .directory()
        .map(|directory| directory.path().to_owned());
    let spec = plan.server(log_dir.as_deref());
    let inbox = Inbox::open().map_err(|reason| Error::cannot("open a signalfd", "", reason))?;
    let null = fds::null().map_err(|reason| Error::cannot("open", "/dev/null", reason))?;
    enter_own_directory(&output)?;
    let mut manager = Manager {
        machine: Machine::new(),
        handler: Handler::new(plan, &management.handler, &spec, log_dir.as_deref()),
        server: Server::new(spec, pidfile),
        next_review: log_dir.is_some().then(|| Instant::now() + REVIEW),
        command: plan.command_line(),
        messages: Messages::new(Style::Plain),
        output,
        inbox,
        null,
    };
    let started = manager.server.start(&manager.null, &manager.output);
    let (pid, _) = started.map_err(|stillbirth| {
        let program = ("command", plan.command[0].as_os_str());
        plan.error(program, manager.server.spec(), stillbirth.failure)
    })?;
    manager.settle_in();
    up();
    manager.say_started(pid);
    let status = manager.live();
    manager.finish();
    drop(manager);
    drop(claim);
    Ok(status)
}

/// A manager stays where it keeps nothing busy, or in its log directory.
fn enter_own_directory(output: &Output) -> Result<(), Error> {
    let (path, entered) = match output.directory() {
        Some(logs) => (logs.path(), logs.directory().enter()),
        None => {
            let slash = std::path::Path::new("/");
            (slash, Directory::open(slash).and_then(|root| root.enter()))
        }
    };
    entered.map_err(|reason| Error::cannot("change directory to", path, reason))
}

impl Manager {
    /// The start has succeeded: what it made stays, and vsrun's own output goes where it is to go.
    fn settle_in(&mut self) {
        self.server.commit();
        self.output.commit();
        self.redirect();
        if let Output::Syslog(syslog) = &self.output {
            if syslog.is_deaf() {
                self.messages
                    .say(format_args!("no syslog daemon listens at /dev/log"));
            }
        }
    }

    fn redirect(&mut self) {
        self.messages = Messages::new(self.output.style());
        if let Err(reason) = fds::redirect_own(self.null.as_fd(), self.output.of_vsrun()) {
            self.messages
                .say(format_args!("cannot redirect output: {}", reason.desc()));
        }
    }

    /// Waits for events until the machine is done. There is no other place where it waits.
    fn live(&mut self) -> u8 {
        loop {
            if let State::Done(status) = self.machine.state() {
                return status;
            }
            let more_to_expire = match &mut self.output {
                Output::Files(files) => files.directory.expire_some(),
                Output::Inherited | Output::Syslog(_) => false,
            };
            self.wait(if more_to_expire {
                Some(Instant::now())
            } else {
                self.next_deadline()
            });
            self.collect();
            self.keep_time();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let logger = match &self.output {
            Output::Syslog(syslog) => syslog.deadline(),
            Output::Inherited | Output::Files(_) => None,
        };
        [self.machine.deadline(), logger, self.next_review]
            .into_iter()
            .flatten()
            .min()
    }

    fn wait(&self, deadline: Option<Instant>) {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let rest = deadline.saturating_duration_since(Instant::now());
            // Rounded up: waking early would mean waking twice.
            let rest = rest.as_millis() + u128::from(!rest.is_zero());
            i32::try_from(rest)
                .ok()
                .and_then(|rest| rest.try_into().ok())
                .unwrap_or(PollTimeout::MAX)
        });
        // An interrupted wait is followed by another look at everything.
        let _ = poll(
            &mut [PollFd::new(self.inbox.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
    }

    /// Reaps the dead before it reads requests, so that no signal goes to an id that is not the
    /// server's any more; and hears requests before deaths, so that a request wins.
    fn collect(&mut self) {
        loop {
            let (death, verdict) = self.bury();
            let mut more_dead = false;
            while let Some(signal) = self.inbox.take() {
                more_dead |= signal == libc::SIGCHLD;
                self.hear(signal);
            }
            if let Some(death) = death {
                self.note_hasty_exit(&death);
                self.feed(Event::ServerEnded(death));
            }
            if let Some(verdict) = verdict {
                self.feed(Event::HandlerEnded(verdict));
            }
            // A child that died after the last look has its signal read by now.
            if !more_dead {
                return;
            }
        }
    }

    /// Reaps every child that is dead; what the deaths of the server and the handler mean.
    fn bury(&mut self) -> (Option<Death>, Option<Verdict>) {
        let (mut death, mut verdict) = (None, None);
        while let Some((pid, exit)) = reap() {
            if let Some(server) = self.server.ended(pid, exit) {
                death = Some(server);
                self.messages.say(format_args!(
                    "server {pid} {exit} after {}",
                    Uptime(&server)
                ));
            } else if let Some(answer) = self.handler.ended(pid, exit) {
                verdict = Some(answer);
                self.messages.say(format_args!("handler {pid} {exit}"));
            } else if let Output::Syslog(syslog) = &mut self.output {
                if syslog.ended(pid, Instant::now()) {
                    self.messages.say(format_args!("logger {pid} {exit}"));
                }
            }
        }
        (death, verdict)
    }

    fn hear(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.feed(Event::StopAsked),
            libc::SIGHUP => self.feed(Event::RestartAsked),
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGWINCH => {
                self.feed(Event::SignalReceived(signal));
            }
            _ => {}
        }
    }

    fn note_hasty_exit(&mut self, death: &Death) {
        if policy::is_voluntary(death)
            && death.uptime < HASTY
            && self.machine.state() == State::Running
        {
            self.messages.say(format_args!(
                "a server that puts itself into the background looks like this; \
                 if it did, tell it to stay in the foreground"
            ));
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        if self
            .machine
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.feed(Event::TimePassed);
        }
        if let Output::Syslog(syslog) = &mut self.output {
            if let Err(failure) = syslog.tend(now) {
                self.messages.say(format_args!(
                    "cannot start logger: {}",
                    failure.reason.desc()
                ));
            }
        }
        if self.next_review.is_some_and(|due| due <= now) {
            self.next_review = Some(now + REVIEW);
            if let Output::Files(files) = &mut self.output {
                // A directory that cannot be read now is read again tomorrow.
                let _ = files.directory.review();
            }
        }
    }

    fn feed(&mut self, event: Event) {
        for action in self
            .machine
            .step(event, Instant::now())
            .into_iter()
            .flatten()
        {
            if let Some(outcome) = self.perform(action) {
                self.feed(outcome);
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartServer => Some(self.start_server()),
            Action::RunHandler(death) => self.run_handler(&death),
            Action::SignalServer(signal) => {
                let sent = self.server.signal(signal);
                self.note_unsent("server", sent);
                None
            }
            Action::SignalHandler(signal) => {
                let sent = self.handler.signal(signal);
                self.note_unsent("handler", sent);
                None
            }
            Action::Say(note) => {
                self.messages.say(format_args!("{note}"));
                None
            }
        }
    }

    fn start_server(&mut self) -> Event {
        if let Output::Files(files) = &mut self.output {
            let renewed = files.renew();
            self.redirect();
            if let Err(reason) = renewed {
                self.messages.say(format_args!(
                    "cannot renew the log files: {}",
                    reason.desc()
                ));
            }
        }
        match self.server.start(&self.null, &self.output) {
            Ok((pid, unwritten)) => {
                if let Some(reason) = unwritten {
                    self.messages
                        .say(format_args!("cannot write pidfile: {}", reason.desc()));
                }
                self.say_started(pid);
                Event::Started
            }
            Err(stillbirth) => {
                self.messages.say(format_args!("server {stillbirth}"));
                if is_shortage(stillbirth.failure.reason) {
                    Event::ResourcesLacked
                } else {
                    Event::StartFailed(stillbirth.death())
                }
            }
        }
    }

    fn run_handler(&mut self, death: &Death) -> Option<Event> {
        match self
            .handler
            .run(death, self.server.restarts(), &self.null, &self.output)
        {
            Ok(_) => None,
            Err(failure) => {
                let (doing, reason) = (failure.stage.doing(), failure.reason);
                self.messages.say(format_args!(
                    "handler: cannot {doing} it: {}",
                    reason.desc()
                ));
                Some(if is_shortage(reason) {
                    Event::ResourcesLacked
                } else {
                    Event::HandlerEnded(Verdict::Refuse)
                })
            }
        }
    }

    fn say_started(&mut self, pid: Pid) {
        self.messages.say(format_args!(
            "started server {pid}: {}",
            escaped(&self.command)
        ));
    }

    fn note_unsent(&mut self, whom: &str, sent: Result<(), Errno>) {
        if let Err(reason) = sent {
            self.messages
                .say(format_args!("cannot signal the {whom}: {}", reason.desc()));
        }
    }

    /// Lets logger take the last lines.
    fn finish(&mut self) {
        let Output::Syslog(syslog) = std::mem::replace(&mut self.output, Output::Inherited) else {
            return;
        };
        // vsrun's own standard streams hold the pipe too.
        let _ = fds::redirect_own(self.null.as_fd(), Some(self.null.as_fd()));
        let Some(logger) = syslog.close() else { return };
        let deadline = Instant::now() + syslog::LAST_LINES;
        while Instant::now() < deadline {
            if std::iter::from_fn(reap).any(|(pid, _)| pid == logger) {
                return;
            }
            self.wait(Some(deadline));
            while self.inbox.take().is_some() {}
        }
    }
}

/// How long a server lived, in words.
struct Uptime<'a>(&'a Death);

impl std::fmt::Display for Uptime<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", self.0.uptime.as_secs_f64())
    }
}
