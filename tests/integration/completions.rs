//! The committed completions in real shells: what each offers for a command line.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::prelude::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BASH_COMPLETION: &str = "/usr/share/bash-completion/bash_completion";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    /// bash with the bash-completion package loaded.
    Bash,
    /// bash without it.
    BareBash,
    Zsh,
    Fish,
}

impl Shell {
    const ALL: [Shell; 4] = [Shell::Bash, Shell::BareBash, Shell::Zsh, Shell::Fish];

    fn is_here(self) -> bool {
        match self {
            Shell::Bash => require_program("bash") && require_file(BASH_COMPLETION),
            Shell::BareBash => require_program("bash"),
            Shell::Zsh => require_program("zsh"),
            Shell::Fish => require_program("fish"),
        }
    }

    fn command(self, line: &str, sandbox: &Sandbox) -> Command {
        let (program, arguments) = match self {
            Shell::Bash => (
                "bash",
                vec![
                    "--norc",
                    "tests/shells/complete.bash",
                    line,
                    BASH_COMPLETION,
                ],
            ),
            Shell::BareBash => (
                "bash",
                vec!["--norc", "tests/shells/complete.bash", line, ""],
            ),
            Shell::Zsh => ("zsh", vec!["-f", "tests/shells/complete.zsh", line]),
            Shell::Fish => {
                let script = "source completions/vsrun.fish; complete -C $argv[1]";
                ("fish", vec!["--command", script, "--", line])
            }
        };
        let mut command = Command::new(program);
        command.args(arguments);
        if self == Shell::Zsh {
            command.arg(sandbox.path("offered"));
        }
        command
    }

    /// What is offered for a line, without descriptions and sorted.
    fn offers(self, line: &str) -> Vec<String> {
        let sandbox = Sandbox::new(VSRUN);
        let mut command = self.command(line, &sandbox);
        let home = sandbox.path("home");
        fs::create_dir(&home).expect("a home");
        let path = std::env::var_os("PATH").expect("a PATH");
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", home)
            .env("TERM", "dumb");
        let command = command.current_dir(ROOT).stdin(Stdio::null());
        let output = command.output().expect("the shell runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            complaints.is_empty(),
            "{self:?} on '{line}' complains: {complaints}"
        );
        let word = |line: &str| {
            line.split('\t')
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        };
        let mut words: Vec<String> = text.lines().map(word).filter(|w| !w.is_empty()).collect();
        words.sort();
        words.dedup();
        words
    }
}

fn require_file(path: &str) -> bool {
    // The name of a program that is not there, so that the usual line is printed.
    Path::new(path).is_file() || require_program(path)
}

#[track_caller]
fn everywhere(line: &str, is_right: impl Fn(&[String]) -> bool) {
    for shell in Shell::ALL.into_iter().filter(|shell| shell.is_here()) {
        let offered = shell.offers(line);
        assert!(
            is_right(&offered),
            "{shell:?} on '{line}' offers {offered:?}"
        );
    }
}

fn has(offered: &[String], word: &str) -> bool {
    // Shells differ in whether a directory ends in a slash.
    offered
        .iter()
        .any(|offer| offer.trim_end_matches('/') == word)
}

#[test]
fn the_user_option_offers_users() {
    everywhere("vsrun -u roo", |offered| offered == ["root"]);
    everywhere("vsrun -b --user roo", |offered| offered == ["root"]);
    // bash alone breaks words at a colon, and fish offers the whole word again.
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .filter(|s| s.is_here())
    {
        let offered = shell.offers("vsrun -u nobody:daemo");
        let group = offered
            .iter()
            .map(|offer| offer.trim_start_matches("nobody:"));
        assert!(group.eq(["daemon"]), "{shell:?} offers {offered:?}");
    }
}

#[test]
fn the_pidfile_option_offers_files() {
    everywhere("vsrun -p Cargo.", |offered| {
        has(offered, "Cargo.toml") && has(offered, "Cargo.lock")
    });
}

#[test]
fn the_root_and_work_dir_options_offer_directories_only() {
    for option in ["-r", "--root", "-w", "--work-dir"] {
        everywhere(&format!("vsrun {option} "), |offered| {
            has(offered, "src") && !has(offered, "Cargo.toml")
        });
    }
}

#[test]
fn the_manager_option_offers_files_for_both_values() {
    everywhere("vsrun -m Cargo.", |offered| has(offered, "Cargo.toml"));
    everywhere("vsrun -m run.pid Cargo.", |offered| {
        has(offered, "Cargo.toml")
    });
    everywhere("vsrun -b --manager run.pid Cargo.", |offered| {
        has(offered, "Cargo.toml")
    });
}

#[test]
fn the_logdir_option_offers_directories_and_then_durations() {
    everywhere("vsrun -d ", |offered| {
        has(offered, "src") && !has(offered, "Cargo.toml")
    });
    everywhere("vsrun -d logs ", |offered| {
        offered == ["12h", "2m", "4w", "7d"]
    });
    everywhere("vsrun --logdir logs 1", |offered| offered == ["12h"]);
}

#[test]
fn the_syslog_option_offers_nothing() {
    everywhere("vsrun -s ", |offered| offered.is_empty());
}

#[test]
fn a_dash_offers_the_options_and_the_double_dash() {
    everywhere("vsrun --", |offered| {
        let long = [
            "--user",
            "--pidfile",
            "--root",
            "--work-dir",
            "--manager",
            "--background",
        ];
        let rest = ["--syslog", "--logdir", "--help", "--version"];
        long.iter().chain(&rest).all(|option| has(offered, option))
    });
    everywhere("vsrun -b ", |offered| {
        has(offered, "--") && !has(offered, "Cargo.toml")
    });
}

#[test]
fn an_option_is_not_offered_twice_nor_its_opposite() {
    everywhere("vsrun -u root -b --", |offered| {
        has(offered, "--pidfile") && !has(offered, "--user") && !has(offered, "--background")
    });
    everywhere("vsrun -s foo --", |offered| {
        has(offered, "--user") && !has(offered, "--syslog") && !has(offered, "--logdir")
    });
    everywhere("vsrun -d logs 7d --", |offered| !has(offered, "--syslog"));
}

#[test]
fn commands_are_offered_after_the_double_dash() {
    everywhere("vsrun -u root -- chroo", |offered| has(offered, "chroot"));
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .filter(|s| s.is_here())
    {
        let offered = shell.offers("vsrun -b -- ls --almost");
        assert_eq!(offered, ["--almost-all"], "{shell:?}");
    }
    everywhere("vsrun -- nosuchcommand Cargo.", |offered| {
        has(offered, "Cargo.toml")
    });
}

#[test]
fn each_file_is_sound_to_its_shell() {
    for (shell, file) in [
        ("bash", "vsrun.bash"),
        ("zsh", "_vsrun"),
        ("fish", "vsrun.fish"),
    ] {
        if !require_program(shell) {
            continue;
        }
        let path = Path::new(ROOT).join("completions").join(file);
        let output = Command::new(shell)
            .arg("-n")
            .arg(path)
            .output()
            .expect("the shell runs");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaints.is_empty(),
            "{file}: {complaints}"
        );
    }
}
