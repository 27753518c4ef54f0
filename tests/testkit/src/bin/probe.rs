//! A server for vsrun's integration tests: reports the state it was started in, then behaves as its
//! arguments say. `testkit::Probe` writes those and documents them.
//!
//! It has no Rust `main`: the runtime would open closed standard streams and ignore SIGPIPE before
//! the first look, and so hide what a server gets.
#![no_main]
#![allow(unsafe_code)]

use std::env;
use std::ffi::{OsStr, OsString, c_char, c_int};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, fork, pause, setsid};
use testkit::{OnTerm, Report, signal_name, signal_number};

const USAGE_ERROR: c_int = 64;
const CANNOT: c_int = 74;
const POLL: Duration = Duration::from_millis(5);

/// The signals that `log-signals` catches.
const LOGGED: [c_int; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGTERM,
];

/// Where the signal handler writes names to; -1: nowhere.
static SIGNAL_LOG: AtomicI32 = AtomicI32::new(-1);
static TERMINATED: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Behaviour {
    report: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    append: Option<PathBuf>,
    sayings: Vec<Saying>,
    log_signals: Option<PathBuf>,
    on_term: Option<OnTerm>,
    forks: Vec<Fork>,
    until: Option<PathBuf>,
    ticks: Option<Duration>,
    end: Option<End>,
    only_first: Option<usize>,
    dump_core: bool,
}

enum Saying {
    Out(OsString),
    Err(OsString),
    Lines(u64),
}

enum Fork {
    Child,
    Session,
    Away,
}

#[derive(Clone, Copy)]
enum End {
    Exit(c_int),
    Kill(c_int),
}

/// Where the C library enters.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    let words = env::args_os().skip(1).take_while(|word| word != "--");
    let behaviour = match Behaviour::parse(words) {
        Ok(behaviour) => behaviour,
        Err(word) => {
            eprintln!("probe: what is '{}'?", word.to_string_lossy());
            return USAGE_ERROR;
        }
    };
    match behaviour.play() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("probe: {error}");
            CANNOT
        }
    }
}

impl Behaviour {
    fn parse(words: impl Iterator<Item = OsString>) -> Result<Behaviour, OsString> {
        let mut behaviour = Behaviour::default();
        for word in words {
            let bytes = word.as_bytes();
            let equals = bytes.iter().position(|byte| *byte == b'=');
            let (name, value) = bytes.split_at(equals.ok_or_else(|| word.clone())?);
            let name = String::from_utf8_lossy(name);
            behaviour
                .take(&name, OsStr::from_bytes(&value[1..]))
                .ok_or_else(|| word.clone())?;
        }
        Ok(behaviour)
    }

    fn take(&mut self, name: &str, value: &OsStr) -> Option<()> {
        let path = || Some(PathBuf::from(value));
        let text = value.to_str();
        let number = || text?.parse::<u64>().ok();
        match name {
            "report" => self.report = path(),
            "pidfile" => self.pidfile = path(),
            "append" => self.append = path(),
            "out" => self.sayings.push(Saying::Out(value.to_owned())),
            "err" => self.sayings.push(Saying::Err(value.to_owned())),
            "lines" => self.sayings.push(Saying::Lines(number()?)),
            "ticks" => self.ticks = Some(Duration::from_millis(number()?)),
            "log-signals" => self.log_signals = path(),
            "term" => self.on_term = Some(on_term(text?)?),
            "fork" => self.forks.push(fork_kind(text?)?),
            "until" => self.until = path(),
            "exit" => self.end = Some(End::Exit(number()? as c_int)),
            "kill" => self.end = Some(End::Kill(signal_number(text?)?)),
            "first" => self.only_first = Some(number()? as usize),
            "core" => self.dump_core = true,
            _ => return None,
        }
        Some(())
    }

    /// Does everything in the documented order and returns the exit status.
    fn play(&self) -> io::Result<c_int> {
        if let Some(path) = &self.report {
            Report::observe(self.pidfile.as_deref()).write(path)?;
        }
        if self.dump_core {
            let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
            setrlimit(Resource::RLIMIT_CORE, hard, hard)?;
        }
        self.catch_signals()?;
        let starts = self
            .append
            .as_deref()
            .map(count_start)
            .transpose()?
            .unwrap_or(1);
        self.sayings.iter().try_for_each(Saying::say)?;
        for kind in &self.forks {
            if let Some(status) = kind.perform()? {
                return Ok(status);
            }
        }
        let comes_to_end = self.only_first.is_none_or(|count| starts <= count);
        let end = if comes_to_end { self.end } else { None };
        if self.until.is_some() || end.is_none() {
            if let Some(status) = self.stay(comes_to_end)? {
                return Ok(status);
            }
        }
        Ok(end.unwrap_or(End::Exit(0)).meet())
    }

    fn catch_signals(&self) -> io::Result<()> {
        if let Some(path) = &self.log_signals {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            SIGNAL_LOG.store(file.as_raw_fd(), Ordering::Relaxed);
            LOGGED
                .into_iter()
                .for_each(|signal| set_action(signal, note as *const () as usize));
            file.write_all(b"READY\n")?;
            // The signal handler still uses the descriptor.
            std::mem::forget(file);
        }
        if self.on_term.is_some() {
            set_action(libc::SIGTERM, note as *const () as usize);
        }
        Ok(())
    }

    /// Stays until it is time to end; a status if SIGTERM came first.
    fn stay(&self, comes_to_end: bool) -> io::Result<Option<c_int>> {
        let watches = self.until.is_some() || self.ticks.is_some();
        if !watches && self.log_signals.is_none() && self.on_term.is_none() {
            loop {
                pause();
            }
        }
        let mut ticks = 0;
        let start = Instant::now();
        loop {
            if TERMINATED.swap(false, Ordering::Relaxed) {
                match self.on_term.unwrap_or(OnTerm::Exit(0)) {
                    OnTerm::Exit(status) => return Ok(Some(c_int::from(status))),
                    OnTerm::Slow(duration) => {
                        thread::sleep(duration);
                        return Ok(Some(0));
                    }
                    OnTerm::Ignore => {}
                }
            }
            if comes_to_end && self.until.as_deref().is_some_and(Path::exists) {
                return Ok(None);
            }
            if self
                .ticks
                .is_some_and(|every| start.elapsed() >= every * (ticks + 1))
            {
                ticks += 1;
                put(io::stdout(), format!("tick {ticks}").as_ref())?;
            }
            thread::sleep(POLL);
        }
    }
}

impl Saying {
    fn say(&self) -> io::Result<()> {
        match self {
            Saying::Out(text) => put(io::stdout(), text),
            Saying::Err(text) => put(io::stderr(), text),
            Saying::Lines(count) => {
                (1..=*count).try_for_each(|line| put(io::stdout(), format!("line {line}").as_ref()))
            }
        }
    }
}

impl Fork {
    /// Forks; the process that has nothing more to do gets its exit status.
    fn perform(&self) -> io::Result<Option<c_int>> {
        // SAFETY: this process has one thread, so the child may continue like any other process.
        let side = unsafe { fork() }?;
        match (self, side) {
            (Fork::Child | Fork::Session, ForkResult::Parent { .. }) => Ok(None),
            (Fork::Away, ForkResult::Parent { .. }) => Ok(Some(0)),
            (Fork::Away, ForkResult::Child) => {
                setsid()?;
                Ok(None)
            }
            (Fork::Child, ForkResult::Child) => loop {
                pause();
            },
            (Fork::Session, ForkResult::Child) => {
                setsid()?;
                loop {
                    pause();
                }
            }
        }
    }
}

impl End {
    /// Returns the exit status, or dies of the signal.
    fn meet(self) -> c_int {
        match self {
            End::Exit(status) => status,
            End::Kill(signal) => {
                set_action(signal, libc::SIG_DFL);
                // SAFETY: raise takes a number and no memory of ours.
                unsafe { libc::raise(signal) };
                // Not every signal kills.
                loop {
                    pause();
                }
            }
        }
    }
}

fn on_term(text: &str) -> Option<OnTerm> {
    match text.split_once(':') {
        None if text == "ignore" => Some(OnTerm::Ignore),
        Some(("exit", status)) => status.parse().ok().map(OnTerm::Exit),
        Some(("slow", ms)) => ms.parse().ok().map(Duration::from_millis).map(OnTerm::Slow),
        _ => None,
    }
}

fn fork_kind(text: &str) -> Option<Fork> {
    match text {
        "child" => Some(Fork::Child),
        "session" => Some(Fork::Session),
        "away" => Some(Fork::Away),
        _ => None,
    }
}

/// Appends a line with this process's id and returns how many lines there are.
fn count_start(path: &Path) -> io::Result<usize> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{}\n", process::id()).as_bytes())?;
    Ok(fs::read_to_string(path)?.lines().count())
}

/// Writes one line by one write(2).
fn put(mut stream: impl Write, text: &OsStr) -> io::Result<()> {
    let mut line = text.as_bytes().to_vec();
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.flush()
}

fn set_action(signal: c_int, action: libc::sighandler_t) {
    // SAFETY: the action is SIG_DFL or `note`, which only does what signal-safety(7) allows.
    unsafe { libc::signal(signal, action) };
}

extern "C" fn note(signal: c_int) {
    if signal == libc::SIGTERM {
        TERMINATED.store(true, Ordering::Relaxed);
    }
    let log = SIGNAL_LOG.load(Ordering::Relaxed);
    if log < 0 {
        return;
    }
    let mut line = [b'\n'; 8];
    let name = signal_name(signal).unwrap_or("?").as_bytes();
    line[..name.len()].copy_from_slice(name);
    // SAFETY: the line is longer than every name, and its newline stands behind the name.
    unsafe { libc::write(log, line.as_ptr().cast(), name.len() + 1) };
}
