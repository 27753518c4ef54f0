//! Where a manager waits: turns what the kernel tells into events. Decides
//! nothing.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::machine::{Event, State, Then, Verdict};
use super::report::Death;
use super::{Manager, policy};
use crate::logs::Output;
use crate::sys::wait::reap;

/// How often old log files are looked over while a manager lives.
pub const REVIEW: Duration = Duration::from_secs(24 * 60 * 60);

impl Manager<'_> {
    /// Waits for events until the machine is done. There is no other place where it waits.
    pub(super) fn live(&mut self) -> u8 {
        loop {
            if let State::Done(status) = self.machine.state() {
                return status;
            }
            let more_to_expire = match &mut self.output {
                Output::Files(files) => files.directory.expire_some(),
                Output::Inherited | Output::Syslog(_) => false,
            };
            self.wait(if more_to_expire { Some(Instant::now()) } else { self.deadline() });
            self.collect();
            self.keep_time();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let logger = match &self.output {
            Output::Syslog(syslog) => syslog.deadline(),
            Output::Inherited | Output::Files(_) => None,
        };
        [self.machine.deadline(), logger, self.next_review].into_iter().flatten().min()
    }

    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let rest = deadline.saturating_duration_since(Instant::now());
            // Rounded up: waking early would mean waking twice.
            let rest = rest.as_millis() + u128::from(!rest.is_zero());
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)
        });
        // An interrupted wait is followed by another look at everything.
        let _ = poll(&mut [PollFd::new(self.inbox.as_fd(), PollFlags::POLLIN)], timeout);
    }

    /// Reaps the dead before it reads requests, so that no signal goes to an id that is not the
    /// server's any more; and hears requests before deaths, so that a request wins.
    fn collect(&mut self) {
        loop {
            let (death, verdict) = self.reap_all();
            let mut more_dead = false;
            while let Some(signal) = self.inbox.take() {
                more_dead |= signal == libc::SIGCHLD;
                self.hear(signal);
            }
            if let Some(death) = death {
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
    fn reap_all(&mut self) -> (Option<Death>, Option<Verdict>) {
        let (mut death, mut verdict) = (None, None);
        while let Some((pid, exit)) = reap() {
            if let Some(server) = self.server.ended(pid, exit) {
                let seconds = server.uptime.as_secs_f64();
                self.messages.say(&format_args!("server {pid} {exit} after {seconds:.1} s"));
                if policy::may_have_left(&server) && self.machine.state() == State::Running {
                    self.messages.say(&format_args!(
                        "a server that puts itself into the background looks like this; \
                         if it did, tell it to stay in the foreground"
                    ));
                }
                death = Some(server);
            } else if let Some(answer) = self.handler.ended(pid, exit) {
                self.messages.say(&format_args!("handler {pid} {exit}"));
                verdict = Some(answer);
            } else if let Output::Syslog(syslog) = &mut self.output {
                if syslog.ended(pid, Instant::now()) {
                    self.messages.say(&format_args!("logger {pid} {exit}"));
                }
            }
        }
        (death, verdict)
    }

    fn hear(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.feed(Event::Asked(Then::Exit)),
            libc::SIGHUP => self.feed(Event::Asked(Then::Restart)),
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGWINCH => self.signal_server(signal),
            _ => {}
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.feed(Event::TimePassed);
        }
        if let Output::Syslog(syslog) = &mut self.output {
            if let Err(failure) = syslog.tend(now) {
                let error =
                    self.plan.error(("command", OsStr::new("logger")), syslog.spec(), failure);
                self.messages.say(&error);
            }
        }
        if self.next_review.is_some_and(|due| due <= now) {
            self.next_review = Some(now + REVIEW);
            if let Output::Files(files) = &mut self.output {
                // A directory that cannot be read now is read again tomorrow.
                let _ = files.directory.list();
            }
        }
    }
}
