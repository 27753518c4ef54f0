//! Runs vsrun under ptrace(2), sees every system call of vsrun's processes, and makes one of them
//! fail. A process that executes another program is detached.
//!
//! strace(1) can inject errors too, but counts calls "per syscall and per tracee": `when=3` makes the
//! third call of every process fail. Here a call is named by process, name and ordinal (see
//! [`Point`]), so that exactly one fails.
//!
//! Calls count from the program's entry point (AT_ENTRY, see getauxval(3)), where a breakpoint is
//! set. Earlier ones are those of the dynamic loader.

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
use super::tracee::{Breakpoint, Change, Tracee, command_line, file_name, is_in_memory};

/// How a process ended: its status, or the number of the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Status(i32),
    Signal(i32),
}

#[derive(Debug)]
pub enum Event {
    /// A process has executed another program.
    Executed { pid: Pid, command: String },
    /// A process of vsrun has ended.
    Ended { process: String, end: End },
    /// The process that was started has ended. It may have executed the server.
    InitialEnded(End),
}

/// What the tracer does.
#[derive(Debug, Clone)]
pub enum Task {
    /// Only run vsrun.
    Watch,
    /// Record every call.
    List,
    /// Make this fault happen.
    Inject(Fault),
}

/// The call at the fault's point.
#[derive(Debug)]
pub struct FailedCall {
    /// Its first argument, which is a descriptor in most calls.
    pub descriptor: u64,
    /// The name of the file that it checks or removes.
    pub file_name: Option<String>,
}

/// vsrun and all its processes.
pub struct Tracer {
    task: Task,
    initial: Pid,
    /// None until the shell has executed vsrun.
    entry: Option<Breakpoint>,
    tracees: HashMap<Pid, Tracee>,
    /// Children that stopped before the event of their parent's fork.
    early: HashSet<Pid>,
    /// All calls in their order.
    pub points: Vec<Point>,
    /// The call that failed, if the run reached it.
    pub failed_call: Option<FailedCall>,
}

/// Waits until the process is traced, then executes vsrun.
const WAIT_AND_EXECUTE: &str = "read -r go && exec \"$@\" </dev/null";

impl Tracer {
    /// Starts vsrun by a shell. The first of `words` is the program.
    pub fn start(mut shell: Command, words: &[String], task: Task) -> Result<Tracer, String> {
        shell
            .args(["-c", WAIT_AND_EXECUTE, "sh"])
            .args(words)
            .stdin(Stdio::piped());
        let mut child = shell
            .spawn()
            .map_err(|error| format!("cannot run sh: {error}"))?;
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
        stdin
            .write_all(b"go\n")
            .map_err(|error| format!("cannot write to sh: {error}"))?;
        let mut tracer = Tracer {
            task,
            initial,
            entry: None,
            tracees: HashMap::new(),
            early: HashSet::new(),
            points: Vec::new(),
            failed_call: None,
        };
        tracer
            .tracees
            .insert(initial, Tracee::new("1".to_owned(), false));
        Ok(tracer)
    }

    /// Whether the fault is a kill.
    pub fn is_killing(&self) -> bool {
        matches!(
            &self.task,
            Task::Inject(Fault {
                kind: Kind::Kill,
                ..
            })
        )
    }

    /// All processes of vsrun.
    pub fn alive(&self) -> impl Iterator<Item = Pid> + '_ {
        self.tracees.keys().copied()
    }

    /// Handles one change of a process. None if there is none.
    pub fn step(&mut self) -> Option<Vec<Event>> {
        match waitpid(
            Pid::from_raw(-1),
            Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL),
        ) {
            Ok(WaitStatus::StillAlive) | Err(_) => None,
            Ok(status) => Some(self.on_status(status)),
        }
    }

    fn on_status(&mut self, status: WaitStatus) -> Vec<Event> {
        match status {
            WaitStatus::Exited(pid, code) => return self.ended(pid, End::Status(code)),
            WaitStatus::Signaled(pid, signal, _) => {
                return self.ended(pid, End::Signal(signal as i32));
            }
            WaitStatus::PtraceEvent(pid, _, event) => return self.on_event(pid, event),
            WaitStatus::PtraceSyscall(pid) => self.on_syscall(pid),
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if self.is_at_entry(pid) => {
                self.start_counting(pid)
            }
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
        Vec::new()
    }

    fn ended(&mut self, pid: Pid, end: End) -> Vec<Event> {
        let own = self.tracees.remove(&pid);
        let mut events: Vec<Event> = own
            .into_iter()
            .map(|own| Event::Ended {
                process: own.process,
                end,
            })
            .collect();
        if pid == self.initial {
            events.push(Event::InitialEnded(end));
        }
        self.add_orphans();
        events
    }

    /// Adds children whose parent was killed before the event of its fork.
    fn add_orphans(&mut self) {
        let has_parent =
            |pid: &Pid| parent(*pid).is_none_or(|parent| self.tracees.contains_key(&parent));
        let orphans: Vec<Pid> = self
            .early
            .iter()
            .copied()
            .filter(|pid| !has_parent(pid))
            .collect();
        for pid in orphans {
            self.early.remove(&pid);
            self.tracees
                .insert(pid, Tracee::new("orphan".to_owned(), true));
            self.resume(pid, None);
        }
    }

    fn on_event(&mut self, pid: Pid, event: i32) -> Vec<Event> {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.add_child(pid);
            }
            libc::PTRACE_EVENT_EXEC if self.entry.is_some() => {
                self.tracees.remove(&pid);
                let command = command_line(pid);
                // The process may have been killed.
                let _ = ptrace::detach(pid, None);
                return vec![Event::Executed { pid, command }];
            }
            // This is the exec of the shell itself.
            libc::PTRACE_EVENT_EXEC if command_line(pid).contains(WAIT_AND_EXECUTE) => {}
            libc::PTRACE_EVENT_EXEC => self.entry = Breakpoint::set(pid),
            _ if !self.tracees.contains_key(&pid) => {
                self.early.insert(pid);
                self.add_orphans();
                return Vec::new();
            }
            _ => {}
        }
        self.resume(pid, None);
        Vec::new()
    }

    fn is_at_entry(&self, pid: Pid) -> bool {
        let is_before = self.tracees.get(&pid).is_some_and(|own| !own.counting);
        let at = ptrace::getregs(pid).ok().map(|registers| registers.rip - 1);
        is_before && at.is_some() && at == self.entry.as_ref().map(|entry| entry.address)
    }

    /// Removes the breakpoint. From here on calls count.
    fn start_counting(&mut self, pid: Pid) {
        if let (Some(entry), Ok(mut registers)) = (&self.entry, ptrace::getregs(pid)) {
            registers.rip = entry.address;
            let whole = ptrace::write(pid, entry.address as *mut _, entry.word);
            let begun = whole.and_then(|()| ptrace::setregs(pid, registers));
            let own = self.tracees.get_mut(&pid);
            own.into_iter().for_each(|own| own.counting = begun.is_ok());
        }
        self.resume(pid, None);
    }

    fn add_child(&mut self, parent: Pid) {
        let Ok(child) = ptrace::getevent(parent) else {
            return;
        };
        let child = Pid::from_raw(i32::try_from(child).unwrap_or_default());
        let Some(own) = self.tracees.get_mut(&parent) else {
            return;
        };
        own.forked += 1;
        let added = Tracee::new(format!("{}.{}", own.process, own.forked), true);
        self.tracees.insert(child, added);
        if self.early.remove(&child) {
            self.resume(child, None);
        }
    }

    fn on_syscall(&mut self, pid: Pid) {
        const ENTRY: u8 = 1;
        if ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY) {
            self.on_entry(pid);
        } else if let Some(change) = self
            .tracees
            .get_mut(&pid)
            .and_then(|own| own.pending.take())
        {
            if let Ok(mut registers) = ptrace::getregs(pid) {
                match change {
                    Change::Fail(error) => registers.rax = -(error as i64) as u64,
                    Change::RestoreFirst(first) => registers.rdi = first,
                }
                // The process may have been killed.
                let _ = ptrace::setregs(pid, registers);
            }
        }
        self.resume(pid, None);
    }

    fn on_entry(&mut self, pid: Pid) {
        let (Ok(mut registers), Some(own)) = (ptrace::getregs(pid), self.tracees.get_mut(&pid))
        else {
            return;
        };
        let mut call = calls::name(registers.orig_rax, registers.rsi);
        if matches!(call.as_str(), "read" | "write") && is_in_memory(pid, registers.rdi) {
            call += ":pipe";
        }
        let ordinal = own.counts.entry(call.clone()).or_default();
        *ordinal += 1;
        let point = Point {
            process: own.process.clone(),
            call,
            ordinal: *ordinal,
        };
        match &self.task {
            Task::List => self.points.push(point),
            Task::Inject(fault) if fault.point == point && self.failed_call.is_none() => {
                self.failed_call = Some(FailedCall {
                    descriptor: registers.rdi,
                    file_name: file_name(pid, &point.call, &registers),
                });
                match fault.kind {
                    Kind::Kill => {
                        // It is stopped, so it exists.
                        let _ = kill(pid, Signal::SIGKILL);
                        return;
                    }
                    // A brk(2) that fails returns the old end of the heap.
                    Kind::Error(_) if point.call == "brk" => {
                        own.pending = Some(Change::RestoreFirst(registers.rdi));
                        registers.rdi = 0;
                    }
                    Kind::Error(error) => {
                        own.pending = Some(Change::Fail(error));
                        if point.call != "close" {
                            registers.orig_rax = u64::MAX;
                        }
                    }
                }
                // The process may have been killed.
                let _ = ptrace::setregs(pid, registers);
            }
            Task::Inject(_) | Task::Watch => {}
        }
    }

    /// Continues a stopped process, up to its next call if calls of it matter.
    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        let own = self.tracees.get(&pid).filter(|own| own.counting);
        let to_next_call = own.is_some_and(|own| match &self.task {
            Task::Watch => false,
            Task::List => true,
            Task::Inject(fault) => {
                own.pending.is_some()
                    || (self.failed_call.is_none() && own.process == fault.point.process)
            }
        });
        // The process may have been killed.
        let _ = if to_next_call {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        };
    }
}
