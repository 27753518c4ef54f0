//! Supervisors: the time until a dead server is restarted, the time of a stop, and the memory and
//! wake-ups at rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::figures::{Figures, Table};
use super::peers::Peers;
use super::resident::{PLAIN, Resident, code, switches};
use crate::process::{Memory, kib, memory};

/// After this time every supervisor counts the server as started.
const UP: Duration = Duration::from_millis(1300);
/// After the fifth death daemon(1) waits for minutes.
pub const DEATHS: usize = 4;
/// Programs that restart a server. The first is the floor.
const SUPERVISORS: [&str; 9] = [
    "C loop",
    "C loop with a handler",
    "vsrun",
    "daemon",
    "runsv",
    "supervise",
    "s6-supervise",
    "supervise-daemon",
    "supervisord",
];
/// How many processes of one program are measured together.
const CROWD: usize = 500;

#[derive(Default)]
struct Result {
    back: Figures,
    asked: Figures,
    stopped: Figures,
    memory: Option<Memory>,
    code: Option<u64>,
    wakeups: Option<u64>,
}

/// Returns the tables and the bars of the plot.
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
            // Each time another one is first.
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
            // Pages of files that were just written count as dirty.
            nix::unistd::sync();
            measure_at_rest(&residents, rest, &mut results);
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
    let mut table = Table::new(
        "A death to the new server's first instruction; requests",
        &columns,
    );
    let title = format!("At rest, over {} s", rest.as_secs());
    let columns = [
        "",
        "private dirty, KiB",
        "PSS, KiB",
        "RSS, KiB",
        "code in memory, KiB",
        "wake-ups",
    ];
    let mut resting = Table::new(&title, &columns);
    let floor = results
        .get("C loop")
        .and_then(|result| result.back.median());
    let mut bars = Vec::new();
    for name in SUPERVISORS.into_iter().chain(PLAIN) {
        let Some(result) = results.remove(name) else {
            table.row(&[name.into(), "not available".into()]);
            continue;
        };
        // Without figures the cell stays empty: the program does no such thing.
        let cell = |figures: &Figures| {
            figures
                .median()
                .map_or(String::new(), |_| figures.to_string())
        };
        let back = result.back.median();
        let ratio = back
            .zip(floor)
            .map(|(own, floor)| format!("{:.2}", own / floor));
        table.row(&[
            name.into(),
            cell(&result.back),
            ratio.unwrap_or_default(),
            cell(&result.asked),
            cell(&result.stopped),
        ]);
        if let (Some(memory), Some(code), Some(wakeups)) =
            (result.memory, result.code, result.wakeups)
        {
            let Memory {
                private_dirty,
                proportional,
                resident,
            } = memory;
            let figures = [private_dirty, proportional, resident, code, wakeups];
            let cells = figures.iter().map(u64::to_string);
            resting.row(
                &[name.to_owned()]
                    .into_iter()
                    .chain(cells)
                    .collect::<Vec<_>>(),
            );
        }
        // A bar for the second that s6-supervise takes would make all others too short.
        bars.extend(
            back.filter(|ms| *ms < 100.0)
                .map(|back| (name.to_owned(), back)),
        );
    }
    table.note(
        "A program has no figure for what it does not do: the loops and daemon have no request for a \
         restart,\nsupervise leaves its server running when it ends, tini and dumb-init do not restart \
         a server.",
    );
    (vec![table, resting], bars)
}

/// Measures hundreds of processes of each program, each with its server.
pub fn crowds(peers: &Peers, scratch: &Path) -> Table {
    let title = format!("{CROWD} processes of each program, each with its server");
    let columns = [
        "",
        "private dirty of one, KiB",
        "PSS of one, KiB",
        "in all, with its server, KiB",
    ];
    let mut table = Table::new(&title, &columns);
    // The kernel keeps some memory of the first crowd for the next ones.
    let _ = crowd("C loop", peers, &scratch.join("first"));
    for name in SUPERVISORS.into_iter().chain(PLAIN) {
        if !matches!(name, "supervise-daemon" | "supervisord") {
            table.row(&crowd(name, peers, &scratch.join(name)));
        }
    }
    table.note(
        "supervise-daemon keeps one state for each name, and one supervisord runs many servers, so \
         neither is in\nthis table. \"In all\" is the growth of AnonPages, PageTables, KernelStack and \
         SUnreclaim in /proc/meminfo.\nMemAvailable leaves out freed pages that a processor caches, \
         which are more than these processes need.",
    );
    table
}

fn crowd(name: &'static str, peers: &Peers, directory: &Path) -> [String; 4] {
    let before = in_use();
    let directory = |number: usize| directory.join(number.to_string());
    let crowd: Vec<_> = (0..CROWD)
        .map_while(|n| Resident::start(name, peers, directory(n)))
        .collect();
    sleep(UP);
    let growth = in_use().saturating_sub(before);
    let memory: Vec<Memory> = crowd.iter().filter_map(|it| memory(it.pid)).collect();
    let mean = |sum: u64| {
        let mean = sum.checked_div(memory.len() as u64);
        mean.map_or("not available".into(), |mean| mean.to_string())
    };
    let dirty = memory.iter().map(|memory| memory.private_dirty).sum();
    let proportional = memory.iter().map(|memory| memory.proportional).sum();
    [name.into(), mean(dirty), mean(proportional), mean(growth)]
}

/// The memory that all processes use, in KiB: their own pages, page tables, and the kernel's memory
/// for them (proc_meminfo(5)).
fn in_use() -> u64 {
    const FIELDS: [&str; 4] = ["AnonPages:", "PageTables:", "KernelStack:", "SUnreclaim:"];
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let sizes = text
        .lines()
        .filter_map(|line| FIELDS.iter().find_map(|it| line.strip_prefix(it)));
    sizes.filter_map(kib).sum()
}

fn measure_at_rest(
    residents: &[Resident],
    rest: Duration,
    results: &mut BTreeMap<&'static str, Result>,
) {
    let switches: Vec<Option<u64>> = residents.iter().map(|it| switches(it.pid)).collect();
    sleep(rest);
    for (it, before) in residents.iter().zip(switches) {
        let result = results.entry(it.name).or_default();
        result.wakeups = self::switches(it.pid)
            .zip(before)
            .map(|(now, then)| now - then);
        result.memory = memory(it.pid);
        result.code = code(it.pid);
    }
}
