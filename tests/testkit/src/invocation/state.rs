//! The state that a program is started in, as methods.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::libc::c_int;
use nix::sys::resource::Resource;

use crate::census::MARKER;
use crate::clock::Clock;
use crate::invocation::{Invocation, c_path};
use crate::surroundings::{Identity, Mount, c_string};

/// The state that the program is started in.
impl<'a> Invocation<'a> {
    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.remove(name.as_ref());
        self
    }

    /// Removes all environment variables but the sandbox's marker.
    pub fn env_clear(mut self) -> Self {
        self.env.retain(|name, _| name == MARKER);
        self
    }

    /// Starts it with this clock instead of the machine's.
    pub fn clock(self, clock: &Clock<'_>) -> Self {
        self.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1")
            .env("FAKETIME_TIMESTAMP_FILE", clock.file())
            .env("FAKETIME_NO_CACHE", "1")
            // The library fails where an earlier process of the same id has left its files there.
            .tmpfs("/dev/shm", "mode=1777")
    }

    /// Starts it in another directory than the sandbox's.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.surroundings.directory = c_path(directory.as_ref());
        self
    }

    /// Gives it an open file as standard input.
    pub fn stdin(mut self, file: impl Into<Stdio>) -> Self {
        self.stdin = file.into();
        self
    }

    /// Gives it an open file as standard output, which is not captured then.
    pub fn stdout(mut self, file: impl Into<Stdio>) -> Self {
        self.stdout = Some(file.into());
        self
    }

    /// Gives it an open file as standard error, which is not captured then.
    pub fn stderr(mut self, file: impl Into<Stdio>) -> Self {
        self.stderr = Some(file.into());
        self
    }

    /// Starts it as the leader of a session with a controlling terminal, which is its standard
    /// input; output stays captured.
    pub fn terminal(mut self) -> Self {
        self.on_terminal = true;
        self
    }

    /// Sets its umask.
    pub fn umask(mut self, mask: u32) -> Self {
        self.surroundings.umask = Some(mask);
        self
    }

    /// Starts it with these signals ignored.
    pub fn ignoring(mut self, signals: impl IntoIterator<Item = c_int>) -> Self {
        self.surroundings.ignored.extend(signals);
        self
    }

    /// Starts it with every signal blocked.
    pub fn blocking_all_signals(mut self) -> Self {
        self.surroundings.all_blocked = true;
        self
    }

    /// Starts it with these descriptors closed.
    pub fn closed(mut self, descriptors: impl IntoIterator<Item = c_int>) -> Self {
        self.surroundings.closed.extend(descriptors);
        self
    }

    /// Starts it with an open file as descriptor `number`, above 2.
    pub fn inheriting(mut self, number: c_int, file: impl Into<OwnedFd>) -> Self {
        self.surroundings.inherited.push((file.into(), number));
        self
    }

    /// Sets a resource limit; `u64::MAX` means unlimited.
    pub fn limit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.surroundings.limits.push((resource, soft, hard));
        self
    }

    /// Starts it as another user, with exactly these supplementary groups. Needs root.
    pub fn run_as(mut self, uid: u32, gid: u32, groups: &[u32]) -> Self {
        if self.program == self.sandbox.vsrun_program() {
            self.program = self.sandbox.reachable_vsrun();
        }
        self.surroundings.identity = Some(Identity {
            uid,
            gid,
            groups: groups.to_vec(),
        });
        self
    }

    /// Starts it as root of a user namespace in which there is no other user.
    pub fn user_namespace(mut self) -> Self {
        self.surroundings.user_namespace = true;
        self
    }

    /// Starts it as process 1 of a PID namespace with a `/proc` of its own. Needs root, so it does
    /// not go with [`Invocation::run_as`]. Ids in files are those inside.
    pub fn pid_namespace(mut self) -> Self {
        self.pid_namespace = true;
        self
    }

    /// Starts it in a private mount namespace with `source` mounted on `target`. Needs root.
    pub fn bind(self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.mount(Mount::Bind {
            source: c_path(source.as_ref()),
            target: c_path(target.as_ref()),
        })
    }

    /// Starts it in a private mount namespace with a tmpfs on `target`, with options such as
    /// `size=64k,mode=755`. Needs root.
    pub fn tmpfs(self, target: impl AsRef<Path>, options: &str) -> Self {
        self.mount(Mount::Tmpfs {
            target: c_path(target.as_ref()),
            options: c_string(options),
        })
    }

    /// Starts it in a private mount namespace in which `target` cannot be written. Needs root.
    pub fn read_only(self, target: impl AsRef<Path>) -> Self {
        self.mount(Mount::ReadOnly {
            target: c_path(target.as_ref()),
        })
    }

    /// Starts it on a machine that has these additional lines in `/etc/passwd` and `/etc/group`: in
    /// a private mount namespace, so nothing else sees them. Needs root.
    pub fn with_passwd(self, users: &[&str], groups: &[&str]) -> Self {
        let passwd = self.sandbox.extended_copy(Path::new("/etc/passwd"), users);
        let group = self.sandbox.extended_copy(Path::new("/etc/group"), groups);
        self.bind(passwd, "/etc/passwd").bind(group, "/etc/group")
    }

    /// Executes it with an empty argument vector; there must be no arguments.
    pub fn without_argv(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Waits for its end for so long instead of 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn mount(mut self, mount: Mount) -> Self {
        self.surroundings.mounts.get_or_insert_default().push(mount);
        self
    }
}
