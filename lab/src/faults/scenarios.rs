//! The scenarios: command lines, the files that are there before, and signals from outside.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// One step of a scenario. Each waits until it is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new server runs.
    Start,
    /// The server is killed.
    Crash,
    /// The manager gets SIGHUP.
    Hangup,
    /// The manager gets SIGTERM.
    Term,
    /// The process that was started ends with the scenario's status.
    Exit,
    /// None of vsrun's processes is left.
    Gone,
}

/// A way to use vsrun.
pub struct Scenario {
    /// Its name for `--only`.
    pub name: &'static str,
    /// The words before `--`. `{bin}` is the directory of the programs.
    pub options: &'static str,
    /// The server, a program in `{bin}`.
    pub command: &'static str,
    /// Makes the files that are there before the start.
    pub prepare: fn(&Path) -> io::Result<()>,
    pub steps: &'static [Step],
    /// The exit status of the process that was started.
    pub status: i32,
    /// Files that may remain. A `*` at the end matches anything.
    pub leaves: &'static [&'static str],
}

impl Scenario {
    /// Whether it has a manager.
    pub fn is_managed(&self) -> bool {
        self.options.contains("-m ")
    }

    /// Whether the server runs as another user.
    pub fn has_user(&self) -> bool {
        self.options.contains("-u nobody")
    }

    /// Whether vsrun refuses it even without a fault.
    pub fn is_bad(&self) -> bool {
        !self.steps.contains(&Step::Start)
    }
}

use Step::{Crash, Exit, Gone, Hangup, Start, Term};

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "foreground",
        options: "",
        command: "ends",
        prepare: nothing,
        steps: &[Start, Exit],
        status: 7,
        leaves: &[],
    },
    Scenario {
        name: "foreground-user",
        options: "-p server.pid -u nobody",
        command: "ends",
        prepare: nothing,
        steps: &[Start, Exit],
        status: 7,
        leaves: &["server.pid"],
    },
    Scenario {
        name: "background",
        options: "-b -p server.pid -u nobody",
        command: "stays",
        prepare: old_pidfile,
        steps: &[Exit, Start],
        status: 0,
        leaves: &["server.pid"],
    },
    Scenario {
        name: "background-root",
        options: "-b -p server.pid -u nobody -r / -w /tmp",
        command: "stays",
        prepare: nothing,
        steps: &[Exit, Start],
        status: 0,
        leaves: &["server.pid"],
    },
    Scenario {
        name: "manager-crash",
        options: "-p server.pid -u nobody -m manager.pid {bin}/agrees",
        command: "stays",
        prepare: nothing,
        steps: &[Start, Crash, Start, Term, Exit],
        status: 0,
        leaves: &[],
    },
    Scenario {
        name: "manager-hangup",
        options: "-b -p server.pid -m manager.pid {bin}/agrees",
        command: "stays",
        prepare: old_pidfile,
        steps: &[Exit, Start, Hangup, Start, Term, Gone],
        status: 0,
        leaves: &[],
    },
    Scenario {
        name: "manager-stop",
        options: "-b -p server.pid -u nobody -m manager.pid {bin}/agrees",
        command: "stays",
        prepare: nothing,
        steps: &[Exit, Start, Term, Gone],
        status: 0,
        leaves: &[],
    },
    Scenario {
        name: "manager-refusal",
        options: "-p server.pid -m manager.pid {bin}/refuses",
        command: "stays",
        prepare: nothing,
        steps: &[Start, Crash, Exit],
        status: 137,
        leaves: &[],
    },
    Scenario {
        name: "logs-foreground",
        options: "-p server.pid -u nobody -d new/logs 1d",
        command: "ends",
        prepare: nothing,
        steps: &[Start, Exit],
        status: 7,
        leaves: &["server.pid", "new*"],
    },
    Scenario {
        name: "logs-background",
        options: "-b -p server.pid -u nobody -d logs 1d",
        command: "stays",
        prepare: old_logs,
        steps: &[Exit, Start],
        status: 0,
        leaves: &["server.pid", "logs/*"],
    },
    Scenario {
        name: "logs-manager",
        options: "-p server.pid -u nobody -d logs 1d -m manager.pid {bin}/agrees",
        command: "stays",
        prepare: old_logs,
        steps: &[Start, Crash, Start, Hangup, Start, Term, Exit],
        status: 0,
        leaves: &["logs/*"],
    },
    Scenario {
        name: "syslog-foreground",
        options: "-p server.pid -u nobody -s tag",
        command: "ends",
        prepare: nothing,
        steps: &[Start, Exit],
        status: 7,
        leaves: &["server.pid"],
    },
    Scenario {
        name: "syslog-manager",
        options: "-b -p server.pid -u nobody -s tag -m manager.pid {bin}/agrees",
        command: "stays",
        prepare: nothing,
        steps: &[Exit, Start, Crash, Start, Term, Gone],
        status: 0,
        leaves: &[],
    },
    bad("bad-pidfile-directory", "-b -p directory", "stays", 125),
    bad(
        "bad-pidfile-missing",
        "-p missing/server.pid -m manager.pid {bin}/agrees",
        "stays",
        125,
    ),
    bad("bad-pidfile-fifo", "-p fifo -d new 1d", "stays", 125),
    bad(
        "bad-root",
        "-b -p server.pid -u nobody -r missing",
        "stays",
        125,
    ),
    bad(
        "bad-work-dir",
        "-p server.pid -w missing -m manager.pid {bin}/agrees",
        "stays",
        125,
    ),
    bad(
        "bad-command",
        "-b -p server.pid -m manager.pid {bin}/agrees",
        "missing",
        127,
    ),
    bad(
        "bad-command-mode",
        "-p server.pid -u nobody -d new 1d",
        "plain",
        126,
    ),
    bad(
        "bad-handler",
        "-b -p server.pid -m manager.pid {bin}/missing",
        "stays",
        127,
    ),
    bad(
        "bad-monitor-link",
        "-b -p server.pid -m link {bin}/agrees",
        "stays",
        125,
    ),
    bad(
        "bad-logs",
        "-b -p server.pid -d file 1d -m manager.pid {bin}/agrees",
        "stays",
        125,
    ),
];

const fn bad(
    name: &'static str,
    options: &'static str,
    command: &'static str,
    status: i32,
) -> Scenario {
    Scenario {
        name,
        options,
        command,
        prepare: bad_paths,
        steps: &[Exit],
        status,
        leaves: &[],
    }
}

fn nothing(_: &Path) -> io::Result<()> {
    Ok(())
}

fn old_pidfile(work: &Path) -> io::Result<()> {
    fs::write(work.join("server.pid"), "41\n")
}

/// Those of [`old_logs`] that vsrun must delete.
pub const EXPIRED: [&str; 2] = ["logs/logfile.1", "logs/vsrun.log.1"];

/// Makes a log directory of the user nobody, with logs to rotate, logs that expire, and another
/// file.
fn old_logs(work: &Path) -> io::Result<()> {
    const NOBODY: u32 = 65534;
    let logs = work.join("logs");
    fs::create_dir(&logs)?;
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o750))?;
    std::os::unix::fs::chown(&logs, Some(NOBODY), Some(NOBODY))?;
    for name in [
        "logfile",
        "logfile.1",
        "vsrun.log",
        "vsrun.log.1",
        "precious",
    ] {
        fs::write(logs.join(name), format!("the old {name}\n"))?;
        std::os::unix::fs::chown(logs.join(name), Some(NOBODY), Some(NOBODY))?;
    }
    let long_ago = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    for name in ["logfile.1", "vsrun.log.1", "precious"] {
        fs::File::options()
            .append(true)
            .open(logs.join(name))?
            .set_modified(long_ago)?;
    }
    Ok(())
}

fn bad_paths(work: &Path) -> io::Result<()> {
    fs::create_dir(work.join("directory"))?;
    fs::write(work.join("file"), "precious\n")?;
    symlink("file", work.join("link"))?;
    Ok(mkfifo(&work.join("fifo"), Mode::S_IRUSR | Mode::S_IWUSR)?)
}
