//! A command line to be run in a sandbox: vsrun's options, and the state it is started in.

mod options;
mod state;

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::OpenOptions;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::census::{self, MARKER};
use crate::process::Process;
use crate::running::{Outcome, Running};
use crate::sandbox::Sandbox;
use crate::surroundings::{BareExec, Surroundings, c_string};
use crate::terminal::Terminal;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, its arguments and its surroundings; see [`Sandbox::vsrun`] and [`Sandbox::program`].
///
/// By default it starts in the sandbox's directory with `/dev/null` as input, umask 022,
/// captured output, and no environment but `PATH` and the sandbox's marker. Paths are passed on as
/// they are given.
#[derive(Debug)]
pub struct Invocation<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
    words: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    stdin: Stdio,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    surroundings: Surroundings,
    bare: bool,
    on_terminal: bool,
    pid_namespace: bool,
    deadline: Duration,
}

/// Running it.
impl<'a> Invocation<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, program: PathBuf) -> Invocation<'a> {
        let marker = sandbox.directory().as_os_str().to_owned();
        Invocation {
            sandbox,
            program,
            words: Vec::new(),
            env: BTreeMap::from([("PATH".into(), PATH.into()), (MARKER.into(), marker)]),
            stdin: Stdio::null(),
            stdout: None,
            stderr: None,
            surroundings: Surroundings {
                directory: c_path(sandbox.directory()),
                umask: Some(0o022),
                ..Surroundings::default()
            },
            bare: false,
            on_terminal: false,
            pid_namespace: false,
            deadline: PATIENCE,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started or does not end in time.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn spawn(mut self) -> Running<'a> {
        let shown = self.show();
        let captured = self.sandbox.new_capture();
        let terminal = self
            .on_terminal
            .then(|| Terminal::open().expect("a pseudo terminal"));
        self.surroundings.terminal = terminal.as_ref().map(Terminal::slave);
        if self.bare {
            self.surroundings.without_argv = Some(self.bare_exec());
        }
        let mut command = self.unshared();
        command
            .env_clear()
            .envs(&self.env)
            .stdin(self.stdin)
            .stdout(self.stdout.unwrap_or_else(|| appending(&captured.stdout)))
            .stderr(self.stderr.unwrap_or_else(|| appending(&captured.stderr)));
        self.surroundings.apply_to(&mut command);
        let child = census::spawn(&mut command);
        let child = child.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let process = Process::of(child.id() as i32);
        let (sandbox, deadline) = (self.sandbox, self.deadline);
        let mut running = Running {
            sandbox,
            child,
            process,
            captured,
            terminal,
            deadline,
            shown,
        };
        if self.pid_namespace {
            running.process = first_child(process);
        }
        running
    }

    fn unshared(&self) -> Command {
        if !self.pid_namespace {
            let mut command = Command::new(&self.program);
            command.args(&self.words);
            return command;
        }
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.arg(&self.program).args(&self.words);
        command
    }

    fn bare_exec(&self) -> BareExec {
        let variable = |(name, value): (&OsString, &OsString)| {
            c_string([name.as_bytes(), b"=", value.as_bytes()].concat())
        };
        BareExec {
            program: c_path(&self.program),
            env: self.env.iter().map(variable).collect(),
        }
    }

    fn show(&self) -> String {
        let words = [self.program.as_os_str()]
            .into_iter()
            .chain(self.words.iter().map(OsString::as_os_str));
        words
            .map(|word| word.as_bytes().escape_ascii().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Opens for appending: vsrun, server and handler may all write to the file.
fn appending(path: &Path) -> Stdio {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.expect("the sandbox can be written").into()
}

fn first_child(unshare: Process) -> Process {
    wait_for("the program inside the PID namespace", || {
        let child = unshare.children().into_iter().next()?;
        // Until it executes the program it still is unshare(1).
        (child.exe().is_some() && child.exe() != unshare.exe()).then_some(child)
    })
}

fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str().to_owned().into_vec())
}
