//! A server without a manager: vsrun becomes it, or in the background starts
//! it and is gone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use nix::unistd::{Pid, getpid};

use crate::error::Error;
use crate::logs::{Files, Output};
use crate::message::{escaped, mention};
use crate::pidfile::{Before, Pidfile};
use crate::plan::{Ground, Plan};
use crate::sys::failure::{Failure, Stage, at};
use crate::sys::fds;
use crate::sys::fork::aside;
use crate::sys::spawn::{Handles, exec_here, spawn};

/// Starts the server. Returns 0 when it runs in the background; in the foreground only if it does
/// not run. Nothing is left of a start that failed.
pub fn start(plan: &Plan, null: &OwnedFd) -> Result<u8, Error> {
    let path = plan.pidfile.as_ref();
    let mut pidfile = path.map(|path| Pidfile::open(path, Before::Replaceable)).transpose()?;
    let mut output = Output::open(plan)?;
    let spec = plan.server();
    let failed = |failure| plan.error(("command", &plan.command[0]), &spec, failure);
    let mut announce = |pid| pidfile.as_mut().map_or(Ok(()), |pidfile| pidfile.write(pid));
    if plan.ground == Ground::Background {
        let pid = spawn(&spec, output.of_server(null), announce).map_err(failed)?;
        output.commit();
        pidfile.into_iter().for_each(Pidfile::leave);
        say(plan, &output, "started", pid);
        expire(&mut output, null);
        return Ok(0);
    }
    announce(getpid()).map_err(at(Stage::Announce)).map_err(failed)?;
    say(plan, &output, "starting", getpid());
    expire(&mut output, null);
    let handles = output.of_server(null);
    let copy = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
    let copies = copy(handles.output).and_then(|stream| Ok((stream, copy(handles.work_dir)?)));
    let (stream, work_dir) =
        copies.map_err(fds::errno).map_err(at(Stage::Streams)).map_err(failed)?;
    let handles = Handles {
        input: null.as_fd(),
        output: stream.as_ref().map(AsFd::as_fd),
        work_dir: work_dir.as_ref().map(AsFd::as_fd),
    };
    let execute = || exec_here(&spec, handles);
    Err(failed(match (pidfile, output.into_files()) {
        (None, None) => execute(),
        traces => guarded(traces, execute),
    }))
}

fn say(plan: &Plan, output: &Output, doing: &str, pid: Pid) {
    if let Some(own) = output.of_vsrun() {
        let command = plan.command_line();
        let command = escaped(&command);
        mention(own, output.style(), &format_args!("{doing} server {pid}: {command}"));
    }
}

/// Deletes old log files while the server runs already.
fn expire(output: &mut Output, null: &OwnedFd) {
    match output {
        Output::Files(Files { directory, .. }) if directory.is_expiring() => {
            aside(null.as_fd(), || while directory.expire_some() {});
        }
        Output::Inherited | Output::Syslog(_) | Output::Files(_) => {}
    }
}

/// Executes, and drops `traces` if that fails. Another thread does that, since this one may have
/// given up the root and the privilege that it takes; an exec that succeeds ends it (execve(2)).
fn guarded<T: Send + 'static>(traces: T, execute: impl FnOnce() -> Failure) -> Failure {
    let (failed, heard) = mpsc::channel::<()>();
    let guardian = thread::Builder::new().spawn(move || {
        // What is heard is that the other end is gone.
        let _ = heard.recv();
        drop(traces);
    });
    let guardian = match guardian {
        Ok(guardian) => guardian,
        Err(error) => return at(Stage::Fork)(fds::errno(error)),
    };
    let failure = execute();
    drop(failed);
    // A guardian that panicked has aborted the process.
    let _ = guardian.join();
    failure
}
