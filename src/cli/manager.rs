//! The options of the manager and of the background.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::parsers::{non_empty, pair};
use crate::error::Error;

/// The manager and the background.
#[derive(Debug, Args)]
#[group(skip)]
#[command(next_help_heading = "Manager")]
pub struct ManagerOptions {
    /// Stay resident, and restart the server when it dies
    ///
    /// The manager's process id is written to MONITOR-PIDFILE, and one
    /// manager at a time may hold that file. When the server dies
    /// unexpectedly, the executable HANDLER is run, with variables in its
    /// environment that describe the death: its exit status 0 restarts the
    /// server, anything else ends the manager. SIGHUP to the manager
    /// restarts the server, SIGTERM stops it.
    #[arg(short, long, num_args = 2, value_names = ["MONITOR-PIDFILE", "HANDLER"])]
    #[arg(action = ArgAction::Set, verbatim_doc_comment)]
    pub manager: Option<Vec<OsString>>,

    /// Run in the background
    ///
    /// The caller gets its prompt back when the server is running, or the
    /// error and exit status that the foreground would have given.
    #[arg(short, long, verbatim_doc_comment)]
    pub background: bool,
}

/// The values of `--manager`.
#[derive(Debug)]
pub struct ManagerFiles {
    /// The manager's own pidfile.
    pub pidfile: PathBuf,
    /// The termination handler.
    pub handler: PathBuf,
}

impl TryFrom<Vec<OsString>> for ManagerFiles {
    type Error = Error;

    fn try_from(values: Vec<OsString>) -> Result<ManagerFiles, Error> {
        let [pidfile, handler] = pair(values);
        Ok(ManagerFiles {
            pidfile: non_empty("use monitor pidfile", pidfile)?.into(),
            handler: non_empty("use handler", handler)?.into(),
        })
    }
}
