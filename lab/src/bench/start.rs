//! Starts of a program that does nothing: in the foreground until its end, in the background until
//! the prompt is back.

use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::wait;
use nix::unistd::Pid;

use super::figures::{Figures, Table};
use super::peers::Peers;

/// A program with its arguments.
struct Contender {
    name: &'static str,
    does: &'static str,
    program: &'static str,
    words: Vec<String>,
    figures: Figures,
}

/// Returns the tables and the bars of the plot.
pub fn tables(peers: &Peers, scratch: &Path, rounds: usize) -> (Vec<Table>, Vec<(String, f64)>) {
    let pidfile = scratch.join("pid").display().to_string();
    let mut foreground = in_the_foreground(peers, &pidfile);
    take_turns(&mut foreground, peers, rounds, &pidfile);
    let mut table = Table::new(
        "Start: `-u nobody -p FILE -- true`",
        &[
            "",
            "does",
            "ms: median (quartiles)",
            "of the floor",
            "system calls",
            "instructions",
        ],
    );
    let of_floor = ratios(&foreground);
    for it in &foreground {
        table.row(&[
            it.name.into(),
            it.does.into(),
            it.figures.to_string(),
            of_floor(it),
            calls(it, peers, scratch),
            instructions(it, peers, scratch),
        ]);
    }
    let bars = foreground
        .iter()
        .filter_map(|it| Some((it.name.to_owned(), it.figures.median()?)));
    let bars = bars.collect();
    let mut background = in_the_background(peers, &pidfile);
    take_turns(&mut background, peers, rounds, &pidfile);
    let mut prompt = Table::new(
        "Back at the prompt: `-b -p FILE -- true`",
        &["", "does", "ms: median (quartiles)", "of the floor"],
    );
    let of_floor = ratios(&background);
    for it in &background {
        prompt.row(&[
            it.name.into(),
            it.does.into(),
            it.figures.to_string(),
            of_floor(it),
        ]);
    }
    (vec![table, prompt], bars)
}

/// Returns a function for a median divided by the first one's.
fn ratios(contenders: &[Contender]) -> impl Fn(&Contender) -> String {
    let floor = contenders.first().and_then(|it| it.figures.median());
    move |it| {
        let ratio = it
            .figures
            .median()
            .zip(floor)
            .map(|(own, floor)| own / floor);
        ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
    }
}

fn in_the_foreground(peers: &Peers, pidfile: &str) -> Vec<Contender> {
    let all = "user, groups, pidfile";
    let user = "user, groups";
    let one = "user, one group";
    let ids = [
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--init-groups",
        TRUE,
    ];
    let ssd = [
        "--start",
        "-q",
        "-c",
        "nobody",
        "-m",
        "-p",
        pidfile,
        "--startas",
        TRUE,
    ];
    let contender =
        |name, does, program, words: &[&str]| Contender::new(peers, (name, does), program, words);
    let contenders = [
        contender(
            "floor in C",
            all,
            "floor",
            &["start", "nobody", pidfile, TRUE],
        ),
        contender(
            "vsrun",
            all,
            "vsrun",
            &["-u", "nobody", "-p", pidfile, "--", TRUE],
        ),
        contender("start-stop-daemon", all, "start-stop-daemon", &ssd),
        contender("setpriv", user, "setpriv", &ids),
        contender(
            "vsrun -u alone",
            user,
            "vsrun",
            &["-u", "nobody", "--", TRUE],
        ),
        contender("s6-setuidgid", user, "s6-setuidgid", &["nobody", TRUE]),
        contender("chpst", one, "chpst", &["-u", "nobody", TRUE]),
        contender("setuidgid", one, "setuidgid", &["nobody", TRUE]),
    ];
    contenders.into_iter().flatten().collect()
}

fn in_the_background(peers: &Peers, pidfile: &str) -> Vec<Contender> {
    let (confirms, not) = ("confirms the exec", "confirms nothing");
    let ssd = [
        "--start",
        "-q",
        "-b",
        "-m",
        "-p",
        pidfile,
        "--startas",
        TRUE,
    ];
    let supervised = ["bench", "--start", "--pidfile", pidfile, TRUE];
    let contender =
        |name, does, program, words: &[&str]| Contender::new(peers, (name, does), program, words);
    let contenders = [
        contender(
            "floor in C",
            confirms,
            "floor",
            &["background", pidfile, TRUE],
        ),
        contender(
            "vsrun",
            confirms,
            "vsrun",
            &["-b", "-p", pidfile, "--", TRUE],
        ),
        contender("daemonize", not, "daemonize", &["-p", pidfile, TRUE]),
        contender("start-stop-daemon", not, "start-stop-daemon", &ssd),
        contender("daemon", not, "daemon", &["--", TRUE]),
        contender(
            "supervise-daemon",
            "stays, confirms nothing",
            "supervise-daemon",
            &supervised,
        ),
    ];
    contenders.into_iter().flatten().collect()
}

const TRUE: &str = "/bin/true";

impl Contender {
    fn new(
        peers: &Peers,
        (name, does): (&'static str, &'static str),
        program: &'static str,
        words: &[&str],
    ) -> Option<Contender> {
        let path = peers.program(program)?.display().to_string();
        let words = [path]
            .into_iter()
            .chain(words.iter().map(|word| (*word).to_owned()))
            .collect();
        Some(Contender {
            name,
            does,
            program,
            words,
            figures: Figures::default(),
        })
    }
}

/// Times all of them in turn, each time with another one first.
fn take_turns(contenders: &mut [Contender], peers: &Peers, rounds: usize, pidfile: &str) {
    for _ in 0..rounds {
        contenders.rotate_left(1);
        for it in contenders.iter_mut() {
            let mut command = peers.command(it.program, &it.words[0]);
            command.args(&it.words[1..]).env("RC_SVCNAME", "bench");
            let start = Instant::now();
            let succeeded = command.status().is_ok_and(|status| status.success());
            let took = start.elapsed().as_secs_f64() * 1e3;
            if succeeded {
                it.figures.add(took);
            }
            clean_up(it, pidfile);
        }
    }
    contenders.rotate_right(rounds % contenders.len().max(1));
}

/// Removes the pidfile and waits for all processes to end. They are children of this process,
/// because it is the first of its namespace.
fn clean_up(it: &Contender, pidfile: &str) {
    if it.program == "supervise-daemon" {
        let id = fs::read_to_string(pidfile)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(id) = id {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
    while wait().is_ok() {}
    let _ = fs::remove_file(pidfile);
}

/// The number of system calls that strace(1) counts, without those of `true`.
fn calls(it: &Contender, peers: &Peers, scratch: &Path) -> String {
    let count = |words: &[String]| {
        let log = scratch.join("calls");
        let mut strace = peers.command(it.program, "strace");
        strace
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .args(words)
            .status()
            .ok()?;
        let lines = fs::read_to_string(log).ok()?;
        Some(
            lines
                .lines()
                .filter(|line| line.contains('(') && !line.contains("resumed>"))
                .count(),
        )
    };
    let all = count(&it.words).zip(count(&[TRUE.to_owned()]));
    all.map_or("not available".into(), |(all, own)| {
        all.saturating_sub(own).to_string()
    })
}

/// The number of instructions up to an exec that fails, because the file is not executable.
fn instructions(it: &Contender, peers: &Peers, scratch: &Path) -> String {
    let text = scratch.join("text");
    let written = fs::write(&text, "no program\n");
    let replaced = |word: &String| match word.as_str() {
        TRUE => text.display().to_string(),
        _ => word.clone(),
    };
    let words: Vec<String> = it.words.iter().map(replaced).collect();
    let valgrind = peers.command(it.program, "valgrind");
    let counted = written
        .ok()
        .and_then(|()| super::instructions_of(valgrind, &words));
    counted.map_or("not available".into(), |number| number.to_string())
}
