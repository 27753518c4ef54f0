//! What may be typed: the one definition behind the parser, `--help`, the
//! manual page and the completions. Reads nothing but its arguments.

pub mod values;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, Parser};

use crate::error::Error;
use crate::message::escaped;

/// A parsed command line: what was typed, nothing looked up yet.
#[derive(Debug, Parser)]
#[command(
    name = "vsrun",
    version,
    about = "Start a server process properly and keep it running",
    override_usage = "vsrun [OPTIONS] -- COMMAND [ARG]...",
    after_help = "Every word behind '--' belongs to the server. vsrun(8) tells the whole story.",
    help_expected = true
)]
pub struct Cli {
    /// Run the server as this user
    ///
    /// USER is a name or a numeric id; USER:GROUP sets another primary
    /// group. The supplementary groups are the user's own, never the
    /// caller's, and HOME, USER, LOGNAME and SHELL are the user's. The
    /// handler and logger run as the same user.
    #[arg(
        verbatim_doc_comment,
        short,
        long,
        value_name = "USER[:GROUP]",
        allow_hyphen_values = true
    )]
    pub user: Option<OsString>,

    /// Write the server's process id to this file
    ///
    /// The file is replaced atomically, before the server's first
    /// instruction and again at each restart. With --manager it is removed
    /// as soon as the server is gone.
    #[arg(verbatim_doc_comment, short, long, value_name = "FILE")]
    pub pidfile: Option<OsString>,

    /// Change the server's root directory
    ///
    /// COMMAND is searched for inside the new root; users and groups are
    /// looked up outside it. Without --work-dir the server starts in the
    /// new root's /.
    #[arg(verbatim_doc_comment, short, long, value_name = "DIR")]
    pub root: Option<OsString>,

    /// Start the server in this directory
    ///
    /// With --root the directory is taken relative to the new root.
    #[arg(verbatim_doc_comment, short, long, value_name = "DIR")]
    pub work_dir: Option<OsString>,

    /// Stay resident, and restart the server when it dies
    ///
    /// The manager's process id is written to MONITOR-PIDFILE, and one
    /// manager at a time may hold that file. When the server dies
    /// unexpectedly, the executable HANDLER is run and told about the death
    /// in its environment: its exit status 0 restarts the server, anything
    /// else ends the manager. SIGHUP to the manager restarts the server,
    /// SIGTERM stops it.
    #[arg(verbatim_doc_comment, short, long, action = ArgAction::Set, num_args = 2, value_names = ["MONITOR-PIDFILE", "HANDLER"])]
    pub manager: Option<Vec<OsString>>,

    /// Run in the background
    ///
    /// The caller gets its prompt back when the server is running, or the
    /// error and exit status that the foreground would have given.
    #[arg(verbatim_doc_comment, short, long)]
    pub background: bool,

    /// Send all output to syslog under this prefix
    ///
    /// The standard output and error of vsrun, the server and the handler
    /// go through the command `logger -t PREFIX`, which must be on PATH.
    #[arg(
        verbatim_doc_comment,
        short,
        long,
        value_name = "PREFIX",
        allow_hyphen_values = true,
        conflicts_with = "logdir"
    )]
    pub syslog: Option<OsString>,

    /// Send all output to files in this directory
    ///
    /// The server's output goes to `logfile`, vsrun's own and the handler's
    /// to `vsrun.log`. Older files are renamed to `logfile.N` and
    /// `vsrun.log.N`, and deleted once they are older than KEEP: a number
    /// of hours, days, weeks or calendar months (12h, 7d, 4w, 2m; without a
    /// unit, days).
    #[arg(verbatim_doc_comment, short = 'd', long, action = ArgAction::Set, num_args = 2, value_names = ["DIR", "KEEP"], allow_hyphen_values = true)]
    pub logdir: Option<Vec<OsString>>,

    /// The server and its arguments: every word behind `--`.
    #[arg(skip)]
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

/// The clap definition, for the parser, the manual page and the completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses a command line, the program's own name first. An error says in one line what is wrong.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, Error> {
    let mut options: Vec<OsString> = words.into_iter().collect();
    let mark = options.iter().skip(1).position(|word| word == "--").map(|at| at + 1);
    let command = mark.map(|mark| options.split_off(mark).split_off(1));
    match Cli::try_parse_from(options) {
        Ok(cli) => match command {
            None => Err(Error::Usage(format!("missing '--': {MARK}"))),
            Some(command) if command.is_empty() => {
                Err(Error::Usage(format!("missing command: {MARK}")))
            }
            Some(command) => Ok(Asked::Server(Cli { command, ..cli })),
        },
        Err(refusal) => match refusal.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Asked::Text(refusal.to_string()))
            }
            _ => Err(Error::Usage(one_line(&refusal))),
        },
    }
}

const MARK: &str =
    "put '--' before the server's command, as in vsrun [OPTIONS] -- COMMAND [ARG]...";

fn one_line(refusal: &clap::Error) -> String {
    let text = refusal.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = escaped(first.trim_start_matches("error: ").trim_end()).to_string();
    match refusal.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if !word.starts_with('-') => format!("{first}: {MARK}"),
        _ => format!("{first}; see vsrun --help"),
    }
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
    fn the_definition_is_sound() {
        command().debug_assert();
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
            assert!(error.contains("put '--' before the server's command"), "{error}");
        }
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
