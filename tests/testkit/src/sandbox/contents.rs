//! Making what a test needs in its sandbox. Names are relative to the sandbox's directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::handler::HandlerScript;
use crate::probe::{self, Probe};
use crate::sandbox::{Sandbox, set_mode};

impl Sandbox {
    /// Makes a file with mode 0644.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the sandbox can be written");
        set_mode(&path, 0o644);
        path
    }

    /// Makes a program or script with mode 0755.
    ///
    /// install(1) writes it: a descriptor of ours that is open for writing could be inherited by a
    /// process that a parallel test is just starting, and make the kernel refuse to execute it.
    pub fn executable(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let mut install = Command::new("install");
        install
            .args(["-m", "755", "/dev/stdin"])
            .arg(&path)
            .stdin(Stdio::piped());
        let mut child = install.spawn().expect("install(1) can be started");
        let mut input = child.stdin.take().expect("a pipe");
        input
            .write_all(content.as_ref())
            .expect("install(1) reads everything");
        drop(input);
        assert!(
            child.wait().is_ok_and(|status| status.success()),
            "cannot make {path:?}"
        );
        path
    }

    /// Copies a program, with mode 0755.
    pub fn copy_of(&self, program: impl AsRef<Path>, name: impl AsRef<Path>) -> PathBuf {
        let (program, path) = (program.as_ref(), self.path(name));
        // Not by this process; see `executable`.
        let status = Command::new("install")
            .args(["-m", "755"])
            .arg(program)
            .arg(&path)
            .status();
        assert!(
            status.is_ok_and(|it| it.success()),
            "cannot copy {program:?} to {path:?}"
        );
        path
    }

    /// Makes a directory with mode 0755.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir_with_mode(name, 0o755)
    }

    /// Makes a directory in which every user may make files, like `/tmp`: mode 1777.
    pub fn open_dir(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir_with_mode(name, 0o1777)
    }

    /// Makes a directory with mode 0755 that belongs to another user. Needs root.
    pub fn dir_of(&self, name: impl AsRef<Path>, uid: u32, gid: u32) -> PathBuf {
        let path = self.dir(name);
        chown(&path, Some(uid), Some(gid)).expect("root may give a directory away");
        path
    }

    /// Makes a symbolic link.
    pub fn link(&self, name: impl AsRef<Path>, target: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        symlink(target, &path).expect("the sandbox can be written");
        path
    }

    /// Makes a directory to chroot to. It holds nothing but `/bin/probe`, which is linked
    /// statically, an empty `/dev`, and `/tmp` with mode 1777.
    ///
    /// In it, [`Probe::at`] `/bin/probe` is the server.
    pub fn root(&self, name: impl AsRef<Path>) -> PathBuf {
        let name = name.as_ref();
        let root = self.dir(name);
        self.dir(name.join("bin"));
        self.dir(name.join("dev"));
        self.open_dir(name.join("tmp"));
        self.copy_of(probe::program(), name.join("bin/probe"));
        root
    }

    /// Starts the command line of a probe server that lies in the sandbox.
    pub fn probe(&self) -> Probe {
        Probe::at(
            self.probe
                .get_or_init(|| self.copy_of(probe::program(), "probe")),
        )
    }

    /// Starts a handler script that records how it is run.
    pub fn handler(&self, name: &str) -> HandlerScript<'_> {
        HandlerScript::new(self, name)
    }

    fn dir_with_mode(&self, name: impl AsRef<Path>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create {path:?}: {error}"));
        set_mode(&path, mode);
        path
    }
}
