//! Output, and how costs grow with the number of old logs, managers and restarts.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::figures::{Figures, Table};
use crate::process::{Memory, memory};
use crate::scratch::write_program;

const FLOOD: &str = "dd if=/dev/zero bs=65536 count=4096 2>/dev/null";
const LINES: &str = "seq 1000000";

/// The tables of this file.
pub fn tables(vsrun: &Path, scratch: &Path, many: usize) -> Vec<Table> {
    vec![
        output(vsrun, scratch),
        old_logs(vsrun, scratch),
        managers(vsrun, scratch),
        restarts(vsrun, scratch, many),
    ]
}

fn output(vsrun: &Path, scratch: &Path) -> Table {
    let title = "Output: 256 MiB to a file, a million lines to a logger that discards them";
    let mut table = Table::new(title, &["", "ms: median (quartiles)"]);
    let logger = scratch.join("logger");
    // If it fails, the row has no figures.
    let _ = write_program(&logger, "#!/bin/sh\nexec cat >/dev/null\n");
    let (own, logs) = (vsrun.display(), scratch.join("logs"));
    let file = scratch.join("file");
    let lines = [
        (
            "`-d`",
            format!("{own} -d {} 1h -- sh -c '{FLOOD}'", logs.display()),
        ),
        (
            "`cmd > file`",
            format!("sh -c '{FLOOD}' >{}", file.display()),
        ),
        ("`-s`", format!("{own} -s bench -- sh -c '{LINES}'")),
        ("`cmd \\| logger`", format!("sh -c '{LINES}' | logger")),
    ];
    let mut figures = [const { None::<Figures> }; 4];
    for _ in 0..7 {
        for ((_, line), figures) in lines.iter().zip(&mut figures) {
            let path = std::env::var("PATH").unwrap_or_default();
            let mut sh = Command::new("sh");
            sh.args(["-c", line])
                .env("PATH", format!("{}:{path}", scratch.display()));
            let start = Instant::now();
            if sh
                .stdin(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
            {
                let figures = figures.get_or_insert_with(Figures::default);
                figures.add(start.elapsed().as_secs_f64() * 1e3);
            }
            // Seven logs would need 1.8 GB of memory.
            let _ = fs::remove_dir_all(&logs);
        }
    }
    for ((name, _), figures) in lines.iter().zip(figures) {
        table.row(&[(*name).into(), figures.unwrap_or_default().to_string()]);
    }
    table
}

fn old_logs(vsrun: &Path, scratch: &Path) -> Table {
    let mut table = Table::new(
        "Start with old logs: `-d DIR 1d -- true`",
        &["old logs", "ms: median (quartiles)"],
    );
    for count in [1, 1_000, 100_000] {
        let logs = scratch.join(format!("old{count}"));
        let made = fs::create_dir(&logs).and_then(|()| {
            (1..=count).try_for_each(|n| File::create(logs.join(format!("logfile.{n}"))).map(drop))
        });
        let mut figures = Figures::default();
        for _ in 0..5 {
            let mut command = Command::new(vsrun);
            command
                .arg("-d")
                .arg(&logs)
                .args(["1d", "--", "/bin/true"])
                .stdin(Stdio::null());
            let start = Instant::now();
            if made.is_ok() && command.status().is_ok_and(|status| status.success()) {
                figures.add(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        table.row(&[count.to_string(), figures.to_string()]);
    }
    table
}

/// Managers of a server that sleeps. They are stopped when this is dropped.
struct Managers(Vec<std::process::Child>);

impl Managers {
    fn start(vsrun: &Path, scratch: &Path, count: usize) -> Managers {
        let start = |number: usize| {
            let mut vsrun = Command::new(vsrun);
            vsrun
                .arg("-p")
                .arg(scratch.join(format!("{count}-{number}.pid")));
            vsrun
                .arg("-m")
                .arg(scratch.join(format!("{count}-{number}.manager")));
            vsrun.args(["/bin/true", "--", "/bin/sleep", "1000"]);
            vsrun
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        };
        Managers((0..count).filter_map(start).collect())
    }
}

impl Drop for Managers {
    fn drop(&mut self) {
        for manager in &self.0 {
            // It may have ended, and its server with it.
            let _ = kill(Pid::from_raw(manager.id() as i32), Signal::SIGTERM);
        }
        for manager in &mut self.0 {
            let _ = manager.wait();
        }
    }
}

fn managers(vsrun: &Path, scratch: &Path) -> Table {
    let columns = ["managers", "private dirty of one, KiB", "PSS of one, KiB"];
    let mut table = Table::new("Many managers", &columns);
    for count in [1, 10, 100, 1000] {
        let managers = Managers::start(vsrun, scratch, count);
        sleep(Duration::from_secs(3));
        let memory: Vec<Memory> = managers
            .0
            .iter()
            .filter_map(|manager| memory(manager.id() as i32))
            .collect();
        let mean = |of: fn(&Memory) -> u64| {
            let sum: u64 = memory.iter().map(of).sum();
            (sum / memory.len().max(1) as u64).to_string()
        };
        table.row(&[
            count.to_string(),
            mean(|memory| memory.private_dirty),
            mean(|memory| memory.proportional),
        ]);
    }
    table
}

fn restarts(vsrun: &Path, scratch: &Path, many: usize) -> Table {
    let columns = [
        "restarts so far",
        "ms for one (mean since the row above)",
        "private dirty, KiB",
        "descriptors",
    ];
    let mut table = Table::new("Restarts by SIGHUP", &columns);
    let managers = Managers::start(vsrun, scratch, 2);
    let Some(manager) = managers.0.first() else {
        return table;
    };
    let (pid, pidfile) = (manager.id() as i32, scratch.join("2-0.pid"));
    // The id is in the pidfile before the server is executed.
    let server = || {
        let id = fs::read_to_string(&pidfile).ok()?;
        let name = fs::read_to_string(format!("/proc/{}/comm", id.trim())).ok()?;
        (name == "sleep\n").then_some(id)
    };
    sleep(Duration::from_millis(500));
    for tenth in 1..=10 {
        let start = Instant::now();
        for _ in 0..many / 10 {
            let old = server();
            let _ = kill(Pid::from_raw(pid), Signal::SIGHUP);
            let deadline = Instant::now() + Duration::from_secs(5);
            while server().is_none_or(|now| Some(now) == old) && Instant::now() < deadline {
                sleep(Duration::from_micros(100));
            }
        }
        let each = start.elapsed().as_secs_f64() * 1e3 / (many / 10) as f64;
        // Until the server is executed, it shares the manager's pages.
        sleep(Duration::from_millis(200));
        let dirty = memory(pid).map_or(0, |memory| memory.private_dirty);
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let done = (tenth * (many / 10)).to_string();
        table.row(&[
            done,
            format!("{each:.2}"),
            dirty.to_string(),
            descriptors.to_string(),
        ]);
    }
    table
}
