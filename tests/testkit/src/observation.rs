//! How the probe looks at itself.
//!
//! It must work in a bare chroot too, so it asks the kernel, and takes from `/proc` only what no
//! call returns.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io, mem, process, ptr};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getgroups, getpgrp, getppid, getresgid, getresuid, getsid};

use crate::proc_files::{Ids, Status, links_by_number};
use crate::report::Report;
use crate::signals::{SignalSet, is_ignored};

const LIMITS: [(&str, Resource); 11] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("stack", Resource::RLIMIT_STACK),
];

/// Descriptors that are tried one by one where there is no `/proc/self/fd`.
const HIGHEST_FD_TRIED: i32 = 1024;

impl Report {
    /// Looks at the calling process. Only the probe does this.
    pub fn observe(pidfile: Option<&Path>) -> Report {
        let pidfile = pidfile
            .and_then(|path| fs::read(path).ok())
            .map(OsString::from_vec);
        let uids = getresuid().expect("getresuid cannot fail");
        let gids = getresgid().expect("getresgid cannot fail");
        let mut groups: Vec<u32> = getgroups()
            .expect("groups can be read")
            .into_iter()
            .map(|group| group.as_raw())
            .collect();
        groups.sort_unstable();
        let mask = umask(Mode::empty());
        umask(mask);
        let status = fs::read_to_string("/proc/self/status")
            .ok()
            .map(|text| Status::parse(&text));
        Report {
            pid: process::id() as i32,
            ppid: getppid().as_raw(),
            sid: getsid(None)
                .expect("getsid of oneself cannot fail")
                .as_raw(),
            pgid: getpgrp().as_raw(),
            uids: Ids {
                real: uids.real.as_raw(),
                effective: uids.effective.as_raw(),
                saved: uids.saved.as_raw(),
            },
            gids: Ids {
                real: gids.real.as_raw(),
                effective: gids.effective.as_raw(),
                saved: gids.saved.as_raw(),
            },
            groups,
            cwd: env::current_dir().ok(),
            root: fs::read_link("/proc/self/root").ok(),
            umask: mask.bits(),
            args: env::args_os().collect(),
            env: env::vars_os()
                .map(|(name, value)| variable(name, &value))
                .collect(),
            fds: open_files(),
            blocked: blocked_signals(),
            ignored: (1..=64).filter(|signal| is_ignored(*signal)).collect(),
            terminal: fs::File::open("/dev/tty").is_ok(),
            pidfile,
            limits: LIMITS
                .iter()
                .map(|(name, limit)| (name.to_string(), limit_of(*limit)))
                .collect(),
            capabilities: status.as_ref().map(|status| status.capabilities),
            no_new_privs: status.as_ref().map(|status| status.no_new_privs),
        }
    }
}

fn variable(mut name: OsString, value: &OsStr) -> OsString {
    name.push("=");
    name.push(value);
    name
}

fn limit_of(limit: Resource) -> (u64, u64) {
    getrlimit(limit).expect("limits can be read")
}

fn open_files() -> BTreeMap<i32, PathBuf> {
    let listed = links_by_number(Path::new("/proc/self/fd"));
    // The listing shows the descriptor that lists; it is closed by now.
    let open = |fd: &i32| metadata_of(*fd).is_ok();
    if listed.is_empty() {
        (0..HIGHEST_FD_TRIED)
            .filter_map(|fd| Some((fd, name_of(&metadata_of(fd).ok()?))))
            .collect()
    } else {
        listed.into_iter().filter(|(fd, _)| open(fd)).collect()
    }
}

fn metadata_of(fd: i32) -> io::Result<libc::stat> {
    // SAFETY: stat is plain integers, for which all zeroes are a value.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: the structure is ours and large enough; any descriptor number may be asked about.
    match unsafe { libc::fstat(fd, &mut stat) } {
        0 => Ok(stat),
        _ => Err(io::Error::last_os_error()),
    }
}

fn name_of(stat: &libc::stat) -> PathBuf {
    let null = libc::makedev(1, 3);
    let character = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    if character && stat.st_rdev == null {
        return PathBuf::from("/dev/null");
    }
    PathBuf::from(format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn blocked_signals() -> SignalSet {
    // SAFETY: sigset_t is plain integers, for which all zeroes are a value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: a null new set only asks; the old one is ours to be written.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, ptr::null(), &mut set) };
    let blocked = |signal: &i32| {
        // SAFETY: the set was filled in above; a number that is no signal gives -1.
        let member = unsafe { libc::sigismember(&set, *signal) };
        member == 1
    };
    (1..=64).filter(blocked).collect()
}
