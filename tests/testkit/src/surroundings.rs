//! The state that a process is started in, brought about between fork and exec.
//!
//! Everything is prepared as data before the fork; the child then makes system calls only, because
//! other threads of the test process may hold any lock.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::libc::{self, c_int};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, getegid, geteuid, setsid};

use crate::signals::set_disposition;

/// What differs from an ordinary start. Fields are applied in the order of [`Surroundings::steps`].
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) directory: CString,
    pub(crate) terminal: Option<CString>,
    pub(crate) user_namespace: bool,
    pub(crate) mounts: Option<Vec<Mount>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) inherited: Vec<(OwnedFd, c_int)>,
    pub(crate) limits: Vec<(Resource, u64, u64)>,
    pub(crate) umask: Option<u32>,
    pub(crate) ignored: Vec<c_int>,
    pub(crate) all_blocked: bool,
    pub(crate) closed: Vec<c_int>,
    pub(crate) without_argv: Option<BareExec>,
}

/// A mount in the process's private mount namespace.
#[derive(Debug)]
pub(crate) enum Mount {
    Bind { source: CString, target: CString },
    Tmpfs { target: CString, options: CString },
    ReadOnly { target: CString },
}

/// Ids that are taken on for good.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// A program and its environment, to be executed with no arguments at all.
#[derive(Debug)]
pub(crate) struct BareExec {
    pub(crate) program: CString,
    pub(crate) env: Vec<CString>,
}

#[derive(Debug)]
enum Step {
    InheritNoDescriptors,
    IgnoreNothing,
    TakeTerminal(CString),
    EnterUserNamespace { uid_map: CString, gid_map: CString },
    EnterMountNamespace,
    Mount(Mount),
    ChangeDirectory(CString),
    Become(Identity),
    Inherit(OwnedFd, c_int),
    Limit(Resource, u64, u64),
    Umask(u32),
    Ignore(c_int),
    BlockAll,
    Close(c_int),
    ExecBare(BareExec),
}

impl Surroundings {
    /// Makes `command` start in these surroundings.
    pub(crate) fn apply_to(self, command: &mut Command) {
        let steps = self.steps();
        // SAFETY: a step is a few system calls on data that was prepared here.
        unsafe { command.pre_exec(move || steps.iter().try_for_each(Step::perform)) };
    }

    fn steps(self) -> Vec<Step> {
        let become_someone = self.identity.map(Step::Become);
        let (early, late) = if self.user_namespace {
            (become_someone, None)
        } else {
            (None, become_someone)
        };
        // Ids inside a user namespace stand for those of the process that enters it.
        let (uid, gid) = match &early {
            Some(Step::Become(identity)) => (identity.uid, identity.gid),
            _ => (geteuid().as_raw(), getegid().as_raw()),
        };
        let namespace = self.user_namespace.then(|| Step::EnterUserNamespace {
            uid_map: c_string(format!("0 {uid} 1")),
            gid_map: c_string(format!("0 {gid} 1")),
        });
        let mount_namespace = self.mounts.is_some().then_some(Step::EnterMountNamespace);
        let mut steps = vec![Step::InheritNoDescriptors, Step::IgnoreNothing];
        steps.extend(self.terminal.map(Step::TakeTerminal));
        steps.extend(early);
        steps.extend(namespace);
        steps.extend(mount_namespace);
        steps.extend(self.mounts.into_iter().flatten().map(Step::Mount));
        // A directory entered before the mounts would be the one below them.
        steps.push(Step::ChangeDirectory(self.directory));
        steps.extend(
            self.inherited
                .into_iter()
                .map(|(from, to)| Step::Inherit(from, to)),
        );
        steps.extend(
            self.limits
                .into_iter()
                .map(|(what, soft, hard)| Step::Limit(what, soft, hard)),
        );
        steps.extend(late);
        steps.extend(self.umask.map(Step::Umask));
        steps.extend(self.ignored.into_iter().map(Step::Ignore));
        steps.extend(self.all_blocked.then_some(Step::BlockAll));
        steps.extend(self.closed.into_iter().map(Step::Close));
        steps.extend(self.without_argv.map(Step::ExecBare));
        steps
    }
}

impl Step {
    fn perform(&self) -> io::Result<()> {
        match self {
            Step::InheritNoDescriptors => {
                // The process that started the tests may have left descriptors open. They stay open
                // until exec: through one of them std learns of an error.
                let (first, last, flags) = (3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
                // SAFETY: close_range takes three integers, and only sets a flag here.
                check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } as c_int)
            }
            Step::IgnoreNothing => {
                let mut settable =
                    (1..=64).filter(|it| ![libc::SIGKILL, libc::SIGSTOP].contains(it));
                settable.try_for_each(|it| set_disposition(it, libc::SIG_DFL))
            }
            Step::TakeTerminal(path) => take_terminal(path),
            Step::EnterUserNamespace { uid_map, gid_map } => {
                // Having changed its ids, a process may not write its own maps.
                set_dumpable(true)?;
                unshare(CloneFlags::CLONE_NEWUSER)?;
                // Without privilege outside, groups must be given up before they are mapped.
                overwrite(c"/proc/self/setgroups", c"deny")?;
                overwrite(c"/proc/self/uid_map", uid_map)?;
                overwrite(c"/proc/self/gid_map", gid_map)
            }
            Step::EnterMountNamespace => {
                unshare(CloneFlags::CLONE_NEWNS)?;
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                Ok(mount(
                    None::<&CStr>,
                    c"/",
                    None::<&CStr>,
                    private,
                    None::<&CStr>,
                )?)
            }
            Step::Mount(it) => it.perform(),
            Step::ChangeDirectory(path) => Ok(chdir(path.as_c_str())?),
            Step::Become(identity) => identity.perform(),
            Step::Inherit(from, to) => inherit(from.as_raw_fd(), *to),
            Step::Limit(what, soft, hard) => Ok(setrlimit(*what, *soft, *hard)?),
            Step::Umask(mask) => {
                umask(Mode::from_bits_truncate(*mask));
                Ok(())
            }
            Step::Ignore(signal) => set_disposition(*signal, libc::SIG_IGN),
            Step::BlockAll => Ok(sigprocmask(
                SigmaskHow::SIG_SETMASK,
                Some(&SigSet::all()),
                None,
            )?),
            Step::Close(fd) => {
                // SAFETY: nothing in this process uses the descriptor between here and exec.
                unsafe { libc::close(*fd) };
                Ok(())
            }
            Step::ExecBare(bare) => bare.perform(),
        }
    }
}

impl Mount {
    fn perform(&self) -> io::Result<()> {
        let nothing = None::<&CStr>;
        match self {
            Mount::Bind { source, target } => {
                let source = Some(source.as_c_str());
                mount(
                    source,
                    target.as_c_str(),
                    nothing,
                    MsFlags::MS_BIND,
                    nothing,
                )?;
            }
            Mount::Tmpfs { target, options } => {
                let (kind, options) = (Some(c"tmpfs"), Some(options.as_c_str()));
                mount(kind, target.as_c_str(), kind, MsFlags::empty(), options)?;
            }
            Mount::ReadOnly { target } => {
                let target = target.as_c_str();
                mount(Some(target), target, nothing, MsFlags::MS_BIND, nothing)?;
                let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(nothing, target, nothing, read_only, nothing)?;
            }
        }
        Ok(())
    }
}

impl Identity {
    fn perform(&self) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of one vector.
        check(unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) })?;
        // The C library's own functions would want to change the other threads, which the child
        // does not have; that is no harm, and the calls are safe in it.
        // SAFETY: setresgid takes integers.
        check(unsafe { libc::setresgid(self.gid, self.gid, self.gid) })?;
        // SAFETY: setresuid takes integers.
        check(unsafe { libc::setresuid(self.uid, self.uid, self.uid) })
    }
}

impl BareExec {
    fn perform(&self) -> io::Result<()> {
        let nothing: [*const libc::c_char; 1] = [ptr::null()];
        // A fixed array, because nothing may be allocated here.
        let mut env: [*const libc::c_char; 64] = [ptr::null(); 64];
        let room = env.len() - 1;
        for (slot, variable) in env[..room].iter_mut().zip(&self.env) {
            *slot = variable.as_ptr();
        }
        // SAFETY: both arrays end with a null pointer and outlive the call.
        unsafe { libc::execve(self.program.as_ptr(), nothing.as_ptr(), env.as_ptr()) };
        Err(io::Error::last_os_error())
    }
}

fn take_terminal(path: &CStr) -> io::Result<()> {
    setsid()?;
    // A session's leader that opens a terminal gets it as its controlling one.
    // SAFETY: the path ends with a NUL byte.
    let terminal = unsafe { libc::open(path.as_ptr(), libc::O_RDWR) };
    check(terminal)?;
    inherit(terminal, libc::STDIN_FILENO)?;
    if terminal != libc::STDIN_FILENO {
        // SAFETY: the descriptor was opened above and is not used again.
        unsafe { libc::close(terminal) };
    }
    Ok(())
}

fn inherit(from: c_int, to: c_int) -> io::Result<()> {
    if from == to {
        // dup2(n, n) would leave close-on-exec set.
        // SAFETY: fcntl on a descriptor's flags touches no memory.
        return check(unsafe { libc::fcntl(to, libc::F_SETFD, 0) });
    }
    // SAFETY: `from` is open, and what `to` was is replaced on purpose.
    check(unsafe { libc::dup2(from, to) })
}

fn overwrite(path: &CStr, content: &CStr) -> io::Result<()> {
    // SAFETY: the path ends with a NUL byte.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    check(file)?;
    let bytes = content.to_bytes();
    // SAFETY: the pointer and the length are those of one string.
    let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
    let outcome = if written < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    };
    // SAFETY: the descriptor was opened above and is not used again.
    unsafe { libc::close(file) };
    outcome
}

fn check(returned: c_int) -> io::Result<()> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> CString {
    CString::new(bytes).expect("no NUL byte can be passed to the kernel")
}
