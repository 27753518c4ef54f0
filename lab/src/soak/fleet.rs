//! The managers of a soak, what is done to them, and what must hold of each.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, geteuid};

use super::sample::{Holding, children, command, holding, state};
use xtask::steps::Failure;

/// Stands for logger(1): keeps vsrun's own lines, so that they can be counted.
pub const LOGGER: &str = "#!/bin/sh\nexec grep --line-buffered '^vsrun: ' >>\"$SOAK_LINES\"\n";

const STRAY: [Signal; 6] = [
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
    /// Where its lines can be read.
    lines: PathBuf,
    logs: Option<PathBuf>,
    /// Its zombies at the last look.
    zombies: Vec<i32>,
}

/// All managers.
pub struct Fleet {
    managers: Vec<Manager>,
    random: Rng,
    stopped: Vec<i32>,
    acts: usize,
}

/// What one look at all managers has shown.
#[derive(Default)]
pub struct Look {
    pub holdings: Vec<Holding>,
    pub zombies: usize,
    pub files: usize,
    pub violations: Vec<String>,
}

impl Fleet {
    /// Starts so many managers of every kind.
    pub fn start(scratch: &Path, count: usize, seed: u64) -> Result<Fleet, Failure> {
        let mut fleet = Fleet {
            managers: Vec::new(),
            random: Rng::with_seed(seed),
            stopped: Vec::new(),
            acts: 0,
        };
        for number in 0..count {
            let started = Manager::start(scratch, number);
            let manager =
                started.map_err(|error| format!("cannot start manager {number}: {error}"))?;
            fleet.managers.push(manager);
        }
        // Before it has set up its signals a process dies of any.
        if !settles(|| fleet.managers.iter().all(|manager| manager.server().is_some())) {
            return Err(Failure::Message("not every manager has started its server".to_owned()));
        }
        Ok(fleet)
    }

    /// Does something to one of them.
    pub fn act(&mut self) {
        for server in self.stopped.drain(..) {
            signal(server, Signal::SIGCONT);
        }
        let chosen = self.random.usize(..self.managers.len());
        let manager = &self.managers[chosen];
        let own = manager.process.id() as i32;
        self.acts += 1;
        match self.random.u8(..20) {
            0..=6 => signal(own, Signal::SIGHUP),
            7 => signal(own, Signal::SIGUSR1),
            8..=10 => signal(own, Signal::SIGWINCH),
            11..=14 => signal(own, self.random.choice(STRAY).unwrap_or(Signal::SIGURG)),
            15..=18 => manager.signal_server(Signal::SIGKILL),
            _ => {
                manager.signal_server(Signal::SIGSTOP);
                self.stopped.extend(manager.server());
            }
        }
    }

    /// Looks at every manager, and makes its old logs older than they may be.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        for manager in &mut self.managers {
            manager.look(&mut look);
        }
        look
    }

    /// Stops all; what was wrong with their ends.
    pub fn stop(&mut self) -> Vec<String> {
        for server in self.stopped.drain(..) {
            signal(server, Signal::SIGCONT);
        }
        for manager in &self.managers {
            signal(manager.process.id() as i32, Signal::SIGTERM);
        }
        self.managers.iter_mut().flat_map(Manager::ended).collect()
    }

    /// How often servers were started again.
    pub fn restarts(&self) -> usize {
        let starts = |manager: &Manager| {
            let said = fs::read(&manager.lines).unwrap_or_default();
            String::from_utf8_lossy(&said).matches("started server").count()
        };
        self.managers.iter().map(|manager| starts(manager).saturating_sub(1)).sum()
    }

    /// How much has been done to them.
    pub fn acts(&self) -> usize {
        self.acts
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
        vsrun.arg("-m").arg(dir.join("manager.pid")).arg("/bin/true");
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
        vsrun.arg("--").arg(scratch.join("server")).arg("soak-server");
        vsrun.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(dir.join("lines"))?);
        Ok(Manager { process: vsrun.spawn()?, dir, lines, logs, zombies: Vec::new() })
    }

    fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// The server in its pidfile, if that is a child of this manager.
    fn server(&self) -> Option<i32> {
        let id = fs::read_to_string(self.dir.join("server.pid")).ok()?.trim().parse().ok()?;
        is_child_of(id, self.pid()).then_some(id)
    }

    fn signal_server(&self, number: Signal) {
        if let Some(server) = self.server() {
            signal(server, number);
        }
    }

    fn look(&mut self, look: &mut Look) {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(holding) = holding(self.pid()) else {
            look.violations.push(format!("{name}: the manager is gone"));
            return;
        };
        look.holdings.push(holding);
        let of_all = children(self.pid());
        let dead = |pid: &i32| state(*pid).is_some_and(|(state, _)| state == 'Z');
        let zombies: Vec<i32> = of_all.iter().copied().filter(dead).collect();
        if zombies.iter().any(|pid| self.zombies.contains(pid)) {
            look.violations.push(format!("{name}: a dead child has not been reaped"));
        }
        look.zombies += zombies.len();
        self.zombies = zombies;
        let servers = of_all.iter().filter(|pid| command(**pid) == "server" && !dead(pid));
        if servers.count() > 1 {
            look.violations.push(format!("{name}: more than one server"));
        }
        if !settles(|| self.pidfile_is_true()) {
            look.violations.push(format!("{name}: the pidfile does not tell the server"));
        }
        look.files += self.age_logs();
    }

    /// Whether the pidfile names the server, or there are neither.
    fn pidfile_is_true(&self) -> bool {
        let of_all = children(self.pid());
        let server = of_all.into_iter().find(|pid| command(*pid) == "server");
        let told = fs::read_to_string(self.dir.join("server.pid")).ok();
        told.map(|told| told.trim().to_owned()) == server.map(|pid| pid.to_string())
    }

    /// Makes rotated logs three days old, which is past their time; how many there are.
    fn age_logs(&self) -> usize {
        let Some(logs) = &self.logs else { return 0 };
        let old = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
        let names = fs::read_dir(logs).into_iter().flatten().flatten();
        let rotated =
            names.filter(|name| name.file_name().to_string_lossy().starts_with("logfile."));
        let aged = rotated.filter(|name| {
            // One that has just been deleted needs no age.
            File::options().append(true).open(name.path()).and_then(|f| f.set_modified(old)).is_ok()
        });
        aged.count()
    }

    /// Waits for the manager's end; what was wrong with it.
    fn ended(&mut self) -> Vec<String> {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(20)),
                Ok(None) => {
                    end(self.pid());
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
        // Only one whose end was not waited for is still there.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal_server(Signal::SIGKILL);
            end(self.pid());
        }
    }
}

/// Whether something holds within two seconds: between two servers it may not.
fn settles(holds: impl Fn() -> bool) -> bool {
    (0..100).any(|attempt| {
        if attempt > 0 {
            sleep(Duration::from_millis(20));
        }
        holds()
    })
}

/// Whether a process is a child of another.
pub fn is_child_of(pid: i32, parent: i32) -> bool {
    state(pid).is_some_and(|(_, of)| of == parent)
}

fn signal(pid: i32, number: Signal) {
    // Who is gone already needs no signal.
    let _ = kill(Pid::from_raw(pid), number);
}

/// Ends a child of this process.
pub fn end(pid: i32) {
    signal(pid, Signal::SIGKILL);
    let _ = waitpid(Pid::from_raw(pid), None);
}

/// Takes a child of this process that has ended.
pub fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// Writes a script that everybody may execute.
pub fn write_script(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The server of a soak: says something, lives for up to twenty seconds, and dies in one of
/// several ways.
pub fn serve() -> ! {
    println!("server {} begins", std::process::id());
    let mut random = Rng::new();
    sleep(Duration::from_millis(random.u64(10..20_000)));
    match random.u8(..4) {
        0 => signal(std::process::id() as i32, Signal::SIGKILL),
        1 => signal(std::process::id() as i32, Signal::SIGTERM),
        _ => {}
    }
    std::process::exit(random.i32(1..100))
}
