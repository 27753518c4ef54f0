//! A server without a manager: vsrun becomes it, or in the background starts
//! it and is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use nix::unistd::{Pid, getpid};

use super::open_pidfile;
use crate::error::Error;
use crate::logs::Output;
use crate::logs::directory::LogDirectory;
use crate::message::{escaped, write_line};
use crate::pidfile::Pidfile;
use crate::plan::{Ground, Plan};
use crate::sys::failure::{Failure, Stage, at};
use crate::sys::fds;
use crate::sys::spawn::{Streams, exec_here, spawn};

/// Starts the server. Returns 0 when it runs in the background; in the foreground only if it does
/// not run. Nothing is left of a start that failed.
pub fn start(plan: &Plan, null: &OwnedFd) -> Result<u8, Error> {
    let mut pidfile = open_pidfile(plan)?;
    let mut output = Output::open(plan)?;
    let spec = plan.server(output.directory().map(LogDirectory::path));
    let failed = |failure| plan.error(("command", &plan.command[0]), &spec, failure);
    let mut announce = |pid| pidfile.as_mut().map_or(Ok(()), |pidfile| pidfile.write(pid));
    if plan.ground == Ground::Background {
        let streams = Streams { input: null.as_fd(), output: output.of_server() };
        let pid = spawn(&spec, streams, announce).map_err(failed)?;
        output.commit();
        say(plan, &output, "started", pid);
        pidfile.into_iter().for_each(Pidfile::leave);
        expire(&mut output);
        return Ok(0);
    }
    announce(getpid()).map_err(at(Stage::Announce)).map_err(failed)?;
    say(plan, &output, "starting", getpid());
    expire(&mut output);
    let stream = output.of_server().map(|stream| stream.try_clone_to_owned()).transpose();
    let stream = stream.map_err(fds::errno).map_err(at(Stage::Streams)).map_err(failed)?;
    let streams = Streams { input: null.as_fd(), output: stream.as_ref().map(AsFd::as_fd) };
    Err(failed(guarded((pidfile, output.into_files()), || exec_here(&spec, streams))))
}

fn say(plan: &Plan, output: &Output, doing: &str, pid: Pid) {
    if let Some(own) = output.of_vsrun() {
        let command = plan.command_line();
        let text = format_args!("{doing} server {pid}: {}", escaped(&command));
        // A log that cannot be written now keeps no server from starting.
        let _ = write_line(own, output.style(), text);
    }
}

fn expire(output: &mut Output) {
    if let Output::Files(files) = output {
        while files.directory.expire_some() {}
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
