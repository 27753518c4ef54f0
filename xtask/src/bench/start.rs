//! Starting: from the command to the end of a program that does nothing, and
//! back at the prompt for those that stay in the background.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::figures::{Figures, Table};
use super::peers::Peers;

struct Contender {
    name: &'static str,
    does: &'static str,
    words: Vec<String>,
    figures: Figures,
}

/// Both tables; the second value is what the plot shows.
pub fn tables(
    peers: &Peers,
    vsrun: &Path,
    scratch: &Path,
    rounds: usize,
) -> (Vec<Table>, Vec<(String, f64)>) {
    let pidfile = scratch.join("pid").display().to_string();
    let mut foreground = in_the_foreground(peers, vsrun, &pidfile);
    race(&mut foreground, peers, rounds, &pidfile);
    let mut table = Table::new(
        "Start: `-u nobody -p FILE -- true`",
        &["", "does", "ms: median (quartiles)", "of the floor", "system calls", "instructions"],
    );
    let floor = foreground.first().and_then(|it| it.figures.median());
    for it in &foreground {
        let ratio =
            it.figures.median().zip(floor).map(|(own, floor)| format!("{:.2}", own / floor));
        table.row(&[
            it.name.into(),
            it.does.into(),
            it.figures.to_string(),
            ratio.unwrap_or_default(),
            calls(it, peers, scratch),
            instructions(it, peers, scratch),
        ]);
    }
    let shown = foreground.iter().filter_map(|it| Some((it.name.to_owned(), it.figures.median()?)));
    let shown = shown.collect();
    let mut background = in_the_background(peers, vsrun, &pidfile);
    race(&mut background, peers, rounds, &pidfile);
    let mut prompt = Table::new(
        "Back at the prompt: `-b -p FILE -- true`",
        &["", "does", "ms: median (quartiles)"],
    );
    for it in &background {
        prompt.row(&[it.name.into(), it.does.into(), it.figures.to_string()]);
    }
    (vec![table, prompt], shown)
}

fn in_the_foreground(peers: &Peers, vsrun: &Path, pidfile: &str) -> Vec<Contender> {
    let all = "user, groups, pidfile";
    let user = "user, groups";
    [
        ("floor in C", all, Some(peers.floor.clone()), vec!["start", "nobody", pidfile, TRUE]),
        ("vsrun", all, Some(vsrun.into()), vec!["-u", "nobody", "-p", pidfile, "--", TRUE]),
        (
            "start-stop-daemon",
            all,
            peers.program("start-stop-daemon"),
            vec!["--start", "-q", "-c", "nobody", "-m", "-p", pidfile, "--startas", TRUE],
        ),
        (
            "setpriv",
            user,
            peers.program("setpriv"),
            vec!["--reuid", "nobody", "--regid", "nogroup", "--init-groups", TRUE],
        ),
        ("chpst", "user, one group", peers.program("chpst"), vec!["-u", "nobody", TRUE]),
        ("setuidgid", "user, one group", peers.program("setuidgid"), vec!["nobody", TRUE]),
        ("s6-setuidgid", user, peers.program("s6-setuidgid"), vec!["nobody", TRUE]),
        ("vsrun -u alone", user, Some(vsrun.into()), vec!["-u", "nobody", "--", TRUE]),
    ]
    .into_iter()
    .filter_map(contender)
    .collect()
}

fn in_the_background(peers: &Peers, vsrun: &Path, pidfile: &str) -> Vec<Contender> {
    [
        ("vsrun", "confirms the exec", Some(vsrun.into()), vec!["-b", "-p", pidfile, "--", TRUE]),
        ("daemonize", "confirms nothing", peers.program("daemonize"), vec!["-p", pidfile, TRUE]),
        (
            "start-stop-daemon",
            "confirms nothing",
            peers.program("start-stop-daemon"),
            vec!["--start", "-q", "-b", "-m", "-p", pidfile, "--startas", TRUE],
        ),
        ("daemon", "confirms nothing", peers.program("daemon"), vec!["--", TRUE]),
    ]
    .into_iter()
    .filter_map(contender)
    .collect()
}

const TRUE: &str = "/bin/true";

fn contender(
    (name, does, program, words): (&'static str, &'static str, Option<PathBuf>, Vec<&str>),
) -> Option<Contender> {
    let program = program?.display().to_string();
    let words = [program].into_iter().chain(words.into_iter().map(str::to_owned)).collect();
    Some(Contender { name, does, words, figures: Figures::default() })
}

/// All of them in turn, round by round.
fn race(contenders: &mut [Contender], peers: &Peers, rounds: usize, pidfile: &str) {
    for _ in 0..rounds {
        for it in contenders.iter_mut() {
            let mut command = command(&it.words, peers);
            let begun = Instant::now();
            let good = command.status().is_ok_and(|status| status.success());
            if good {
                it.figures.add(begun.elapsed().as_secs_f64() * 1e3);
            }
            // The next one finds the same directory.
            let _ = fs::remove_file(pidfile);
        }
    }
}

fn command(words: &[String], peers: &Peers) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("LD_LIBRARY_PATH", peers.libraries());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What strace(1) counts, those of `true` left out.
fn calls(it: &Contender, peers: &Peers, scratch: &Path) -> String {
    let counted = |words: &[String]| {
        let log = scratch.join("calls");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&log).args(words);
        strace.env("LD_LIBRARY_PATH", peers.libraries());
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        let lines = fs::read_to_string(log).ok()?;
        Some(lines.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count())
    };
    let all = counted(&it.words).zip(counted(&[TRUE.to_owned()]));
    all.map_or("cannot be had here".into(), |(all, own)| all.saturating_sub(own).to_string())
}

/// What callgrind counts up to an exec that the kernel refuses: a file that is no program.
fn instructions(it: &Contender, peers: &Peers, scratch: &Path) -> String {
    let text = scratch.join("text");
    let made = super::write_program(&text, "no program\n");
    let replaced = |word: &String| match word.as_str() {
        TRUE => text.display().to_string(),
        _ => word.clone(),
    };
    let words: Vec<String> = it.words.iter().map(replaced).collect();
    let counted = made.ok().and_then(|()| {
        super::instructions_of(&words, &peers.libraries(), super::Environment::Inherited)
    });
    counted.map_or("cannot be had here".into(), |number| number.to_string())
}
