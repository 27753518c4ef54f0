//! Where a manager waits: turns what the kernel tells into events. Decides
//! nothing.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::machine::{Event, State, Then};
use super::report::Death;
use super::{Manager, policy};
use crate::error::Error;
use crate::logs::syslog;
use crate::sys::wait::{children, next_dead, reap};

/// What has ended since the machine was told last.
#[derive(Debug, Default)]
struct Ended {
    server: Option<Event>,
    handler: Option<Event>,
}

impl Manager<'_> {
    /// Waits for events until the machine is done. An error means that the first start failed.
    pub(super) fn live(&mut self) -> Result<u8, Error> {
        loop {
            if let State::Done(status) = self.machine.state() {
                return Ok(status);
            }
            // A start that fails leaves the old files as they were.
            let is_up = self.up.is_none();
            let files = self.output.files().filter(|_| is_up);
            let expired = files.map_or(Ok(false), |files| files.directory.expire_some());
            let more = expired.unwrap_or_else(|undeleted| {
                self.messages.say(&undeleted);
                false
            });
            self.wait(if more { Some(Instant::now()) } else { self.deadline() });
            self.collect()?;
            self.keep_time()?;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.untold, self.next_review];
        let deadlines = [self.machine.deadline(), self.output.deadline()].into_iter().chain(own);
        deadlines.flatten().min()
    }

    /// The one place where a manager waits: for signals, and for children to execute.
    fn wait(&self, deadline: Option<Instant>) {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let rest = deadline.saturating_duration_since(Instant::now());
            // Rounded up: waking early would mean waking twice.
            let rest = rest.as_millis() + u128::from(!rest.is_zero());
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)
        });
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let inbox = self.inbox.as_fd();
        let channels = [self.server.channel(), self.handler.channel(), self.output.channel()];
        let (mut sources, mut count) = (std::array::from_fn::<_, 4, _>(|_| readable(inbox)), 1);
        for channel in channels.into_iter().flatten() {
            sources[count] = readable(channel);
            count += 1;
        }
        // An interrupted wait is followed by another look at everything.
        let _ = poll(&mut sources[..count], timeout);
    }

    /// Reaps the dead before it reads requests, so that no signal goes to an id that is not the
    /// server's any more; and hears requests before deaths, so that a request wins.
    fn collect(&mut self) -> Result<(), Error> {
        loop {
            let mut ended = Ended::default();
            self.conclude_starts(&mut ended)?;
            while let Some(pid) = next_dead() {
                self.bury(pid, &mut ended)?;
            }
            let mut more_dead = false;
            while let Some(signal) = self.inbox.take() {
                more_dead |= signal == libc::SIGCHLD;
                self.hear(signal);
            }
            for event in [ended.server, ended.handler].into_iter().flatten() {
                self.feed(event);
            }
            // A child that died after the last look has its signal read by now.
            if !more_dead {
                return Ok(());
            }
        }
    }

    /// Asks what has come of the children that were on their way to their exec.
    fn conclude_starts(&mut self, ended: &mut Ended) -> Result<(), Error> {
        match self.server.outcome() {
            Some(Ok(pid)) => self.started(pid),
            // Nobody wants the first start undone: it failed.
            Some(Err(failed)) if self.up.is_some() && self.machine.state() == State::Starting => {
                return Err(self.server_error(failed.failure));
            }
            Some(Err(failed)) => ended.server = Some(self.not_started(&failed)),
            None => {}
        }
        if let Some(failure) = self.handler.failure() {
            ended.handler = self.handler_failed(failure);
        }
        Ok(())
    }

    /// Reaps a dead child.
    fn bury(&mut self, pid: Pid, ended: &mut Ended) -> Result<(), Error> {
        // It may have been executed since the last look, and done already. One that has not is
        // reaped by this.
        self.conclude_starts(ended)?;
        let Some(exit) = reap(pid) else { return Ok(()) };
        if self.server.is(pid) {
            let Some(death) = self.server.ended(exit) else { return Ok(()) };
            self.note_death(&death);
            self.note_leftovers(&death);
            ended.server = Some(Event::ServerEnded(death));
        } else if let Some(verdict) = self.handler.ended(pid, exit) {
            self.messages.say(&format_args!("handler {pid} {}", exit.named()));
            ended.handler = Some(Event::HandlerEnded(verdict));
        } else if self.output.syslog().is_some_and(|syslog| syslog.ended(pid, Instant::now())) {
            self.messages.say(&format_args!("logger {pid} {}", exit.named()));
        }
        Ok(())
    }

    /// Says what it looks like when a server leaves processes behind that it meant to leave.
    fn note_leftovers(&mut self, death: &Death) {
        if !policy::is_voluntary(death) || self.machine.state() != State::Running {
            return;
        }
        let logger = self.output.syslog().and_then(|syslog| syslog.pid());
        let left = children().into_iter().find(|child| Some(*child) != logger);
        if let Some(left) = left {
            self.messages.say(&format_args!(
                "the server has left process {left} behind; if it has put itself into the \
                 background, tell it to stay in the foreground"
            ));
        }
    }

    fn hear(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.feed(Event::Asked(Then::Exit)),
            // The first start is still to come.
            libc::SIGHUP if self.awaits_logger => {}
            libc::SIGHUP => self.feed(Event::Asked(Then::Restart)),
            // A process that is not the server yet would die of what the server understands.
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGWINCH
                if self.machine.state() != State::Starting =>
            {
                self.signal_server(signal);
            }
            _ => {}
        }
    }

    /// Tells the server once more to end, what came of it the first time being told already.
    fn stop_again(&mut self, now: Instant) {
        let is_due = self.untold.is_some_and(|due| due <= now);
        if is_due {
            let untold =
                matches!(self.machine.state(), State::Stopping(_)) && self.server.stop().is_err();
            self.untold = untold.then(|| now + policy::STOP_AGAIN);
        }
    }

    fn keep_time(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.feed(Event::TimePassed);
        }
        self.stop_again(now);
        self.tend_logger(now)?;
        if self.next_review.is_some_and(|due| due <= now) {
            self.next_review = Some(now + policy::REVIEW);
            if let Some(files) = self.output.files() {
                // A directory that cannot be read now is read again tomorrow.
                let _ = files.directory.list();
            }
        }
        Ok(())
    }

    /// Starts logger when that is due, and the first server when logger runs. An error means that
    /// the first of them has failed.
    fn tend_logger(&mut self, now: Instant) -> Result<(), Error> {
        let Some(syslog) = self.output.syslog() else { return Ok(()) };
        let tended = syslog.tend(now);
        let is_up = syslog.is_up();
        match tended.map_err(|failure| self.plan.error(syslog.spec(), failure)) {
            Err(error) if self.awaits_logger => return Err(error),
            Err(error) => self.messages.say(&error),
            Ok(()) if self.awaits_logger && is_up => self.start_first()?,
            Ok(()) => {}
        }
        Ok(())
    }

    /// Lets logger take the last lines, for as long as it may.
    pub(super) fn finish(&mut self) {
        let Some(syslog) = self.output.syslog() else { return };
        // vsrun's own streams and lines hold the pipe too.
        syslog.hang_up();
        self.redirect_own(Some(self.null.as_fd()));
        self.messages.redirect(self.null.as_fd());
        let deadline = Instant::now() + syslog::LAST_LINES;
        while self.output.syslog().is_some_and(|syslog| !syslog.is_drained())
            && Instant::now() < deadline
        {
            // The start has succeeded, or has been given up.
            let _ = self.tend_logger(Instant::now());
            self.wait(self.output.deadline().into_iter().chain([deadline]).min());
            while self.inbox.take().is_some() {}
            while let (Some(pid), Some(syslog)) = (next_dead(), self.output.syslog()) {
                if reap(pid).is_some() {
                    syslog.ended(pid, Instant::now());
                }
            }
        }
    }
}
