//! `cargo xtask completions`: three hand-written frames around what the options'
//! definition says. Here is what the shells have in common: which options there
//! are, and what each of their values is.

mod bash;
mod fish;
mod zsh;

use vsrun::cli::options::{self, OPTIONS};

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
    short: char,
    long: &'static str,
    summary: &'static str,
    values: Vec<Value>,
    /// The spellings of what may not be given along with it: itself and its opposite.
    excludes: Vec<String>,
}

struct Value {
    name: &'static str,
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
        spellings(self.short, self.long)
    }
}

fn spellings(short: char, long: &str) -> Vec<String> {
    vec![format!("-{short}"), format!("--{long}")]
}

fn options() -> Result<Vec<Opt>, String> {
    OPTIONS.iter().map(option).collect()
}

fn option(option: &options::Opt) -> Result<Opt, String> {
    let values = option.values.iter().map(|name| Ok(Value { name, kind: Kind::of(name)? }));
    // An option is given once only.
    let excluded = |other: &&options::Opt| *other == option || option.excludes == Some(other.long);
    let excludes = OPTIONS.iter().filter(excluded);
    Ok(Opt {
        short: option.short,
        long: option.long,
        summary: option.summary,
        values: values.collect::<Result<_, String>>()?,
        excludes: excludes.flat_map(|other| spellings(other.short, other.long)).collect(),
    })
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
