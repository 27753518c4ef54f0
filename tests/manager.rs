//! The manager: what each death, request and shortage leads to, in every state it can be in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe};
use testkit::signal::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP, SIGTERM, SIGTSTP,
    SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH,
};
use testkit::{
    HandlerScript, Invocation, LogDirectory, OnTerm, Probe, Process, Report, Resource, Running,
    Sandbox, Stat, require_program, require_root, stays, wait_for, wait_for_within,
};

/// Every signal that asks the manager to stop.
const STOPS: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];
/// Every signal that asks the manager for anything.
const REQUESTS: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP];
/// Every signal that is meant for the server.
const PASSED_ON: [i32; 3] = [SIGUSR1, SIGUSR2, SIGWINCH];
/// The signals that do not end a process by default (see signal(7)); 23 is SIGURG.
const HARMLESS: [i32; 8] = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH, 23];
/// Handlers that write nothing down.
const CONSENT: &str = "/bin/true";
const REFUSAL: &str = "/bin/false";
/// What "at once" may take on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_secs(1);

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))
}

/// The command line of a manager up to the server's, with pidfiles `server.pid` and `manager.pid`.
fn managed(sandbox: &Sandbox, handler: impl AsRef<OsStr>) -> Invocation<'_> {
    managed_as(sandbox, "", handler)
}

/// One of several managers in a sandbox.
fn managed_as<'a>(sandbox: &'a Sandbox, name: &str, handler: impl AsRef<OsStr>) -> Invocation<'a> {
    let pidfile = |of| sandbox.path(format!("{name}{of}.pid"));
    sandbox.vsrun().pidfile(pidfile("server")).manager(pidfile("manager"), handler)
}

/// A server that leaves a line for each start in the file `starts`.
fn probe(sandbox: &Sandbox) -> Probe {
    sandbox.probe().append(sandbox.path("starts"))
}

/// A server that logs its signals and stays, whatever they are, until there is a file `end`; in
/// later lives it stays.
fn stubborn_probe(sandbox: &Sandbox) -> Probe {
    let log = sandbox.path("signals");
    let stubborn = probe(sandbox).log_signals(log).on_term(OnTerm::Ignore);
    stubborn.until(sandbox.path("end")).exit(0).only_first(1)
}

/// Waits for the start number `count` and returns the server of it.
#[track_caller]
fn started(sandbox: &Sandbox, count: usize) -> Process {
    let pids = wait_for(&format!("start {count} of the server"), || {
        let pids = sandbox.lines("starts");
        if pids.len() >= count { Ok(pids) } else { Err(pids) }
    });
    Process::of(pids[count - 1].parse().expect("an id for each start"))
}

fn starts(sandbox: &Sandbox) -> usize {
    sandbox.lines("starts").len()
}

/// Waits until the manager has written `text`.
#[track_caller]
fn said(manager: &Running<'_>, text: &str) {
    wait_for(&format!("the words '{text}'"), || {
        let said = manager.stderr();
        if said.contains(text) { Ok(()) } else { Err(said) }
    });
}

/// The delays that the manager has announced so far by lines with `words` before them.
fn delays(manager: &Running<'_>, words: &str) -> Vec<String> {
    let text = manager.stderr();
    text.lines().filter_map(|line| Some(line.split_once(words)?.1.trim().to_owned())).collect()
}

/// Waits until the server has noted these signals.
#[track_caller]
fn noted(sandbox: &Sandbox, signals: &[&str]) {
    wait_for(&format!("the signals {signals:?}"), || {
        let log = sandbox.lines("signals");
        if log == signals { Ok(()) } else { Err(log) }
    });
}

/// Sends a signal without a look at all processes first: for moments that must not take long. The
/// process must be a child of the test that was not waited for, or be held by one that is.
#[track_caller]
fn strike(pid: i32, signal: i32) {
    let signal = Signal::try_from(signal).expect("a signal with a name");
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// Takes a request and a death in the same instant: the manager sees both when it goes on.
#[track_caller]
fn strike_both(manager: &Running<'_>, request: i32, server: Process, signal: i32) {
    strike(manager.pid(), SIGSTOP);
    wait_for("the manager to be stopped", || {
        // Lower case where strace looks on.
        manager.process().stat().is_some_and(|it| matches!(it.state, 'T' | 't'))
    });
    strike(server.pid(), signal);
    wait_for("the death of the server", || !server.exists());
    strike(manager.pid(), request);
    strike(manager.pid(), SIGCONT);
}

/// Checks that neither a process nor a file of the manager is left.
#[track_caller]
fn expect_nothing_left(sandbox: &Sandbox) {
    expect_no_files(sandbox);
    // What was told to end with a handler may not have had the processor yet.
    wait_for_within(Duration::from_secs(5), "the end of every process", || {
        let left: Vec<_> = sandbox.processes().iter().map(|it| it.cmdline()).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[track_caller]
fn expect_no_files(sandbox: &Sandbox) {
    for name in ["server.pid", "manager.pid", "manager.pid.lock"] {
        assert!(!sandbox.path(name).exists(), "{name} is left");
    }
}

/// Ends a manager by SIGTERM, and checks that this is what ends it.
#[track_caller]
fn stop(manager: Running<'_>) {
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
}

/// How many dead children a process has not reaped.
fn zombies(of: Process) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let stats = entries.filter_map(|entry| {
        let digits = entry.file_name().to_str()?.parse::<i32>().is_ok();
        let content = digits.then(|| fs::read(entry.path().join("stat")).ok())??;
        (!content.is_empty()).then(|| Stat::parse(&content))
    });
    stats.filter(|stat| stat.ppid == of.pid() && stat.state == 'Z').count()
}

/// The manager's descriptors once it is at rest: the channel to a child that it has just started is
/// closed.
#[track_caller]
fn files_at_rest(manager: Process) -> BTreeMap<i32, PathBuf> {
    let mut last = None;
    wait_for("the manager to be at rest", || {
        let files = manager.open_files()?;
        let busy = files.values().any(|target| target.to_string_lossy().starts_with("socket:"));
        let asleep = manager.stat()?.state == 'S';
        let same = last.replace(files.clone()).is_some_and(|last| last == files);
        (same && asleep && !busy).then_some(files)
    })
}

/// Attaches strace(1) with these options to the manager alone, its children excluded.
#[track_caller]
fn traced<'a>(sandbox: &'a Sandbox, manager: Process, options: &[&str]) -> Running<'a> {
    let tracer = sandbox
        .program("/usr/bin/strace")
        .arg("-o")
        .arg(sandbox.path("trace"))
        .args(["-p", &manager.pid().to_string()])
        .args(options)
        .spawn();
    wait_for("strace to be attached", || {
        let said = tracer.stderr();
        if said.contains("attached") { Ok(()) } else { Err(said) }
    });
    tracer
}

/// Makes the system refuse these calls of the manager for this reason, `when` strace(1) says.
#[track_caller]
fn refusing<'a>(
    sandbox: &'a Sandbox,
    manager: Process,
    calls: &str,
    error: &str,
    when: &str,
) -> Running<'a> {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:error={error}:when={when}");
    traced(sandbox, manager, &["-e", &trace, "-e", &inject])
}

/// Lets go of a traced process.
fn released(tracer: Running<'_>) {
    tracer.signal(SIGINT);
    // It dies of the signal that it was told to end by.
    tracer.wait();
}

const FORKS: &str = "clone,clone3,fork,vfork";
const CHANNELS: &str = "socketpair,pipe,pipe2";

// Deaths.

#[test]
fn a_voluntary_exit_ends_the_manager_with_0_and_asks_no_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let outcome = managed(&sandbox, &handler).command(probe(&sandbox).exit(0)).run();
    outcome.expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_nothing_left(&sandbox);
}

#[test]
fn an_exit_with_any_other_status_is_unexpected_and_becomes_the_managers() {
    let sandbox = sandbox();
    let statuses = [1, 2, 3, 42, 63, 64, 125, 126, 127, 128, 143, 254, 255];
    let managers = statuses.map(|status| {
        let manager = managed_as(&sandbox, &status.to_string(), REFUSAL);
        let manager = manager.command(sandbox.probe().exit(status));
        (status, manager.spawn())
    });
    for (status, manager) in managers {
        let outcome = manager.wait();
        outcome.expect_code(status.into());
        assert!(outcome.stderr_text().contains("handler"), "{status}");
    }
}

#[test]
fn a_death_by_any_signal_is_unexpected_and_becomes_128_and_its_number() {
    let sandbox = sandbox();
    let deadly = (1..=64).filter(|signal| !HARMLESS.contains(signal));
    let managers: Vec<_> = deadly
        .map(|signal| {
            let starts = sandbox.path(format!("{signal}.starts"));
            let manager = managed_as(&sandbox, &signal.to_string(), REFUSAL)
                .limit(Resource::RLIMIT_CORE, 0, 0)
                .command(sandbox.probe().append(starts));
            (signal, manager.spawn())
        })
        .collect();
    for (signal, manager) in managers {
        wait_for("the start", || sandbox.lines(format!("{signal}.starts")).len() == 1);
        let server = sandbox.wait_for_pidfile(sandbox.path(format!("{signal}server.pid")));
        sandbox.signal(server, signal);
        let outcome = manager.wait();
        outcome.expect_code(128 + signal);
        assert!(outcome.stderr_text().contains("handler"), "{signal}");
    }
}

#[test]
fn the_handlers_0_restarts_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    assert!(second.exists() && second != first);
    assert_eq!(sandbox.read_pidfile(sandbox.path("server.pid")), Some(second.pid()));
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
    assert_eq!(starts(&sandbox), 2);
    expect_nothing_left(&sandbox);
}

#[test]
fn the_handlers_refusal_ends_the_manager_and_nothing_is_started() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    manager.wait().expect_code(128 + SIGKILL);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_server_that_puts_itself_into_the_background_has_exited_voluntarily_and_the_log_says_so() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let outcome = managed(&sandbox, &handler).command(probe(&sandbox).daemonizing()).run();
    outcome.expect_code(0);
    assert!(outcome.stderr_text().contains("background"));
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    assert_eq!(sandbox.processes().len(), 1, "what went away lives on");
    expect_no_files(&sandbox);
}

#[test]
fn a_stopped_server_is_alive() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    sandbox.signal(server, SIGSTOP);
    wait_for("the server to be stopped", || server.stat().is_some_and(|stat| stat.state == 'T'));
    stays("managed", Duration::from_millis(200), || {
        manager.process().exists() && sandbox.path("server.pid").exists()
    });
    sandbox.signal(server, SIGCONT);
    stop(manager);
}

#[test]
fn a_death_while_the_manager_is_stopped_is_seen_when_it_goes_on() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    manager.signal(SIGSTOP);
    sandbox.signal(server, SIGKILL);
    wait_for("the death of the server", || !server.exists());
    manager.signal(SIGCONT);
    assert!(started(&sandbox, 2).exists());
    stop(manager);
}

// Requests to a running server's manager.

#[test]
fn a_stop_request_sends_the_server_sigterm_and_ends_the_manager_with_0_when_it_is_gone() {
    for request in STOPS {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let slow = OnTerm::Slow(Duration::from_millis(200));
        let server = probe(&sandbox).log_signals(sandbox.path("signals"));
        let manager = managed(&sandbox, &handler).command(server.on_term(slow)).spawn();
        started(&sandbox, 1);
        manager.signal(request);
        let outcome = manager.wait();
        outcome.expect_code(0);
        // The server was not killed while it took its time.
        assert!(outcome.stderr_text().contains("exited with status 0"));
        assert_eq!(sandbox.lines("signals"), ["READY", "TERM"]);
        assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_stop_that_was_asked_for_ends_with_0_however_the_server_ends() {
    let sandbox = sandbox();
    for (name, behaviour) in [("exit", Some(OnTerm::Exit(3))), ("signal", None)] {
        let handler = sandbox.handler(name).create();
        let starts = sandbox.path(format!("{name}.starts"));
        let server = sandbox.probe().append(&starts);
        let server = match behaviour {
            Some(behaviour) => server.on_term(behaviour),
            None => server,
        };
        let manager = managed_as(&sandbox, name, &handler).command(server).spawn();
        wait_for("the start", || starts.exists());
        stop(manager);
        assert!(handler.runs().is_empty());
    }
}

#[test]
fn a_restart_request_sends_the_server_sigterm_and_starts_it_again_without_a_handler() {
    for behaviour in [OnTerm::Exit(0), OnTerm::Exit(3)] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let server = probe(&sandbox).log_signals(sandbox.path("signals"));
        let manager = managed(&sandbox, &handler).command(server.on_term(behaviour)).spawn();
        let first = started(&sandbox, 1);
        manager.signal(SIGHUP);
        let second = started(&sandbox, 2);
        assert!(second.exists() && second != first && !first.exists());
        noted(&sandbox, &["READY", "TERM", "READY"]);
        stop(manager);
        assert_eq!((starts(&sandbox), handler.runs().len()), (2, 0));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn the_new_server_is_not_started_before_the_old_one_is_gone() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(stubborn_probe(&sandbox)).spawn();
    started(&sandbox, 1);
    manager.signal(SIGHUP);
    noted(&sandbox, &["READY", "TERM"]);
    stays("one server", Duration::from_millis(200), || {
        starts(&sandbox) == 1 && manager.process().children().len() == 1
    });
    sandbox.file("end", "");
    started(&sandbox, 2);
    manager.signal(SIGTERM);
    noted(&sandbox, &["READY", "TERM", "READY", "TERM"]);
}

#[test]
fn usr1_usr2_and_winch_are_passed_on_to_the_server() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(stubborn_probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let mut expected = vec!["READY"];
    for (signal, name) in PASSED_ON.into_iter().zip(["USR1", "USR2", "WINCH"]) {
        manager.signal(signal);
        expected.push(name);
        noted(&sandbox, &expected);
    }
    // A server that was told to end may still be told other things.
    manager.signal(SIGTERM);
    expected.push("TERM");
    noted(&sandbox, &expected);
    manager.signal(SIGUSR1);
    expected.push("USR1");
    noted(&sandbox, &expected);
    assert_eq!(started(&sandbox, 1), server);
    sandbox.file("end", "");
    manager.wait().expect_code(0);
}

#[test]
fn no_other_signal_ends_or_stops_the_manager_or_reaches_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(stubborn_probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    send_strays(&manager);
    wait_for("what is passed on", || {
        let mut log = sandbox.lines("signals");
        log.sort();
        log.dedup();
        if log == ["READY", "USR1", "USR2", "WINCH"] { Ok(()) } else { Err(log) }
    });
    stays("as it was", Duration::from_millis(200), || {
        let stopped = manager.process().stat().map(|stat| stat.state);
        server.exists() && matches!(stopped, Some('S' | 'R')) && starts(&sandbox) == 1
    });
    assert!(handler.runs().is_empty());
    sandbox.file("end", "");
    manager.wait().expect_code(0);
}

#[test]
fn while_a_handler_runs_stray_signals_change_nothing_and_reach_no_later_server() {
    let sandbox = sandbox();
    let hold = format!("until test -e '{}'; do sleep 0.02; done", sandbox.path("go").display());
    let handler = sandbox.handler("handler").line(hold).create();
    let server = probe(&sandbox).log_signals(sandbox.path("signals"));
    let manager = managed(&sandbox, &handler).command(server.only_first(1).exit(3)).spawn();
    handler.wait_for_run(1);
    send_strays(&manager);
    stays("being handled", Duration::from_millis(200), || {
        manager.process().exists() && starts(&sandbox) == 1
    });
    sandbox.file("go", "");
    started(&sandbox, 2);
    noted(&sandbox, &["READY", "READY"]);
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

fn send_strays(manager: &Running<'_>) {
    let strays = (1..=64)
        .filter(|signal| !REQUESTS.contains(signal) && ![SIGKILL, SIGSTOP].contains(signal));
    for signal in strays {
        manager.signal(signal);
        manager.signal(signal);
    }
}

#[test]
fn a_manager_that_was_started_with_signals_ignored_or_blocked_sees_deaths_and_obeys() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT)
        .ignoring([SIGCHLD, SIGTERM, SIGHUP, SIGINT])
        .blocking_all_signals()
        .command(probe(&sandbox))
        .spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_manager_in_the_background_does_the_same() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let outcome = managed(&sandbox, &handler).background().command(probe(&sandbox)).run();
    outcome.expect_code(0);
    let manager = sandbox.wait_for_pidfile(sandbox.path("manager.pid"));
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    sandbox.signal(manager, SIGHUP);
    started(&sandbox, 3);
    sandbox.signal(manager, SIGTERM);
    wait_for("the end of the manager", || !manager.exists());
    assert_eq!(handler.runs().len(), 1);
    expect_nothing_left(&sandbox);
}

// Requests while the server is stopping.

#[test]
fn a_term_while_restarting_turns_the_restart_into_an_exit() {
    for request in STOPS {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(stubborn_probe(&sandbox)).spawn();
        started(&sandbox, 1);
        manager.signal(SIGHUP);
        noted(&sandbox, &["READY", "TERM"]);
        manager.signal(request);
        sandbox.file("end", "");
        manager.wait().expect_code(0);
        assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_hup_while_stopping_to_exit_is_ignored() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(stubborn_probe(&sandbox)).spawn();
    started(&sandbox, 1);
    manager.signal(SIGTERM);
    noted(&sandbox, &["READY", "TERM"]);
    for _ in 0..20 {
        manager.signal(SIGHUP);
    }
    sandbox.file("end", "");
    manager.wait().expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_nothing_left(&sandbox);
}

#[test]
fn several_hups_are_one() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(stubborn_probe(&sandbox)).spawn();
    started(&sandbox, 1);
    manager.signal(SIGHUP);
    noted(&sandbox, &["READY", "TERM"]);
    for _ in 0..20 {
        manager.signal(SIGHUP);
    }
    sandbox.file("end", "");
    let second = started(&sandbox, 2);
    stays("one restart", Duration::from_millis(300), || second.exists() && starts(&sandbox) == 2);
    assert_eq!(sandbox.lines("signals"), ["READY", "TERM", "READY"]);
}

#[test]
fn a_server_that_ignores_sigterm_is_waited_for_and_that_is_said_once_after_10_s() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(stubborn_probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let before = Instant::now();
    manager.signal(SIGTERM);
    noted(&sandbox, &["READY", "TERM"]);
    let told = || manager.stderr().matches("SIGTERM").count();
    let told_already = told();
    wait_for("the remark", || told() > told_already);
    let after = before.elapsed();
    assert!((9_900..15_000).contains(&after.as_millis()), "after {after:?}");
    // It stays responsive.
    manager.signal(SIGUSR1);
    noted(&sandbox, &["READY", "TERM", "USR1"]);
    stays("said once", Duration::from_secs(1), || told() == told_already + 1);
    sandbox.file("end", "");
    manager.wait().expect_code(0);
    expect_nothing_left(&sandbox);
}

// Requests while a handler runs.

#[test]
fn a_stop_request_while_a_handler_runs_terminates_it_and_ends_the_manager_with_0() {
    for request in STOPS {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").line("sleep 1000").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox).exit(3)).spawn();
        handler.wait_for_run(1);
        manager.signal(request);
        manager.wait().expect_code(0);
        assert_eq!(starts(&sandbox), 1);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_hup_while_a_handler_runs_terminates_it_and_restarts_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let manager =
        managed(&sandbox, &handler).command(probe(&sandbox).exit(3).only_first(1)).spawn();
    handler.wait_for_run(1);
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    assert_eq!(manager.process().children(), [second], "the handler is gone");
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
    expect_nothing_left(&sandbox);
}

/// A handler that notes SIGTERM in the file `told`, and goes on until there is a file `go`.
fn deaf(sandbox: &Sandbox) -> HandlerScript<'_> {
    let directory = sandbox.directory().display();
    let wait = format!("until test -e '{directory}/go'; do sleep 0.02; done");
    sandbox.handler("handler").on_term(format_args!(": >{directory}/told")).line(wait)
}

#[test]
fn a_term_while_a_handler_is_terminated_for_a_restart_turns_that_into_an_exit() {
    let sandbox = sandbox();
    let handler = deaf(&sandbox).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox).exit(3)).spawn();
    handler.wait_for_run(1);
    manager.signal(SIGHUP);
    wait_for("the handler to be told", || sandbox.path("told").exists());
    manager.signal(SIGTERM);
    sandbox.file("go", "");
    manager.wait().expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_hup_while_a_handler_is_terminated_for_an_exit_is_ignored() {
    let sandbox = sandbox();
    let handler = deaf(&sandbox).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox).exit(3)).spawn();
    handler.wait_for_run(1);
    manager.signal(SIGTERM);
    wait_for("the handler to be told", || sandbox.path("told").exists());
    manager.signal(SIGHUP);
    sandbox.file("go", "");
    manager.wait().expect_code(0);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_restart_that_was_asked_for_while_a_handler_ran_needs_no_consent_of_the_handler() {
    let sandbox = sandbox();
    let handler = deaf(&sandbox).exits(1).create();
    let manager =
        managed(&sandbox, &handler).command(probe(&sandbox).exit(3).only_first(1)).spawn();
    handler.wait_for_run(1);
    manager.signal(SIGHUP);
    wait_for("the handler to be told", || sandbox.path("told").exists());
    sandbox.file("go", "");
    assert!(started(&sandbox, 2).exists());
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

// Requests and deaths at the same time.

#[test]
fn a_request_in_the_same_instant_as_a_death_wins_and_no_handler_runs() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (serial, death) in [SIGKILL, SIGSEGV, SIGTERM].into_iter().enumerate() {
        let manager = managed(&sandbox, &handler)
            .limit(Resource::RLIMIT_CORE, 0, 0)
            .command(probe(&sandbox))
            .spawn();
        let first = started(&sandbox, 2 * serial + 1);
        strike_both(&manager, SIGHUP, first, death);
        let second = started(&sandbox, 2 * serial + 2);
        strike_both(&manager, SIGTERM, second, death);
        manager.wait().expect_code(0);
        assert!(handler.runs().is_empty());
        expect_nothing_left(&sandbox);
    }
    assert_eq!(starts(&sandbox), 6);
}

#[test]
fn a_restart_request_in_the_same_instant_as_a_voluntary_exit_wins() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(stubborn_probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    manager.signal(SIGSTOP);
    sandbox.file("end", "");
    wait_for("the end of the server", || !first.exists());
    strike(manager.pid(), SIGHUP);
    strike(manager.pid(), SIGCONT);
    assert!(started(&sandbox, 2).exists());
    assert!(handler.runs().is_empty());
}

#[test]
fn a_hup_and_a_term_in_the_same_instant_are_an_exit() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    manager.signal(SIGSTOP);
    manager.signal(SIGTERM);
    manager.signal(SIGHUP);
    manager.signal(SIGCONT);
    manager.wait().expect_code(0);
    assert_eq!(starts(&sandbox), 1);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_stop_signal_to_manager_and_server_at_once_runs_no_handler_whichever_is_seen_first() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let mut count = 0;
    for round in 0..10 {
        for signal in REQUESTS {
            let manager = managed(&sandbox, &handler)
                .limit(Resource::RLIMIT_CORE, 0, 0)
                .command(probe(&sandbox))
                .spawn();
            count += 1;
            let server = started(&sandbox, count);
            let (first, second) = match round % 2 {
                0 => (server.pid(), manager.pid()),
                _ => (manager.pid(), server.pid()),
            };
            strike(first, signal);
            if round % 2 == 0 {
                strike(second, signal);
            } else if let Ok(signal) = Signal::try_from(signal) {
                // The manager may have ended and reaped it already.
                let _ = kill(Pid::from_raw(second), signal);
            }
            if signal == SIGHUP {
                count += 1;
                started(&sandbox, count);
                manager.signal(SIGTERM);
            }
            manager.wait().expect_code(0);
            assert!(handler.runs().is_empty(), "signal {signal}, round {round}");
        }
    }
    assert_eq!(starts(&sandbox), count);
}

/// Kills a server by a signal that stops one, and signals the manager once it has seen that death.
/// A machine so slow that the 100 ms may have been over gets another try.
fn request_after_death(death: i32, request: i32, restarts: usize) {
    for _ in 0..20 {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler)
            .limit(Resource::RLIMIT_CORE, 0, 0)
            .command(probe(&sandbox))
            .spawn();
        let server = started(&sandbox, 1);
        let died = Instant::now();
        strike(server.pid(), death);
        wait_for("the death to be seen", || !sandbox.path("server.pid").exists());
        manager.signal(request);
        if died.elapsed() > Duration::from_millis(80) {
            continue;
        }
        if restarts > 0 {
            assert!(started(&sandbox, 2).exists());
            manager.signal(SIGTERM);
        }
        manager.wait().expect_code(0);
        assert!(handler.runs().is_empty());
        assert_eq!(starts(&sandbox), 1 + restarts);
        return;
    }
    panic!("the machine is too slow for this test");
}

#[test]
fn a_stop_request_within_100_ms_after_a_death_by_a_stop_signal_runs_no_handler() {
    for (death, request) in
        [(SIGTERM, SIGTERM), (SIGINT, SIGINT), (SIGQUIT, SIGTERM), (SIGHUP, SIGQUIT)]
    {
        request_after_death(death, request, 0);
    }
}

#[test]
fn a_restart_request_within_100_ms_after_a_death_by_a_stop_signal_runs_no_handler() {
    request_after_death(SIGTERM, SIGHUP, 1);
    request_after_death(SIGHUP, SIGHUP, 1);
}

#[test]
fn a_death_by_a_stop_signal_that_nobody_asked_for_is_handled_after_100_ms() {
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler)
            .limit(Resource::RLIMIT_CORE, 0, 0)
            .command(probe(&sandbox))
            .spawn();
        let server = started(&sandbox, 1);
        let died = Instant::now();
        sandbox.signal(server, signal);
        started(&sandbox, 2);
        let back = died.elapsed();
        assert!(back >= Duration::from_millis(100), "after {back:?}");
        assert_eq!(handler.runs().len(), 1);
        stop(manager);
    }
}

#[test]
fn no_signal_goes_to_a_server_that_is_gone() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let tracer = traced(&sandbox, manager.process(), &["-e", "trace=kill,tkill,tgkill"]);
    // The death and the requests are there together.
    strike_both(&manager, SIGHUP, first, SIGKILL);
    let second = started(&sandbox, 2);
    sandbox.signal(second, SIGKILL);
    handler.wait_for_run(1);
    PASSED_ON.iter().for_each(|signal| manager.signal(*signal));
    stop(manager);
    tracer.wait();
    for server in [first, second] {
        let trace = sandbox.lines("trace");
        let to_server = format!("kill({},", server.pid());
        assert!(!trace.iter().any(|call| call.contains(&to_server)), "{trace:?}");
    }
}

// Restarts that follow each other.

#[test]
fn a_server_that_is_killed_is_back_at_once() {
    let best = (0..5).map(|_| {
        let sandbox = sandbox();
        let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let died = Instant::now();
        strike(first.pid(), SIGKILL);
        started(&sandbox, 2);
        let back = died.elapsed();
        stop(manager);
        back
    });
    // The best of some, on a machine that does other things too.
    assert!(best.min() < Some(Duration::from_millis(60)));
}

#[test]
fn restarts_are_spaced_at_once_then_twice_as_long_each_time() {
    let sandbox = sandbox();
    let times = sandbox.path("times");
    let handler = format!("#!/bin/sh\ndate +%s%3N >>'{}'\n", times.display());
    let handler = sandbox.executable("handler", handler);
    let manager = managed(&sandbox, &handler).command(sandbox.probe().exit(1)).spawn();
    wait_for("six deaths", || sandbox.lines("times").len() >= 6);
    let times: Vec<u64> =
        sandbox.lines("times").iter().map(|time| time.parse().expect("milliseconds")).collect();
    let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    for (gap, delay) in gaps.iter().zip([0, 100, 200, 400, 800]) {
        assert!((delay..delay + 1000).contains(gap), "gaps {gaps:?} ms");
    }
    let announced = delays(&manager, "restarting the server in");
    assert_eq!(announced[..4], ["100ms", "200ms", "400ms", "800ms"]);
}

#[test]
fn a_stop_request_in_a_delay_ends_the_manager_at_once() {
    // All together: this takes its time.
    let sandboxes = STOPS.map(|_| sandbox());
    let managers = sandboxes
        .each_ref()
        .map(|sandbox| managed(sandbox, CONSENT).command(probe(sandbox).exit(1)).spawn());
    for ((request, sandbox), manager) in STOPS.into_iter().zip(&sandboxes).zip(managers) {
        said(&manager, "restarting the server in 1.6s");
        let (before, count) = (Instant::now(), starts(sandbox));
        manager.signal(request);
        manager.wait().expect_code(0);
        assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
        assert_eq!(starts(sandbox), count);
        expect_nothing_left(sandbox);
    }
}

#[test]
fn a_hup_in_a_delay_starts_the_server_at_once_and_resets_the_delay() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox).exit(1)).spawn();
    let words = "restarting the server in";
    said(&manager, "restarting the server in 1.6s");
    let (before, count) = (Instant::now(), starts(&sandbox));
    manager.signal(SIGHUP);
    started(&sandbox, count + 1);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    wait_for("two more delays", || delays(&manager, words).len() >= 7);
    let expected = ["100ms", "200ms", "400ms", "800ms", "1.6s", "100ms", "200ms"];
    assert_eq!(delays(&manager, words)[..7], expected);
    stop(manager);
}

#[test]
fn a_life_of_10_s_resets_the_delay() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox).exit(1).only_first(3)).spawn();
    let fourth = started(&sandbox, 4);
    let words = "restarting the server in";
    assert_eq!(delays(&manager, words), ["100ms", "200ms"]);
    let born = Instant::now();
    wait_for("10 s to pass", || born.elapsed() >= Duration::from_secs(10));
    sandbox.signal(fourth, SIGKILL);
    sandbox.signal(started(&sandbox, 5), SIGKILL);
    assert!(started(&sandbox, 6).exists());
    assert_eq!(delays(&manager, words), ["100ms", "200ms", "100ms"]);
    stop(manager);
}

// A server that cannot be executed.

/// A server whose program can be broken while it runs, as a file `program` of its own.
fn breakable(sandbox: &Sandbox) -> Probe {
    let program = sandbox.copy_of(&sandbox.probe().words()[0], "program");
    Probe::at(program).append(sandbox.path("starts"))
}

fn remove(sandbox: &Sandbox) {
    fs::remove_file(sandbox.path("program")).expect("the program is there");
}

fn mend(sandbox: &Sandbox) {
    let program = sandbox.path("program");
    if program.is_dir() {
        fs::remove_dir(&program).expect("an empty directory");
    }
    sandbox.copy_of(&sandbox.probe().words()[0], "program");
}

fn take_permission(sandbox: &Sandbox) {
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(sandbox.path("program"), mode).expect("the owner may set a mode");
}

fn truncate(sandbox: &Sandbox) {
    // A file of its own, because a running program cannot be written to.
    sandbox.executable("program", "");
}

fn replace_by_directory(sandbox: &Sandbox) {
    remove(sandbox);
    sandbox.dir("program");
}

/// How a program is broken, the status that stands for it, and the words for it.
type Breakage = (fn(&Sandbox), &'static str, &'static str);

const BREAKAGES: [Breakage; 4] = [
    (remove, "127", "No such file or directory"),
    (take_permission, "126", "Permission denied"),
    (truncate, "126", "Exec format error"),
    (replace_by_directory, "126", "Permission denied"),
];

#[test]
fn an_exec_that_fails_at_a_restart_is_an_unexpected_termination_and_the_handler_decides() {
    for (break_it, status, reason) in BREAKAGES {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(breakable(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        break_it(&sandbox);
        sandbox.signal(first, SIGKILL);
        let run = handler.wait_for_run(2);
        let told = |name: &str| {
            let value = run.env(&format!("VSRUN_SERVER_{name}"));
            value.and_then(OsStr::to_str).map(str::to_owned)
        };
        assert_eq!(told("EXITED").as_deref(), Some("1"));
        assert_eq!(told("EXITSTATUS").as_deref(), Some(status));
        assert_eq!(told("UPTIME").as_deref(), Some("0"));
        assert_eq!((told("TERMSIG"), told("COREDUMP")), (None, Some("0".into())));
        let explained = told("EXPLAIN").unwrap_or_default();
        assert!(explained.contains(reason), "{explained}");
        assert!(!sandbox.path("server.pid").exists());
        let mended = Instant::now();
        mend(&sandbox);
        assert!(started(&sandbox, 2).exists());
        let back = mended.elapsed();
        assert!(back < Duration::from_secs(2), "back after {back:?}");
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_server_that_cannot_be_executed_again_is_tried_less_and_less_often() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(breakable(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    remove(&sandbox);
    sandbox.signal(first, SIGKILL);
    said(&manager, "restarting the server in 800ms");
    assert_eq!(handler.runs().len(), 5);
    let before = Instant::now();
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    expect_nothing_left(&sandbox);
}

#[test]
fn a_refusal_after_an_exec_that_failed_ends_the_manager_with_the_status_for_that() {
    for (break_it, status, reason) in BREAKAGES {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(1).create();
        let manager = managed(&sandbox, &handler).command(breakable(&sandbox)).spawn();
        started(&sandbox, 1);
        break_it(&sandbox);
        manager.signal(SIGHUP);
        let outcome = manager.wait();
        outcome.expect_code(status.parse().expect("a number"));
        assert!(outcome.stderr_text().contains(reason));
        assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn an_exec_that_fails_at_the_first_start_is_an_error_and_asks_no_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for (break_it, status, reason) in BREAKAGES {
        let server = breakable(&sandbox);
        break_it(&sandbox);
        let program = sandbox.path("program");
        let outcome = managed(&sandbox, &handler).command(server).run();
        let message = format!("vsrun: cannot execute command '{}': {reason}", program.display());
        outcome.expect_error(status.parse().expect("a number"), &message);
        assert_eq!((starts(&sandbox), handler.runs().len()), (0, 0));
        expect_nothing_left(&sandbox);
        mend(&sandbox);
    }
}

// Shortages.

#[test]
fn what_a_restart_lacks_is_tried_again_and_no_handler_is_asked() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let refusals = [
        (FORKS, "EAGAIN"),
        (FORKS, "ENOMEM"),
        (CHANNELS, "EMFILE"),
        (CHANNELS, "ENFILE"),
        (CHANNELS, "ENOMEM"),
    ];
    for (calls, error) in refusals {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(1).create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), calls, error, "1..2");
        manager.signal(SIGHUP);
        let server = started(&sandbox, 2);
        assert_eq!(delays(&manager, "trying again in"), ["100ms", "200ms"], "{calls} {error}");
        released(tracer);
        assert!(server.exists() && handler.runs().is_empty(), "{calls} {error}");
        assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), server);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_child_that_cannot_be_told_to_go_on_for_want_of_memory_is_replaced_by_another() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for error in ["ENOMEM", "ENOBUFS"] {
        let sandbox = sandbox();
        let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), "sendto,sendmsg", error, "1+");
        manager.signal(SIGHUP);
        wait_for("another try", || {
            let text = sandbox.lines("trace").join("\n");
            if text.matches(error).count() >= 3 { Ok(()) } else { Err(text) }
        });
        assert_eq!(starts(&sandbox), 1);
        released(tracer);
        let second = started(&sandbox, 2);
        assert_eq!(manager.process().children(), [second]);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_log_directory_that_cannot_be_listed_costs_no_descriptor() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let start = managed(&sandbox, REFUSAL).logdir("logs", "1d");
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let before = manager.process().open_files().map(|files| files.len());
    // fdopendir(3) asks whether the descriptor can be read from.
    let tracer = refusing(&sandbox, manager.process(), "fcntl", "ENOMEM", "1+");
    for count in 2..5 {
        manager.signal(SIGHUP);
        started(&sandbox, count);
    }
    let trace = sandbox.lines("trace").join("\n");
    assert!(trace.matches("F_GETFL)").count() >= 3, "{trace}");
    released(tracer);
    assert_eq!(manager.process().open_files().map(|files| files.len()), before);
    stop(manager);
}

#[test]
fn a_keyring_over_the_quota_is_tried_again() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let starts = sandbox.open_dir("out").join("starts");
    let server = sandbox.probe().append(&starts);
    let manager = managed(&sandbox, REFUSAL).user("nobody").command(server).spawn();
    let started = |count| {
        wait_for(&format!("start {count}"), || {
            let starts = sandbox.lines("out/starts");
            if starts.len() == count { Ok(()) } else { Err(starts) }
        });
    };
    started(1);
    let quota = ["-f", "-e", "trace=keyctl", "-e", "inject=keyctl:error=EDQUOT"];
    let tracer = traced(&sandbox, manager.process(), &quota);
    manager.signal(SIGHUP);
    said(&manager, "trying again in 200ms");
    assert_eq!(sandbox.lines("out/starts").len(), 1);
    released(tracer);
    started(2);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_server_that_cannot_find_back_starts_at_the_root_and_that_is_said() {
    let sandbox = sandbox();
    let here = sandbox.dir("here");
    let manager = managed(&sandbox, REFUSAL).current_dir(&here).command(probe(&sandbox)).spawn();
    assert_eq!(started(&sandbox, 1).cwd().as_ref(), Some(&here));
    fs::rename(&here, sandbox.path("moved")).expect("it can be moved");
    manager.signal(SIGHUP);
    assert_eq!(started(&sandbox, 2).cwd().as_deref(), Some(Path::new("/")));
    let (path, reason) = (here.display(), "No such file or directory");
    said(
        &manager,
        &format!("cannot change directory to '{path}': {reason}; the server works in '/'"),
    );
    fs::create_dir(&here).expect("a directory");
    manager.signal(SIGHUP);
    assert_eq!(started(&sandbox, 3).cwd().as_ref(), Some(&here));
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_way_back_that_takes_a_descriptor_too_many_is_tried_again() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let here = sandbox.dir("here");
    let start = managed(&sandbox, REFUSAL).current_dir(&here);
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "openat2,openat", "EMFILE", "1+");
    manager.signal(SIGHUP);
    said(&manager, "trying again in 200ms");
    released(tracer);
    assert_eq!(started(&sandbox, 2).cwd().as_ref(), Some(&here));
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_pidfile_that_cannot_be_opened_for_want_of_descriptors_is_tried_again() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for error in ["EMFILE", "ENFILE", "ENOMEM"] {
        let sandbox = sandbox();
        let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), "open,openat", error, "1+");
        manager.signal(SIGHUP);
        said(&manager, "trying again in 200ms");
        assert_eq!(starts(&sandbox), 1);
        released(tracer);
        let second = started(&sandbox, 2);
        assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), second);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn the_pidfile_of_a_server_that_is_gone_is_removed_though_no_descriptor_is_free() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let lowest = free_descriptors(manager.process()).next().expect("a free number");
    limit_descriptors(&sandbox, manager.process(), lowest as usize);
    sandbox.signal(first, SIGKILL);
    said(&manager, "trying again in 100ms");
    assert!(!sandbox.path("server.pid").exists(), "it names a process that is gone");
    limit_descriptors(&sandbox, manager.process(), 1024);
    started(&sandbox, 2);
    stop(manager);
}

#[test]
fn log_files_that_cannot_be_opened_for_want_of_descriptors_cost_no_server() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .logdir(sandbox.path("logs"), "1")
        .command(probe(&sandbox).out("hello"))
        .spawn();
    started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "open,openat", "EMFILE", "1..3");
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    released(tracer);
    assert!(second.exists());
    manager.signal(SIGHUP);
    started(&sandbox, 3);
    let logs = LogDirectory::at(sandbox.path("logs"));
    wait_for("output again", || logs.server() == "hello\n");
    stop(manager);
}

#[test]
fn what_a_handler_lacks_is_tried_again_and_is_no_refusal() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for (calls, error) in [(FORKS, "EAGAIN"), (FORKS, "ENOMEM"), (CHANNELS, "EMFILE")] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), calls, error, "1..2");
        sandbox.signal(first, SIGKILL);
        assert!(started(&sandbox, 2).exists());
        released(tracer);
        assert_eq!(delays(&manager, "trying again in"), ["100ms", "200ms"]);
        assert_eq!(handler.runs().len(), 1);
        stop(manager);
    }
}

#[test]
fn requests_are_obeyed_while_the_system_refuses_to_fork() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for (death, request) in
        [(SIGHUP, SIGTERM), (SIGKILL, SIGTERM), (SIGHUP, SIGHUP), (SIGKILL, SIGHUP)]
    {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), FORKS, "EAGAIN", "1+");
        if death == SIGHUP {
            manager.signal(SIGHUP);
        } else {
            sandbox.signal(first, death);
        }
        said(&manager, "trying again in 800ms");
        let before = Instant::now();
        if request == SIGTERM {
            manager.signal(SIGTERM);
            manager.wait().expect_code(0);
            assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
            assert_eq!(starts(&sandbox), 1);
            expect_no_files(&sandbox);
        } else {
            released(tracer);
            manager.signal(SIGHUP);
            started(&sandbox, 2);
            assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
            stop(manager);
        }
        assert!(handler.runs().is_empty());
    }
}

#[test]
fn a_shortage_that_is_over_is_forgotten() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    for count in [2, 3] {
        let tracer = refusing(&sandbox, manager.process(), FORKS, "EAGAIN", "1..2");
        manager.signal(SIGHUP);
        started(&sandbox, count);
        released(tracer);
    }
    let expected = ["100ms", "200ms", "100ms", "200ms"];
    assert_eq!(delays(&manager, "trying again in"), expected);
    stop(manager);
}

/// Sets the manager's limit for descriptors.
fn limit_descriptors(sandbox: &Sandbox, manager: Process, limit: usize) {
    let outcome = sandbox
        .program("/usr/bin/prlimit")
        .args(["--pid", &manager.pid().to_string()])
        .arg(format!("--nofile={limit}:4096"))
        .run();
    outcome.expect_code(0);
}

/// The numbers that the manager's next descriptors will have.
fn free_descriptors(manager: Process) -> impl Iterator<Item = i32> {
    let open = files_at_rest(manager);
    (0..).filter(move |number| !open.contains_key(number))
}

#[test]
fn a_manager_without_free_descriptors_goes_on_trying_until_it_has_some() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let lowest = free_descriptors(manager.process()).next().expect("a free number");
    limit_descriptors(&sandbox, manager.process(), lowest as usize);
    sandbox.signal(first, SIGKILL);
    said(&manager, "trying again in 400ms");
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    limit_descriptors(&sandbox, manager.process(), 1024);
    assert!(started(&sandbox, 2).exists());
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

#[test]
fn a_restart_needs_no_descriptor_beyond_the_channel_to_the_child() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let second_free = free_descriptors(manager.process()).nth(1).expect("a free number");
    limit_descriptors(&sandbox, manager.process(), second_free as usize + 1);
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    sandbox.signal(second, SIGKILL);
    let third = started(&sandbox, 3);
    assert_eq!(delays(&manager, "trying again in"), [] as [&str; 0]);
    assert_eq!(sandbox.wait_for_pidfile(sandbox.path("server.pid")), third);
    stop(manager);
    expect_nothing_left(&sandbox);
}

/// A user of the test's own, whom nobody else's processes count against, and processes that use up
/// what he may have.
fn crowd<'a>(sandbox: &'a Sandbox, uid: u32) -> Vec<Running<'a>> {
    let crowd: Vec<_> = (0..2)
        .map(|_| {
            let mut words = sandbox.probe().into_iter();
            let program = words.next().expect("the program");
            sandbox.program(program).run_as(uid, uid, &[]).spawn()
        })
        .collect();
    for member in &crowd {
        wait_for("a process of the user", || {
            member.process().status().is_some_and(|it| it.uids.real == uid)
        });
    }
    crowd
}

#[test]
fn a_user_with_too_many_processes_gets_the_server_back_when_they_are_fewer() {
    if !require_root() {
        return;
    }
    // The first starts of the server and of the handler lack a process each.
    for (serial, death) in [SIGHUP, SIGKILL].into_iter().enumerate() {
        let sandbox = sandbox();
        let starts_file = sandbox.open_dir("open").join("starts");
        let uid = 500_000 + (std::process::id() % 100_000) * 2 + serial as u32;
        let manager = managed(&sandbox, CONSENT)
            .user(format!("{uid}:{uid}"))
            .limit(Resource::RLIMIT_NPROC, 1, 1)
            .command(sandbox.probe().append(&starts_file))
            .spawn();
        let lives = || sandbox.lines(&starts_file).len();
        wait_for("the start", || lives() == 1);
        let first = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
        let crowd = crowd(&sandbox, uid);
        if death == SIGHUP {
            manager.signal(SIGHUP);
        } else {
            sandbox.signal(first, death);
        }
        said(&manager, "trying again in 400ms");
        assert_eq!(lives(), 1);
        drop(crowd);
        wait_for("the server to be back", || lives() == 2);
        stop(manager);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn calls_that_a_signal_interrupts_are_made_again() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for calls in ["poll,ppoll", "wait4,waitid", "read", "recvfrom,recvmsg"] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        let first = started(&sandbox, 1);
        let tracer = refusing(&sandbox, manager.process(), calls, "EINTR", "1..3");
        sandbox.signal(first, SIGKILL);
        wait_for_within(Duration::from_secs(5), calls, || starts(&sandbox) == 2);
        manager.signal(SIGHUP);
        wait_for_within(Duration::from_secs(5), calls, || starts(&sandbox) == 3);
        stop(manager);
        tracer.wait();
        assert_eq!((starts(&sandbox), handler.runs().len()), (3, 1), "{calls}");
        expect_no_files(&sandbox);
    }
}

#[test]
fn a_signal_that_the_system_refuses_to_send_is_told_and_the_manager_goes_on() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "kill", "EPERM", "1");
    manager.signal(SIGHUP);
    said(&manager, "Operation not permitted");
    assert!(first.exists());
    // The request still holds when the server ends by itself.
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 2);
    released(tracer);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn what_the_server_could_not_be_told_is_told_once_more() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let tracer = refusing(&sandbox, manager.process(), "kill", "EPERM", "1");
    manager.signal(SIGTERM);
    said(&manager, "Operation not permitted");
    manager.wait().expect_code(0);
    assert!(!server.exists());
    tracer.wait();
    expect_nothing_left(&sandbox);
}

#[test]
fn a_stop_request_while_an_exec_takes_its_time_is_not_lost() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    // Half a second before each exec of a child.
    let delay = ["-f", "-e", "trace=execve", "-e", "inject=execve:delay_enter=500000"];
    let tracer = traced(&sandbox, manager.process(), &delay);
    manager.signal(SIGHUP);
    wait_for("the child that is to be the server", || {
        let children = manager.process().children();
        children.iter().any(|child| child.exe() == manager.process().exe())
    });
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
    tracer.wait();
    expect_nothing_left(&sandbox);
}

/// Has the server of a manager started again, slowly: the process that is on its way to become it,
/// and who makes it slow.
#[track_caller]
fn held_up<'a>(sandbox: &'a Sandbox, manager: &Running<'_>) -> (Process, Running<'a>) {
    // The new server is let go once its pidfile has been renamed.
    let renames = "rename,renameat,renameat2";
    let options = [format!("trace={renames}"), format!("inject={renames}:delay_enter=1000000")];
    let tracer = traced(sandbox, manager.process(), &["-e", &options[0], "-e", &options[1]]);
    manager.signal(SIGHUP);
    let child = wait_for("the child that is to be the server", || {
        let children = manager.process().children();
        let child = children.into_iter().find(|it| it.exe() == manager.process().exe());
        child.ok_or("none")
    });
    (child, tracer)
}

#[test]
fn a_stop_request_is_heard_while_somebody_keeps_the_server_from_its_exec() {
    if !require_root() || !require_program("strace") {
        return;
    }
    for last in [SIGCONT, SIGKILL] {
        let sandbox = sandbox();
        let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
        started(&sandbox, 1);
        let (child, tracer) = held_up(&sandbox, &manager);
        sandbox.signal(child, SIGSTOP);
        wait_for("its pidfile", || {
            let id = fs::read_to_string(sandbox.path("server.pid")).unwrap_or_default();
            id.trim() == child.pid().to_string()
        });
        manager.signal(SIGTERM);
        let asked = "asking the server to end";
        wait_for("the request to be heard", || {
            let said = manager.stderr();
            if said.matches(asked).count() == 2 { Ok(()) } else { Err(said) }
        });
        sandbox.signal(child, last);
        manager.wait().expect_code(0);
        tracer.wait();
        assert_eq!(starts(&sandbox), 1);
        expect_nothing_left(&sandbox);
    }
}

#[test]
fn a_signal_for_the_server_does_not_reach_what_is_not_the_server_yet() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let (child, tracer) = held_up(&sandbox, &manager);
    sandbox.signal(child, SIGSTOP);
    wait_for("the manager to wait for it", || {
        let stat = manager.process().stat();
        stat.is_some_and(|stat| stat.state == 'S') && sandbox.path("server.pid").exists()
    });
    manager.signal(SIGUSR1);
    wait_for("the signal to be heard", || {
        manager
            .process()
            .status()
            .is_some_and(|status| status.pending == testkit::SignalSet::default())
    });
    sandbox.signal(child, SIGCONT);
    assert_eq!(started(&sandbox, 2).pid(), child.pid());
    released(tracer);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_pidfile_that_cannot_be_written_any_more_keeps_no_server_from_coming_back() {
    let sandbox = sandbox();
    let directory = sandbox.dir("run");
    let manager = sandbox
        .vsrun()
        .pidfile(directory.join("server.pid"))
        .manager(directory.join("manager.pid"), CONSENT)
        .command(probe(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    fs::remove_dir_all(&directory).expect("the sandbox can be written");
    sandbox.signal(first, SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    assert!(started(&sandbox, 3).exists());
    stop(manager);
    expect_nothing_left(&sandbox);
}

// Messages that cannot be written.

/// Manages a server through a crash and a request, with messages that go to `stderr`.
fn manage_with(stderr: impl Into<Stdio>) {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).stderr(stderr).command(probe(&sandbox)).spawn();
    sandbox.signal(started(&sandbox, 1), SIGKILL);
    started(&sandbox, 2);
    manager.signal(SIGHUP);
    assert!(started(&sandbox, 3).exists());
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn messages_into_a_pipe_that_nobody_empties_hold_nothing_up() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut writer = File::from(writer);
    let mut flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).expect("flags"));
    flags.insert(OFlag::O_NONBLOCK);
    fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    flags.remove(OFlag::O_NONBLOCK);
    fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("flags are set");
    manage_with(writer);
    drop(reader);
}

#[test]
fn messages_into_a_pipe_without_a_reader_end_nothing() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    manage_with(writer);
}

#[test]
fn messages_onto_a_full_disk_end_nothing() {
    manage_with(File::options().write(true).open("/dev/full").expect("a device"));
}

// Storms.

/// Signals a manager 500 times a second as long as `goes_on`, and tells how often.
fn storm(manager: &Running<'_>, signal: i32, goes_on: impl Fn(Duration) -> bool) -> u32 {
    let (begin, mut count) = (Instant::now(), 0);
    while goes_on(begin.elapsed()) {
        // An end that was not waited for is no stranger's beginning.
        strike(manager.pid(), signal);
        count += 1;
        thread::sleep(Duration::from_millis(2));
    }
    count
}

#[test]
fn a_storm_of_terms_is_one_stop_and_the_server_may_finish() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let slow = OnTerm::Slow(Duration::from_millis(500));
    let server = probe(&sandbox).log_signals(sandbox.path("signals"));
    let manager = managed(&sandbox, &handler).command(server.on_term(slow)).spawn();
    started(&sandbox, 1);
    let count = storm(&manager, SIGTERM, |_| manager.process().exists());
    let outcome = manager.wait();
    outcome.expect_code(0);
    assert!(outcome.stderr_text().contains("exited with status 0"));
    assert!(count > 10, "{count} signals");
    assert_eq!(sandbox.lines("signals"), ["READY", "TERM"]);
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 0));
    expect_nothing_left(&sandbox);
}

#[test]
fn a_storm_of_hups_leaves_one_server_and_runs_no_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    storm(&manager, SIGHUP, |so_far| {
        assert!(manager.process().children().len() <= 1);
        so_far < Duration::from_secs(2)
    });
    // The last of them may still have to be obeyed.
    let (mut seen, mut since) = (Vec::new(), Instant::now());
    wait_for("one server that stays", || {
        let children = manager.process().children();
        if children != seen || children.len() != 1 {
            (seen, since) = (children, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    assert_eq!(sandbox.read_pidfile(sandbox.path("server.pid")), Some(seen[0].pid()));
    assert!(starts(&sandbox) > 2 && handler.runs().is_empty());
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn a_storm_of_hups_in_a_crash_loop_does_no_harm() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox).exit(1)).spawn();
    started(&sandbox, 2);
    storm(&manager, SIGHUP, |so_far| so_far < Duration::from_secs(1));
    let count = starts(&sandbox);
    started(&sandbox, count + 1);
    let before = Instant::now();
    manager.signal(SIGTERM);
    manager.wait().expect_code(0);
    assert!(before.elapsed() < AT_ONCE, "after {:?}", before.elapsed());
    expect_nothing_left(&sandbox);
}

// Children that are not the server.

#[test]
fn the_death_of_a_child_that_came_with_the_program_is_not_the_servers() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let child = sandbox.probe().until(sandbox.path("end")).exit(3);
    // A shell that leaves a child and becomes vsrun.
    let script = "\"$1\" \"$2\" \"$3\" & shift 3; exec \"$@\"";
    let manager = sandbox
        .program("/bin/sh")
        .args(["-c", script, "sh"])
        .args(child)
        .arg(env!("CARGO_BIN_EXE_vsrun"))
        .manager(sandbox.path("manager.pid"), &handler)
        .command(probe(&sandbox))
        .spawn();
    let server = started(&sandbox, 1);
    assert_eq!(manager.process().children().len(), 2);
    sandbox.file("end", "");
    wait_for("the child to be gone", || {
        manager.process().children() == [server] && zombies(manager.process()) == 0
    });
    stays("managed", Duration::from_millis(200), || server.exists());
    assert!(handler.runs().is_empty() && starts(&sandbox) == 1);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn fifty_children_that_die_together_with_the_server_hide_neither_its_death_nor_themselves() {
    let sandbox = sandbox();
    let script = "for n in $(seq 50); do sleep 1000 & done; exec \"$@\"";
    let manager = sandbox
        .program("/bin/sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_vsrun")])
        .manager(sandbox.path("manager.pid"), CONSENT)
        .command(probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    let children = manager.process().children();
    assert_eq!(children.len(), 51);
    manager.signal(SIGSTOP);
    children.iter().for_each(|child| strike(child.pid(), SIGKILL));
    wait_for("51 deaths", || zombies(manager.process()) == 51);
    manager.signal(SIGCONT);
    let second = started(&sandbox, 2);
    wait_for("all to be reaped", || zombies(manager.process()) == 0);
    assert_eq!(manager.process().children(), [second]);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn as_process_1_it_reaps_strangers_and_passes_the_status_through() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let script = "for n in $(seq 30); do (sleep 0.1 &); done; exec \"$@\"";
    let server = probe(&sandbox).until(sandbox.path("end")).exit(7);
    let manager = managed(&sandbox, &handler)
        .pid_namespace()
        .command(["/bin/sh", "-c", script, "sh"])
        .args(server)
        .spawn();
    wait_for("the start", || starts(&sandbox) == 1);
    wait_for("the strangers to be reaped", || {
        manager.process().children().len() == 1 && zombies(manager.process()) == 0
    });
    sandbox.file("end", "");
    manager.wait().expect_code(7);
    assert_eq!(handler.runs().len(), 1);
    expect_no_files(&sandbox);
}

#[test]
fn as_process_1_it_obeys_requests() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).pid_namespace().command(probe(&sandbox)).spawn();
    wait_for("the start", || starts(&sandbox) == 1);
    manager.signal(SIGHUP);
    wait_for("the restart", || starts(&sandbox) == 2);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn an_id_that_was_the_dead_servers_is_no_trouble_to_the_next_server_or_the_handler() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    // The next process of the namespace gets the server's own id, as soon as that is free (see
    // proc_sys_kernel(5)).
    let script = "echo $(($$ - 1)) >/proc/sys/kernel/ns_last_pid; exec \"$@\"";
    let manager = managed(&sandbox, &handler)
        .pid_namespace()
        .command(["/bin/sh", "-c", script, "sh"])
        .args(probe(&sandbox))
        .spawn();
    wait_for("the start", || starts(&sandbox) == 1);
    manager.signal(SIGHUP);
    wait_for("the restart", || starts(&sandbox) == 2);
    let ids = sandbox.lines("starts");
    assert_eq!(ids[0], ids[1]);
    assert_eq!(sandbox.read_pidfile(sandbox.path("server.pid")), ids[1].parse().ok());
    manager.process().children().iter().for_each(|server| sandbox.signal(*server, SIGKILL));
    let run = handler.wait_for_run(1);
    assert_eq!(run.stat.pid.to_string(), ids[1]);
    assert!(!sandbox.path("server.pid").exists());
    manager.signal(SIGHUP);
    wait_for("the start after the handler", || starts(&sandbox) == 3);
    assert_eq!(manager.process().children().len(), 1);
    stop(manager);
    expect_nothing_left(&sandbox);
}

// What a manager costs.

fn resident_kib(process: Process) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", process.pid());
    let text = fs::read_to_string(path).expect("the manager lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    number.and_then(|number| number.trim().parse().ok()).expect("a number of KiB")
}

/// Restarts a server this often and checks that the manager stays as it was after the first ten.
fn restart_often(sandbox: &Sandbox, manager: &Running<'_>, count: usize) {
    let mut before = None;
    for number in 1..=count {
        started(sandbox, number);
        if number == 10 {
            before = Some((files_at_rest(manager.process()), resident_kib(manager.process())));
        }
        manager.signal(SIGHUP);
    }
    let last = started(sandbox, count + 1);
    let (files, resident) = before.expect("more than ten");
    assert_eq!(files_at_rest(manager.process()), files);
    let grown = resident_kib(manager.process()).saturating_sub(resident);
    assert!(grown <= 64, "grown by {grown} KiB");
    assert_eq!(zombies(manager.process()), 0);
    assert_eq!(manager.process().children(), [last]);
}

#[test]
fn three_hundred_restarts_leave_no_descriptor_no_memory_and_no_zombie_behind() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL).command(probe(&sandbox)).spawn();
    restart_often(&sandbox, &manager, 300);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn restarts_with_log_files_leave_no_descriptor_behind() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let manager =
        managed(&sandbox, REFUSAL).logdir(&logs, "1").command(probe(&sandbox).out("hello")).spawn();
    // An empty file would not be kept.
    let written = || wait_for("the line of this life", || logs.server() == "hello\n");
    started(&sandbox, 1);
    written();
    let before = files_at_rest(manager.process()).len();
    for count in 2..=100 {
        manager.signal(SIGHUP);
        started(&sandbox, count);
        written();
    }
    assert_eq!(files_at_rest(manager.process()).len(), before);
    assert_eq!(zombies(manager.process()), 0);
    stop(manager);
    // Each life's output is there.
    let kept = logs
        .names()
        .into_iter()
        .filter(|name| name.to_str().is_some_and(|name| name.starts_with("logfile")));
    assert_eq!(kept.count(), 100);
}

#[test]
fn at_rest_the_manager_never_wakes_up() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let plain = managed_as(&sandbox, "plain", REFUSAL)
        .command(sandbox.probe().append(sandbox.path("starts")));
    let logging = managed_as(&sandbox, "logging", REFUSAL)
        .logdir(&logs, "1")
        .command(sandbox.probe().append(sandbox.path("starts")));
    let managers = [plain.spawn(), logging.spawn()];
    started(&sandbox, 2);
    let activity = || {
        managers.each_ref().map(|manager| {
            let stat = manager.process().stat().expect("it lives");
            let status = manager.process().status().expect("it lives");
            (status.voluntary_switches, stat.cpu_ticks, stat.state)
        })
    };
    let mut last = activity();
    wait_for("rest", || {
        let now = activity();
        let same = now == last && now.iter().all(|it| it.2 == 'S');
        last = now;
        same
    });
    stays("asleep", Duration::from_secs(5), || activity() == last);
}

#[test]
fn a_restart_asks_the_system_for_no_memory() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let files = files_at_rest(manager.process());
    let tracer = traced(
        &sandbox,
        manager.process(),
        &["-e", "trace=brk,mmap,mremap,munmap,clone,fork,vfork,clone3"],
    );
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    sandbox.signal(second, SIGSEGV);
    started(&sandbox, 3);
    assert_eq!(files_at_rest(manager.process()), files);
    released(tracer);
    let calls = sandbox.lines("trace");
    let forks = calls.iter().filter(|call| call.contains("fork(") || call.contains("clone"));
    assert_eq!(forks.count(), 3, "two servers and a handler: {calls:?}");
    let memory = ["brk(", "mmap(", "mremap(", "munmap("];
    let asked = calls.iter().any(|call| memory.iter().any(|name| call.contains(name)));
    assert!(!asked, "{calls:?}");
    stop(manager);
}

#[test]
fn a_manager_keeps_no_directory_busy() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .current_dir(sandbox.dir("start"))
        .command(probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    assert_eq!(manager.process().cwd().as_deref(), Some(Path::new("/")));
    stop(manager);
}

#[test]
fn with_a_log_directory_the_manager_works_there() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let manager = managed(&sandbox, REFUSAL).logdir(&logs, "1").command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    assert_eq!(manager.process().cwd(), Some(logs));
    stop(manager);
}

// The pidfile.

#[test]
fn the_pidfile_is_complete_before_the_first_instruction_of_each_life() {
    let sandbox = sandbox();
    let (report, pidfile) = (sandbox.path("report"), sandbox.path("server.pid"));
    let server = probe(&sandbox).report(&report).pidfile(&pidfile);
    let manager = managed(&sandbox, CONSENT).command(server).spawn();
    for (count, cause) in [(1, SIGHUP), (2, SIGKILL), (3, SIGTERM)] {
        let server = started(&sandbox, count);
        let report = Report::wait(&report);
        assert_eq!(report.pid, server.pid());
        assert_eq!(report.pidfile, Some(format!("{}\n", server.pid()).into()));
        if cause == SIGKILL {
            sandbox.signal(server, SIGKILL);
        } else {
            manager.signal(cause);
        }
    }
    manager.wait().expect_code(0);
}

#[test]
fn the_pidfile_is_removed_as_soon_as_the_server_is_gone() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    assert!(sandbox.path("server.pid").exists());
    sandbox.signal(server, SIGKILL);
    handler.wait_for_run(1);
    assert!(!sandbox.path("server.pid").exists());
    assert!(sandbox.path("manager.pid").exists());
    stop(manager);
}

#[test]
fn there_is_no_pidfile_in_a_delay() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox).exit(1)).spawn();
    said(&manager, "restarting the server in 800ms");
    assert!(!sandbox.path("server.pid").exists());
    stop(manager);
}

// Moments.

/// Numbers that are different enough (see rand(3)).
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (self.0 >> 8) % bound
    }

    fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(u64::from(self.below(longest.as_micros() as u32)))
    }
}

/// Repeats a cycle in some threads for some time. Each has a sandbox of its own, in which nothing may
/// be left.
fn repeat(duration: Duration, cycle: impl Fn(&Sandbox, &mut Dice) + Sync) {
    let (begin, cycle) = (Instant::now(), &cycle);
    thread::scope(|scope| {
        for seed in 1..=6 {
            scope.spawn(move || {
                let (sandbox, mut dice) = (sandbox(), Dice(seed));
                let mut count = 0;
                while count == 0 || begin.elapsed() < duration {
                    cycle(&sandbox, &mut dice);
                    expect_no_files(&sandbox);
                    count += 1;
                    if count % 50 == 0 {
                        expect_nothing_left(&sandbox);
                    }
                }
                expect_nothing_left(&sandbox);
            });
        }
    });
}

#[test]
fn a_stop_request_at_any_moment_of_a_start_is_obeyed_and_leaves_nothing() {
    repeat(Duration::from_secs(7), |sandbox, dice| {
        let manager = managed(sandbox, REFUSAL).command(["/bin/sleep", "1000"]).spawn();
        thread::sleep(dice.moment(Duration::from_millis(6)));
        manager.signal(STOPS[dice.below(3) as usize]);
        let outcome = manager.wait();
        // Before its first instruction it is a process like any other.
        let unborn = outcome.signal().is_some_and(|signal| STOPS.contains(&signal));
        assert!(unborn || outcome.code() == Some(0), "{outcome:?}");
    });
}

#[test]
fn a_stop_request_at_any_moment_of_a_restart_is_obeyed_and_leaves_nothing() {
    repeat(Duration::from_secs(5), |sandbox, dice| {
        let _ = fs::remove_file(sandbox.path("starts"));
        let manager = managed(sandbox, CONSENT).command(probe(sandbox)).spawn();
        let server = started(sandbox, 1);
        match dice.below(3) {
            0 => manager.signal(SIGHUP),
            1 => strike(server.pid(), SIGKILL),
            _ => strike(server.pid(), SIGTERM),
        }
        thread::sleep(dice.moment(Duration::from_millis(4)));
        stop(manager);
    });
}

#[test]
fn a_restart_request_at_any_moment_leaves_one_server() {
    let sandbox = sandbox();
    let manager = managed(&sandbox, CONSENT).command(probe(&sandbox)).spawn();
    let mut dice = Dice(3);
    for _ in 0..200 {
        let server = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
        // The request before may have ended it, and the manager may have reaped it.
        if dice.below(2) == 0 && server.exists() {
            let _ = kill(Pid::from_raw(server.pid()), Signal::SIGKILL);
        }
        thread::sleep(dice.moment(Duration::from_millis(3)));
        manager.signal(SIGHUP);
    }
    wait_for_within(Duration::from_secs(5), "one server", || {
        let children = manager.process().children();
        let pid = sandbox.read_pidfile(sandbox.path("server.pid"));
        if children.len() == 1 && Some(children[0].pid()) == pid {
            Ok(())
        } else {
            Err((children, pid))
        }
    });
    stop(manager);
    expect_nothing_left(&sandbox);
}
