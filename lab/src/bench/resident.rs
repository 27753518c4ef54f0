//! One that stays resident: how it is started, killed, asked, and looked into.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::peers::Peers;

/// Those that only wait for their server.
pub const PLAIN: [&str; 2] = ["tini", "dumb-init"];

/// What supervisord reads; its directory is the current one.
const SUPERVISORD: &str = "\
[supervisord]
nodaemon=true
pidfile=pid
logfile=/dev/null
logfile_maxbytes=0

[program:server]
command=./run
stdout_logfile=NONE
stderr_logfile=NONE
";

/// One that stays, and its server.
pub struct Resident {
    /// What it is called in the tables.
    pub name: &'static str,
    /// Its id.
    pub pid: i32,
    directory: PathBuf,
}

impl Resident {
    pub fn start(name: &'static str, peers: &Peers, directory: PathBuf) -> Option<Resident> {
        fs::create_dir_all(&directory).ok()?;
        let run = directory.join("run");
        symlink(super::SERVER, &run).ok()?;
        let path = |file: &str| directory.join(file).into_os_string();
        let program = match name {
            "C loop" | "C loop with a handler" => peers.floor.clone(),
            "supervisord" => peers.program("python3")?,
            _ => peers.program(name)?,
        };
        let mut command = peers.command(name, program);
        match name {
            "C loop" => command.arg("loop").arg(&run),
            "C loop with a handler" => command.arg("handled").arg(&peers.handler).arg(&run),
            "vsrun" => command
                .args(["-p".into(), path("pid"), "-m".into(), path("manager")])
                .arg(&peers.handler)
                .arg("--")
                .arg(&run),
            "daemon" => command.args(["-f", "-r", "--chdir"]).arg(&directory).arg("--").arg(&run),
            "supervise-daemon" => command
                .args(["bench", "--start", "--chdir"])
                .arg(&directory)
                .arg("--pidfile")
                .arg(path("pid"))
                .arg(&run),
            "supervisord" => {
                let settings = directory.join("settings");
                fs::write(&settings, SUPERVISORD).ok()?;
                command.arg(peers.program(name)?).arg("--configuration").arg(settings)
            }
            "tini" | "dumb-init" => command.arg(&run),
            _ => command.arg(&directory),
        };
        command.current_dir(&directory).env("RC_SVCNAME", "bench");
        let mut process = command.spawn().ok()?;
        let pid = match name {
            // It goes into the background, and to this process as the first of the namespace.
            "supervise-daemon" => {
                process.wait().ok()?;
                let told = || fs::read_to_string(path("pid")).ok()?.trim().parse().ok();
                (0..100).find_map(|_| {
                    told().or_else(|| {
                        sleep(Duration::from_millis(10));
                        None
                    })
                })?
            }
            _ => process.id() as i32,
        };
        let resident = Resident { name, pid, directory };
        let deadline = Instant::now() + Duration::from_secs(3);
        while resident.stamps().is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
        // One that cannot run a server here is dropped, and ended by that.
        if resident.stamps().is_empty() { None } else { Some(resident) }
    }

    /// What its servers have told: who they are, and when they first ran.
    fn stamps(&self) -> Vec<(i32, f64)> {
        let text = fs::read_to_string(self.directory.join("stamps")).unwrap_or_default();
        let parsed = text.lines().filter_map(|line| {
            let (pid, when) = line.split_once(' ')?;
            Some((pid.parse().ok()?, when.parse::<f64>().ok()? / 1e6))
        });
        parsed.collect()
    }

    /// Kills the server; after how many milliseconds the next one ran.
    pub fn time_of_return(&mut self) -> Option<f64> {
        if PLAIN.contains(&self.name) {
            return None;
        }
        let (server, _) = *self.stamps().last()?;
        self.time_of_next(server, Signal::SIGKILL)
    }

    /// Asks for a restart, which also lets the next death be the first again; after how many
    /// milliseconds the next server ran.
    pub fn time_of_restart(&mut self) -> Option<f64> {
        if self.name == "vsrun" { self.time_of_next(self.pid, Signal::SIGHUP) } else { None }
    }

    fn time_of_next(&self, pid: i32, signal: Signal) -> Option<f64> {
        let before = self.stamps().len();
        let sent = now();
        kill(Pid::from_raw(pid), signal).ok()?;
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if let Some((_, when)) = self.stamps().get(before) {
                return Some(when - sent);
            }
            sleep(Duration::from_millis(1));
        }
        None
    }

    /// Asks it to end; after how many milliseconds it had.
    pub fn time_of_stop(&mut self) -> Option<f64> {
        // Otherwise each look would come 50 microseconds later (PR_SET_TIMERSLACK(2const)).
        set_timerslack(1).ok()?;
        let took = self.wait_for_stop();
        // The next ones inherit it.
        set_timerslack(0).ok()?;
        took
    }

    fn wait_for_stop(&self) -> Option<f64> {
        let asked = Instant::now();
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).ok()?;
        let deadline = asked + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.is_gone() {
                let took = asked.elapsed().as_secs_f64() * 1e3;
                // One that leaves its server alone has not stopped it.
                let (server, _) = *self.stamps().last()?;
                return (!is_alive(server)).then_some(took);
            }
            sleep(Duration::from_micros(20));
        }
        None
    }

    fn is_gone(&self) -> bool {
        let ended = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        !matches!(ended, Ok(WaitStatus::StillAlive))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if !self.is_gone() {
            // It is this process's child, or was given to it; so the id is its own.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(self.pid), None);
        }
        if let Some((server, _)) = self.stamps().last() {
            let exe = fs::read_link(format!("/proc/{server}/exe")).unwrap_or_default();
            if exe == Path::new(super::SERVER) {
                let _ = kill(Pid::from_raw(*server), Signal::SIGKILL);
                let _ = waitpid(Pid::from_raw(*server), None);
            }
        }
    }
}

/// Whether a process does something still: one that has ended may wait to be reaped.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn now() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    now.as_secs_f64() * 1e3
}

/// How often it has gone to sleep, and so been woken.
pub fn switches(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// Private dirty memory, proportional and resident size, and code of its own in memory, in KiB.
pub fn memory(pid: i32) -> Option<[u64; 4]> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?.display().to_string();
    let (mut code, mut inside) = (0, false);
    for line in maps.lines() {
        if line.split(' ').nth(1).is_some_and(|rights| rights.len() == 4 && line.contains('-')) {
            inside = line.contains(" r-xp ") && line.ends_with(&exe);
        } else if let (true, Some(size)) = (inside, line.strip_prefix("Rss:")) {
            code += size.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        }
    }
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    Some([kib("Private_Dirty:")?, kib("Pss:")?, kib("Rss:")?, code])
}
