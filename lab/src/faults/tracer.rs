//! Runs vsrun under ptrace(2), sees every system call of vsrun's own processes,
//! and makes one of them fail. What they execute is let go at its exec.
//!
//! strace(1) can inject errors too, but counts calls "per syscall and per tracee" and cannot be
//! told which tracee: `when=3` strikes the third call of every process. Here a call is named by
//! process, name and ordinal (see [`Point`]), so that each is reached by itself and exactly once.
//!
//! Calls count from the program's entry point on, where a breakpoint is set (AT_ENTRY, see
//! getauxval(3)). What is before that is the dynamic loader's, which maps the libraries.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls;
use super::fault::{Fault, Kind, Point};
use super::processes::parent;
use super::tracee::{Breakpoint, Change, Tracee, command_line, leads_to_memory, looked_at};

/// How a process ended: its status, or the signal's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Status(i32),
    Signal(i32),
}

/// What the tracer has learned.
#[derive(Debug)]
pub enum Event {
    /// A process has become another program.
    Executed { pid: Pid, command: String },
    /// One of vsrun's own processes has ended.
    Ended { process: String, end: End },
    /// The process that was started has ended, as vsrun or as the server that it became.
    InitialEnded(End),
}

/// What is wanted of the tracer.
#[derive(Debug, Clone)]
pub enum Task {
    /// Run, and touch nothing.
    Watch,
    /// Note every call.
    List,
    /// Make this happen.
    Strike(Fault),
}

/// The call that was made to fail.
#[derive(Debug)]
pub struct Struck {
    /// Its first argument, which is a descriptor in most.
    pub descriptor: u64,
    /// The name of what it was to look at.
    pub looked_at: Option<String>,
}

/// vsrun and all its processes.
pub struct Tracer {
    task: Task,
    initial: Pid,
    /// Once the gate has become vsrun.
    entry: Option<Breakpoint>,
    tracees: HashMap<Pid, Tracee>,
    /// Children that stopped before their parent's fork was heard of.
    early: HashSet<Pid>,
    /// Every call in the order in which it was made.
    pub points: Vec<Point>,
    /// The call at the fault's point, if that was reached.
    pub struck: Option<Struck>,
}

/// Holds the process until it is traced, and then becomes vsrun.
const GATE: &str = "read -r go && exec \"$@\" </dev/null";

impl Tracer {
    /// Starts a command that says where its output goes and where it runs. The first of `words`
    /// is the program.
    pub fn start(mut gate: Command, words: &[String], task: Task) -> Result<Tracer, String> {
        gate.args(["-c", GATE, "gate"]).args(words).stdin(Stdio::piped());
        let mut child = gate.spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        let initial = Pid::from_raw(child.id() as i32);
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        let seized = ptrace::seize(initial, options);
        seized.map_err(|reason| format!("cannot trace: {reason}"))?;
        let mut stdin = child.stdin.take().ok_or("no pipe to sh")?;
        stdin.write_all(b"go\n").map_err(|error| format!("cannot write to sh: {error}"))?;
        let mut tracer = Tracer {
            task,
            initial,
            entry: None,
            tracees: HashMap::new(),
            early: HashSet::new(),
            points: Vec::new(),
            struck: None,
        };
        tracer.tracees.insert(initial, Tracee::new("1".to_owned(), false));
        Ok(tracer)
    }

    /// Whether the fault is a kill.
    pub fn is_killing(&self) -> bool {
        matches!(&self.task, Task::Strike(Fault { kind: Kind::Kill, .. }))
    }

    /// vsrun's own processes.
    pub fn alive(&self) -> impl Iterator<Item = Pid> + '_ {
        self.tracees.keys().copied()
    }

    /// Deals with one thing that has happened, if any has; none if nothing has.
    pub fn step(&mut self) -> Option<Vec<Event>> {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) | Err(_) => None,
            Ok(status) => Some(self.hear(status)),
        }
    }

    fn hear(&mut self, status: WaitStatus) -> Vec<Event> {
        match status {
            WaitStatus::Exited(pid, code) => return self.ended(pid, End::Status(code)),
            WaitStatus::Signaled(pid, signal, _) => {
                return self.ended(pid, End::Signal(signal as i32));
            }
            WaitStatus::PtraceEvent(pid, _, event) => return self.hear_event(pid, event),
            WaitStatus::PtraceSyscall(pid) => self.hear_call(pid),
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if self.is_at_entry(pid) => self.begin(pid),
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
        Vec::new()
    }

    fn ended(&mut self, pid: Pid, end: End) -> Vec<Event> {
        let own = self.tracees.remove(&pid);
        let mut events: Vec<Event> =
            own.into_iter().map(|own| Event::Ended { process: own.process, end }).collect();
        if pid == self.initial {
            events.push(Event::InitialEnded(end));
        }
        self.adopt_orphans();
        events
    }

    /// A parent that is killed between its fork and the word of it leaves a child that nobody
    /// knows.
    fn adopt_orphans(&mut self) {
        let known =
            |pid: &Pid| parent(*pid).is_none_or(|parent| self.tracees.contains_key(&parent));
        let orphans: Vec<Pid> = self.early.iter().copied().filter(|pid| !known(pid)).collect();
        for pid in orphans {
            self.early.remove(&pid);
            self.tracees.insert(pid, Tracee::new("orphan".to_owned(), true));
            self.resume(pid, None);
        }
    }

    fn hear_event(&mut self, pid: Pid, event: i32) -> Vec<Event> {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.adopt(pid);
            }
            libc::PTRACE_EVENT_EXEC if self.entry.is_some() => {
                self.tracees.remove(&pid);
                let command = command_line(pid);
                // A process that has been killed in the meantime needs no letting go.
                let _ = ptrace::detach(pid, None);
                return vec![Event::Executed { pid, command }];
            }
            // The shell's own exec may be seen too.
            libc::PTRACE_EVENT_EXEC if command_line(pid).contains(GATE) => {}
            libc::PTRACE_EVENT_EXEC => self.entry = Breakpoint::set(pid),
            _ if !self.tracees.contains_key(&pid) => {
                self.early.insert(pid);
                self.adopt_orphans();
                return Vec::new();
            }
            _ => {}
        }
        self.resume(pid, None);
        Vec::new()
    }

    fn is_at_entry(&self, pid: Pid) -> bool {
        let waits = self.tracees.get(&pid).is_some_and(|own| !own.counting);
        let at = ptrace::getregs(pid).ok().map(|registers| registers.rip - 1);
        waits && at.is_some() && at == self.entry.as_ref().map(|entry| entry.address)
    }

    /// Takes the breakpoint away; from here on calls count.
    fn begin(&mut self, pid: Pid) {
        if let (Some(entry), Ok(mut registers)) = (&self.entry, ptrace::getregs(pid)) {
            registers.rip = entry.address;
            let whole = ptrace::write(pid, entry.address as *mut _, entry.word);
            let begun = whole.and_then(|()| ptrace::setregs(pid, registers));
            let own = self.tracees.get_mut(&pid);
            own.into_iter().for_each(|own| own.counting = begun.is_ok());
        }
        self.resume(pid, None);
    }

    fn adopt(&mut self, parent: Pid) {
        let Ok(child) = ptrace::getevent(parent) else { return };
        let child = Pid::from_raw(i32::try_from(child).unwrap_or_default());
        let Some(own) = self.tracees.get_mut(&parent) else { return };
        own.forked += 1;
        let born = Tracee::new(format!("{}.{}", own.process, own.forked), true);
        self.tracees.insert(child, born);
        if self.early.remove(&child) {
            self.resume(child, None);
        }
    }

    fn hear_call(&mut self, pid: Pid) {
        const ENTRY: u8 = 1;
        if ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY) {
            self.enter(pid);
        } else if let Some(change) = self.tracees.get_mut(&pid).and_then(|own| own.pending.take()) {
            if let Ok(mut registers) = ptrace::getregs(pid) {
                match change {
                    Change::Fail(error) => registers.rax = -(error as i64) as u64,
                    Change::PutBack(first) => registers.rdi = first,
                }
                // A process that has been killed in the meantime returns from nothing.
                let _ = ptrace::setregs(pid, registers);
            }
        }
        self.resume(pid, None);
    }

    fn enter(&mut self, pid: Pid) {
        let (Ok(mut registers), Some(own)) = (ptrace::getregs(pid), self.tracees.get_mut(&pid))
        else {
            return;
        };
        let mut call = calls::name(registers.orig_rax, registers.rsi);
        if matches!(call.as_str(), "read" | "write") && leads_to_memory(pid, registers.rdi) {
            call += ":pipe";
        }
        let ordinal = own.counts.entry(call.clone()).or_default();
        *ordinal += 1;
        let point = Point { process: own.process.clone(), call, ordinal: *ordinal };
        match &self.task {
            Task::List => self.points.push(point),
            Task::Strike(fault) if fault.point == point && self.struck.is_none() => {
                self.struck = Some(Struck {
                    descriptor: registers.rdi,
                    looked_at: looked_at(pid, &point.call, &registers),
                });
                match fault.kind {
                    Kind::Kill => {
                        // It is there: it is stopped.
                        let _ = kill(pid, Signal::SIGKILL);
                        return;
                    }
                    // Its failure is told by the old end of the heap, see brk(2).
                    Kind::Error(_) if point.call == "brk" => {
                        own.pending = Some(Change::PutBack(registers.rdi));
                        registers.rdi = 0;
                    }
                    Kind::Error(error) => {
                        own.pending = Some(Change::Fail(error));
                        if point.call != "close" {
                            registers.orig_rax = u64::MAX;
                        }
                    }
                }
                // A process that has been killed in the meantime calls nothing.
                let _ = ptrace::setregs(pid, registers);
            }
            Task::Strike(_) | Task::Watch => {}
        }
    }

    /// Lets a stopped process go on, up to its next call where that one may matter.
    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        let own = self.tracees.get(&pid).filter(|own| own.counting);
        let to_next_call = own.is_some_and(|own| match &self.task {
            Task::Watch => false,
            Task::List => true,
            Task::Strike(fault) => {
                own.pending.is_some()
                    || (self.struck.is_none() && own.process == fault.point.process)
            }
        });
        // A process that has been killed in the meantime does not go on.
        let _ = if to_next_call { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    }
}
