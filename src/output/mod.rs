//! Where output goes: nowhere new, to files, or through logger.

pub mod directory;
mod old_logs;
pub mod rotation;
pub mod syslog;

use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::Error;
use crate::message::{Style, print_error};
use crate::plan::{Destination, Plan};
use crate::sys::files::fds;
use crate::sys::process::spec::Descriptors;
use directory::LogDirectory;
use rotation::Log;
use syslog::Syslog;

/// Where output goes.
#[derive(Debug)]
pub enum Output {
    /// Where it went before.
    Inherited,
    /// To the files of a log directory.
    Files(Box<Files>),
    /// Through logger.
    Syslog(Syslog),
}

/// The log directory with the two files that are written to.
#[derive(Debug)]
pub struct Files {
    /// The directory.
    pub directory: LogDirectory,
    server: OwnedFd,
    vsrun: OwnedFd,
    /// The directory is another one, in which vsrun has no log yet.
    is_lost: bool,
    is_vsrun_log_new: bool,
}

impl Output {
    /// Opens what a plan asks for. Dropped before [`Output::commit`], it leaves
    /// no file and no directory behind.
    pub fn open(plan: &Plan) -> Result<Output, Error> {
        match &plan.output {
            Destination::Inherited => Ok(Output::Inherited),
            Destination::Files(path, keep) => {
                let cannot = |doing| move |reason| Error::cannot(doing, path, reason);
                let mut directory = LogDirectory::open(path, *keep, plan.owner())
                    .map_err(|reason| Error::cannot_open("open log directory", path, reason))?;
                if plan.manager.is_some() {
                    directory.lock();
                }
                directory.list().map_err(cannot("list log directory"))?;
                let mut create = |log| {
                    directory
                        .rotate(log)
                        .map_err(cannot("create a log file in"))
                };
                let (vsrun, server) = (create(Log::Vsrun)?, create(Log::Server)?);
                let files = Files {
                    directory,
                    server,
                    vsrun,
                    is_lost: false,
                    is_vsrun_log_new: false,
                };
                Ok(Output::Files(Box::new(files)))
            }
            Destination::Syslog(_) => {
                if !syslog::has_daemon() {
                    let socket = syslog::SOCKET;
                    print_error(&format_args!(
                        "no syslog daemon listens at {socket}: output is lost"
                    ));
                }
                let cannot = |reason| Error::cannot("open a pipe to logger", "", reason);
                Ok(Output::Syslog(Syslog::open(plan.owner()).map_err(cannot)?))
            }
        }
    }

    /// The start has succeeded: what was made stays.
    pub fn commit(&mut self) {
        if let Some(files) = self.files() {
            files.directory.commit();
        }
    }

    /// Takes the notices for the administrator; each is returned once.
    pub fn take_notices(&mut self) -> Vec<String> {
        self.files()
            .map(|files| files.directory.take_notices())
            .unwrap_or_default()
    }

    /// What the server starts from.
    pub fn of_server(&self) -> Descriptors<'_> {
        let (output, work_dir) = match self {
            Output::Inherited => (None, None),
            Output::Files(files) => (
                Some(files.server.as_fd()),
                Some(files.directory.directory().as_fd()),
            ),
            Output::Syslog(syslog) => (Some(syslog.output()), None),
        };
        Descriptors {
            input: fds::null(),
            output,
            work_dir,
        }
    }

    /// What the handler starts from: the log directory, or the manager's working directory.
    pub fn of_handler(&self) -> Descriptors<'_> {
        let work_dir = match self {
            Output::Files(files) => Some(files.directory.directory().as_fd()),
            Output::Inherited | Output::Syslog(_) => None,
        };
        Descriptors {
            input: fds::null(),
            output: self.of_vsrun(),
            work_dir,
        }
    }

    /// Where vsrun's own lines go.
    pub fn of_vsrun(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Output::Inherited => None,
            Output::Files(files) => Some(files.vsrun.as_fd()),
            Output::Syslog(syslog) => Some(syslog.output()),
        }
    }

    /// How vsrun's own lines begin there.
    pub fn style(&self) -> Style {
        match self {
            Output::Inherited | Output::Syslog(_) => Style::Plain,
            Output::Files(_) => Style::Stamped,
        }
    }

    /// The log files, if that is where it goes.
    pub fn files(&mut self) -> Option<&mut Files> {
        match self {
            Output::Files(files) => Some(files),
            Output::Inherited | Output::Syslog(_) => None,
        }
    }

    /// The pipe to logger, if that is where it goes.
    pub fn syslog(&mut self) -> Option<&mut Syslog> {
        match self {
            Output::Syslog(syslog) => Some(syslog),
            Output::Inherited | Output::Files(_) => None,
        }
    }
}

impl Files {
    /// Opens new logs for the server's next life: in the directory that the path leads to now, and
    /// one for vsrun if its own is lost. What fails leaves the old files in use.
    pub fn renew(&mut self) -> Result<(), Error> {
        let mut renewed = self.renew_at_path();
        // Removed after it was opened, or stale.
        if matches!(renewed, Err(Errno::ENOENT | Errno::ESTALE)) {
            renewed = self.renew_at_path();
        }
        // Only a start that fails takes back what it made.
        self.directory.commit();
        let cannot =
            |reason| Error::cannot("renew the log files in", self.directory.path(), reason);
        renewed.map_err(cannot)
    }

    /// Whether vsrun's log is another file since this was asked last.
    pub fn is_vsrun_log_new(&mut self) -> bool {
        mem::take(&mut self.is_vsrun_log_new)
    }

    fn renew_at_path(&mut self) -> Result<(), Errno> {
        let followed = self.follow_path();
        self.directory.list()?;
        let vsrun = self.restore_vsrun_log();
        let server = self
            .directory
            .rotate(Log::Server)
            .map(|file| self.server = file);
        followed.and(vsrun).and(server)
    }

    /// Takes up the directory that the path leads to now.
    fn follow_path(&mut self) -> Result<(), Errno> {
        if self.directory.follow_path()? {
            self.is_lost = true;
            self.directory.directory().enter()?;
        }
        Ok(())
    }

    /// Opens a log for vsrun if its own is in another directory or was removed.
    fn restore_vsrun_log(&mut self) -> Result<(), Errno> {
        if self.is_lost || self.directory.has_lost(Log::Vsrun, &self.vsrun)? {
            self.vsrun = self.directory.rotate(Log::Vsrun)?;
            self.is_lost = false;
            self.is_vsrun_log_new = true;
        }
        Ok(())
    }
}
