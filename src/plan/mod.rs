//! What will be done: a command line with every name looked up and every path
//! made absolute. Reads the system, changes nothing.

mod children;
pub mod command;
pub mod identity;

use std::env;
use std::ffi::{CStr, OsString};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;

use crate::cli::Cli;
use crate::cli::manager::{ManagerFiles, ManagerOptions};
use crate::cli::output::{LogDir, OutputOptions};
use crate::cli::server::ServerOptions;
use crate::error::Error;
use crate::sys::files::entry::Owner;
use crate::sys::files::fds::errno;
use crate::sys::process::exec_strings;
use crate::values::keep::Keep;
use crate::variables;
use command::{printable, quoted};
use identity::User;

/// What will be done.
#[derive(Debug)]
pub struct Plan {
    /// The server's words, its name first.
    pub command: Vec<OsString>,
    /// Whose server it is, where `-u` says so.
    pub user: Option<User>,
    /// The server's pidfile.
    pub pidfile: Option<PathBuf>,
    /// The server's root directory.
    pub root: Option<PathBuf>,
    /// The manager, where one stays.
    pub manager: Option<Management>,
    /// Where output goes.
    pub output: Destination,
    /// Whether vsrun leaves the caller's session.
    pub background: bool,
    work_dir: Option<PathBuf>,
    start_dir: Option<PathBuf>,
    search: OsString,
    inherited: Vec<&'static CStr>,
    umask: Mode,
}

/// What `-m` asks for.
#[derive(Debug)]
pub struct Management {
    /// The manager's own pidfile.
    pub pidfile: PathBuf,
    /// The termination handler.
    pub handler: PathBuf,
}

/// Where output goes.
#[derive(Debug)]
pub enum Destination {
    /// Where it went before.
    Inherited,
    /// Through logger, under this prefix.
    Syslog(OsString),
    /// To files in this directory, old ones being kept so long.
    Files(PathBuf, Keep),
}

/// Where the server works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkDir<'a> {
    /// Where an option says, inside the new root if there is one.
    Named(&'a Path),
    /// In the log directory, or in `/` if the user cannot enter it or it lies outside the new root.
    Logs(&'a Path),
    /// In the `/` of the new root.
    Root(&'a Path),
    /// In the directory in which vsrun was started, as far as that has a path.
    Caller(Option<&'a Path>),
}

impl Plan {
    /// Decides what a command line asks for. `umask` is the one that children get.
    pub fn new(cli: Cli, umask: Mode) -> Result<Plan, Error> {
        // Every option is named here, so that one without an effect does not compile.
        let Cli {
            server,
            manager,
            output,
            command,
        } = cli;
        let ServerOptions {
            user,
            pidfile,
            root,
            work_dir,
        } = server;
        let ManagerOptions {
            manager,
            background,
        } = manager;
        let OutputOptions { syslog, logdir } = output;

        let user = user.as_ref().map(User::resolve).transpose()?;
        let work_dir = match work_dir {
            Some(dir) if root.is_some() => Some(Path::new("/").join(dir)),
            dir => dir.map(absolute).transpose()?,
        };
        Ok(Plan {
            inherited: inherited(user.as_ref()),
            search: env::var_os("PATH").unwrap_or_else(|| command::DEFAULT_PATH.into()),
            start_dir: env::current_dir().ok(),
            pidfile: pidfile.map(absolute).transpose()?,
            manager: manager.map(management).transpose()?,
            output: output_of(syslog, logdir)?,
            background,
            root: root.map(absolute).transpose()?,
            command,
            user,
            work_dir,
            umask,
        })
    }

    /// Who new log files and directories belong to, where it is not the caller.
    pub fn owner(&self) -> Option<Owner> {
        self.user.as_ref().map(|user| user.owner)
    }

    /// The log directory, if there is one.
    pub fn log_dir(&self) -> Option<&Path> {
        match &self.output {
            Destination::Files(dir, _) => Some(dir),
            Destination::Inherited | Destination::Syslog(_) => None,
        }
    }

    /// Where the server works.
    pub fn work_dir(&self) -> WorkDir<'_> {
        match (&self.work_dir, self.log_dir(), &self.root) {
            (Some(dir), _, _) => WorkDir::Named(dir),
            (None, Some(dir), _) => WorkDir::Logs(dir),
            (None, None, Some(root)) => WorkDir::Root(root),
            (None, None, None) => WorkDir::Caller(self.start_dir.as_deref()),
        }
    }

    /// The server's command line, as one text that sh reads back.
    pub fn command_line(&self) -> OsString {
        quoted(&self.command)
    }

    /// The server's command line for a message: likewise, without control characters.
    pub fn shown_command_line(&self) -> String {
        printable(&self.command)
    }
}

fn management(values: Vec<OsString>) -> Result<Management, Error> {
    let ManagerFiles { pidfile, handler } = values.try_into()?;
    Ok(Management {
        pidfile: absolute(pidfile)?,
        handler: absolute(handler)?,
    })
}

fn output_of(
    syslog: Option<OsString>,
    logdir: Option<Vec<OsString>>,
) -> Result<Destination, Error> {
    match (syslog, logdir) {
        (Some(prefix), _) => Ok(Destination::Syslog(prefix)),
        (None, Some(values)) => {
            let LogDir { dir, keep } = values.try_into()?;
            Ok(Destination::Files(absolute(dir)?, keep))
        }
        (None, None) => Ok(Destination::Inherited),
    }
}

/// The variables of socket activation; the descriptors they describe are closed.
const LISTEN: [&[u8]; 4] = [
    b"LISTEN_FDS",
    b"LISTEN_PID",
    b"LISTEN_FDNAMES",
    b"LISTEN_PIDFDID",
];

/// The caller's environment without what is vsrun's own, without the descriptors that are closed
/// (see sd_listen_fds(3)), and without the variables that are the user's.
fn inherited(user: Option<&User>) -> Vec<&'static CStr> {
    let own = user.map(User::environment);
    let is_kept = |string: &&CStr| {
        let name = string
            .to_bytes()
            .split(|byte| *byte == b'=')
            .next()
            .unwrap_or_default();
        !name.starts_with(variables::PREFIX.as_bytes())
            && !LISTEN.contains(&name)
            && own.iter().flatten().all(|(own, _)| name != own.as_bytes())
    };
    exec_strings::inherited().filter(is_kept).collect()
}

/// A path as seen from the directory that vsrun was started in.
fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    if path.is_absolute() {
        return Ok(path);
    }
    let here = env::current_dir()
        .map_err(|error| Error::cannot("find the current directory for", &path, errno(error)))?;
    Ok(here.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Parsed, definition, parse};
    use clap::ArgAction;
    use nix::unistd::geteuid;

    fn plan(line: &[&str]) -> Result<Plan, Error> {
        let words = ["vsrun"].iter().chain(line).map(OsString::from);
        let Parsed::Server(cli) = parse(words)? else {
            panic!("asked for a text")
        };
        Plan::new(cli, Mode::empty())
    }

    fn work_dir(line: &[&str]) -> Option<String> {
        let spec = plan(line).expect("a plan").server();
        spec.work_dir.map(|dir| dir.into_string().expect("text"))
    }

    #[test]
    fn the_working_directory_is_the_first_that_is_named() {
        assert_eq!(work_dir(&["-m", "/m", "/h", "--", "x"]), None);
        assert_eq!(
            work_dir(&["-m", "/m", "/h", "-d", "/log", "1", "--", "x"]),
            None
        );
        assert_eq!(
            work_dir(&["-w", "/usr", "-d", "/log", "1", "--", "x"]),
            Some("/usr".into())
        );
        assert_eq!(
            work_dir(&["-r", "/usr", "-w", "bin", "--", "x"]),
            Some("/bin".into())
        );
        assert_eq!(work_dir(&["-m", "/m", "/h", "-r", "/usr", "--", "x"]), None);
    }

    #[test]
    fn an_empty_value_is_refused_by_what_it_should_have_been() {
        for (line, what) in [
            (&["-p", ""][..], "pidfile"),
            (&["-r", ""], "root directory"),
            (&["-w", ""], "working directory"),
            (&["-r", "/usr", "-w", ""], "working directory"),
            (&["-m", "", "/h"], "monitor pidfile"),
            (&["-m", "/m", ""], "handler"),
            (&["-d", "", "1"], "log directory"),
            (&["-s", ""], "syslog prefix"),
        ] {
            let error = plan(&[line, &["--", "x"]].concat())
                .expect_err("refused")
                .to_string();
            assert_eq!(error, format!("cannot use {what} '': it is empty"));
        }
    }

    #[test]
    fn a_managers_server_finds_back_unless_a_directory_is_named() {
        let here = env::current_dir().expect("a directory");
        let caller_dir =
            |line: &[&str]| plan(line).expect("a plan").caller_dir().map(Path::to_owned);
        assert_eq!(caller_dir(&["-m", "/m", "/h", "--", "x"]), Some(here));
        assert_eq!(
            caller_dir(&["-m", "/m", "/h", "-d", "/log", "1", "--", "x"]),
            None
        );
        assert_eq!(
            caller_dir(&["-m", "/m", "/h", "-r", "/usr", "--", "x"]),
            None
        );
        assert_eq!(
            caller_dir(&["-m", "/m", "/h", "-w", "/usr", "--", "x"]),
            None
        );
    }

    #[test]
    fn relative_paths_start_where_vsrun_does() {
        let here = env::current_dir().expect("a directory");
        let plan = plan(&["-p", "run/x.pid", "-r", "root", "--", "x"]).expect("a plan");
        assert_eq!(plan.pidfile, Some(here.join("run/x.pid")));
        assert_eq!(plan.root, Some(here.join("root")));
    }

    #[test]
    fn a_keep_duration_that_is_none_is_named_in_the_error() {
        let error = plan(&["-d", "/log", "-3d", "--", "x"])
            .expect_err("refused")
            .to_string();
        assert!(
            error.starts_with("cannot use keep duration '-3d': "),
            "{error}"
        );
    }

    #[test]
    fn every_option_changes_the_plan_and_is_given_once() {
        let own_id = geteuid().to_string();
        let samples: [(&str, &[&str]); 8] = [
            ("user", &[&own_id]),
            ("pidfile", &["/pid"]),
            ("root", &["/usr"]),
            ("work-dir", &["/usr"]),
            ("manager", &["/manager", "/handler"]),
            ("background", &[]),
            ("syslog", &["prefix"]),
            ("logdir", &["/log", "1"]),
        ];
        let plan_with = |option: &str, values: &[&str]| {
            let line = [&[option], values, &["--", "x"]].concat();
            format!(
                "{:?}",
                plan(&line).unwrap_or_else(|error| panic!("{option}: {error}"))
            )
        };
        let default = format!("{:?}", plan(&["--", "x"]).expect("a plan"));
        let definition = definition();
        let prints = |action| matches!(action, &ArgAction::Help | &ArgAction::Version);
        for option in definition
            .get_arguments()
            .filter(|option| !prints(option.get_action()))
        {
            let long = option.get_long().expect("a word");
            let sample = samples.iter().find(|(name, _)| *name == long);
            let (_, values) = sample.unwrap_or_else(|| panic!("no values to try --{long} with"));
            let word = format!("--{long}");
            let changed = plan_with(&word, values);
            assert_ne!(changed, default, "{word} has no effect");
            if let Some(short) = option.get_short() {
                assert_eq!(plan_with(&format!("-{short}"), values), changed, "-{short}");
            }
            let once = [&[word.as_str()], *values].concat();
            let twice = [&once[..], &once, &["--", "x"]].concat();
            let error = plan(&twice).expect_err("given twice").to_string();
            assert!(error.contains("cannot be used multiple times"), "{error}");
        }
    }
}
