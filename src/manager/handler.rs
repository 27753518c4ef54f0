//! The termination handler: what it is told, and the one run it may have at a time.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::machine::Verdict;
use super::report::Death;
use crate::logs::Output;
use crate::plan::Plan;
use crate::sys::failure::Failure;
use crate::sys::signals;
use crate::sys::spawn::{ChildSpec, Streams, spawn};
use crate::sys::wait::Exit;

/// The handler.
#[derive(Debug)]
pub struct Handler {
    spec: ChildSpec,
    /// How many variables are the same at every death.
    constant: usize,
    running: Option<Pid>,
}

impl Handler {
    /// A handler that is told of this server.
    pub fn new(plan: &Plan, path: &Path, server: &ChildSpec, log_dir: Option<&Path>) -> Handler {
        let user = plan.user.as_ref().map(|user| user.name.as_os_str());
        let work_dir = server_dir(server);
        let manager = std::process::id().to_string();
        let command = plan.command_line();
        let constants = [
            ("VSRUN_SERVER_COMMAND", Some(command.as_os_str())),
            ("VSRUN_SERVER_USER", user),
            ("VSRUN_SERVER_WORKDIR", work_dir.as_deref().map(Path::as_os_str)),
            ("VSRUN_SERVER_PIDFILE", plan.pidfile.as_deref().map(Path::as_os_str)),
            ("VSRUN_MANAGER_PID", Some(OsStr::new(&manager))),
            ("VSRUN_LOGDIR", log_dir.map(Path::as_os_str)),
        ];
        let constants = constants.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let spec = plan.handler(path, constants);
        Handler { constant: spec.program.environment.len(), spec, running: None }
    }

    /// Runs the handler for one death.
    pub fn run(
        &mut self,
        death: &Death,
        restarts: u64,
        null: impl AsFd,
        output: &Output,
    ) -> Result<(), Failure> {
        self.spec.program.environment.replace_tail(self.constant, |tail| {
            death.for_each_variable(|name, value| tail.set(name, value));
            tail.set("VSRUN_SERVER_RESTARTS", restarts);
        });
        let streams = Streams { input: null.as_fd(), output: output.of_handler() };
        self.running = Some(spawn(&self.spec, streams, |_| Ok(()))?);
        Ok(())
    }

    /// Sends it and whatever it started in its session's first group a signal.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        self.running.map_or(Ok(()), |leader| signals::send_to_group(leader, signal))
    }

    /// Takes note that a child has been reaped; the verdict, if it was the handler.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> Option<Verdict> {
        self.running.take_if(|running| *running == pid)?;
        Some(if exit == Exit::Status(0) { Verdict::Restart } else { Verdict::Refuse })
    }
}

/// Where the server works, as it is seen from outside its root.
fn server_dir(server: &ChildSpec) -> Option<PathBuf> {
    let path = |text: &CString| PathBuf::from(OsStr::from_bytes(text.to_bytes()));
    match (server.root.as_ref().map(path), server.work_dir.as_ref().map(path)) {
        (Some(root), Some(dir)) => Some(root.join(dir.strip_prefix("/").unwrap_or(&dir))),
        (root, dir) => dir.or(root),
    }
}
