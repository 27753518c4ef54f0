//! vsrun's options as methods. They are written in the order that they are called in.

use std::ffi::OsStr;

use crate::invocation::Invocation;

/// vsrun's options, in the order that they are called in.
impl<'a> Invocation<'a> {
    /// Adds `--user`.
    pub fn user(self, user: impl AsRef<OsStr>) -> Self {
        self.arg("--user").arg(user)
    }

    /// Adds `--pidfile`.
    pub fn pidfile(self, path: impl AsRef<OsStr>) -> Self {
        self.arg("--pidfile").arg(path)
    }

    /// Adds `--root`.
    pub fn root(self, path: impl AsRef<OsStr>) -> Self {
        self.arg("--root").arg(path)
    }

    /// Adds `--work-dir`.
    pub fn work_dir(self, path: impl AsRef<OsStr>) -> Self {
        self.arg("--work-dir").arg(path)
    }

    /// Adds `--manager` and its two values.
    pub fn manager(self, pidfile: impl AsRef<OsStr>, handler: impl AsRef<OsStr>) -> Self {
        self.arg("--manager").arg(pidfile).arg(handler)
    }

    /// Adds `--background`.
    pub fn background(self) -> Self {
        self.arg("--background")
    }

    /// Adds `--syslog`.
    pub fn syslog(self, prefix: impl AsRef<OsStr>) -> Self {
        self.arg("--syslog").arg(prefix)
    }

    /// Adds `--logdir` and its two values.
    pub fn logdir(self, path: impl AsRef<OsStr>, keep: impl AsRef<OsStr>) -> Self {
        self.arg("--logdir").arg(path).arg(keep)
    }

    /// Adds `--` and the server's command line.
    pub fn command<W: AsRef<OsStr>>(self, words: impl IntoIterator<Item = W>) -> Self {
        self.arg("--").args(words)
    }

    /// Adds one argument, any bytes.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds arguments, any bytes.
    pub fn args<W: AsRef<OsStr>>(self, words: impl IntoIterator<Item = W>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }
}
