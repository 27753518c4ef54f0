//! Staying resident: how soon a dead server is back, how soon a stop is done,
//! and what it costs to wait.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::figures::{Figures, Table};
use super::peers::Peers;
use super::resident::{PLAIN, Resident, memory, switches};

/// A server that lived for so long was up for every one of them.
const UP: Duration = Duration::from_millis(1300);
/// daemon(1) waits for minutes after the fifth.
pub const DEATHS: usize = 4;
/// Those that start a server again, the floor first.
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
        let Some(result) = results.remove(name) else {
            table.row(&[name.into(), "not available".into()]);
            continue;
        };
        // Who does no such thing has no figure: supervise leaves its server alone.
        let told =
            |figures: &Figures| figures.median().map_or(String::new(), |_| figures.to_string());
        let back = result.back.median();
        let ratio = back.zip(floor).map(|(own, floor)| format!("{:.2}", own / floor));
        table.row(&[
            name.into(),
            told(&result.back),
            ratio.unwrap_or_default(),
            told(&result.asked),
            told(&result.stopped),
        ]);
        if let (Some(memory), Some(wakeups)) = (result.memory, result.wakeups) {
            let [dirty, pss, rss, code] = memory.map(|kib| kib.to_string());
            resting.row(&[name.into(), dirty, pss, rss, code, wakeups.to_string()]);
        }
        // Beside a second of s6-supervise's nothing else could be seen.
        shown.extend(back.filter(|ms| *ms < 100.0).map(|back| (name.to_owned(), back)));
    }
    table.note(
        "A program has no figure for what it does not do: the loops and daemon have no request for a \
         restart,\nsupervise leaves its server running when it ends, tini and dumb-init do not restart \
         a server.",
    );
    (vec![table, resting], shown)
}

/// Hundreds of each kind, each with a server of its own.
pub fn crowds(peers: &Peers, scratch: &Path) -> Table {
    let title = format!("{CROWD} processes of each program, each with its server");
    let columns =
        ["", "private dirty of one, KiB", "PSS of one, KiB", "in all, with its server, KiB"];
    let mut table = Table::new(&title, &columns);
    // The first crowd also costs what the kernel keeps for those to come.
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

fn crowd(name: &'static str, peers: &Peers, place: &Path) -> [String; 4] {
    let before = in_use();
    let place = |number: usize| place.join(number.to_string());
    let crowd: Vec<_> = (0..CROWD).map_while(|n| Resident::start(name, peers, place(n))).collect();
    sleep(UP);
    let more = in_use().saturating_sub(before);
    let held: Vec<_> = crowd.iter().filter_map(|it| memory(it.pid)).collect();
    let mean = |sum: u64| {
        let mean = sum.checked_div(held.len() as u64);
        mean.map_or("not available".into(), |mean| mean.to_string())
    };
    let sum = |place: usize| held.iter().map(|it| it[place]).sum();
    [name.into(), mean(sum(0)), mean(sum(1)), mean(more)]
}

/// What processes take of the machine, in KiB: their own pages, page tables, and what the kernel
/// keeps for them (proc_meminfo(5)).
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
