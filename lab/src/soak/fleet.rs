//! The managers of a soak: signals to them and to their servers, and what must be true of each.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, geteuid};

use xtask::steps::Failure;

use crate::process::{Memory, children, memory, name, state};

/// Replaces logger(1): writes vsrun's own lines to a file, where they can be counted.
pub const LOGGER: &str = "#!/bin/sh\nexec grep --line-buffered '^vsrun: ' >>\"$SOAK_LINES\"\n";

/// Signals that a manager ignores.
const IGNORED: [Signal; 6] = [
    Signal::SIGALRM,
    Signal::SIGPIPE,
    Signal::SIGCONT,
    Signal::SIGTTIN,
    Signal::SIGURG,
    Signal::SIGCHLD,
];

/// A manager and its directory.
struct Manager {
    process: Child,
    dir: PathBuf,
    /// The file with its own lines.
    lines: PathBuf,
    logs: Option<PathBuf>,
    /// Its dead children at the last sample.
    zombies: Vec<i32>,
}

/// All managers.
pub struct Fleet {
    managers: Vec<Manager>,
    random: Rng,
    /// Servers that are stopped by SIGSTOP.
    stopped: Vec<i32>,
    signals: usize,
}

/// All managers at one moment.
#[derive(Default)]
pub struct Sample {
    pub descriptors: Vec<usize>,
    pub memory: Vec<Memory>,
    pub zombies: usize,
    pub old_logs: usize,
    pub violations: Vec<String>,
}

impl Fleet {
    /// Starts managers of every kind.
    pub fn start(scratch: &Path, count: usize, seed: u64) -> Result<Fleet, Failure> {
        let mut fleet = Fleet {
            managers: Vec::new(),
            random: Rng::with_seed(seed),
            stopped: Vec::new(),
            signals: 0,
        };
        for number in 0..count {
            let started = Manager::start(scratch, number);
            let manager =
                started.map_err(|error| format!("cannot start manager {number}: {error}"))?;
            fleet.managers.push(manager);
        }
        // Until a manager has set up its signals, each kills it.
        if !becomes_true(|| {
            fleet
                .managers
                .iter()
                .all(|manager| manager.server().is_some())
        }) {
            return Err(Failure::Message(
                "not every manager has started its server".to_owned(),
            ));
        }
        Ok(fleet)
    }

    /// Sends a random signal to a random manager or server.
    pub fn send_signal(&mut self) {
        self.continue_servers();
        let chosen = self.random.usize(..self.managers.len());
        let manager = &self.managers[chosen];
        self.signals += 1;
        match self.random.u8(..20) {
            0..=6 => signal(manager.pid(), Signal::SIGHUP),
            7 => signal(manager.pid(), Signal::SIGUSR1),
            8..=10 => signal(manager.pid(), Signal::SIGWINCH),
            11..=14 => signal(manager.pid(), IGNORED[self.random.usize(..IGNORED.len())]),
            15..=18 => manager.signal_server(Signal::SIGKILL),
            _ => {
                manager.signal_server(Signal::SIGSTOP);
                self.stopped.extend(manager.server());
            }
        }
    }

    /// Samples every manager, and makes its old logs so old that they expire.
    pub fn sample(&mut self) -> Sample {
        let mut sample = Sample::default();
        for manager in &mut self.managers {
            manager.add_to(&mut sample);
        }
        sample
    }

    /// Stops all managers. Returns the violations.
    pub fn stop(&mut self) -> Vec<String> {
        self.continue_servers();
        for manager in &self.managers {
            signal(manager.pid(), Signal::SIGTERM);
        }
        self.managers.iter_mut().flat_map(Manager::wait).collect()
    }

    fn continue_servers(&mut self) {
        for server in self.stopped.drain(..) {
            signal(server, Signal::SIGCONT);
        }
    }

    /// How often servers were restarted.
    pub fn restarts(&self) -> usize {
        let starts = |manager: &Manager| {
            let lines = fs::read(&manager.lines).unwrap_or_default();
            String::from_utf8_lossy(&lines)
                .matches("started server")
                .count()
        };
        self.managers
            .iter()
            .map(|manager| starts(manager).saturating_sub(1))
            .sum()
    }

    /// How many signals were sent.
    pub fn signals(&self) -> usize {
        self.signals
    }
}

impl Manager {
    fn start(scratch: &Path, number: usize) -> io::Result<Manager> {
        let dir = scratch.join(format!("m{number}"));
        fs::create_dir(&dir)?;
        let mut lines = dir.join("lines");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut vsrun = Command::new("nice");
        vsrun.args(["-n", "5"]).arg(scratch.join("vsrun"));
        vsrun.arg("-p").arg(dir.join("server.pid"));
        vsrun
            .arg("-m")
            .arg(dir.join("manager.pid"))
            .arg("/bin/true");
        vsrun.env("PATH", format!("{}:{path}", scratch.join("bin").display()));
        vsrun.env("SOAK_LINES", &lines);
        if number % 4 == 3 && geteuid().is_root() {
            vsrun.args(["-u", "nobody"]);
        }
        let logs = (number % 2 == 1).then(|| dir.join("logs"));
        if let Some(logs) = &logs {
            lines = logs.join("vsrun.log");
            vsrun.arg("-d").arg(logs).arg("1d");
        } else if number % 4 == 2 {
            vsrun.args(["-s", "soak"]);
        }
        vsrun
            .arg("--")
            .arg(scratch.join("server"))
            .arg("soak-server");
        vsrun
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("lines"))?);
        Ok(Manager {
            process: vsrun.spawn()?,
            dir,
            lines,
            logs,
            zombies: Vec::new(),
        })
    }

    fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// The server in its pidfile, if that is a child of this manager.
    fn server(&self) -> Option<i32> {
        let id = fs::read_to_string(self.dir.join("server.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        is_child_of(id, self.pid()).then_some(id)
    }

    fn signal_server(&self, number: Signal) {
        if let Some(server) = self.server() {
            signal(server, number);
        }
    }

    fn name(&self) -> String {
        self.dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn add_to(&mut self, sample: &mut Sample) {
        let name = self.name();
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let (Some(memory), Ok(descriptors)) = (memory(self.pid()), descriptors) else {
            sample
                .violations
                .push(format!("{name}: the manager has ended"));
            return;
        };
        sample.memory.push(memory);
        sample.descriptors.push(descriptors.count());
        let children = children(self.pid());
        let is_dead = |pid: &i32| state(*pid).is_some_and(|(state, _)| state == 'Z');
        let zombies: Vec<i32> = children.iter().copied().filter(is_dead).collect();
        if zombies.iter().any(|pid| self.zombies.contains(pid)) {
            sample
                .violations
                .push(format!("{name}: a dead child has not been reaped"));
        }
        sample.zombies += zombies.len();
        self.zombies = zombies;
        if children
            .iter()
            .filter(|pid| is_server(pid) && !is_dead(pid))
            .count()
            > 1
        {
            sample
                .violations
                .push(format!("{name}: more than one server"));
        }
        if !becomes_true(|| self.has_right_pidfile()) {
            sample
                .violations
                .push(format!("{name}: the pidfile does not hold the server's id"));
        }
        sample.old_logs += self.age_logs();
    }

    /// Whether the pidfile holds the server's id, or there is neither.
    fn has_right_pidfile(&self) -> bool {
        let server = children(self.pid()).into_iter().find(is_server);
        let content = fs::read_to_string(self.dir.join("server.pid")).ok();
        content.map(|id| id.trim().to_owned()) == server.map(|pid| pid.to_string())
    }

    /// Makes rotated logs three days old, so that they expire. Returns their number.
    fn age_logs(&self) -> usize {
        let Some(logs) = &self.logs else { return 0 };
        let old = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
        let names = fs::read_dir(logs).into_iter().flatten().flatten();
        let rotated =
            names.filter(|name| name.file_name().to_string_lossy().starts_with("logfile."));
        let aged = rotated.filter(|name| {
            // A log that has just been deleted cannot be opened.
            File::options()
                .append(true)
                .open(name.path())
                .and_then(|f| f.set_modified(old))
                .is_ok()
        });
        aged.count()
    }

    /// Waits for the manager's end. Returns the violations.
    fn wait(&mut self) -> Vec<String> {
        let name = self.name();
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(20)),
                Ok(None) => {
                    kill_child(self.pid());
                    return vec![format!("{name}: did not stop")];
                }
                Ok(Some(status)) => break status,
                Err(error) => return vec![format!("{name}: {error}")],
            }
        };
        let mut wrong = Vec::new();
        if !status.success() {
            wrong.push(format!("{name}: {status}"));
        }
        for file in ["server.pid", "manager.pid", "manager.pid.lock"] {
            if self.dir.join(file).exists() {
                wrong.push(format!("{name}: left {file} behind"));
            }
        }
        wrong
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // A manager that ended was reaped by `wait`.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal_server(Signal::SIGKILL);
            kill_child(self.pid());
        }
    }
}

fn is_server(pid: &i32) -> bool {
    name(*pid) == "server"
}

/// Whether a condition becomes true within two seconds. Between two servers it may be false.
fn becomes_true(condition: impl Fn() -> bool) -> bool {
    (0..100).any(|attempt| {
        if attempt > 0 {
            sleep(Duration::from_millis(20));
        }
        condition()
    })
}

fn is_child_of(pid: i32, parent: i32) -> bool {
    state(pid).is_some_and(|(_, its_parent)| its_parent == parent)
}

fn signal(pid: i32, number: Signal) {
    // The process may have ended.
    let _ = kill(Pid::from_raw(pid), number);
}

/// Kills a child of this process and reaps it.
pub fn kill_child(pid: i32) {
    signal(pid, Signal::SIGKILL);
    let _ = waitpid(Pid::from_raw(pid), None);
}

/// Reaps a child of this process if it is dead.
pub fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// The server of a soak. It writes a line, lives for up to twenty seconds, and dies in one of several
/// ways.
pub fn serve() -> ! {
    println!("server {} starts", std::process::id());
    let mut random = Rng::new();
    sleep(Duration::from_millis(random.u64(10..20_000)));
    match random.u8(..4) {
        0 => signal(std::process::id() as i32, Signal::SIGKILL),
        1 => signal(std::process::id() as i32, Signal::SIGTERM),
        _ => {}
    }
    std::process::exit(random.i32(1..100))
}
