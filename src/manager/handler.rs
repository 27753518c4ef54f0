//! The termination handler, and the environment that describes a death to it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::event::Verdict;
use super::server::Server;
use super::task::Task;
use crate::death::Death;
use crate::error::Error;
use crate::plan::Plan;
use crate::sys::process::failure::End;
use crate::sys::process::spec::{Descriptors, WorksIn};
use crate::sys::process::wait::Exit;
use crate::variables;

/// The handler.
#[derive(Debug)]
pub struct Handler {
    /// Its program and process.
    pub task: Task,
    /// How many variables are the same at every death.
    constant: usize,
    size: Size,
    /// Where the server works: as planned, or in its root directory.
    work_dir: Option<PathBuf>,
    root: PathBuf,
}

/// How large the handler's environment may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Everything: the caller's variables, the last of vsrun's constant ones being the server's
    /// command line.
    Full,
    /// Without the command line.
    WithoutCommand,
    /// Of the caller's variables only PATH, TZ and those of the locale.
    Small,
}

impl Handler {
    /// A handler for this server.
    pub fn new(plan: &Plan, path: &Path) -> Handler {
        let user = plan.user.as_ref().map(|user| user.name.as_os_str());
        let manager = std::process::id().to_string();
        let command = plan.command_line();
        let constants = [
            (variables::USER, user),
            (
                variables::PIDFILE,
                plan.pidfile.as_deref().map(Path::as_os_str),
            ),
            (variables::MANAGER_PID, Some(OsStr::new(&manager))),
            (variables::LOGDIR, plan.log_dir().map(Path::as_os_str)),
            (variables::COMMAND, Some(command.as_os_str())),
        ];
        let constants = constants
            .iter()
            .filter_map(|(name, value)| Some((*name, (*value)?)));
        let spec = plan.handler(path, constants);
        let constant = spec.program.environment.count();
        let work_dir = plan.server_dir();
        let root = plan.root.clone().unwrap_or_else(|| "/".into());
        Handler {
            constant,
            size: Size::Full,
            work_dir,
            root,
            task: Task::new(spec),
        }
    }

    /// Starts it for a death of the server.
    pub fn start(
        &mut self,
        death: &Death,
        server: &Server,
        descriptors: Descriptors<'_>,
    ) -> Result<(), End> {
        let work_dir = match server.works_in() {
            WorksIn::Planned => self.work_dir.as_deref(),
            WorksIn::Root => Some(self.root.as_path()),
        };
        self.task
            .spec
            .program
            .environment
            .replace_tail(self.constant, |tail| {
                death.for_each_variable(|name, value| tail.set(name, value));
                tail.set(variables::RESTARTS, server.restarts());
                if let Some(dir) = work_dir {
                    tail.set_bytes(variables::WORKDIR, dir.as_os_str());
                }
            });
        self.task.start(descriptors)
    }

    /// Sends it and what it started a signal, as far as that is in its process group.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let sent = self.task.signal_group(signal);
        sent.map_err(|reason| Error::cannot("signal handler", &self.task.spec.program.name, reason))
    }

    /// Makes the environment smaller from now on, where it was more than the kernel takes. False if
    /// it is as small as it gets.
    pub fn shrink(&mut self) -> bool {
        self.size = match self.size {
            Size::Full => {
                self.constant -= 1;
                Size::WithoutCommand
            }
            Size::WithoutCommand => {
                self.task
                    .spec
                    .program
                    .environment
                    .retain_inherited(|string| {
                        let names = [&b"PATH="[..], b"TZ=", b"LANG=", b"LC_"];
                        names.iter().any(|name| string.to_bytes().starts_with(name))
                    });
                Size::Small
            }
            Size::Small => return false,
        };
        true
    }
}

/// The answer of a handler that has ended so.
pub fn verdict(exit: Exit) -> Verdict {
    if exit == Exit::Status(0) {
        Verdict::Restart
    } else {
        Verdict::Refuse
    }
}
