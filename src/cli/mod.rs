//! What may be typed: one definition, behind the parser, `--help`, the manual page and the
//! completions. Reads nothing but its arguments.

pub mod manager;
pub mod output;
mod parsers;
pub mod server;
mod usage;
mod words;

use std::ffi::OsString;

use clap::error::{ErrorKind, KindFormatter};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};

use crate::error::Error;
use manager::ManagerOptions;
use output::OutputOptions;
use server::ServerOptions;

/// Start a server process properly and keep it running
#[derive(Debug, Parser)]
#[group(skip)]
#[command(name = "vsrun", version, no_binary_name = true)]
#[command(override_usage = usage::SYNOPSIS, after_help = AFTER_HELP)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Cli {
    /// How the server is started.
    #[command(flatten)]
    pub server: ServerOptions,
    /// The manager and the background.
    #[command(flatten)]
    pub manager: ManagerOptions,
    /// Where output goes.
    #[command(flatten)]
    pub output: OutputOptions,
    /// The server and its arguments: every word behind `--`.
    #[arg(skip)]
    pub command: Vec<OsString>,
}

const AFTER_HELP: &str = "Every word behind '--' belongs to the server. vsrun(8) says more.";

/// What the command line asks for.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, and it is taken apart at once"
)]
pub enum Parsed {
    /// A server.
    Server(Cli),
    /// A text on standard output: help or version.
    Text(String),
}

/// The definition of the command line, without the server's command.
pub fn definition() -> Command {
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help);
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version);
    Cli::command()
        .next_help_heading("Help")
        .arg(
            help.help("Print help")
                .long_help("Print help\n\n-h prints a summary."),
        )
        .arg(version.help("Print version"))
}

/// Parses a command line, the program's own name first. An error says in one line what is wrong.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Error> {
    let mut words: Vec<OsString> = words.into_iter().skip(1).collect();
    // What stands behind the mark is not for clap.
    let mark = words.iter().position(|word| word == "--");
    let command = mark.map(|mark| words.split_off(mark).split_off(1));
    let mut definition = definition();
    let words = words::for_clap(words, &definition)?;
    let matched = definition
        .try_get_matches_from_mut(&words)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let mut cli = match matched {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            // The text is made; this formatter leaves clap's texts of errors out of the program.
            let text = error.apply::<KindFormatter>().to_string();
            // clap indents empty lines.
            let lines = text.lines().map(|line| line.trim_end().to_owned() + "\n");
            return Ok(Parsed::Text(lines.collect()));
        }
        Err(error) => return Err(usage::refused(&error, &words)),
    };
    cli.command = command.ok_or_else(usage::missing_mark)?;
    if cli.command.is_empty() {
        return Err(usage::missing_command());
    }
    Ok(Parsed::Server(cli))
}

#[cfg(test)]
mod tests {
    use super::usage::SYNOPSIS;
    use super::*;

    fn parsed(line: &[&str]) -> Result<Cli, String> {
        let words = ["vsrun"].iter().chain(line).map(OsString::from);
        match parse(words) {
            Ok(Parsed::Server(cli)) => Ok(cli),
            Ok(Parsed::Text(text)) => panic!("printed {text}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_word_behind_the_first_mark_belongs_to_the_command() {
        let cli = parsed(&["-b", "--", "server", "-b", "--", "--help"]).expect("a server");
        assert_eq!(cli.command, ["server", "-b", "--", "--help"]);
        assert!(cli.manager.background);
    }

    #[test]
    fn a_missing_mark_is_an_error_that_says_where_to_put_it() {
        for line in [
            &["-u", "www", "server"][..],
            &["-b"],
            &["server", "-b"],
            &["-b", "--"],
            &[],
        ] {
            let error = parsed(line).expect_err("a usage error");
            assert!(
                error.contains("'--'") && error.contains(SYNOPSIS),
                "{error}"
            );
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
        for twice in [
            &["-b", "-b"][..],
            &["-u", "a", "-u", "b"],
            &["-d", "a", "1", "-d", "b", "1"],
        ] {
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
        assert_eq!(
            error,
            "unexpected argument '--no\\nsuch' found; see vsrun --help"
        );
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn help_has_lines_that_fit_and_every_option_a_summary() {
        for word in ["-h", "--help"] {
            let Ok(Parsed::Text(text)) = parse(["vsrun", word].map(OsString::from)) else {
                panic!("{word} prints no text");
            };
            let is_fit = |line: &str| line.len() <= 100 && line.trim_end() == line;
            assert!(text.lines().all(is_fit), "{text}");
        }
        for option in definition().get_arguments() {
            assert!(option.get_help().is_some() && option.get_help_heading().is_some());
        }
    }

    #[test]
    fn a_misspelt_option_is_answered_with_the_right_one() {
        let error = parsed(&["--pidfil", "x", "--", "server"]).expect_err("a usage error");
        let expected = "unexpected argument '--pidfil' found (did you mean '--pidfile'?); \
                        see vsrun --help";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_forgotten_value_is_noticed() {
        for line in [
            &["-p", "-b"][..],
            &["-m", "pid", "-b"],
            &["-d", "logs"],
            &["-w"],
        ] {
            let line = [line, &["--", "server"]].concat();
            let error = parsed(&line).expect_err("a usage error");
            assert!(error.contains("needs its "), "{error}");
        }
        for line in [
            &["-u", "-b"][..],
            &["-s", "-b"],
            &["-d", "-b", "1"],
            &["-p", "-"],
        ] {
            assert!(
                parsed(&[line, &["--", "server"]].concat()).is_ok(),
                "{line:?}"
            );
        }
    }

    #[test]
    fn an_option_with_two_values_needs_both() {
        for line in [&["--logdir=logs"][..], &["-dlogs"], &["-m", "a"]] {
            let error = parsed(&[line, &["--", "server"]].concat()).expect_err("a usage error");
            assert!(error.contains("needs its two values"), "{error}");
        }
    }
}
