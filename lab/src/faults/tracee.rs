//! A traced process: its state, and reading its memory and files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A process or thread of vsrun.
pub struct Tracee {
    /// Its name, see [`Point`](super::fault::Point).
    pub process: String,
    /// The number of its children and threads.
    pub forked: u32,
    /// The number of its calls, by name.
    pub counts: HashMap<String, u32>,
    /// Whether its calls count.
    pub counting: bool,
    /// The change to make when the current call returns.
    pub pending: Option<Change>,
}

/// The address of the program's entry point, and the word there without the breakpoint.
pub struct Breakpoint {
    pub address: u64,
    pub word: i64,
}

/// A change to a call when it returns.
pub enum Change {
    Fail(Errno),
    /// Restore the first argument, because a system call does not change it.
    RestoreFirst(u64),
}

impl Tracee {
    pub fn new(process: String, counting: bool) -> Tracee {
        Tracee {
            process,
            forked: 0,
            counts: HashMap::new(),
            counting,
            pending: None,
        }
    }
}

impl Breakpoint {
    /// Puts a breakpoint at the entry point of a program that has just been executed.
    pub fn set(pid: Pid) -> Option<Breakpoint> {
        const INT3: i64 = 0xcc;
        let vector = fs::read(format!("/proc/{pid}/auxv")).ok()?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
        let mut entries = vector.chunks_exact(16).map(|entry| entry.split_at(8));
        let (_, address) = entries.find(|(kind, _)| number(kind) == Some(libc::AT_ENTRY))?;
        let address = number(address)?;
        let word = ptrace::read(pid, address as *mut _).ok()?;
        ptrace::write(pid, address as *mut _, word & !0xff | INT3).ok()?;
        Some(Breakpoint { address, word })
    }
}

/// Whether a descriptor is a pipe, a socket or the like, which has no disk that can fail.
pub fn is_in_memory(pid: Pid, descriptor: u64) -> bool {
    let link = fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
    link.is_ok_and(|link| link.is_relative())
}

/// The last component of the path that a call checks or removes.
pub fn file_name(pid: Pid, call: &str, registers: &user_regs_struct) -> Option<String> {
    let path = |address: u64| {
        let mut bytes = [0; 4096];
        let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        let read = memory.read_at(&mut bytes, address).ok()?;
        let path = bytes[..read].split(|byte| *byte == 0).next()?;
        (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
    };
    let opened = || fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi)).ok();
    let path = match call {
        "fstat" => opened(),
        "newfstatat" | "statx" | "unlinkat" => path(registers.rsi).or_else(opened),
        "stat" | "lstat" | "unlink" | "rmdir" => path(registers.rdi),
        _ => None,
    };
    Some(path?.file_name()?.to_string_lossy().into_owned())
}

/// The command line of a process.
pub fn command_line(pid: Pid) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}
