//! A directory of a test's own, which goes with every process that the test has started.

mod contents;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{env, thread};

use nix::libc::c_int;

use crate::census;
use crate::invocation::Invocation;
use crate::pidfd::PidFd;
use crate::process::Process;
use crate::running::Captured;
use crate::wait::wait_for;

/// A private directory that every user may search, and the processes started in it.
///
/// When it is dropped, after a panic too, the processes are killed and the directory is removed;
/// after a panic it first prints what they wrote.
#[derive(Debug)]
pub struct Sandbox {
    directory: PathBuf,
    vsrun: PathBuf,
    reachable_vsrun: OnceLock<PathBuf>,
    probe: OnceLock<PathBuf>,
    serial: AtomicU32,
    known: Mutex<Vec<Process>>,
}

impl Sandbox {
    /// Makes a sandbox to run this vsrun in: `Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))`.
    pub fn new(vsrun: impl Into<PathBuf>) -> Sandbox {
        census::keep_orphans();
        Sandbox {
            directory: new_directory(),
            vsrun: vsrun.into(),
            reachable_vsrun: OnceLock::new(),
            probe: OnceLock::new(),
            serial: AtomicU32::new(0),
            known: Mutex::new(Vec::new()),
        }
    }

    /// Returns the directory, without symbolic links in it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of `name`, which need not exist.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts a command line of vsrun.
    pub fn vsrun(&self) -> Invocation<'_> {
        self.program(&self.vsrun)
    }

    /// Starts a command line of any other program, by its full path.
    pub fn program(&self, path: impl Into<PathBuf>) -> Invocation<'_> {
        Invocation::new(self, path.into())
    }

    /// Returns the living processes that the test has started, directly or not.
    pub fn processes(&self) -> Vec<Process> {
        census::members(
            &self.directory,
            &self.known.lock().expect("no panic while it is locked"),
        )
    }

    /// Waits for a pidfile that names a running process, and returns that.
    #[track_caller]
    pub fn wait_for_pidfile(&self, path: impl AsRef<Path>) -> Process {
        let path = path.as_ref();
        let process = wait_for(&format!("a running process in {}", path.display()), || {
            read_pidfile(path)
                .map(Process::of)
                .filter(|process| process.exists())
        });
        // It may overwrite its environment and leave the sandbox's directories later.
        if self.processes().contains(&process) {
            self.known
                .lock()
                .expect("no panic while it is locked")
                .push(process);
        }
        process
    }

    /// Returns the id in a pidfile; none if there is no such file.
    ///
    /// # Panics
    /// If it holds anything but a decimal number and a newline: no reader may ever see that.
    #[track_caller]
    pub fn read_pidfile(&self, path: impl AsRef<Path>) -> Option<i32> {
        read_pidfile(path.as_ref())
    }

    /// Sends a signal to a process that the test has started.
    ///
    /// # Panics
    /// If it is gone, or was not started by this test: no other process is ever signalled.
    #[track_caller]
    pub fn signal(&self, process: Process, signal: c_int) {
        let pid = process.pid();
        let handle = PidFd::open(pid).unwrap_or_else(|error| panic!("process {pid}: {error}"));
        assert!(
            self.processes().contains(&process),
            "process {pid} is not of this test, or gone"
        );
        handle
            .signal(signal)
            .unwrap_or_else(|error| panic!("cannot signal {pid}: {error}"));
    }

    /// Returns the lines of a file; none if it does not exist.
    pub fn lines(&self, path: impl AsRef<Path>) -> Vec<String> {
        let content = fs::read(self.path(path)).unwrap_or_default();
        String::from_utf8_lossy(&content)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn vsrun_program(&self) -> &Path {
        &self.vsrun
    }

    /// Returns a copy of vsrun that every user may execute: the original may be under `/root`.
    pub(crate) fn reachable_vsrun(&self) -> PathBuf {
        self.reachable_vsrun
            .get_or_init(|| self.copy_of(&self.vsrun, "vsrun"))
            .clone()
    }

    /// Copies a file and adds lines to the copy.
    pub(crate) fn extended_copy(&self, original: &Path, lines: &[&str]) -> PathBuf {
        let mut content = fs::read(original).expect("the file can be read");
        lines
            .iter()
            .for_each(|line| content.extend_from_slice(format!("{line}\n").as_bytes()));
        let name = original
            .file_name()
            .unwrap_or(OsStr::new("copy"))
            .to_string_lossy();
        self.file(format!(".{name}.{}", self.next_serial()), content)
    }

    pub(crate) fn new_capture(&self) -> Captured {
        let serial = self.next_serial();
        Captured {
            stdout: self.path(format!(".captured.{serial}.stdout")),
            stderr: self.path(format!(".captured.{serial}.stderr")),
        }
    }

    pub(crate) fn show_processes(&self) -> String {
        let show = |process: Process| {
            let state = process.stat().map_or('-', |stat| stat.state);
            let words = process.cmdline().unwrap_or_default();
            format!(
                "  {} {state} {}\n",
                process.pid(),
                words.join(OsStr::new(" ")).to_string_lossy()
            )
        };
        self.processes().into_iter().map(show).collect()
    }

    fn next_serial(&self) -> u32 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Prints what the processes wrote, to show why a test failed.
    fn show_captures(&self) {
        for serial in 0..self.serial.load(Ordering::Relaxed) {
            for stream in ["stdout", "stderr"] {
                let content = fs::read(self.path(format!(".captured.{serial}.{stream}")));
                let content = content.unwrap_or_default();
                if !content.is_empty() {
                    let text = String::from_utf8_lossy(&content);
                    eprintln!(
                        "--- {stream} of process {} of the test:\n{text}",
                        serial + 1
                    );
                }
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- processes of the test:\n{}", self.show_processes());
            self.show_captures();
        }
        let known = self.known.get_mut().map(std::mem::take).unwrap_or_default();
        let ended = census::end_all(&self.directory, &known);
        let removed = fs::remove_dir_all(&self.directory);
        // A second panic would hide the first.
        if !thread::panicking() {
            ended.unwrap_or_else(|left| panic!("processes that cannot be ended: {left}"));
            removed.unwrap_or_else(|error| panic!("cannot remove {:?}: {error}", self.directory));
        }
    }
}

fn new_directory() -> PathBuf {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let parent = env::temp_dir()
        .canonicalize()
        .expect("there is a temporary directory");
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(format!("vstest-{}-{serial}", process::id()));
        match fs::create_dir(&directory) {
            Ok(()) => {
                set_mode(&directory, 0o755);
                return directory;
            }
            // A killed test process with the same id has left it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot create {directory:?}: {error}"),
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the owner may set a mode");
}

#[track_caller]
fn read_pidfile(path: &Path) -> Option<i32> {
    let content = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&content);
    let digits = text
        .strip_suffix('\n')
        .filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    let pid = digits.and_then(|digits| digits.parse().ok());
    Some(pid.unwrap_or_else(|| panic!("{path:?} holds {text:?}, not an id and a newline")))
}
