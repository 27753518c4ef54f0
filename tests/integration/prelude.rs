//! What the tests of every subject use: the harness, vsrun in a sandbox, users, handlers, files.

pub use testkit::signal::*;
pub use testkit::*;

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{getegid, geteuid};

/// Runs scripts that observe or attack a process.
pub const PYTHON: &str = "/usr/bin/python3";
/// The program under test.
pub const VSRUN: &str = env!("CARGO_BIN_EXE_vsrun");
/// Users that every system has.
pub const NOBODY: u32 = 65534;
pub const DAEMON: u32 = 1;
/// Handlers that record nothing.
pub const CONSENT: &str = "/bin/true";
pub const REFUSAL: &str = "/bin/false";
/// How long "at once" may take on a busy machine.
pub const AT_ONCE: Duration = Duration::from_secs(1);

pub fn sandbox() -> Sandbox {
    Sandbox::new(VSRUN)
}

/// Tells whether the tests run as root, for tests that do not require it.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The uid and gid that the server gets: nobody's if the tests run as root, so that its files and
/// vsrun's have different owners; else the caller's own.
pub fn user() -> (u32, u32) {
    if is_root() {
        (NOBODY, NOBODY)
    } else {
        (geteuid().as_raw(), getegid().as_raw())
    }
}

pub fn as_user(vsrun: Invocation<'_>) -> Invocation<'_> {
    vsrun.user(user().0.to_string())
}

/// A handler `handler` that records its runs and allows every restart.
pub fn handler(sandbox: &Sandbox) -> PathBuf {
    if !sandbox.path("handler").exists() {
        sandbox.handler("handler").create();
    }
    sandbox.path("handler")
}

/// The four ways to start a server, as (background, managed).
pub const WAYS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// The four ways to start a server: with `-b`, with `-m`, with both, with neither.
pub fn ways<'a>(sandbox: &'a Sandbox, handler: impl AsRef<OsStr>) -> [Invocation<'a>; 4] {
    let manager = || sandbox.vsrun().manager(sandbox.path("manager"), &handler);
    [
        sandbox.vsrun(),
        sandbox.vsrun().background(),
        manager(),
        manager().background(),
    ]
}

/// The four ways as the server's user.
pub fn every_way(sandbox: &Sandbox) -> [Invocation<'_>; 4] {
    ways(sandbox, handler(sandbox)).map(as_user)
}

/// The way of that number, from 0 to 3.
pub fn in_way(sandbox: &Sandbox, number: usize) -> Invocation<'_> {
    every_way(sandbox)
        .into_iter()
        .nth(number)
        .expect("one of four ways")
}

/// A server that must not run: it would create the file `ran`.
pub fn forbidden(sandbox: &Sandbox) -> Probe {
    sandbox.probe().append(sandbox.path("ran")).exit(0)
}

/// A server that logs its signals and ignores them until there is a file `end`; it does so only in
/// its first life.
pub fn stubborn_probe(sandbox: &Sandbox) -> Probe {
    let log = sandbox.path("signals");
    let stubborn = probe(sandbox).log_signals(log).on_term(OnTerm::Ignore);
    stubborn.until(sandbox.path("end")).exit(0).only_first(1)
}

/// How many dead children a process has not reaped.
pub fn zombies(of: Process) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let stats = entries.filter_map(|entry| {
        let digits = entry.file_name().to_str()?.parse::<i32>().is_ok();
        let content = digits.then(|| fs::read(entry.path().join("stat")).ok())??;
        (!content.is_empty()).then(|| Stat::parse(&content))
    });
    stats
        .filter(|stat| stat.ppid == of.pid() && stat.state == 'Z')
        .count()
}

/// Runs a program that must succeed.
#[track_caller]
pub fn make(program: &str, words: &[&OsStr]) {
    let status = Command::new(program).args(words).status();
    assert!(status.is_ok_and(|it| it.success()), "{program} {words:?}");
}

/// Gives a file to the server's user.
pub fn give(path: impl AsRef<Path>) {
    lchown(path, Some(user().0), Some(user().1)).expect("its owner may give it away");
}

#[track_caller]
pub fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its owner may set a mode");
}

/// Sets the times of a file, as touch(1) reads them.
#[track_caller]
pub fn age(path: impl AsRef<Path>, when: &str) {
    make(
        "touch",
        &[
            "-h".as_ref(),
            "-d".as_ref(),
            when.as_ref(),
            path.as_ref().as_os_str(),
        ],
    );
}

/// The content of a file as text; nothing if there is no file.
pub fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The metadata of a file; a link is not followed.
#[track_caller]
pub fn about(path: impl AsRef<Path>) -> Metadata {
    let path = path.as_ref();
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

#[track_caller]
pub fn mode_of(path: impl AsRef<Path>) -> u32 {
    about(path).permissions().mode() & 0o7777
}

#[track_caller]
pub fn owner_of(path: impl AsRef<Path>) -> (u32, u32) {
    let about = about(path);
    (about.uid(), about.gid())
}

/// What must not change of a file that vsrun must not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub inode: u64,
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u64,
    pub modified: (i64, i64),
    /// Of a regular file.
    pub content: Vec<u8>,
}

#[track_caller]
pub fn facts(path: impl AsRef<Path>) -> Facts {
    let about = about(&path);
    Facts {
        inode: about.ino(),
        mode: about.mode(),
        owner: (about.uid(), about.gid()),
        links: about.nlink(),
        modified: (about.mtime(), about.mtime_nsec()),
        content: if about.is_file() {
            fs::read(path).expect("a file")
        } else {
            Vec::new()
        },
    }
}

/// Is [`started`] for a server that leaves its lines in another file.
#[track_caller]
pub fn started_in(sandbox: &Sandbox, file: impl AsRef<Path>, count: usize) -> Process {
    let pids = wait_for(&format!("start {count} of the server"), || {
        let pids = sandbox.lines(&file);
        if pids.len() >= count {
            Ok(pids)
        } else {
            Err(pids)
        }
    });
    Process::of(pids[count - 1].parse().expect("an id for each start"))
}

/// The file `starts`, in which the server of any user can leave its lines.
pub fn open_starts(sandbox: &Sandbox) -> PathBuf {
    let starts = sandbox.file("starts", "");
    chmod(&starts, 0o666);
    starts
}

/// vsrun under strace(1), which injects this into every process of it, as in `setsid:error=EPERM`.
pub fn injecting<'a>(sandbox: &'a Sandbox, fault: &str) -> Invocation<'a> {
    let calls = fault.split(':').next().unwrap_or_default();
    let strace = sandbox
        .program("/usr/bin/strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    let strace = strace
        .arg(format!("trace={calls}"))
        .arg("-e")
        .arg(format!("inject={fault}"));
    strace.args(["--", VSRUN])
}

/// Attaches strace(1) to a manager and to every child that it will have.
#[track_caller]
pub fn refusing_children<'a>(sandbox: &'a Sandbox, manager: Process, inject: &str) -> Running<'a> {
    let strace = sandbox
        .program("/usr/bin/strace")
        .arg("-f")
        .arg("-o")
        .arg("/dev/null");
    let strace = strace.args(["-p", &manager.pid().to_string(), "-e"]);
    let tracer = strace.arg(format!("inject={inject}")).spawn();
    wait_for_message(&tracer, "attached");
    tracer
}

/// Makes a program `logger` that runs this line of sh, and returns a PATH with it.
pub fn path_with_logger(sandbox: &Sandbox, line: &str) -> String {
    let bin = sandbox.dir("bin");
    sandbox.executable("bin/logger", format!("#!/bin/sh\n{line}\n"));
    format!("{}:/usr/bin:/bin", bin.display())
}
