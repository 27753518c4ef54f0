//! What may be typed. Reads nothing but its arguments.

pub mod options;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use lexopt::{Arg, Parser};

use crate::error::Error;
use crate::message::escaped;
use options::{Length, OPTIONS, Opt, help};

/// A parsed command line: what was typed, nothing looked up yet.
#[derive(Debug, Default)]
pub struct Cli {
    /// `-u`
    pub user: Option<OsString>,
    /// `-p`
    pub pidfile: Option<OsString>,
    /// `-r`
    pub root: Option<OsString>,
    /// `-w`
    pub work_dir: Option<OsString>,
    /// `-m`: the monitor pidfile and the handler.
    pub manager: Option<Vec<OsString>>,
    /// `-b`
    pub background: bool,
    /// `-s`
    pub syslog: Option<OsString>,
    /// `-d`: the directory and the keep duration.
    pub logdir: Option<Vec<OsString>>,
    /// The server and its arguments: every word behind `--`.
    pub command: Vec<OsString>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// A server.
    Server(Cli),
    /// A text on standard output: help or version.
    Text(String),
}

/// Parses a command line, the program's own name first. An error says in one line what is wrong.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, Error> {
    let mut words: Vec<OsString> = words.into_iter().skip(1).collect();
    let mark = words.iter().position(|word| word == "--");
    let command = mark.map(|mark| words.split_off(mark).split_off(1));
    let mut parser = Parser::from_args(words);
    let mut cli = Cli::default();
    let mut given: Vec<&Opt> = Vec::new();
    while let Some((option, length)) = next(&mut parser)? {
        let long = option.long;
        if given.contains(&option) {
            return Err(usage(format!("the option '--{long}' cannot be used multiple times")));
        }
        if let Some(other) = given.iter().find(|other| option.excludes == Some(other.long)) {
            let other = other.long;
            return Err(usage(format!("the option '--{long}' cannot be used with '--{other}'")));
        }
        given.push(option);
        let mut values = values_of(option, &mut parser)?;
        match option.short {
            'u' => cli.user = values.pop(),
            'p' => cli.pidfile = values.pop(),
            'r' => cli.root = values.pop(),
            'w' => cli.work_dir = values.pop(),
            'm' => cli.manager = Some(values),
            'b' => cli.background = true,
            's' => cli.syslog = values.pop(),
            'd' => cli.logdir = Some(values),
            'h' => return Ok(Asked::Text(help(length))),
            _ => return Ok(Asked::Text(concat!("vsrun ", env!("CARGO_PKG_VERSION"), "\n").into())),
        }
    }
    match command {
        None => Err(Error::Usage(format!("missing '--': {PUT_MARK} {SYNOPSIS}"))),
        Some(command) if command.is_empty() => {
            Err(Error::Usage(format!("missing command: put it behind '--', as in {SYNOPSIS}")))
        }
        Some(command) => Ok(Asked::Server(Cli { command, ..cli })),
    }
}

const SYNOPSIS: &str = "vsrun [OPTIONS] -- COMMAND [ARG]...";
const PUT_MARK: &str = "put '--' before the server's command, as in";

fn usage(what: String) -> Error {
    Error::Usage(format!("{what}; see vsrun --help"))
}

/// The next option, and whether its letter or its word was typed.
fn next(parser: &mut Parser) -> Result<Option<(&'static Opt, Length)>, Error> {
    if let Some(option) = parser.try_raw_args().and_then(|raw| with_one_hyphen(raw.peek()?)) {
        let long = option.long;
        return Err(usage(format!("unexpected argument '-{long}' found: write '--{long}'")));
    }
    let (found, length, typed) = match parser.next() {
        Ok(None) => return Ok(None),
        Ok(Some(Arg::Short(letter))) => {
            let found = OPTIONS.iter().find(|option| option.short == letter);
            (found, Length::Short, format!("-{letter}"))
        }
        Ok(Some(Arg::Long(word))) => {
            let found = OPTIONS.iter().find(|option| option.long == word);
            (found, Length::Long, format!("--{word}"))
        }
        Ok(Some(Arg::Value(word))) => {
            let word = escaped(&word);
            let error = format!("unexpected argument '{word}' found: {PUT_MARK} {SYNOPSIS}");
            return Err(Error::Usage(error));
        }
        // What is left of a switch that was given a value.
        Err(error) => return Err(usage(escaped(&error.to_string()).to_string())),
    };
    let unknown = || usage(format!("unexpected argument '{}' found", escaped(&typed)));
    found.map(|option| Some((option, length))).ok_or_else(unknown)
}

/// The option whose word was typed behind one hyphen.
fn with_one_hyphen(typed: &OsStr) -> Option<&'static Opt> {
    let word = typed.as_bytes().strip_prefix(b"-")?;
    OPTIONS.iter().find(|option| option.long.as_bytes() == word)
}

/// The values of an option. The first may be part of its word, as in `-pFILE` and `--pidfile=FILE`.
fn values_of(option: &Opt, parser: &mut Parser) -> Result<Vec<OsString>, Error> {
    let missing = || {
        let s = if option.values.len() > 1 { "s" } else { "" };
        let values = option.values.join(" ");
        usage(format!("the option '--{}' needs its value{s}: {values}", option.long))
    };
    let looks_like_an_option = |word: &OsStr| word.len() > 1 && word.as_bytes()[0] == b'-';
    let mut values = Vec::new();
    for _ in option.values {
        let attached = if values.is_empty() { parser.optional_value() } else { None };
        values.push(match attached {
            Some(value) => value,
            None => match parser.value() {
                Ok(value) if option.hyphens || !looks_like_an_option(&value) => value,
                Ok(_) | Err(_) => return Err(missing()),
            },
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Cli, String> {
        let words = ["vsrun"].iter().chain(line).map(OsString::from);
        match parse(words) {
            Ok(Asked::Server(cli)) => Ok(cli),
            Ok(Asked::Text(text)) => panic!("printed {text}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_word_behind_the_first_mark_belongs_to_the_command() {
        let cli = parsed(&["-b", "--", "server", "-b", "--", "--help"]).expect("a server");
        assert_eq!(cli.command, ["server", "-b", "--", "--help"]);
        assert!(cli.background);
    }

    #[test]
    fn a_missing_mark_is_an_error_that_says_where_to_put_it() {
        for line in [&["-u", "www", "server"][..], &["-b"], &["server", "-b"], &["-b", "--"], &[]] {
            let error = parsed(line).expect_err("a usage error");
            assert!(error.contains("'--'") && error.contains(SYNOPSIS), "{error}");
        }
    }

    #[test]
    fn an_option_with_one_hyphen_is_an_error_that_says_how_to_write_it() {
        let error = parsed(&["-user", "nobody", "--", "server"]).expect_err("a usage error");
        assert!(error.contains("write '--user'"), "{error}");
        assert!(parsed(&["-pidfil", "--", "server"]).is_ok());
    }

    #[test]
    fn an_option_given_twice_is_an_error() {
        for twice in [&["-b", "-b"][..], &["-u", "a", "-u", "b"], &["-d", "a", "1", "-d", "b", "1"]]
        {
            let line: Vec<&str> = twice.iter().copied().chain(["--", "server"]).collect();
            let error = parsed(&line).expect_err("a usage error");
            assert!(error.contains("cannot be used multiple times"), "{error}");
        }
    }

    #[test]
    fn an_option_never_takes_the_mark_for_its_value() {
        for line in [&["-u", "--", "server"][..], &["-d", "/log", "--", "server"]] {
            assert!(parsed(line).is_err());
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_the_word() {
        let error = parsed(&["--no\nsuch", "--", "server"]).expect_err("a usage error");
        assert_eq!(error, "unexpected argument '--no\\nsuch' found; see vsrun --help");
    }
}
