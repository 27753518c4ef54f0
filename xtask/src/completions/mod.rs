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
    long: Option<String>,
    summary: String,
    values: Vec<Value>,
    /// The spellings of what may not be given along with it: itself and its opposites.
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
    fn spellings(&self) -> Vec<String> {
        let short = self.short.map(|short| format!("-{short}"));
        let long = self.long.as_ref().map(|long| format!("--{long}"));
        short.into_iter().chain(long).collect()
    }
}

fn options() -> Result<Vec<Opt>, String> {
    let mut command = vsrun::cli::command();
    command.build();
    let shown: Vec<&Arg> =
        command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()).collect();
    let mut options: Vec<Opt> =
        shown.iter().map(|arg| option(arg)).collect::<Result<_, String>>()?;
    for (place, arg) in shown.iter().enumerate() {
        options[place].excludes = shown
            .iter()
            .zip(&options)
            .filter(|(other, _)| is_excluded(&command, arg, other))
            .flat_map(|(_, option)| option.spellings())
            .collect();
    }
    Ok(options)
}

/// An option is given once only; the definition states an exclusion on one of its two sides.
fn is_excluded(command: &Command, one: &Arg, other: &Arg) -> bool {
    let states = |arg: &Arg, wanted: &Arg| {
        command.get_arg_conflicts_with(arg).iter().any(|found| found.get_id() == wanted.get_id())
    };
    one.get_id() == other.get_id() || states(one, other) || states(other, one)
}

fn option(arg: &Arg) -> Result<Opt, String> {
    let takes_values = arg.get_action().takes_values();
    let names = arg.get_value_names().filter(|_| takes_values).unwrap_or_default();
    let values = names
        .iter()
        .map(|name| Kind::of(name.as_str()).map(|kind| Value { name: name.to_string(), kind }));
    Ok(Opt {
        short: arg.get_short(),
        long: arg.get_long().map(str::to_owned),
        summary: summary(arg),
        values: values.collect::<Result<_, _>>()?,
        excludes: Vec::new(),
    })
}

fn summary(arg: &Arg) -> String {
    match arg.get_id().as_str() {
        // clap's own words point to the other help, which is no help here.
        "help" => "Print help".to_owned(),
        _ => arg.get_help().map(ToString::to_string).unwrap_or_default(),
    }
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
            let found = options.iter().find(|option| option.long.as_deref() == Some(long));
            found.expect("the option exists").excludes.join(" ")
        };
        assert_eq!(excluded_by("syslog"), excluded_by("logdir"));
        assert_eq!(excluded_by("user"), "-u --user");
    }
}
