//! `--logdir`: the log directory, its two files, their rotation and expiry; in a directory that
//! belongs to the server's user, who may be hostile.

mod directory;
mod expiry;
mod faults;
mod full_disk;
mod hostile_names;
mod hostile_paths;
mod many_old_logs;
mod output;
mod rotation;
mod shared;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::prelude::*;

/// A directory that belongs to the server's user.
pub fn users_dir(sandbox: &Sandbox, name: &str) -> PathBuf {
    let dir = sandbox.dir(name);
    give(&dir);
    dir
}

/// A file that belongs to the server's user.
pub fn users_file(path: impl AsRef<Path>, content: &str) {
    fs::write(&path, content).expect("the sandbox can be written");
    give(path);
}

/// Runs a server that writes `text` to its end.
pub fn say(sandbox: &Sandbox, logs: impl AsRef<OsStr>, keep: &str, text: &str) {
    let vsrun = as_user(sandbox.vsrun()).logdir(logs, keep);
    vsrun
        .command(sandbox.probe().out(text).exit(0))
        .run()
        .expect_code(0);
}

/// Waits until nothing runs any more: old logs are deleted while a server runs and after it.
pub fn settle(sandbox: &Sandbox) {
    wait_for("the end of every process", || {
        sandbox.processes().is_empty()
    });
}

/// Everything in a directory, by name.
pub fn snapshot(directory: &Path) -> BTreeMap<OsString, Facts> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries
        .map(|entry| (entry.file_name(), facts(entry.path())))
        .collect()
}

/// A server under a manager, with a handler that allows every restart, and a line in `out/starts`
/// for each start.
pub struct Managed<'a> {
    sandbox: &'a Sandbox,
    pub vsrun: Running<'a>,
    pub handler: Handler,
}

impl<'a> Managed<'a> {
    pub fn new(sandbox: &'a Sandbox, vsrun: Invocation<'a>, server: Probe) -> Managed<'a> {
        let starts = sandbox.open_dir("out").join("starts");
        Managed::of(sandbox, vsrun, server.append(starts))
    }

    /// The server appends to `out/starts` by itself.
    pub fn of(
        sandbox: &'a Sandbox,
        vsrun: Invocation<'a>,
        server: impl IntoIterator<Item = OsString>,
    ) -> Managed<'a> {
        let handler = sandbox
            .handler("handler")
            .line("echo handled; echo badly >&2")
            .create();
        let vsrun = vsrun
            .manager(sandbox.path("manager"), &handler)
            .pidfile(sandbox.path("pidfile"))
            .command(server)
            .spawn();
        let managed = Managed {
            sandbox,
            vsrun,
            handler,
        };
        managed.wait_for_start(1);
        managed
    }

    pub fn wait_for_start(&self, number: usize) {
        wait_for(&format!("start {number} of the server"), || {
            let starts = self.starts();
            if starts >= number {
                Ok(())
            } else {
                Err(self.vsrun.stderr())
            }
        });
    }

    pub fn starts(&self) -> usize {
        self.sandbox.lines("out/starts").len()
    }

    pub fn server(&self) -> Process {
        self.sandbox.wait_for_pidfile(self.sandbox.path("pidfile"))
    }

    pub fn restart(&self) {
        let before = self.starts();
        self.vsrun.signal(SIGHUP);
        self.wait_for_start(before + 1);
    }

    pub fn stop(self) -> Outcome {
        self.vsrun.signal(SIGTERM);
        self.vsrun.wait()
    }
}

pub fn managed_with_logs<'a>(sandbox: &'a Sandbox, logs: &Path, server: Probe) -> Managed<'a> {
    Managed::new(sandbox, as_user(sandbox.vsrun()).logdir(logs, "1d"), server)
}

#[track_caller]
pub fn wait_for_hello(logs: impl AsRef<OsStr>) {
    let logs = LogDirectory::at(logs.as_ref());
    wait_for("the server's line", || {
        let output = logs.server();
        if output
            == "hello
"
        {
            Ok(())
        } else {
            Err((output, logs.names()))
        }
    });
}

/// Names that look like an old log's and are not.
pub fn odd_names() -> Vec<&'static OsStr> {
    let names: [&[u8]; 24] = [
        b"logfile.01",
        b"logfile.00",
        b"logfile.+5",
        b"logfile.-1",
        b"logfile.",
        b"logfile.9 ",
        b"logfile. 9",
        b"logfile.9\n",
        b"logfile.0x10",
        b"logfile.1e3",
        b"logfile.7.gz",
        b"logfile.7~",
        b"logfile.18446744073709551616",
        b"logfile.1000000000000000000000000000000",
        b"logfile.\xff",
        b"logfile.\xd9\xa3",
        b"logfile1",
        b"Logfile.8",
        b".logfile.8",
        b"xlogfile.8",
        b"vsrun.8",
        b"vsrun.log.08",
        b"vsrun.log.x",
        b"access.log",
    ];
    names.map(OsStr::from_bytes).to_vec()
}

/// A server that says `hello`, leaves a line in a file for its start, and stays. It
/// has written when that line is there.
pub fn greeter(sandbox: &Sandbox, starts: impl AsRef<OsStr>) -> Vec<OsString> {
    let words = ["/bin/sh", "-c", "echo hello; exec \"$@\"", "sh"].map(OsString::from);
    words
        .into_iter()
        .chain(sandbox.probe().append(starts))
        .collect()
}

/// A manager of such a server, with logs, once the server has started.
pub fn managed_greeter<'a>(sandbox: &'a Sandbox, logs: &LogDirectory) -> Running<'a> {
    let manager = manage_greeter(sandbox, logs, sandbox.vsrun()).spawn();
    started(sandbox, 1);
    manager
}

/// The same with other options in `vsrun`.
pub fn manage_greeter<'a>(
    sandbox: &Sandbox,
    logs: &LogDirectory,
    vsrun: Invocation<'a>,
) -> Invocation<'a> {
    vsrun
        .manager(sandbox.path("manager.pid"), CONSENT)
        .logdir(logs, "1d")
        .command(greeter(sandbox, sandbox.path("starts")))
}

/// How often a line stands in the current and old logs whose names begin like this.
pub fn lines(logs: &LogDirectory, kind: &str, line: &str) -> usize {
    let names = logs
        .names()
        .into_iter()
        .filter(|name| name.to_string_lossy().starts_with(kind));
    let count = |name| {
        String::from_utf8_lossy(&logs.read(name))
            .matches(line)
            .count()
    };
    names.map(count).sum()
}
