//! Staying resident: how soon a dead server is back, how soon a stop is done,
//! and what it costs to wait.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::figures::{Figures, Table};
use super::peers::Peers;

/// A server that lived for so long was up for every one of them.
const UP: Duration = Duration::from_millis(1300);
/// daemon(1) waits for minutes after the fifth.
const DEATHS: usize = 4;
/// Those that start a server again, the floor first.
const SUPERVISORS: [&str; 8] = [
    "C loop",
    "C loop with a handler",
    "vsrun",
    "daemon",
    "runsv",
    "supervise",
    "s6-supervise",
    "supervise-daemon",
];
/// Those that only wait for it.
const PLAIN: [&str; 2] = ["tini", "dumb-init"];
/// How many of one kind make a crowd.
const CROWD: usize = 500;

#[derive(Default)]
struct Result {
    back: Figures,
    asked: Figures,
    stopped: Figures,
    memory: Option<[u64; 4]>,
    wakeups: Option<u64>,
}

/// The tables; the second value is what the plot shows.
pub fn tables(
    peers: &Peers,
    scratch: &Path,
    passes: usize,
    rest: Duration,
) -> (Vec<Table>, Vec<(String, f64)>) {
    let mut results: BTreeMap<&'static str, Result> = BTreeMap::new();
    for pass in 0..passes {
        let scratch = scratch.join(format!("pass{pass}"));
        let mut residents: Vec<_> = SUPERVISORS
            .into_iter()
            .chain(PLAIN)
            .filter_map(|name| Resident::start(name, peers, scratch.join(name)))
            .collect();
        for _ in 0..DEATHS {
            sleep(UP);
            // Each time another one is the first after the rest.
            residents.rotate_left(1);
            for it in &mut residents {
                let result = results.entry(it.name).or_default();
                if let Some(back) = it.time_of_return() {
                    result.back.add(back);
                }
                if let Some(asked) = it.time_of_restart() {
                    result.asked.add(asked);
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
    let columns = [
        "",
        "back, ms: median (quartiles)",
        "of the loop",
        "restarted on request, ms",
        "stopped, ms: median (quartiles)",
    ];
    let mut table = Table::new("A death to the new server's first instruction; requests", &columns);
    let title = format!("At rest, over {} s", rest.as_secs());
    let columns =
        ["", "private dirty, KiB", "PSS, KiB", "RSS, KiB", "code in memory, KiB", "wake-ups"];
    let mut resting = Table::new(&title, &columns);
    let floor = results.get("C loop").and_then(|result| result.back.median());
    let mut shown = Vec::new();
    for name in SUPERVISORS.into_iter().chain(PLAIN) {
        let result = results.remove(name).unwrap_or_default();
        let back = result.back.median();
        let ratio = back.zip(floor).map(|(own, floor)| format!("{:.2}", own / floor));
        table.row(&[
            name.into(),
            result.back.to_string(),
            ratio.unwrap_or_default(),
            result.asked.to_string(),
            result.stopped.to_string(),
        ]);
        if let (Some(memory), Some(wakeups)) = (result.memory, result.wakeups) {
            let [dirty, pss, rss, code] = memory.map(|kib| kib.to_string());
            resting.row(&[name.into(), dirty, pss, rss, code, wakeups.to_string()]);
        }
        // Beside a second of s6-supervise's nothing else could be seen.
        shown.extend(back.filter(|ms| *ms < 100.0).map(|back| (name.to_owned(), back)));
    }
    (vec![table, resting], shown)
}

/// Hundreds of each kind, each with a server of its own.
pub fn crowds(peers: &Peers, scratch: &Path) -> Table {
    let title = format!("{CROWD} of a kind, each with its server");
    let columns =
        ["", "private dirty of one, KiB", "PSS of one, KiB", "in all, with its server, KiB"];
    let mut table = Table::new(&title, &columns);
    // The first crowd also costs what the kernel keeps for those to come.
    let _ = crowd("C loop", peers, &scratch.join("first"));
    for name in SUPERVISORS.into_iter().chain(PLAIN) {
        // supervise-daemon keeps one state for each name.
        if name != "supervise-daemon" {
            table.row(&crowd(name, peers, &scratch.join(name)));
        }
    }
    table
}

fn crowd(name: &'static str, peers: &Peers, place: &Path) -> [String; 4] {
    let before = in_use();
    let place = |number: usize| place.join(number.to_string());
    let crowd: Vec<_> = (0..CROWD).map_while(|n| Resident::start(name, peers, place(n))).collect();
    sleep(UP);
    let more = in_use().saturating_sub(before);
    let held: Vec<_> = crowd.iter().filter_map(|it| memory(it.pid)).collect();
    let mean = |sum: u64| {
        let mean = sum.checked_div(held.len() as u64);
        mean.map_or("cannot be had here".into(), |mean| mean.to_string())
    };
    let sum = |place: usize| held.iter().map(|it| it[place]).sum();
    [name.into(), mean(sum(0)), mean(sum(1)), mean(more)]
}

/// What processes take of the machine, in KiB: their own pages, page tables, and what the kernel
/// keeps for them (proc_meminfo(5)). MemAvailable would not tell: it leaves out freed pages that a
/// processor keeps at hand, and those are more than a crowd needs.
fn in_use() -> u64 {
    const TAKEN: [&str; 4] = ["AnonPages:", "PageTables:", "KernelStack:", "SUnreclaim:"];
    let told = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let taken = told.lines().filter_map(|line| TAKEN.iter().find_map(|it| line.strip_prefix(it)));
    taken.filter_map(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok()).sum()
}

fn watch(residents: &[Resident], rest: Duration, results: &mut BTreeMap<&'static str, Result>) {
    let switches: Vec<Option<u64>> = residents.iter().map(|it| switches(it.pid)).collect();
    sleep(rest);
    for (it, before) in residents.iter().zip(switches) {
        let result = results.entry(it.name).or_default();
        result.wakeups = self::switches(it.pid).zip(before).map(|(now, then)| now - then);
        result.memory = memory(it.pid);
    }
}

struct Resident {
    name: &'static str,
    pid: i32,
    directory: PathBuf,
}

impl Resident {
    fn start(name: &'static str, peers: &Peers, directory: PathBuf) -> Option<Resident> {
        fs::create_dir_all(&directory).ok()?;
        let run = directory.join("run");
        symlink(super::SERVER, &run).ok()?;
        let path = |file: &str| directory.join(file).into_os_string();
        let program = match name {
            "C loop" | "C loop with a handler" => peers.floor.clone(),
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
    fn time_of_return(&mut self) -> Option<f64> {
        if PLAIN.contains(&self.name) {
            return None;
        }
        let (server, _) = *self.stamps().last()?;
        self.time_of_next(server, Signal::SIGKILL)
    }

    /// Asks for a restart, which also lets the next death be the first again; after how many
    /// milliseconds the next server ran.
    fn time_of_restart(&mut self) -> Option<f64> {
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
    fn time_of_stop(&mut self) -> Option<f64> {
        let asked = Instant::now();
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).ok()?;
        let deadline = asked + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.is_gone() {
                let took = asked.elapsed().as_secs_f64() * 1e3;
                // supervise leaves its server alone; that is no stop.
                let (server, _) = *self.stamps().last()?;
                return (!is_alive(server)).then_some(took);
            }
            sleep(Duration::from_micros(200));
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
