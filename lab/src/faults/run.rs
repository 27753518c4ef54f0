//! One start of vsrun under the tracer, driven through the steps of a scenario
//! from outside. Notes what must never be, and leaves the verdict to others.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::life;
use super::place::Place;
use super::processes::{Bell, descendants, end, is_running, standing, until};
use super::scenarios::{Scenario, Step};
use super::tracer::{End, Event, Struck, Task, Tracer};

/// How long one run may take; one without a fault takes less than a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what a failed start has made may take to go.
const GRACE: Duration = Duration::from_secs(10);
/// After this an administrator asks again.
const AGAIN: Duration = Duration::from_secs(3);

/// What was seen of one run.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every step was done, and the status was the scenario's.
    pub completed: bool,
    /// How the process that was started ended.
    pub status: Option<End>,
    /// The servers that have told that they live.
    pub lives: Vec<Pid>,
    /// Lives from the second on whose id the pidfile did not hold.
    pub unwritten: Vec<String>,
    /// What must never be.
    pub wrong: Vec<String>,
    /// The call at the fault's point, if that was reached.
    pub struck: Option<Struck>,
}

/// One run.
pub struct Run<'a> {
    scenario: &'a Scenario,
    place: &'a Place,
    tracer: Tracer,
    bell: &'a Bell,
    seen: Seen,
    /// How many steps are done, and how many lives they have used.
    done: usize,
    used: usize,
    servers: Vec<Pid>,
    /// The last request to the manager, and when.
    asked: Option<(Signal, Instant)>,
}

impl<'a> Run<'a> {
    /// Starts vsrun in the place.
    pub fn start(
        scenario: &'a Scenario,
        place: &'a Place,
        bell: &'a Bell,
        program: &str,
        task: Task,
    ) -> Result<Run<'a>, String> {
        let bin = place.bin().to_string_lossy().into_owned();
        let options = scenario.options.replace("{bin}", &bin);
        let mut words = vec![program.to_owned()];
        words.extend(options.split_whitespace().map(str::to_owned));
        words.extend(["--".to_owned(), format!("{bin}/{}", scenario.command)]);
        let shell = place.shell().map_err(|error| format!("cannot open files: {error}"))?;
        let tracer = Tracer::start(shell, &words, task)?;
        let seen = Seen::default();
        let (servers, asked) = (Vec::new(), None);
        Ok(Run { scenario, place, tracer, bell, seen, done: 0, used: 0, servers, asked })
    }

    /// Drives it to its end, and ends what is left then.
    pub fn finish(mut self) -> (Seen, Tracer) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.hear();
            while self.advance() {
                self.done += 1;
            }
            if self.done == self.scenario.steps.len() {
                self.seen.completed = self.has_status();
                break;
            }
            if self.is_over() {
                break;
            }
            if Instant::now() >= deadline {
                self.tell_hang("hangs");
                break;
            }
            self.bell.wait();
        }
        self.wind_up();
        self.seen.wrong.extend(life::kept_privilege(self.scenario, self.place, &self.seen.lives));
        self.seen.struck = self.tracer.struck.take();
        (self.seen, self.tracer)
    }

    fn has_status(&self) -> bool {
        self.seen.status.is_none_or(|end| end == End::Status(self.scenario.status))
    }

    /// Hears what has happened to the processes, and looks for servers that are new.
    fn hear(&mut self) {
        while let Some(events) = self.tracer.step() {
            for event in events {
                match event {
                    Event::Executed { pid, command } => {
                        let server = format!("/bin/{}", self.scenario.command);
                        self.servers.extend(Some(pid).filter(|_| command.contains(&server)));
                    }
                    Event::InitialEnded(end) => self.seen.status = Some(end),
                    Event::Ended { process, end } => self.note_end(&process, end),
                }
            }
        }
        let lives = self.place.seen("lives");
        for line in lives.lines().skip(self.seen.lives.len()) {
            let pid = Pid::from_raw(line.parse().unwrap_or_default());
            self.greet(pid);
        }
    }

    fn note_end(&mut self, process: &str, end: End) {
        let crash = [Signal::SIGABRT, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL];
        match end {
            End::Status(101) => self.seen.wrong.push(format!("{process} panicked")),
            End::Signal(signal) if crash.iter().any(|crash| *crash as i32 == signal) => {
                self.seen.wrong.push(format!("{process} crashed with signal {signal}"));
            }
            End::Status(_) | End::Signal(_) => {}
        }
    }

    /// A server has told that it lives.
    fn greet(&mut self, pid: Pid) {
        for other in self.seen.lives.iter().filter(|other| is_running(**other)) {
            self.seen.wrong.push(format!("server {pid} runs while server {other} does"));
        }
        let told = life::told_pidfile(self.scenario, self.place, pid);
        // One that is being ended again has had its pidfile removed.
        if let (Err(why), true) = (told, is_running(pid) || self.scenario.command == "ends") {
            if self.scenario.is_managed() && !self.seen.lives.is_empty() {
                self.seen.unwritten.push(why);
            } else {
                self.seen.wrong.push(why);
            }
        }
        self.seen.lives.push(pid);
    }

    /// Does the next step if it can be done now.
    fn advance(&mut self) -> bool {
        let Some(step) = self.scenario.steps.get(self.done) else { return false };
        let newest = self.seen.lives.last().copied();
        match step {
            Step::Life => {
                self.ask_again();
                let is_new = self.seen.lives.len() > self.used;
                let lives = newest.is_some_and(is_running) || self.scenario.command == "ends";
                if is_new && lives {
                    self.used = self.seen.lives.len();
                }
                is_new && lives
            }
            Step::Crash => newest.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok()),
            Step::Hangup => self.ask(Signal::SIGHUP),
            Step::Term => self.ask(Signal::SIGTERM),
            Step::Exit => {
                self.ask_again();
                // A start that is told to have failed is over. Where a process was killed the
                // others may not know better.
                let is_told = self.seen.status.is_some();
                is_told && (self.has_status() || self.tracer.is_killing())
            }
            Step::Gone => {
                self.ask_again();
                self.tracer.alive().next().is_none()
            }
        }
    }

    /// Signals the manager, whose id its pidfile tells.
    fn ask(&mut self, signal: Signal) -> bool {
        let text = std::fs::read_to_string(self.place.work().join("manager.pid"));
        let manager = text.ok().and_then(|text| text.trim().parse().ok()).map(Pid::from_raw);
        // Only one of vsrun's own may be asked: the file may be one that a dead manager left.
        let manager = manager.filter(|pid| self.tracer.alive().any(|own| own == *pid));
        let is_asked = manager.is_some_and(|pid| kill(pid, signal).is_ok());
        self.asked = Some((signal, Instant::now())).filter(|_| is_asked).or(self.asked);
        is_asked
    }

    fn ask_again(&mut self) {
        if let Some((signal, when)) = self.asked {
            if when.elapsed() > AGAIN {
                self.asked = Some((signal, Instant::now()));
                self.ask(signal);
            }
        }
    }

    /// Whether nothing more can come: vsrun is gone, and every server that it let go has told so.
    fn is_over(&self) -> bool {
        let silent = |pid: &Pid| is_running(*pid) && !self.seen.lives.contains(pid);
        let is_gone = self.seen.status.is_some() && self.tracer.alive().next().is_none();
        is_gone && !self.servers.iter().any(silent)
    }

    fn tell_hang(&mut self, how: &str) {
        for pid in descendants() {
            self.seen.wrong.push(format!("{how} at step {}: {}", self.done, standing(pid)));
        }
    }

    /// Ends the servers, and sees that nothing else is left. Where vsrun was killed, a server that
    /// it had let go lives on.
    fn wind_up(&mut self) {
        let servers = self.seen.lives.iter().chain(&self.servers);
        let left: Vec<Pid> = servers.copied().filter(|pid| is_running(*pid)).collect();
        let is_half_done = !left.is_empty() && !self.seen.completed && self.refused();
        if is_half_done && !self.tracer.is_killing() {
            self.seen.wrong.push("a server runs, and the start was told to have failed".to_owned());
        }
        end(&left);
        let gone = until(GRACE, || {
            self.hear();
            descendants().is_empty()
        });
        if !gone {
            self.tell_hang("is left over");
            let left = descendants();
            end(&left);
            until(GRACE, || {
                self.hear();
                descendants().is_empty()
            });
        }
    }

    fn refused(&self) -> bool {
        matches!(self.seen.status, Some(End::Status(125..=127)))
    }
}
