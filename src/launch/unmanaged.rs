//! A server without a manager: vsrun becomes it, or in the background starts
//! it and is gone.

use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, close, getpid, pipe2, read, write};

use crate::error::{Error, strerror};
use crate::limits;
use crate::message::Messages;
use crate::output::Output;
use crate::pidfile::Pidfile;
use crate::pidfile::claim::open_server_pidfile;
use crate::plan::Plan;
use crate::sys::clock::Moment;
use crate::sys::files::fds;
use crate::sys::process::failure::{Refusal, Stage, at};
use crate::sys::process::fork::{adopts_orphans, run_orphan};
use crate::sys::process::spawn::{Held, exec_here, spawn};

/// What a start has made. Dropped before it has succeeded, it takes that away again.
struct StartRollback {
    pidfile: Option<Pidfile>,
    output: Output,
}

impl StartRollback {
    /// Writes the id of the process that is to be the server.
    fn write_pidfile(&mut self, pid: Pid) -> Result<(), Error> {
        let Some(pidfile) = &mut self.pidfile else {
            return Ok(());
        };
        let written = pidfile.write(pid);
        written.map_err(|reason| Error::cannot("write pidfile", pidfile.path(), reason))
    }
}

/// Starts the server. Returns 0 when it runs in the background; in the foreground only if it does
/// not run. Nothing is left of a start that failed.
pub fn start(plan: &Plan) -> Result<u8, Error> {
    let deadline = Moment::now() + limits::START;
    // First, since it may make the directory that the pidfile is to stand in.
    let mut output = Output::open(plan)?;
    start_logger(plan, &mut output, deadline)?;
    output
        .take_notices()
        .iter()
        .for_each(|notice| say(&output, notice));
    let path = plan.pidfile.as_ref();
    let pidfile = path
        .map(|path| open_server_pidfile(path, None))
        .transpose()?;
    let rollback = StartRollback { pidfile, output };
    if plan.background {
        start_in_background(plan, rollback, deadline)
    } else {
        Err(become_server(plan, rollback))
    }
}

fn start_logger(plan: &Plan, output: &mut Output, deadline: Moment) -> Result<(), Error> {
    let (Some(spec), Some(syslog)) = (plan.logger(), output.syslog()) else {
        return Ok(());
    };
    let logger = spawn(&spec, syslog.of_logger()).and_then(Held::release);
    let started = logger.and_then(|mut logger| logger.wait_for_exec(deadline));
    started.map_err(|end| plan.error(&spec, end))
}

fn start_in_background(
    plan: &Plan,
    mut rollback: StartRollback,
    deadline: Moment,
) -> Result<u8, Error> {
    let spec = plan.server();
    let failed = |end| plan.error(&spec, end);
    let held = spawn(&spec, rollback.output.of_server()).map_err(failed)?;
    rollback.write_pidfile(held.pid())?;
    let mut server = held.release().map_err(failed)?;
    server.wait_for_exec(deadline).map_err(failed)?;
    rollback.output.commit();
    say_server(plan, &rollback.output, "started", server.pid());
    drop(expire(plan, &mut rollback.output));
    rollback.pidfile.into_iter().for_each(Pidfile::leave);
    Ok(0)
}

/// Executes the server in this process. Returns only with an error.
fn become_server(plan: &Plan, mut rollback: StartRollback) -> Error {
    let spec = plan.server();
    if let Err(error) = rollback.write_pidfile(getpid()) {
        return error;
    }
    say_server(plan, &rollback.output, "starting", getpid());
    let expiry = expire(plan, &mut rollback.output);
    // Without `-u` the process that executes may remove what was made.
    let has_made = rollback.pidfile.is_some() || plan.log_dir().is_some();
    let execute = |rollback: &StartRollback| exec_here(&spec, rollback.output.of_server());
    let refusal = if has_made && spec.identity.is_some() {
        exec_with_rollback(rollback, execute)
    } else {
        execute(&rollback)
    };
    if let Some(expiry) = expiry {
        // The process that waits for its end deletes nothing then.
        let _ = write(expiry, &[0]);
    }
    plan.error(&spec, refusal.into())
}

fn say_server(plan: &Plan, output: &Output, doing: &str, pid: Pid) {
    let command = plan.shown_command_line();
    say(output, &format_args!("{doing} server {pid}: {command}"));
}

/// Writes a line where vsrun has a log of its own.
fn say(output: &Output, text: &dyn Display) {
    if let Some(Ok(mut messages)) = output
        .of_vsrun()
        .map(|to| Messages::new(to, output.style()))
    {
        messages.say(text);
    }
}

/// Has old log files deleted when the server runs: when what this returns is closed, by an exec say,
/// and nothing was written to it.
fn expire(plan: &Plan, output: &mut Output) -> Option<OwnedFd> {
    output
        .files()
        .filter(|files| files.directory.is_expiring())?;
    if !plan.background && adopts_orphans() {
        // An orphan would be a child of the server that this process becomes.
        expire_all(output);
        return None;
    }
    let begun = expire_after_exec(output);
    if let Err(reason) = &begun {
        say(
            output,
            &format_args!("cannot delete old logs: {}", strerror(*reason)),
        );
    }
    begun.ok()
}

fn expire_after_exec(output: &mut Output) -> Result<OwnedFd, Errno> {
    let (closed, expiry) = pipe2(OFlag::O_CLOEXEC)?;
    let number = expiry.as_raw_fd();
    run_orphan(|| {
        // The caller's copy alone is to count. This process ends before it would be closed again.
        let _ = close(number);
        let mut end = read(&closed, &mut [0]);
        while end == Err(Errno::EINTR) {
            end = read(&closed, &mut [0]);
        }
        if end == Ok(0) {
            expire_all(output);
        }
    })?;
    Ok(expiry)
}

fn expire_all(output: &mut Output) {
    loop {
        match output
            .files()
            .map_or(Ok(false), |files| files.directory.expire_some())
        {
            Ok(true) => {}
            Ok(false) => return,
            Err(undeleted) => return say(output, &undeleted),
        }
    }
}

/// The size of the second thread's stack, in bytes. The default comes from the environment, which
/// may ask for more than there is (RUST_MIN_STACK).
const STACK_SIZE: usize = 128 * 1024;

/// Executes, while a second thread waits to take back what was made. That keeps the privilege for
/// it, should the exec fail; this one gives it up. The root is changed for both: what is removed is
/// reached by descriptors. An exec that succeeds ends the second thread (execve(2)). Nothing may
/// fork from here on.
fn exec_with_rollback(
    rollback: StartRollback,
    execute: impl FnOnce(&StartRollback) -> Refusal,
) -> Refusal {
    let rollback = Mutex::new(Some(rollback));
    // Nothing panics while it is locked: a panic aborts.
    let lock = || rollback.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let held = lock();
        let Some(made) = held.as_ref() else {
            unreachable!("nothing has taken it back")
        };
        let take_back = || drop(lock().take());
        match thread::Builder::new()
            .stack_size(STACK_SIZE)
            .spawn_scoped(scope, take_back)
        {
            Ok(_) => execute(made),
            Err(error) => at(Stage::Fork)(fds::errno(error)),
        }
    })
}
