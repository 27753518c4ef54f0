//! A server without a manager: vsrun becomes it, or in the background starts
//! it and is gone.

use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, close, getpid, pipe2, read, write};

use crate::error::{Error, said};
use crate::logs::Output;
use crate::message::{Messages, escaped};
use crate::pidfile::Pidfile;
use crate::pidfile::claim::open_server_pidfile;
use crate::plan::{Ground, Plan};
use crate::sys::failure::{Refusal, Stage, at};
use crate::sys::fds;
use crate::sys::fork::aside;
use crate::sys::spawn::{exec_here, launch};

/// What a start has made. Dropped before it has succeeded, it takes that away again.
struct Traces {
    pidfile: Option<Pidfile>,
    output: Output,
}

/// Starts the server. Returns 0 when it runs in the background; in the foreground only if it does
/// not run. Nothing is left of a start that failed.
pub fn start(plan: &Plan, null: &OwnedFd) -> Result<u8, Error> {
    // First, since it may make the directory that the pidfile is to stand in.
    let output = Output::open(plan)?;
    let path = plan.pidfile.as_ref();
    let pidfile = path.map(|path| open_server_pidfile(path, None)).transpose()?;
    let mut traces = Traces { pidfile, output };
    let spec = plan.server();
    let failed = |failure| plan.error(&spec, failure);
    let Traces { pidfile, output } = &mut traces;
    let mut announce = |pid| pidfile.as_mut().map_or(Ok(()), |pidfile| pidfile.write(pid));
    if plan.ground == Ground::Background {
        let mut server = launch(&spec, output.of_server(null), announce).map_err(failed)?;
        server.settle().map_err(failed)?;
        output.commit();
        say(plan, output, "started", server.pid());
        drop(expire(output, null));
        traces.pidfile.into_iter().for_each(Pidfile::leave);
        return Ok(0);
    }
    let announced = announce(getpid()).map_err(at(Stage::Announce));
    announced.map_err(|refusal| failed(refusal.into()))?;
    say(plan, output, "starting", getpid());
    let expiry = expire(output, null);
    // What was made can be removed by whoever made it, and that is who executes without `-u`.
    let has_traces = traces.pidfile.is_some() || plan.log_dir().is_some();
    let is_guarded = has_traces && spec.identity.is_some();
    let execute = |traces: &Traces| exec_here(&spec, traces.output.of_server(null));
    let refusal = if is_guarded { guarded(traces, execute) } else { execute(&traces) };
    if let Some(expiry) = expiry {
        // Who waits for it deletes nothing then.
        let _ = write(expiry, &[0]);
    }
    Err(failed(refusal.into()))
}

fn say(plan: &Plan, output: &Output, doing: &str, pid: Pid) {
    let command = plan.command_line();
    tell(output, &format_args!("{doing} server {pid}: {}", escaped(&command)));
}

/// Writes a line where vsrun has a log of its own.
fn tell(output: &Output, text: &dyn Display) {
    if let Some(Ok(mut messages)) = output.of_vsrun().map(|to| Messages::new(to, output.style())) {
        messages.say(text);
    }
}

/// Has old log files deleted when the server runs: when what this returns is closed, by an exec say,
/// and nothing was written to it.
fn expire(output: &mut Output, null: &OwnedFd) -> Option<OwnedFd> {
    output.files().filter(|files| files.directory.is_expiring())?;
    let begun = pipe2(OFlag::O_CLOEXEC).and_then(|(closed, expiry)| {
        aside(null.as_fd(), || {
            // The caller's copy alone is to count. This process ends before it would be closed
            // again.
            let _ = close(expiry.as_raw_fd());
            let mut end = read(&closed, &mut [0]);
            while end == Err(Errno::EINTR) {
                end = read(&closed, &mut [0]);
            }
            if end == Ok(0) {
                expire_all(output);
            }
        })?;
        Ok(expiry)
    });
    if let Err(reason) = &begun {
        tell(output, &format_args!("cannot delete old logs: {}", said(*reason)));
    }
    begun.ok()
}

fn expire_all(output: &mut Output) {
    loop {
        match output.files().map_or(Ok(false), |files| files.directory.expire_some()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(undeleted) => return tell(output, &undeleted),
        }
    }
}

/// Executes, while a second thread waits for what was made. It keeps the privilege that it takes to
/// remove that, should the exec fail; this one gives it up. The root is changed for both: what is
/// removed is reached by descriptors. An exec that succeeds ends the second thread (execve(2)).
/// Nothing may fork from here on.
fn guarded(traces: Traces, execute: impl FnOnce(&Traces) -> Refusal) -> Refusal {
    let traces = Mutex::new(traces);
    // Nothing panics while it is locked: a panic aborts.
    let lock = || traces.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let held = lock();
        let take_back = || *lock() = Traces { pidfile: None, output: Output::Inherited };
        match thread::Builder::new().spawn_scoped(scope, take_back) {
            Ok(_) => execute(&held),
            Err(error) => at(Stage::Fork)(fds::errno(error)),
        }
    })
}
