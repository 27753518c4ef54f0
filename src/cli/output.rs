//! The options that say where output goes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::parsers::{keep, non_empty, pair, prefix};
use crate::error::Error;
use crate::values::keep::Keep;

/// Where output goes.
#[derive(Debug, Args)]
#[group(skip)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Send all output to syslog under this prefix
    ///
    /// The standard output and error of vsrun, the server and the handler
    /// go through the command `logger -t PREFIX`, which must be on PATH.
    #[arg(short, long, value_name = "PREFIX", value_parser = prefix())]
    #[arg(
        allow_hyphen_values = true,
        conflicts_with = "logdir",
        verbatim_doc_comment
    )]
    pub syslog: Option<OsString>,

    /// Send all output to files in this directory
    ///
    /// The server's output goes to `logfile`, vsrun's own and that of the
    /// handler to `vsrun.log`. Older files are renamed to `logfile.N` and
    /// `vsrun.log.N`, and deleted once they are older than KEEP: a number
    /// of hours, days, weeks or calendar months (12h, 7d, 4w, 2m; without a
    /// unit, days).
    #[arg(short = 'd', long, num_args = 2, value_names = ["DIR", "KEEP"])]
    #[arg(action = ArgAction::Set, allow_hyphen_values = true, verbatim_doc_comment)]
    pub logdir: Option<Vec<OsString>>,
}

/// The values of `--logdir`.
#[derive(Debug)]
pub struct LogDir {
    /// The directory.
    pub dir: PathBuf,
    /// How long old files are kept there.
    pub keep: Keep,
}

impl TryFrom<Vec<OsString>> for LogDir {
    type Error = Error;

    fn try_from(values: Vec<OsString>) -> Result<LogDir, Error> {
        let [dir, typed] = pair(values);
        Ok(LogDir {
            dir: non_empty("use log directory", dir)?.into(),
            keep: keep(&typed)?,
        })
    }
}
