//! Staying resident: how soon a dead server is back, how soon a stop is done,
//! and what it costs to wait.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::figures::{Figures, Table};
use super::peers::Peers;

/// A server that lived for so long was up for every one of them.
const UP: Duration = Duration::from_millis(1300);
/// daemon(1) waits for minutes after the fifth.
const DEATHS: usize = 4;

#[derive(Default)]
struct Result {
    back: Figures,
    stopped: Figures,
    memory: Option<[u64; 4]>,
    wakeups: Option<u64>,
}

/// The table; the second value is what the plot shows.
pub fn table(
    peers: &Peers,
    vsrun: &Path,
    scratch: &Path,
    passes: usize,
    rest: Duration,
) -> (Vec<Table>, Vec<(String, f64)>) {
    let mut results: BTreeMap<&'static str, Result> = BTreeMap::new();
    for pass in 0..passes {
        let mut residents = start_all(peers, vsrun, &scratch.join(format!("pass{pass}")));
        for _ in 0..DEATHS {
            sleep(UP);
            for it in &mut residents {
                if let Some(back) = it.time_of_return() {
                    results.entry(it.name).or_default().back.add(back);
                }
            }
        }
        if pass == 0 {
            sleep(UP);
            // What the servers' copies have dirtied is not the supervisors'.
            nix::unistd::sync();
            watch(&residents, rest, &mut results);
        }
        for mut it in residents {
            if let Some(stopped) = it.time_of_stop() {
                results.entry(it.name).or_default().stopped.add(stopped);
            }
        }
    }
    let mut table = Table::new(
        "A death to the new server's first instruction; SIGTERM to the end of both",
        &["", "back, ms: median (quartiles)", "stopped, ms: median (quartiles)"],
    );
    let title = format!("At rest, over {} s", rest.as_secs());
    let columns =
        ["", "private dirty, KiB", "PSS, KiB", "RSS, KiB", "code in memory, KiB", "wake-ups"];
    let mut resting = Table::new(&title, &columns);
    for (name, result) in &results {
        table.row(&[(*name).into(), result.back.to_string(), result.stopped.to_string()]);
        if let (Some(memory), Some(wakeups)) = (result.memory, result.wakeups) {
            let [dirty, pss, rss, code] = memory.map(|kib| kib.to_string());
            resting.row(&[(*name).into(), dirty, pss, rss, code, wakeups.to_string()]);
        }
    }
    let shown = results.iter().filter_map(|(name, it)| Some(((*name).into(), it.back.median()?)));
    let shown = shown.collect();
    (vec![table, resting], shown)
}

fn watch(residents: &[Resident], rest: Duration, results: &mut BTreeMap<&'static str, Result>) {
    let switches: Vec<Option<u64>> = residents.iter().map(|it| switches(it.pid())).collect();
    sleep(rest);
    for (it, before) in residents.iter().zip(switches) {
        let result = results.entry(it.name).or_default();
        result.wakeups = self::switches(it.pid()).zip(before).map(|(now, then)| now - then);
        result.memory = memory(it.pid());
    }
}

struct Resident {
    name: &'static str,
    process: Child,
    directory: PathBuf,
}

fn start_all(peers: &Peers, vsrun: &Path, scratch: &Path) -> Vec<Resident> {
    let plain = ["tini", "dumb-init"];
    let names = ["C loop", "vsrun", "daemon", "runsv", "supervise", "s6-supervise"];
    let names = names.into_iter().chain(["supervise-daemon"]).chain(plain);
    names.filter_map(|name| Resident::start(name, peers, vsrun, scratch)).collect()
}

impl Resident {
    fn start(name: &'static str, peers: &Peers, vsrun: &Path, scratch: &Path) -> Option<Resident> {
        let directory = scratch.join(name.replace(' ', "-"));
        fs::create_dir_all(&directory).ok()?;
        let run = directory.join("run");
        fs::copy(&peers.floor, &run).ok()?;
        let path = |file: &str| directory.join(file).into_os_string();
        let program = match name {
            "C loop" => peers.floor.clone(),
            "vsrun" => vsrun.to_owned(),
            _ => peers.program(name)?,
        };
        let mut command = Command::new(program);
        match name {
            "C loop" => command.arg("loop").arg(&run),
            "vsrun" => command
                .args(["-p".into(), path("pid"), "-m".into(), path("manager")])
                .arg(&peers.handler)
                .arg("--")
                .arg(&run),
            "daemon" => command.args(["-f", "-r", "--chdir"]).arg(&directory).arg("--").arg(&run),
            "supervise-daemon" => command
                .args(["bench", "--start", "--foreground", "--chdir"])
                .arg(&directory)
                .arg("--pidfile")
                .arg(path("pid"))
                .arg(&run),
            "tini" | "dumb-init" => command.arg(&run),
            _ => command.arg(&directory),
        };
        command.current_dir(&directory).env("LD_LIBRARY_PATH", peers.libraries());
        command.env("RC_SVCNAME", "bench");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().ok()?;
        let resident = Resident { name, process, directory };
        let deadline = Instant::now() + Duration::from_secs(3);
        while resident.stamps().is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        // One that cannot run a server here is dropped, and ended by that.
        if resident.stamps().is_empty() { None } else { Some(resident) }
    }

    fn pid(&self) -> i32 {
        self.process.id() as i32
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
    fn time_of_return(&mut self) -> Option<f64> {
        if ["tini", "dumb-init"].contains(&self.name) {
            return None;
        }
        let before = self.stamps();
        let (server, _) = *before.last()?;
        let killed = now();
        kill(Pid::from_raw(server), Signal::SIGKILL).ok()?;
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let after = self.stamps();
            if after.len() > before.len() {
                if self.name == "vsrun" {
                    // A request lets the next death be the first again.
                    let _ = kill(Pid::from_raw(self.pid()), Signal::SIGHUP);
                }
                return Some(after[before.len()].1 - killed);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Asks it to end; after how many milliseconds it had.
    fn time_of_stop(&mut self) -> Option<f64> {
        let asked = Instant::now();
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).ok()?;
        let deadline = asked + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.process.try_wait().ok()?.is_some() {
                let took = asked.elapsed().as_secs_f64() * 1e3;
                // supervise leaves its server alone; that is no stop.
                let (server, _) = *self.stamps().last()?;
                return kill(Pid::from_raw(server), None).is_err().then_some(took);
            }
            sleep(Duration::from_micros(200));
        }
        None
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if let Some((server, _)) = self.stamps().last() {
            let exe = fs::read_link(format!("/proc/{server}/exe")).unwrap_or_default();
            if exe.starts_with(&self.directory) {
                let _ = kill(Pid::from_raw(*server), Signal::SIGKILL);
            }
        }
    }
}

fn now() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    now.as_secs_f64() * 1e3
}

fn switches(pid: i32) -> Option<u64> {
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
