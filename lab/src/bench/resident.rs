//! A supervisor and its server: starting, killing, restarting, stopping and measuring it.

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
use crate::process::{is_running, kib};

/// Programs that only wait for their server.
pub const PLAIN: [&str; 2] = ["tini", "dumb-init"];

/// The configuration of supervisord, relative to the current directory.
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

/// A running supervisor.
pub struct Resident {
    /// Its name in the tables.
    pub name: &'static str,
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
            "daemon" => command
                .args(["-f", "-r", "--chdir"])
                .arg(&directory)
                .arg("--")
                .arg(&run),
            "supervise-daemon" => command
                .args(["bench", "--start", "--chdir"])
                .arg(&directory)
                .arg("--pidfile")
                .arg(path("pid"))
                .arg(&run),
            "supervisord" => {
                let settings = directory.join("settings");
                fs::write(&settings, SUPERVISORD).ok()?;
                command
                    .arg(peers.program(name)?)
                    .arg("--configuration")
                    .arg(settings)
            }
            "tini" | "dumb-init" => command.arg(&run),
            _ => command.arg(&directory),
        };
        command.current_dir(&directory).env("RC_SVCNAME", "bench");
        let mut process = command.spawn().ok()?;
        let pid = match name {
            // It goes into the background. This process is the first of the namespace, and so
            // becomes its parent.
            "supervise-daemon" => {
                process.wait().ok()?;
                let id = || fs::read_to_string(path("pid")).ok()?.trim().parse().ok();
                (0..100).find_map(|_| {
                    id().or_else(|| {
                        sleep(Duration::from_millis(10));
                        None
                    })
                })?
            }
            _ => process.id() as i32,
        };
        let resident = Resident {
            name,
            pid,
            directory,
        };
        let deadline = Instant::now() + Duration::from_secs(3);
        while resident.stamps().is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
        // If it cannot run a server here, it is dropped and so killed.
        if resident.stamps().is_empty() {
            None
        } else {
            Some(resident)
        }
    }

    /// The ids of its servers, and when they first ran.
    fn stamps(&self) -> Vec<(i32, f64)> {
        let text = fs::read_to_string(self.directory.join("stamps")).unwrap_or_default();
        let parsed = text.lines().filter_map(|line| {
            let (pid, when) = line.split_once(' ')?;
            Some((pid.parse().ok()?, when.parse::<f64>().ok()? / 1e6))
        });
        parsed.collect()
    }

    /// Kills the server. Returns the milliseconds until the next one ran.
    pub fn time_of_return(&mut self) -> Option<f64> {
        if PLAIN.contains(&self.name) {
            return None;
        }
        let (server, _) = *self.stamps().last()?;
        self.time_of_next(server, Signal::SIGKILL)
    }

    /// Requests a restart. Returns the milliseconds until the next server ran. After a restart on
    /// request vsrun does not delay the one after the next death.
    pub fn time_of_restart(&mut self) -> Option<f64> {
        if self.name == "vsrun" {
            self.time_of_next(self.pid, Signal::SIGHUP)
        } else {
            None
        }
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

    /// Sends SIGTERM. Returns the milliseconds until it ended.
    pub fn time_of_stop(&mut self) -> Option<f64> {
        // By default each sleep is 50 microseconds longer (PR_SET_TIMERSLACK(2const)).
        set_timerslack(1).ok()?;
        let took = self.wait_for_stop();
        // Children inherit it.
        set_timerslack(0).ok()?;
        took
    }

    fn wait_for_stop(&self) -> Option<f64> {
        let start = Instant::now();
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).ok()?;
        let deadline = start + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.has_ended() {
                let took = start.elapsed().as_secs_f64() * 1e3;
                // If the server still runs, it was not stopped.
                let (server, _) = *self.stamps().last()?;
                return (!is_running(server)).then_some(took);
            }
            sleep(Duration::from_micros(20));
        }
        None
    }

    fn has_ended(&self) -> bool {
        let ended = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        !matches!(ended, Ok(WaitStatus::StillAlive))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It is a child of this process and has not been reaped, so no other process has its id.
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

fn now() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    now.as_secs_f64() * 1e3
}

/// How often a process went to sleep, and so was woken.
pub fn switches(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// The code of its program that a process has in memory, in KiB.
pub fn code(pid: i32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe"))
        .ok()?
        .display()
        .to_string();
    let (mut code, mut is_code) = (0, false);
    for line in maps.lines() {
        if line
            .split(' ')
            .nth(1)
            .is_some_and(|rights| rights.len() == 4 && line.contains('-'))
        {
            is_code = line.contains(" r-xp ") && line.ends_with(&exe);
        } else if let (true, Some(size)) = (is_code, line.strip_prefix("Rss:")) {
            code += kib(size).unwrap_or(0);
        }
    }
    Some(code)
}
