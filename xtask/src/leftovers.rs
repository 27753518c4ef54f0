//! Runs a command that leaves nothing on the machine: its processes are ended, its temporary files
//! are removed, and its mounts are in a namespace of their own.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, mkdtemp};

use crate::steps::{Failure, root, shown};

/// How long processes may take to end by themselves after the command has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command to its end. It is a failure if processes of the command are left then.
///
/// Ctrl-C ends the command and not this process, which still cleans up. There must be no other
/// thread and no other child.
pub fn run_without(command: &Command) -> Result<(), Failure> {
    let line = shown(command);
    println!("xtask: {line}");
    let ran = run_and_clean(command).map_err(|error| format!("cannot run {line}: {error}"))?;
    let (status, left) = ran;
    if !left.is_empty() {
        let left = left.into_iter().collect::<Vec<_>>().join("\n  ");
        return Err(Failure::Message(format!(
            "{line}: {status}; it left these processes:\n  {left}"
        )));
    }
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Step(line, status))
    }
}

/// Returns the command's status and the command lines of the processes that had to be killed.
fn run_and_clean(command: &Command) -> io::Result<(ExitStatus, BTreeSet<String>)> {
    // A process that loses its parent becomes a child of this one.
    set_child_subreaper(true)?;
    let files = mkdtemp(&std::env::temp_dir().join("vsrun-test-XXXXXX"))?;
    // As /tmp: tests run programs as other users.
    fs::set_permissions(&files, Permissions::from_mode(0o1777))?;
    let mut child = with_own_mounts(command).env("TMPDIR", &files).spawn()?;
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block()?;
    let status = child.wait()?;
    let left = end_children()?;
    fs::remove_dir_all(files)?;
    Ok((status, left))
}

/// The same command in a mount namespace of its own. Where that is not permitted, mounting is not
/// permitted either.
fn with_own_mounts(command: &Command) -> Command {
    let unshare = |program| {
        let mut unshare = Command::new("/usr/bin/unshare");
        unshare
            .args(["--mount", "--"])
            .arg(program)
            .stdin(Stdio::null());
        unshare
    };
    let tried = unshare("/bin/true".as_ref()).stderr(Stdio::null()).status();
    let mut own = if tried.is_ok_and(|status| status.success()) {
        unshare(command.get_program())
    } else {
        Command::new(command.get_program())
    };
    own.args(command.get_args()).current_dir(root());
    own
}

/// Waits for the end of all children, kills those that go on, and returns their command lines.
fn end_children() -> io::Result<BTreeSet<String>> {
    let started = Instant::now();
    let mut killed = BTreeSet::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return Ok(killed),
            Ok(WaitStatus::StillAlive) => {}
            reaped => {
                reaped?;
                continue;
            }
        }
        if started.elapsed() > PATIENCE {
            for child in children()? {
                let words = fs::read(format!("/proc/{child}/cmdline"))?;
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                killed.insert(format!("{child} {words}"));
                // No other process can have this id: nothing has waited for the child.
                kill(child, Signal::SIGKILL)?;
            }
        }
        if started.elapsed() > PATIENCE * 2 {
            return Err(io::Error::other(format!("these do not end: {killed:?}")));
        }
        sleep(Duration::from_millis(10));
    }
}

fn children() -> io::Result<Vec<Pid>> {
    let ids = fs::read_to_string("/proc/thread-self/children")?;
    Ok(ids
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .map(Pid::from_raw)
        .collect())
}
