//! The options that say how the server is started.

use std::path::PathBuf;

use clap::Args;

use super::parsers::{path, user_spec};
use crate::values::user_spec::UserSpec;

/// How the server is started.
#[derive(Debug, Args)]
#[group(skip)]
#[command(next_help_heading = "Server")]
pub struct ServerOptions {
    /// Run the server as this user
    ///
    /// USER is a name or a numeric id; USER:GROUP sets another primary
    /// group. The supplementary groups are the user's own, never the
    /// caller's, and HOME, USER, LOGNAME and SHELL are the user's. The
    /// handler and logger run as the same user.
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = user_spec())]
    #[arg(allow_hyphen_values = true, verbatim_doc_comment)]
    pub user: Option<UserSpec>,

    /// Write the server's process id to this file
    ///
    /// The file is replaced atomically, before the server's first
    /// instruction and again at each restart. With --manager it is removed
    /// as soon as the server is gone.
    #[arg(short, long, value_name = "FILE", value_parser = path("use pidfile"))]
    #[arg(verbatim_doc_comment)]
    pub pidfile: Option<PathBuf>,

    /// Change the server's root directory
    ///
    /// COMMAND is searched for inside the new root; users and groups are
    /// looked up outside it. Without --work-dir the server starts in the
    /// new root's /.
    #[arg(short, long, value_name = "DIR", value_parser = path("use root directory"))]
    #[arg(verbatim_doc_comment)]
    pub root: Option<PathBuf>,

    /// Start the server in this directory
    ///
    /// With --root the directory is taken relative to the new root.
    #[arg(short, long, value_name = "DIR", value_parser = path("use working directory"))]
    #[arg(verbatim_doc_comment)]
    pub work_dir: Option<PathBuf>,
}
