//! One start of vsrun under the tracer, driven from outside through the steps of a scenario.
//! Collects what was seen; `verdict` judges it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::processes::{Sigchld, descendants, description, is_running, kill_all, wait_until};
use super::sandbox::Sandbox;
use super::scenarios::{Scenario, Step};
use super::server;
use super::tracer::{End, Event, FailedCall, Task, Tracer};

/// The time limit of a run. Without a fault it takes less than a second.
const RUN_LIMIT: Duration = Duration::from_secs(30);
/// The time limit for the end of all processes after a run.
const END_LIMIT: Duration = Duration::from_secs(10);
/// After this time a request to the manager is repeated, as an administrator would.
const REPEAT_AFTER: Duration = Duration::from_secs(3);

/// What was seen of one run.
#[derive(Debug, Default)]
pub struct Seen {
    /// All steps were done, and the status was right.
    pub completed: bool,
    /// How the process that was started ended.
    pub end: Option<End>,
    /// All servers, in their order.
    pub servers: Vec<Pid>,
    /// Violations by later servers: the pidfile did not hold their ids.
    pub not_in_pidfile: Vec<String>,
    pub violations: Vec<String>,
    /// The call that failed, if the run reached it.
    pub failed_call: Option<FailedCall>,
}

/// One run.
pub struct Run<'a> {
    scenario: &'a Scenario,
    sandbox: &'a Sandbox,
    tracer: Tracer,
    sigchld: &'a Sigchld,
    seen: Seen,
    /// The number of steps that are done.
    done: usize,
    /// The number of servers that these steps have used.
    used: usize,
    /// The processes that executed the server's program.
    executed: Vec<Pid>,
    /// The last request to the manager, and its time.
    request: Option<(Signal, Instant)>,
}

impl<'a> Run<'a> {
    /// Starts vsrun in the sandbox.
    pub fn start(
        scenario: &'a Scenario,
        sandbox: &'a Sandbox,
        sigchld: &'a Sigchld,
        program: &str,
        task: Task,
    ) -> Result<Run<'a>, String> {
        let bin = sandbox.bin().to_string_lossy().into_owned();
        let options = scenario.options.replace("{bin}", &bin);
        let mut words = vec![program.to_owned()];
        words.extend(options.split_whitespace().map(str::to_owned));
        words.extend(["--".to_owned(), format!("{bin}/{}", scenario.command)]);
        let shell = sandbox
            .shell()
            .map_err(|error| format!("cannot open files: {error}"))?;
        Ok(Run {
            scenario,
            sandbox,
            tracer: Tracer::start(shell, &words, task)?,
            sigchld,
            seen: Seen::default(),
            done: 0,
            used: 0,
            executed: Vec::new(),
            request: None,
        })
    }

    /// Does all steps, then ends the processes that remain.
    pub fn finish(mut self) -> (Seen, Tracer) {
        let deadline = Instant::now() + RUN_LIMIT;
        loop {
            self.handle_events();
            while self.try_step() {
                self.done += 1;
            }
            if self.done == self.scenario.steps.len() {
                self.seen.completed = self.has_right_status();
                break;
            }
            if self.is_over() {
                break;
            }
            if Instant::now() >= deadline {
                self.report_processes("hangs");
                break;
            }
            self.sigchld.wait();
        }
        self.end_all();
        let privileges = server::privileges(self.scenario, self.sandbox, &self.seen.servers);
        self.seen.violations.extend(privileges);
        self.seen.failed_call = self.tracer.failed_call.take();
        (self.seen, self.tracer)
    }

    fn has_right_status(&self) -> bool {
        self.seen
            .end
            .is_none_or(|end| end == End::Status(self.scenario.status))
    }

    /// Handles what happened to the processes, and finds new servers.
    fn handle_events(&mut self) {
        while let Some(events) = self.tracer.step() {
            for event in events {
                match event {
                    Event::Executed { pid, command } => {
                        if command.contains(&format!("/bin/{}", self.scenario.command)) {
                            self.executed.push(pid);
                        }
                    }
                    Event::InitialEnded(end) => self.seen.end = Some(end),
                    Event::Ended { process, end } => self.check_end(&process, end),
                }
            }
        }
        let servers = self.sandbox.written("servers");
        for line in servers.lines().skip(self.seen.servers.len()) {
            self.add_server(Pid::from_raw(line.parse().unwrap_or_default()));
        }
    }

    fn check_end(&mut self, process: &str, end: End) {
        let crashes = [
            Signal::SIGABRT,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
        ];
        match end {
            End::Status(101) => self.seen.violations.push(format!("{process} panicked")),
            End::Signal(signal) if crashes.iter().any(|crash| *crash as i32 == signal) => {
                self.seen
                    .violations
                    .push(format!("{process} was killed by signal {signal}"));
            }
            End::Status(_) | End::Signal(_) => {}
        }
    }

    fn add_server(&mut self, pid: Pid) {
        for other in self.seen.servers.iter().filter(|other| is_running(**other)) {
            self.seen
                .violations
                .push(format!("server {pid} runs while server {other} does"));
        }
        let checked = server::check_pidfile(self.scenario, self.sandbox, pid);
        // When a server is stopped again at once, its pidfile is removed.
        if let (Err(violation), true) = (checked, self.counts_as_running(pid)) {
            if self.scenario.is_managed() && !self.seen.servers.is_empty() {
                self.seen.not_in_pidfile.push(violation);
            } else {
                self.seen.violations.push(violation);
            }
        }
        self.seen.servers.push(pid);
    }

    /// Whether a server runs, or is of the kind that ends by itself.
    fn counts_as_running(&self, pid: Pid) -> bool {
        is_running(pid) || self.scenario.command == "ends"
    }

    /// Does the next step if it is possible now.
    fn try_step(&mut self) -> bool {
        let Some(step) = self.scenario.steps.get(self.done) else {
            return false;
        };
        let newest = self.seen.servers.last().copied();
        match step {
            Step::Start => {
                self.repeat_request();
                let is_new = self.seen.servers.len() > self.used;
                let is_done = is_new && newest.is_some_and(|pid| self.counts_as_running(pid));
                if is_done {
                    self.used = self.seen.servers.len();
                }
                is_done
            }
            Step::Crash => newest.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok()),
            Step::Hangup => self.send(Signal::SIGHUP),
            Step::Term => self.send(Signal::SIGTERM),
            Step::Exit => {
                self.repeat_request();
                // A wrong status ends the run, except where a process was killed, because the
                // others may not know why it ended.
                self.seen.end.is_some() && (self.has_right_status() || self.tracer.is_killing())
            }
            Step::Gone => {
                self.repeat_request();
                self.tracer.alive().next().is_none()
            }
        }
    }

    /// Signals the manager whose id is in the pidfile.
    fn send(&mut self, signal: Signal) -> bool {
        let text = fs::read_to_string(self.sandbox.work().join("manager.pid"));
        let manager = text
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map(Pid::from_raw);
        // A dead manager may have left the file, and another process may have its id.
        let manager = manager.filter(|pid| self.tracer.alive().any(|own| own == *pid));
        let is_sent = manager.is_some_and(|pid| kill(pid, signal).is_ok());
        if is_sent {
            self.request = Some((signal, Instant::now()));
        }
        is_sent
    }

    fn repeat_request(&mut self) {
        if let Some((signal, time)) = self.request {
            if time.elapsed() > REPEAT_AFTER {
                self.request = Some((signal, Instant::now()));
                self.send(signal);
            }
        }
    }

    /// Whether nothing more can happen: all processes of vsrun have ended, and every server that they
    /// executed is known.
    fn is_over(&self) -> bool {
        let is_unknown = |pid: &Pid| is_running(*pid) && !self.seen.servers.contains(pid);
        let has_ended = self.seen.end.is_some() && self.tracer.alive().next().is_none();
        has_ended && !self.executed.iter().any(is_unknown)
    }

    fn report_processes(&mut self, problem: &str) {
        for pid in descendants() {
            let violation = format!("{problem} at step {}: {}", self.done, description(pid));
            self.seen.violations.push(violation);
        }
    }

    /// Kills the servers. No other process may remain.
    fn end_all(&mut self) {
        let servers = self.seen.servers.iter().chain(&self.executed);
        let running: Vec<Pid> = servers.copied().filter(|pid| is_running(*pid)).collect();
        // Where vsrun was killed, a server may live on.
        if !running.is_empty() && self.is_refused() && !self.tracer.is_killing() {
            let violation = "a server runs, but the start was reported as failed";
            self.seen.violations.push(violation.to_owned());
        }
        kill_all(&running);
        if !self.wait_for_descendants() {
            self.report_processes("is left over");
            kill_all(&descendants());
            self.wait_for_descendants();
        }
    }

    fn wait_for_descendants(&mut self) -> bool {
        wait_until(END_LIMIT, || {
            self.handle_events();
            descendants().is_empty()
        })
    }

    fn is_refused(&self) -> bool {
        !self.seen.completed && matches!(self.seen.end, Some(End::Status(125..=127)))
    }
}
