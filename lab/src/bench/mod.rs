//! `cargo xtask bench`: compares vsrun with other programs and with a floor, a minimal program in C.
//! All take turns on one core, in one run. The result is a report; nothing fails.

mod figures;
mod growth;
mod peers;
mod plot;
mod resident;
mod residents;
mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use figures::Table;
use peers::Peers;
use residents::DEATHS;
use xtask::steps::{Failure, cargo, cargo_target, root, run as step};

#[derive(Args)]
pub struct Settings {
    /// How often each start is timed
    #[arg(long, default_value_t = 300)]
    rounds: usize,
    /// How often each supervisor is started and stopped, with four deaths of its server each time
    #[arg(long, default_value_t = 10)]
    passes: usize,
    /// For how many seconds the supervisors are measured at rest
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// How often a manager restarts its server
    #[arg(long, default_value_t = 100_000)]
    restarts: usize,
    /// Write the report and the plots into docs/bench
    #[arg(long)]
    write: bool,
    /// Measure in these namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

/// The directory that the programs run in, on a file system in memory.
const SCRATCH: &str = "/run/bench";
/// The server of the supervisors. daemon(1) executes only programs in safe directories.
const SERVER: &str = "/run/bench/server";

/// Measures everything in a process and a mount namespace. All processes end with the namespace.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    if settings.inside {
        return measure(settings);
    }
    step(&mut cargo("build --locked --release --bin vsrun"))?;
    Peers::provide()?;
    let vsrun = Peers::home().join("vsrun");
    fs::copy(cargo_target().join("release/vsrun"), &vsrun)
        .map_err(|error| format!("cannot copy vsrun: {error}"))?;
    // Pages of a file that was just written count as dirty.
    nix::unistd::sync();
    let own = std::env::current_exe().map_err(|error| format!("cannot find xtask: {error}"))?;
    // If this process is killed, the namespace ends too.
    let mut inside = Command::new("setpriv");
    inside.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
    ]);
    inside.arg("--mount-proc").arg(own);
    step(inside.args(std::env::args_os().skip(1)).arg("--inside"))
}

fn measure(settings: &Settings) -> Result<(), Failure> {
    step(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]))?;
    let scratch = Path::new(SCRATCH);
    // supervise-daemon keeps its state there.
    for directory in [
        scratch,
        Path::new("/run/openrc/daemons"),
        Path::new("/run/openrc/options"),
    ] {
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    }
    pin();
    let peers = Peers::provided();
    fs::copy(&peers.floor, SERVER).map_err(|error| format!("cannot make {SERVER}: {error}"))?;
    // s6-setuidgid searches only /usr/bin for the programs that it executes.
    let layers = format!(
        "lowerdir={}:/usr/bin",
        Peers::home().join("peers/usr/bin").display()
    );
    let mut mount = Command::new("mount");
    let _ = step(mount.args(["-t", "overlay", "-o", &layers, "peers", "/usr/bin"]));
    let mut report = vec![preface(settings)];
    let (tables, starts) = start::tables(&peers, scratch, settings.rounds);
    print(&mut report, tables);
    let rest = Duration::from_secs(settings.rest);
    let (tables, returns) = residents::tables(&peers, scratch, settings.passes, rest);
    print(&mut report, tables);
    print(
        &mut report,
        vec![residents::crowds(&peers, scratch), sizes(&peers)],
    );
    print(
        &mut report,
        growth::tables(&peers.vsrun(), scratch, settings.restarts),
    );
    if settings.write {
        let directory = root().join("docs/bench");
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("README.md"), report.join("")))
            .map_err(|error| format!("cannot write {}: {error}", directory.display()))?;
        let title = "start: -u nobody -p FILE -- true, ms (those below setpriv do less)";
        plot::bars(&directory.join("start.svg"), title, &starts)?;
        plot::bars(
            &directory.join("death.svg"),
            "a death to the new server, ms",
            &returns,
        )?;
    }
    Ok(())
}

fn print(report: &mut Vec<String>, tables: Vec<Table>) {
    for table in tables {
        println!("{table}");
        report.push(table.to_string());
    }
}

/// Keeps this process and all that it starts on one core, if that is permitted.
fn pin() {
    let mut cores = CpuSet::new();
    let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let _ = cores
        .set(last)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
}

/// The start of the report: what was measured, where and how often.
fn preface(settings: &Settings) -> String {
    let first_line = |words: &[&str]| {
        let output = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or("unknown")
            .trim()
            .to_owned()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let cores = cpu.matches("processor\t").count();
    let release = first_line(&["uname", "-r"]);
    let Settings {
        rounds,
        passes,
        rest,
        restarts,
        ..
    } = settings;
    format!(
        "# Comparison with other programs\n\n\
         CreatedDir in one run by `cargo xtask bench --rounds {rounds} --passes {passes} --rest {rest} \
         --restarts {restarts} --write`.\nThe programs take turns on one core of a shared virtual \
         machine: ratios are meaningful, absolute times are not.\n{cores} cores of {}, Linux {}, \
         {}.\n\nEach start was timed {rounds} times, and for each supervisor {} deaths, {} requests \
         and {passes} stops.\n\n![start](start.svg)\n\n![death](death.svg)\n\n",
        model.trim_start_matches(['\t', ':', ' ']),
        // The rest is the distribution's.
        release.split('-').next().unwrap_or_default(),
        first_line(&["sh", "-c", ". /etc/os-release; echo \"$PRETTY_NAME\""]),
        passes * DEATHS,
        passes * DEATHS,
    )
}

fn sizes(peers: &Peers) -> Table {
    let mut table = Table::new(
        "Sizes",
        &["program", "bytes", "bytes of its Debian package"],
    );
    let programs = [
        ("vsrun", "vsrun"),
        ("daemon", "daemon"),
        ("runsv", "runit"),
        ("supervise", "daemontools"),
        ("s6-supervise", "s6"),
        ("supervise-daemon", "openrc"),
        ("supervisord", "supervisor"),
        ("daemonize", "daemonize"),
        ("tini", "tini"),
        ("dumb-init", "dumb-init"),
        ("start-stop-daemon", "dpkg"),
        ("setpriv", "util-linux"),
        ("chpst", "runit"),
        ("setuidgid", "daemontools"),
        ("s6-setuidgid", "s6"),
    ];
    let size = |path: Option<PathBuf>| {
        let metadata = path.and_then(|path| fs::metadata(path).ok());
        metadata.map_or("not available".into(), |metadata| {
            metadata.len().to_string()
        })
    };
    for (name, package) in programs {
        let (program, package) = (peers.program(name), peers.package(package));
        table.row(&[name.into(), size(program), size(package)]);
    }
    table.note("supervisord is a Python script. s6-setuidgid executes two other programs.");
    table
}

/// The number of instructions that callgrind counts. `valgrind` is the command that runs it.
pub fn instructions_of(mut valgrind: Command, words: &[String]) -> Option<u64> {
    // No pipes for a debugger: a program that changes its user leaves them behind in /tmp.
    valgrind
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--vgdb=no",
        ])
        .args(words);
    valgrind
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = valgrind.output().ok()?.stderr;
    let output = String::from_utf8_lossy(&output).into_owned();
    let line = output
        .lines()
        .rev()
        .find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}
