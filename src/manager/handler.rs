//! The termination handler: what it is told, and the one run it may have at a time.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::machine::Verdict;
use super::report::Death;
use crate::logs::Output;
use crate::plan::Plan;
use crate::sys::child::ChildSpec;
use crate::sys::failure::Failure;
use crate::sys::signals;
use crate::sys::spawn::{Child, launch};
use crate::sys::wait::{Exit, end_of};

/// The handler.
#[derive(Debug)]
pub struct Handler {
    spec: ChildSpec,
    /// How many variables are the same at every death.
    constant: usize,
    size: Size,
    running: Option<Child>,
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
    /// A handler that is told of this server.
    ///
    /// `enters_log_dir`: whether the server's user may enter the log directory.
    pub fn new(plan: &Plan, path: &Path, enters_log_dir: bool) -> Handler {
        let user = plan.user.as_ref().map(|user| user.name.as_os_str());
        let (log_dir, work_dir) = (plan.log_dir(), plan.server_dir(enters_log_dir));
        let manager = std::process::id().to_string();
        let command = plan.command_line();
        let constants = [
            ("VSRUN_SERVER_USER", user),
            ("VSRUN_SERVER_WORKDIR", work_dir.as_deref().map(Path::as_os_str)),
            ("VSRUN_SERVER_PIDFILE", plan.pidfile.as_deref().map(Path::as_os_str)),
            ("VSRUN_MANAGER_PID", Some(OsStr::new(&manager))),
            ("VSRUN_LOGDIR", log_dir.map(Path::as_os_str)),
            ("VSRUN_SERVER_COMMAND", Some(command.as_os_str())),
        ];
        let constants = constants.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let spec = plan.handler(path, constants);
        let constant = spec.program.environment.count();
        Handler { constant, size: Size::Full, spec, running: None }
    }

    /// What it is to be.
    pub fn spec(&self) -> &ChildSpec {
        &self.spec
    }

    /// Its path.
    pub fn name(&self) -> OsString {
        self.spec.program.name.clone()
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
                self.spec.program.environment.retain_inherited(|string| {
                    let names = [&b"PATH="[..], b"TZ=", b"LANG=", b"LC_"];
                    names.iter().any(|name| string.to_bytes().starts_with(name))
                });
                Size::Small
            }
            Size::Small => return false,
        };
        true
    }

    /// Lets the handler go for one death.
    pub fn run(
        &mut self,
        death: &Death,
        restarts: u64,
        null: &impl AsFd,
        output: &Output,
    ) -> Result<(), Failure> {
        self.spec.program.environment.replace_tail(self.constant, |tail| {
            death.for_each_variable(|name, value| tail.set(name, value));
            tail.set("VSRUN_SERVER_RESTARTS", restarts);
        });
        self.running = Some(launch(&self.spec, output.of_handler(null), |_| Ok(()))?);
        Ok(())
    }

    /// What can be read when [`Handler::failure`] may be known.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().and_then(Child::channel)
    }

    /// Why it could not be executed, if that has turned out.
    pub fn failure(&mut self) -> Option<Failure> {
        let failure = self.running.as_mut()?.outcome()?.err()?;
        self.running = None;
        Some(failure)
    }

    /// Sends it and whatever it started in its session's first group a signal.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        let Some(leader) = self.running.as_ref().map(Child::pid) else { return Ok(()) };
        match signals::send_to_group(leader, signal) {
            // One that has just been forked leads no group yet.
            Err(Errno::ESRCH) => signals::send(leader, signal),
            sent => sent,
        }
    }

    /// Its end, where that may come without notice.
    pub fn end(&mut self) -> Option<Exit> {
        let exit = end_of(self.running.as_ref()?.pid())?;
        self.running = None;
        Some(exit)
    }

    /// Takes note that a child has been reaped; the verdict, if it was the handler.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> Option<Verdict> {
        self.running.take_if(|running| running.pid() == pid)?;
        Some(if exit == Exit::Status(0) { Verdict::Restart } else { Verdict::Refuse })
    }
}
