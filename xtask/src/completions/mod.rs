//! `cargo xtask completions`: three hand-written frames around what the options'
//! definition says. Here is what the shells have in common: which options there
//! are, and what each of their values is.

mod bash;
mod fish;
mod zsh;

use clap::{Arg, Command};

use crate::generated::{self, Mode};
use crate::steps::Failure;

/// What is offered for the second value of `--logdir`.
const KEEP: &str = "12h 7d 4w 2m";

/// Makes or checks the three files.
pub fn run(mode: Mode) -> Result<(), Failure> {
    let options = options()?;
    let files = [
        ("completions/vsrun.bash", bash::script(&options)),
        ("completions/_vsrun", zsh::script(&options)),
        ("completions/vsrun.fish", fish::script(&options)),
    ];
    for (file, text) in files {
        generated::settle(file, &text, mode, "completions")?;
    }
    Ok(())
}

/// One option as the shells see it.
struct Opt {
    short: Option<char>,
    long: String,
    summary: String,
    values: Vec<Value>,
    /// The spellings of what may not be given along with it: itself and its opposite.
    excludes: Vec<String>,
}

struct Value {
    name: String,
    kind: Kind,
}

/// What a value is, for the purpose of offering some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    File,
    Directory,
    Keep,
    /// Nothing can be offered.
    Free,
}

impl Kind {
    /// The names of values in the options' definition are the vocabulary: a new one needs its line.
    fn of(name: &str) -> Result<Kind, String> {
        match name {
            "USER[:GROUP]" => Ok(Kind::User),
            "FILE" | "MONITOR-PIDFILE" | "HANDLER" => Ok(Kind::File),
            "DIR" => Ok(Kind::Directory),
            "KEEP" => Ok(Kind::Keep),
            "PREFIX" => Ok(Kind::Free),
            _ => Err(format!("no completion is known for a value called {name}")),
        }
    }
}

impl Opt {
    fn new(option: &Arg, definition: &Command) -> Result<Opt, String> {
        // clap gives a switch, too, a name for its value.
        let takes_values = option.get_action().takes_values();
        let names = option
            .get_value_names()
            .filter(|_| takes_values)
            .unwrap_or_default();
        let values = names.iter().map(ToString::to_string).map(|name| {
            Ok(Value {
                kind: Kind::of(&name)?,
                name,
            })
        });
        // An option is given once only. clap has a conflict at one of its two sides.
        let excluded = |other: &&Arg| {
            let is_opposite = |one, other| is_in_conflict(definition, one, other);
            other.get_id() == option.get_id()
                || is_opposite(option, other)
                || is_opposite(other, option)
        };
        let excludes = definition.get_arguments().filter(excluded);
        Ok(Opt {
            short: option.get_short(),
            long: option.get_long().ok_or("an option has no word")?.to_owned(),
            summary: option
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default(),
            values: values.collect::<Result<_, String>>()?,
            excludes: excludes.flat_map(spellings_of).collect(),
        })
    }

    fn spellings(&self) -> Vec<String> {
        spellings(self.short, &self.long)
    }
}

fn is_in_conflict(definition: &Command, option: &Arg, other: &Arg) -> bool {
    let conflicts = definition.get_arg_conflicts_with(option);
    conflicts
        .iter()
        .any(|conflict| conflict.get_id() == other.get_id())
}

fn spellings_of(option: &Arg) -> Vec<String> {
    spellings(option.get_short(), option.get_long().unwrap_or_default())
}

fn spellings(short: Option<char>, long: &str) -> Vec<String> {
    short
        .map(|letter| format!("-{letter}"))
        .into_iter()
        .chain([format!("--{long}")])
        .collect()
}

fn options() -> Result<Vec<Opt>, String> {
    let definition = vsrun::cli::definition();
    let shown = definition
        .get_arguments()
        .filter(|option| !option.is_hide_set());
    shown.map(|option| Opt::new(option, &definition)).collect()
}

/// A word between single quotes, for any of the three shells: `quote` is how one of them is
/// written inside.
fn quoted(text: &str, quote: &str) -> String {
    format!("'{}'", text.replace('\'', quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_up_to_date() {
        if let Err(failure) = run(Mode::Check) {
            panic!("{failure}");
        }
    }

    #[test]
    fn syslog_and_logdir_exclude_each_other_from_both_sides() {
        let options = options().expect("all values are known");
        let excluded_by = |long: &str| {
            let found = options.iter().find(|option| option.long == long);
            found.expect("the option exists").excludes.join(" ")
        };
        assert_eq!(excluded_by("syslog"), excluded_by("logdir"));
        assert_eq!(excluded_by("user"), "-u --user");
    }
}
