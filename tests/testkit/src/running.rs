//! A process that a test has started, and what became of it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::libc::c_int;

use crate::census;
use crate::pidfd::PidFd;
use crate::process::Process;
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;
use crate::wait::look_until;

/// A started process. Dropped unwaited, it is killed.
#[derive(Debug)]
pub struct Running<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) child: Child,
    pub(crate) process: Process,
    pub(crate) captured: Captured,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) deadline: Duration,
    pub(crate) shown: String,
}

/// The files that standard output and error were sent to.
///
/// Files and not pipes: a server in the background keeps the other end of a pipe open for ever.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

/// How a process ended and what it wrote. What is in the background may still write.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its wait status.
    pub status: ExitStatus,
    /// Standard output, unless it was sent elsewhere.
    pub stdout: Vec<u8>,
    /// Standard error, unless it was sent elsewhere.
    pub stderr: Vec<u8>,
    shown: String,
}

impl Running<'_> {
    /// Returns the id of the started program: of vsrun, not of the unshare(1) around it.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Returns the started program in `/proc`.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it has ended.
    #[track_caller]
    pub fn signal(&self, signal: c_int) {
        assert!(
            self.process.exists(),
            "process {} has ended: {}",
            self.pid(),
            self.describe()
        );
        let sent = PidFd::open(self.pid()).and_then(|handle| handle.signal(signal));
        sent.unwrap_or_else(|error| panic!("cannot signal process {}: {error}", self.pid()));
    }

    /// Types keys, such as `\x03` for Ctrl-C, at the terminal of [`crate::Invocation::terminal`].
    #[track_caller]
    pub fn type_keys(&mut self, keys: &[u8]) {
        let terminal = self
            .terminal
            .as_mut()
            .expect("it was started with a terminal");
        terminal.type_keys(keys).expect("a terminal takes keys");
    }

    /// Returns what it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        text_of(&self.captured.stdout)
    }

    /// Returns what it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        text_of(&self.captured.stderr)
    }

    /// Waits for its end, by default for 30 s.
    ///
    /// # Panics
    /// If it does not end in time, with all that was seen of it. It is killed then.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let child = &mut self.child;
        let status = look_until(self.deadline, || {
            child.try_wait().expect("a child can be waited for")
        });
        let Ok(status) = status else {
            panic!(
                "still running after {:?}: {}",
                self.deadline,
                self.describe()
            );
        };
        let bytes = |path: &Path| fs::read(path).unwrap_or_default();
        Outcome {
            status,
            stdout: bytes(&self.captured.stdout),
            stderr: bytes(&self.captured.stderr),
            shown: self.shown.clone(),
        }
    }

    fn describe(&self) -> String {
        let shown = &self.shown;
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let processes = self.sandbox.show_processes();
        format!("{shown}\nstdout: {stdout}\nstderr: {stderr}\nprocesses:\n{processes}")
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Both do nothing to a child that was waited for. With unshare(1) around it, the program
        // dies of the end of its parent.
        let _ = self.child.kill();
        let _ = self.child.wait();
        census::waited(&self.child);
    }
}

impl Outcome {
    /// Returns the exit status, if it exited.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the signal that killed it, if one did.
    pub fn signal(&self) -> Option<c_int> {
        self.status.signal()
    }

    /// Returns standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks the exit status.
    ///
    /// # Panics
    /// If it is another one, with all that was written.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Outcome {
        assert!(
            self.code() == Some(code),
            "expected status {code}, got {}",
            self.describe()
        );
        self
    }

    /// Checks that it failed with `code`, printed nothing, and that `message` is all of standard
    /// error but for the newline.
    ///
    /// # Panics
    /// If it is otherwise, with all that was written.
    #[track_caller]
    pub fn expect_error(&self, code: i32, message: &str) -> &Outcome {
        self.expect_code(code);
        let alone = self.stdout.is_empty() && self.stderr_text() == format!("{message}\n");
        assert!(
            alone,
            "expected the line '{message}', got {}",
            self.describe()
        );
        self
    }

    fn describe(&self) -> String {
        let (stdout, stderr) = (self.stdout_text(), self.stderr_text());
        format!(
            "{}: {}\nstdout: {stdout}\nstderr: {stderr}",
            self.status, self.shown
        )
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
