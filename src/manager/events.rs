//! Where a manager waits: turns what the kernel reports into events. Decides
//! nothing.

use std::os::fd::AsFd;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::Manager;
use super::event::Event;
use super::handler::verdict;
use crate::limits;
use crate::snapshot::{Outcome, Request};
use crate::sys::clock::Moment;
use crate::sys::process::wait::{next_dead, reap};

/// Ends that have not been passed to the machine yet.
#[derive(Debug, Default)]
struct Ended {
    server: Option<Event>,
    handler: Option<Event>,
}

impl Manager<'_> {
    /// Waits for events until the machine is done.
    pub(super) fn run_to_end(&mut self) -> Outcome {
        loop {
            if let Some(outcome) = self.machine.outcome() {
                return outcome;
            }
            let more = self.expire_logs();
            self.wait(if more {
                Some(Moment::now())
            } else {
                self.deadline()
            });
            self.process_pending();
            self.process_deadlines();
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let logger = self.logger.as_ref().and_then(|logger| logger.deadline());
        [self.machine.deadline(), logger, self.next_expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// The one place where a manager waits: for signals, and for children to execute.
    fn wait(&self, deadline: Option<Moment>) {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let rest = deadline.since(Moment::now());
            // Rounded up: waking early would mean waking twice.
            let rest = rest.as_micros().div_ceil(1000);
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)
        });
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let requests = self.requests.as_fd();
        let logger = self
            .logger
            .as_ref()
            .and_then(|logger| logger.task.channel());
        let channels = [
            self.server.task.channel(),
            self.handler.task.channel(),
            logger,
        ];
        let (mut sources, mut count) = (std::array::from_fn::<_, 4, _>(|_| readable(requests)), 1);
        for channel in channels.into_iter().flatten() {
            sources[count] = readable(channel);
            count += 1;
        }
        // An interrupted wait is followed by another look at everything.
        let _ = poll(&mut sources[..count], timeout);
    }

    /// Reaps the dead before it reads requests, so that no signal goes to an id that is not the
    /// server's any more; and takes requests before deaths, so that a request wins.
    fn process_pending(&mut self) {
        loop {
            let mut ended = Ended::default();
            self.take_outcomes(&mut ended);
            while let Some(pid) = next_dead() {
                self.reap(pid, &mut ended);
            }
            let mut more_dead = false;
            while let Some(signal) = self.requests.take() {
                more_dead |= signal == libc::SIGCHLD;
                self.take_signal(signal);
            }
            for event in [ended.server, ended.handler].into_iter().flatten() {
                self.handle_event(event);
            }
            // A child that died after the last look has its signal read by now.
            if !more_dead {
                return;
            }
        }
    }

    /// Asks what has come of the children that were on their way to their exec.
    fn take_outcomes(&mut self, ended: &mut Ended) {
        match self.server.outcome() {
            Some(Ok(_)) => self.handle_event(Event::Started),
            Some(Err(death)) => ended.server = Some(self.server_not_started(death)),
            None => {}
        }
        if let Some(Err(death)) = self.handler.task.outcome() {
            ended.handler = Some(self.handler_not_started(death.end));
        }
        let now = Moment::now();
        match self.logger.as_mut().and_then(|logger| logger.outcome(now)) {
            Some(Ok(())) => self.handle_event(Event::Ready),
            Some(Err(end)) => self.logger_not_started(end),
            None => {}
        }
    }

    /// Starts logger if that is due.
    fn start_logger(&mut self, now: Moment) {
        let (Some(logger), Some(syslog)) = (&mut self.logger, self.output.syslog()) else {
            return;
        };
        if let Err(end) = logger.start_if_due(syslog.of_logger(), now) {
            self.logger_not_started(end);
        }
    }

    /// Reaps a dead child.
    fn reap(&mut self, pid: Pid, ended: &mut Ended) {
        // It may have been executed since the last look, and done already. One that has not is
        // reaped by this.
        self.take_outcomes(ended);
        let Some(exit) = reap(pid) else { return };
        if let Some(death) = self.server.reaped(pid, exit) {
            self.report_removal();
            ended.server = Some(Event::ServerEnded(death));
        } else if self.handler.task.reaped(pid, exit).is_some() {
            self.messages
                .say(&format_args!("handler {pid} {}", exit.named()));
            ended.handler = Some(Event::HandlerEnded(verdict(exit)));
        } else if self
            .logger
            .as_mut()
            .is_some_and(|it| it.reaped(pid, exit, Moment::now()))
        {
            self.messages
                .say(&format_args!("logger {pid} {}", exit.named()));
        }
    }

    fn take_signal(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                self.handle_event(Event::Requested(Request::Exit));
            }
            libc::SIGHUP => self.handle_event(Event::Requested(Request::Restart)),
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGWINCH => {
                self.handle_event(Event::SignalArrived(signal));
            }
            _ => {}
        }
    }

    fn process_deadlines(&mut self) {
        let now = Moment::now();
        if self
            .machine
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.handle_event(Event::TimePassed);
        }
        self.start_logger(now);
        if self.next_expiry.is_some_and(|due| due <= now) {
            self.next_expiry = Some(now + limits::LOG_EXPIRY);
            if let Some(files) = self.output.files() {
                // A directory that cannot be read now is read again tomorrow.
                let _ = files.directory.list();
            }
        }
    }

    /// Lets logger take the last lines, for as long as it may.
    pub(super) fn drain_logger(&mut self) {
        let now = Moment::now();
        let deadline = now + limits::LAST_LINES;
        if let Some(logger) = &mut self.logger {
            logger.hurry(now);
        }
        while self.has_last_lines() && Moment::now() < deadline {
            self.start_logger(Moment::now());
            self.wait(
                self.deadline_of_logger()
                    .into_iter()
                    .chain([deadline])
                    .min(),
            );
            while self.requests.take().is_some() {}
            self.take_outcomes(&mut Ended::default());
            while let Some(pid) = next_dead() {
                let exit = reap(pid);
                if let (Some(exit), Some(logger)) = (exit, &mut self.logger) {
                    logger.reaped(pid, exit, Moment::now());
                }
            }
        }
    }

    fn deadline_of_logger(&self) -> Option<Moment> {
        self.logger.as_ref().and_then(|logger| logger.deadline())
    }

    fn has_last_lines(&mut self) -> bool {
        let runs = self
            .logger
            .as_ref()
            .is_some_and(|logger| logger.task.pid().is_some());
        runs || self
            .output
            .syslog()
            .is_some_and(|syslog| syslog.has_lines())
    }
}
