//! `--logdir`: the log directory, its two files, their rotation and expiry; in a directory that
//! belongs to the server's user, who may be hostile.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{getegid, geteuid, mkfifo};
use testkit::signal::{SIGHUP, SIGKILL, SIGTERM, SIGUSR1};
use testkit::{
    Clock, Handler, Invocation, LogDirectory, OnTerm, Outcome, Probe, Process, Report, Running,
    Sandbox, require_program, require_root, stays, wait_for,
};

const NOBODY: u32 = 65534;

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))
}

/// Who the server runs as: as root somebody else, so that owners can be told apart.
fn user() -> (u32, u32) {
    if geteuid().is_root() { (NOBODY, NOBODY) } else { (geteuid().as_raw(), getegid().as_raw()) }
}

fn as_user(vsrun: Invocation<'_>) -> Invocation<'_> {
    vsrun.user(user().0.to_string())
}

/// A directory that belongs to the server's user.
fn users_dir(sandbox: &Sandbox, name: &str) -> PathBuf {
    let dir = sandbox.dir(name);
    give(&dir);
    dir
}

/// A file that belongs to the server's user.
fn users_file(path: impl AsRef<Path>, content: &str) {
    fs::write(&path, content).expect("the sandbox can be written");
    give(path);
}

fn give(path: impl AsRef<Path>) {
    lchown(path, Some(user().0), Some(user().1)).expect("its owner may give it away");
}

/// Runs a server to its end that says `text`.
fn say(sandbox: &Sandbox, logs: impl AsRef<OsStr>, keep: &str, text: &str) {
    let vsrun = as_user(sandbox.vsrun()).logdir(logs, keep);
    vsrun.command(sandbox.probe().out(text).exit(0)).run().expect_code(0);
}

/// Waits until nothing runs any more: old logs are deleted while a server runs and after it.
fn settle(sandbox: &Sandbox) {
    wait_for("the end of every process", || sandbox.processes().is_empty());
}

fn age(path: impl AsRef<Path>, when: &str) {
    let touch = Command::new("touch").args(["-h", "-d", when]).arg(path.as_ref()).status();
    assert!(touch.is_ok_and(|status| status.success()), "cannot set a time of {:?}", path.as_ref());
}

fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn about(path: impl AsRef<Path>) -> Metadata {
    let path = path.as_ref();
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn mode(path: impl AsRef<Path>) -> u32 {
    about(path).permissions().mode() & 0o7777
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let about = about(path);
    (about.uid(), about.gid())
}

/// All that may not change of what vsrun must not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    modified: i64,
    /// Of a regular file.
    content: Vec<u8>,
}

fn facts(path: impl AsRef<Path>) -> Facts {
    let about = about(&path);
    Facts {
        inode: about.ino(),
        mode: about.mode(),
        owner: (about.uid(), about.gid()),
        links: about.nlink(),
        modified: about.mtime(),
        content: if about.is_file() { fs::read(path).expect("a file") } else { Vec::new() },
    }
}

/// Everything in a directory, by name.
fn snapshot(directory: &Path) -> BTreeMap<OsString, Facts> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries.map(|entry| (entry.file_name(), facts(entry.path()))).collect()
}

/// A server under a manager, with a handler that says yes, and a line in `out/starts` for each
/// start.
struct Managed<'a> {
    sandbox: &'a Sandbox,
    vsrun: Running<'a>,
    handler: Handler,
}

impl<'a> Managed<'a> {
    fn new(sandbox: &'a Sandbox, vsrun: Invocation<'a>, server: Probe) -> Managed<'a> {
        let starts = sandbox.open_dir("out").join("starts");
        Managed::of(sandbox, vsrun, server.append(starts))
    }

    /// The server appends to `out/starts` by itself.
    fn of(
        sandbox: &'a Sandbox,
        vsrun: Invocation<'a>,
        server: impl IntoIterator<Item = OsString>,
    ) -> Managed<'a> {
        let handler = sandbox.handler("handler").line("echo handled; echo badly >&2").create();
        let vsrun = vsrun
            .manager(sandbox.path("monitor"), &handler)
            .pidfile(sandbox.path("pidfile"))
            .command(server)
            .spawn();
        let managed = Managed { sandbox, vsrun, handler };
        managed.wait_for_start(1);
        managed
    }

    fn wait_for_start(&self, number: usize) {
        wait_for(&format!("start {number} of the server"), || {
            let starts = self.starts();
            if starts >= number { Ok(()) } else { Err(self.vsrun.stderr()) }
        });
    }

    fn starts(&self) -> usize {
        self.sandbox.lines("out/starts").len()
    }

    fn server(&self) -> Process {
        self.sandbox.wait_for_pidfile(self.sandbox.path("pidfile"))
    }

    fn restart(&self) {
        let before = self.starts();
        self.vsrun.signal(SIGHUP);
        self.wait_for_start(before + 1);
    }

    fn stop(self) -> Outcome {
        self.vsrun.signal(SIGTERM);
        self.vsrun.wait()
    }
}

fn managed<'a>(sandbox: &'a Sandbox, logs: &Path, server: Probe) -> Managed<'a> {
    Managed::new(sandbox, as_user(sandbox.vsrun()).logdir(logs, "1d"), server)
}

fn wait_for_hello(logs: &Path) {
    wait_for("the server's line", || {
        let said = text(logs.join("logfile"));
        if said == "hello\n" { Ok(()) } else { Err(said) }
    });
}

/// What a line of vsrun.log says, by time, process and text; none if it is not of that form.
fn line_of_vsrun(line: &str) -> Option<(DateTime<FixedOffset>, i32, &str)> {
    let form = "0000-00-00T00:00:00.000+00:00";
    let stamp = line.get(..form.len())?;
    let fits = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'+' => byte == b'+' || byte == b'-',
        other => byte == other,
    };
    let time = DateTime::parse_from_rfc3339(stamp).ok()?;
    let (pid, text) = line[form.len()..].strip_prefix(" vsrun[")?.split_once("]: ")?;
    stamp.bytes().zip(form.bytes()).all(fits).then_some((time, pid.parse().ok()?, text))
}

fn flags_of(process: Process, fd: i32) -> OFlag {
    let info = text(format!("/proc/{}/fdinfo/{fd}", process.pid()));
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    OFlag::from_bits_truncate(i32::from_str_radix(flags.trim(), 8).expect("an octal number"))
}

#[test]
fn a_missing_directory_is_made_for_the_user_with_mode_0750() {
    for umask in [0o000, 0o077] {
        let sandbox = sandbox();
        let logs = sandbox.path("logs");
        let vsrun = as_user(sandbox.vsrun()).umask(umask).logdir(&logs, "1d");
        vsrun.command(["/bin/true"]).run().expect_code(0);
        assert_eq!((mode(&logs), owner(&logs)), (0o750, user()));
    }
}

#[test]
fn missing_parents_are_made_with_mode_0755_for_the_caller() {
    for umask in [0o000, 0o077] {
        let sandbox = sandbox();
        let logs = sandbox.path("a/b/logs");
        let vsrun = as_user(sandbox.vsrun()).umask(umask).logdir(&logs, "1d");
        vsrun.command(["/bin/true"]).run().expect_code(0);
        let me = (geteuid().as_raw(), getegid().as_raw());
        for parent in ["a", "a/b"] {
            let parent = sandbox.path(parent);
            assert_eq!((mode(&parent), owner(&parent)), (0o755, me), "{parent:?}");
        }
    }
}

#[test]
fn both_files_are_made_for_the_user_with_mode_0640() {
    for umask in [0o000, 0o077] {
        let sandbox = sandbox();
        let logs = sandbox.path("logs");
        let vsrun = as_user(sandbox.vsrun()).umask(umask).logdir(&logs, "1d");
        vsrun.command(["/bin/true"]).run().expect_code(0);
        for name in ["logfile", "vsrun.log"] {
            let file = logs.join(name);
            assert_eq!((mode(&file), owner(&file)), (0o640, user()), "{name}");
        }
    }
}

#[test]
fn without_a_user_everything_is_the_callers() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    sandbox.vsrun().logdir(&logs, "1d").command(["/bin/true"]).run().expect_code(0);
    let me = (geteuid().as_raw(), getegid().as_raw());
    for path in [logs.clone(), logs.join("logfile"), logs.join("vsrun.log")] {
        assert_eq!(owner(&path), me, "{path:?}");
    }
}

#[test]
fn the_group_of_the_user_owns_the_logs() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let vsrun = sandbox.vsrun().user(format!("{NOBODY}:7")).logdir(&logs, "1d");
    vsrun.command(["/bin/true"]).run().expect_code(0);
    for path in [logs.clone(), logs.join("logfile"), logs.join("vsrun.log")] {
        assert_eq!(owner(&path), (NOBODY, 7), "{path:?}");
    }
}

#[test]
fn a_directory_that_exists_keeps_its_mode_and_owner() {
    let sandbox = sandbox();
    let logs = sandbox.open_dir("logs");
    say(&sandbox, &logs, "1d", "hello");
    let me = (geteuid().as_raw(), getegid().as_raw());
    assert_eq!((mode(&logs), owner(&logs)), (0o1777, me));
}

#[test]
fn a_relative_directory_lies_where_vsrun_was_started() {
    let sandbox = sandbox();
    let elsewhere = sandbox.dir("elsewhere");
    let vsrun = sandbox.vsrun().current_dir(&elsewhere).work_dir("/").logdir("logs", "1d");
    vsrun.command(sandbox.probe().out("hello").exit(0)).run().expect_code(0);
    assert_eq!(text(elsewhere.join("logs/logfile")), "hello\n");
}

#[test]
fn a_directory_may_have_any_bytes_in_its_name() {
    let sandbox = sandbox();
    let logs = sandbox.path(OsStr::from_bytes(b"a\xff\n'b/log s"));
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    managed.restart();
    managed.stop().expect_code(0);
    assert_eq!(text(logs.join("logfile.1")), "hello\n");
}

#[test]
fn a_directory_may_be_named_with_dots_and_slashes() {
    for name in [".", "./", "logs/.", ".//logs//", "logs/../logs"] {
        let sandbox = sandbox();
        sandbox.dir("place");
        let logs = users_dir(&sandbox, "place/logs");
        let vsrun = sandbox.vsrun().current_dir(sandbox.path("place")).logdir(name, "1d");
        vsrun.command(sandbox.probe().out("hello").exit(0)).run().expect_code(0);
        let expected = if name.contains("logs") { logs } else { sandbox.path("place") };
        assert_eq!(text(expected.join("logfile")), "hello\n", "{name}");
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let sandbox = sandbox();
    let logs = sandbox.file("logs", "precious\n");
    let outcome = sandbox.vsrun().logdir(&logs, "1d").command(["/bin/true"]).run();
    let message = format!("vsrun: cannot open log directory '{}': Not a directory", logs.display());
    outcome.expect_error(125, &message);
    assert_eq!(text(&logs), "precious\n");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    fs::set_permissions(&logs, PermissionsExt::from_mode(0o555)).expect("an owner");
    let vsrun = sandbox.vsrun().logdir(&logs, "1d").command(["/bin/true"]);
    let vsrun = if geteuid().is_root() { vsrun.run_as(NOBODY, NOBODY, &[]) } else { vsrun };
    let outcome = vsrun.run();
    outcome.expect_code(125);
    let said = outcome.stderr_text();
    let named = said.contains(&format!("'{}': Permission denied", logs.display()));
    assert!(named && said.lines().count() == 1, "{said}");
    assert!(LogDirectory::at(&logs).names().is_empty());
}

#[test]
fn a_directory_on_a_read_only_file_system_is_refused() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let vsrun = sandbox.vsrun().read_only(&logs).logdir(&logs, "1d");
    let outcome = vsrun.command(["/bin/true"]).run();
    outcome.expect_code(125);
    let said = outcome.stderr_text();
    let named = said.contains(&format!("'{}': Read-only file system", logs.display()));
    assert!(named && said.lines().count() == 1, "{said}");
}

#[test]
fn the_servers_output_and_errors_go_to_logfile_and_nowhere_else() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().out("said").err("complained").exit(3);
    let outcome = sandbox.vsrun().logdir(&logs, "1d").command(server).run();
    outcome.expect_code(3);
    assert_eq!(logs.server(), "said\ncomplained\n");
    assert_eq!((outcome.stdout_text(), outcome.stderr_text()), (String::new(), String::new()));
    let log = logs.vsrun();
    assert!(log.lines().all(|line| line_of_vsrun(line).is_some()), "{log}");
}

#[test]
fn the_handlers_output_goes_to_vsruns_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe().only_first(1).exit(3));
    managed.wait_for_start(2);
    let said: Vec<String> =
        logs.vsrun().lines().filter(|line| line_of_vsrun(line).is_none()).map(Into::into).collect();
    assert_eq!(said, ["handled", "badly"]);
    assert_eq!(managed.vsrun.stderr(), "");
    managed.stop().expect_code(0);
}

#[test]
fn the_manager_says_in_its_log_what_it_started() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let before = Utc::now();
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let vsrun = vsrun.manager(sandbox.path("monitor"), "/bin/true");
    let vsrun = vsrun.pidfile(sandbox.path("pidfile")).command(["sleep", "1000"]).spawn();
    let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    let log = wait_for("a line of vsrun's", || logs.vsrun().lines().next().map(str::to_owned));
    let (time, pid, text) = line_of_vsrun(&log).expect("a line of vsrun's form");
    assert_eq!(pid, vsrun.pid());
    assert_eq!(text, format!("started server {}: sleep 1000", server.pid()));
    // The log's times are cut to milliseconds.
    assert!(time >= before - TimeDelta::milliseconds(1) && time <= Utc::now(), "{time}");
}

#[test]
fn a_server_that_vsrun_becomes_has_its_line_in_the_log_too() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let report = sandbox.path("report");
    let server = sandbox.probe().report(&report).exit(0);
    sandbox.vsrun().logdir(&logs, "1d").command(server).run().expect_code(0);
    let log = logs.vsrun();
    let (_, pid, text) = line_of_vsrun(log.trim_end()).expect("one line of vsrun's form");
    assert_eq!(pid, Report::wait(&report).pid);
    assert!(text.contains(&format!(" server {pid}: ")), "{text}");
}

#[test]
fn the_log_has_the_local_time_with_its_offset() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let vsrun = sandbox.vsrun().env("TZ", "XYZ-05:30").logdir(&logs, "1d");
    vsrun.command(["/bin/true"]).run().expect_code(0);
    let log = logs.vsrun();
    let (time, ..) = line_of_vsrun(log.trim_end()).expect("a line of vsrun's form");
    assert_eq!(time.offset().local_minus_utc(), (5 * 60 + 30) * 60);
    assert!(Utc::now().signed_duration_since(time).num_seconds().abs() < 30, "{time}");
}

#[test]
fn each_line_is_one_write() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let (trace, handler) = (sandbox.path("trace"), sandbox.handler("handler").exits(1).create());
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "-e", "trace=write,writev", "-s", "9999", "-o"]);
    let vsrun = strace.arg(&trace).arg(env!("CARGO_BIN_EXE_vsrun")).logdir(&logs, "1d");
    let vsrun = vsrun.manager(sandbox.path("monitor"), &handler);
    vsrun.command(sandbox.probe().exit(3)).run().expect_code(3);
    let trace = text(&trace);
    let writes: Vec<&str> = trace.lines().filter(|call| call.contains(" vsrun[")).collect();
    let whole = |call: &&str| call.matches("\\n").count() == 1 && call.contains("\\n\", ");
    assert!(writes.iter().all(whole), "{writes:#?}");
    assert_eq!(writes.len(), logs.vsrun().lines().count());
}

#[test]
fn no_argument_can_forge_a_line() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let forged = "x\n2026-01-01T00:00:00.000+00:00 vsrun[1]: forged\r\n\x1b[2J\x7f\u{85}";
    let server = sandbox.probe().carrying([forged]);
    let managed = managed_by_words(&sandbox, logs.path(), server);
    managed.restart();
    let manager = managed.vsrun.pid();
    managed.stop().expect_code(0);
    let log = logs.vsrun();
    let foreign =
        log.lines().find(|line| line_of_vsrun(line).is_none_or(|(_, pid, _)| pid != manager));
    assert_eq!(foreign, None);
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
}

/// The word that a server carries must come last.
fn managed_by_words<'a>(sandbox: &'a Sandbox, logs: &Path, server: Probe) -> Managed<'a> {
    let starts = sandbox.open_dir("out").join("starts");
    let mut words: Vec<OsString> = server.into_iter().collect();
    let mut append = OsString::from("append=");
    append.push(starts);
    words.insert(1, append);
    Managed::of(sandbox, as_user(sandbox.vsrun()).logdir(logs, "1d"), words)
}

#[test]
fn bytes_that_are_no_text_are_escaped_in_the_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().exit(0).carrying([OsStr::from_bytes(b"a\xffb")]);
    sandbox.vsrun().logdir(&logs, "1d").command(server).run().expect_code(0);
    let log = String::from_utf8(logs.read("vsrun.log")).expect("text");
    assert!(line_of_vsrun(log.trim_end()).is_some() && log.contains("\\xff"), "{log}");
}

#[test]
fn a_line_longer_than_a_page_is_still_one_line() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().exit(0).carrying(vec!["word"; 20_000]);
    sandbox.vsrun().logdir(&logs, "1d").command(server).run().expect_code(0);
    let log = logs.vsrun();
    assert!(log.lines().all(|line| line_of_vsrun(line).is_some()) && log.ends_with('\n'), "{log}");
}

#[test]
fn the_server_writes_straight_to_the_file_and_at_its_end() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let managed = managed(&sandbox, &logs, sandbox.probe());
    let server = managed.server();
    let open = server.open_files().expect("a running server");
    for fd in [1, 2] {
        assert_eq!(open[&fd], logs.join("logfile"));
        assert!(flags_of(server, fd).contains(OFlag::O_APPEND), "descriptor {fd}");
        assert!(!flags_of(server, fd).contains(OFlag::O_NONBLOCK), "descriptor {fd}");
    }
    assert_eq!(open.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    assert_eq!(managed.vsrun.process().descendants(), [server]);
    managed.stop().expect_code(0);
}

#[test]
fn a_server_that_vsrun_becomes_writes_straight_to_the_file_and_at_its_end() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let report = sandbox.open_dir("out").join("report");
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let running = vsrun.command(sandbox.probe().report(&report)).spawn();
    let report = Report::wait(&report);
    let (server, logfile) = (running.process(), logs.join("logfile"));
    assert_eq!((report.pid, report.fd_numbers()), (server.pid(), vec![0, 1, 2]));
    assert_eq!((&report.fds[&1], &report.fds[&2]), (&logfile, &logfile));
    assert!([1, 2].into_iter().all(|fd| flags_of(server, fd).contains(OFlag::O_APPEND)));
    assert_eq!(sandbox.processes(), [server]);
}

#[test]
fn manager_and_handler_write_at_the_end_of_vsruns_log() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().only_first(1).exit(3));
    let handler = managed.handler.wait_for_run(1);
    managed.wait_for_start(2);
    let manager = managed.vsrun.process();
    let open = manager.open_files().expect("a running manager");
    for fd in [1, 2] {
        assert_eq!((&open[&fd], &handler.fds[&fd]), (&logs.join("vsrun.log"), &open[&fd]));
        assert!(flags_of(manager, fd).contains(OFlag::O_APPEND), "descriptor {fd}");
    }
    managed.stop().expect_code(0);
}

#[test]
fn what_others_append_to_a_log_is_not_overwritten() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let go = sandbox.open_dir("flags").join("go");
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let script =
        format!("echo first; until [ -e '{}' ]; do sleep 0.01; done; echo third", go.display());
    let running = vsrun.command(["/bin/sh", "-c", &script]).spawn();
    wait_for("the first line", || text(logs.join("logfile")) == "first\n");
    let mut file = File::options().append(true).open(logs.join("logfile")).expect("the log");
    std::io::Write::write_all(&mut file, b"second\n").expect("room");
    fs::write(&go, "").expect("the sandbox can be written");
    running.wait().expect_code(0);
    assert_eq!(text(logs.join("logfile")), "first\nsecond\nthird\n");
}

#[test]
fn in_the_background_output_goes_to_the_files_too() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let outcome = as_user(sandbox.vsrun())
        .background()
        .pidfile(sandbox.path("pidfile"))
        .logdir(&logs, "1d")
        .command(sandbox.probe().out("hello"))
        .run();
    outcome.expect_code(0);
    wait_for("the server's line", || logs.server() == "hello\n");
    let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    assert!(logs.vsrun().contains(&format!(" server {}: ", server.pid())), "{}", logs.vsrun());
    assert_eq!((outcome.stdout_text(), outcome.stderr_text()), (String::new(), String::new()));
}

#[test]
fn a_server_without_a_work_dir_works_in_the_log_directory() {
    let sandbox = sandbox();
    let (logs, report) = (sandbox.path("logs"), sandbox.open_dir("out").join("report"));
    let server = sandbox.probe().report(&report).exit(0);
    let vsrun = as_user(sandbox.vsrun()).current_dir("/").logdir(&logs, "1d");
    vsrun.command(server).run().expect_code(0);
    assert_eq!(Report::wait(&report).cwd, Some(logs));
}

#[test]
fn a_work_dir_wins_over_the_log_directory() {
    let sandbox = sandbox();
    let (logs, report) = (sandbox.path("logs"), sandbox.open_dir("out").join("report"));
    let elsewhere = sandbox.dir("elsewhere");
    let server = sandbox.probe().report(&report).exit(0);
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d").work_dir(&elsewhere);
    vsrun.command(server).run().expect_code(0);
    assert_eq!(Report::wait(&report).cwd, Some(elsewhere));
}

#[test]
fn handler_and_manager_work_in_the_log_directory_whatever_the_work_dir() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d").work_dir("/");
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe().only_first(1).exit(3));
    assert_eq!(managed.handler.wait_for_run(1).cwd, logs);
    assert_eq!(managed.vsrun.process().cwd(), Some(logs));
    managed.wait_for_start(2);
    managed.stop().expect_code(0);
}

#[test]
fn in_a_root_the_server_works_in_the_log_directory_if_it_lies_inside() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    let server = Probe::at("/bin/probe").report("/tmp/report").out("hello").exit(0);
    let vsrun = as_user(sandbox.vsrun()).root(&root).logdir(root.join("var/log"), "1d");
    vsrun.command(server).run().expect_code(0);
    assert_eq!(Report::wait(root.join("tmp/report")).cwd, Some("/var/log".into()));
    assert_eq!(text(root.join("var/log/logfile")), "hello\n");
}

#[test]
fn in_a_root_the_server_works_at_the_top_if_the_log_directory_lies_outside() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    // The same path names a directory inside the root as well.
    let logs = sandbox.path("logs");
    fs::create_dir_all(root.join(logs.strip_prefix("/").expect("absolute"))).expect("a directory");
    let server = Probe::at("/bin/probe").report("/tmp/report").out("hello").exit(0);
    let vsrun = as_user(sandbox.vsrun()).root(&root).logdir(&logs, "1d");
    vsrun.command(server).run().expect_code(0);
    assert_eq!(Report::wait(root.join("tmp/report")).cwd, Some("/".into()));
    assert_eq!(text(logs.join("logfile")), "hello\n");
}

#[test]
fn at_each_start_of_vsrun_both_logs_are_put_aside() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let mut said = Vec::new();
    for text in ["one", "two", "three"] {
        say(&sandbox, &logs, "1d", text);
        said.push(logs.vsrun());
    }
    let names = ["logfile", "logfile.1", "logfile.2", "vsrun.log", "vsrun.log.1", "vsrun.log.2"];
    assert_eq!(logs.names(), names);
    assert_eq!((logs.read("logfile.1"), logs.read("logfile.2")), ("one\n".into(), "two\n".into()));
    assert_eq!(logs.server(), "three\n");
    let old = ["vsrun.log.1", "vsrun.log.2", "vsrun.log"].map(|name| text(logs.path().join(name)));
    assert_eq!(old.as_slice(), said);
}

#[test]
fn at_a_restart_the_servers_log_is_put_aside_and_vsruns_is_not() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe().out("hello"));
    for _ in 0..2 {
        wait_for_hello(logs.path());
        managed.restart();
    }
    wait_for_hello(logs.path());
    assert_eq!(logs.names(), ["logfile", "logfile.1", "logfile.2", "vsrun.log"]);
    wait_for("a line for each start", || logs.vsrun().matches("started server").count() == 3);
    managed.stop().expect_code(0);
    assert_eq!(
        (mode(logs.path().join("logfile")), owner(logs.path().join("logfile"))),
        (0o640, user())
    );
}

#[test]
fn a_restart_after_a_crash_puts_the_log_aside() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe().out("hello"));
    wait_for_hello(logs.path());
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(2);
    wait_for_hello(logs.path());
    assert_eq!(logs.read("logfile.1"), b"hello\n");
    managed.stop().expect_code(0);
}

#[test]
fn an_empty_log_is_not_put_aside() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe());
    managed.restart();
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
}

#[test]
fn an_empty_log_that_stays_in_use_has_mode_0640() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join("logfile"), "");
    fs::set_permissions(logs.join("logfile"), PermissionsExt::from_mode(0o666)).expect("an owner");
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!((mode(logs.join("logfile")), owner(logs.join("logfile"))), (0o640, user()));
}

#[test]
fn a_log_that_was_removed_is_made_anew_at_the_next_start() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe().out("hello"));
    wait_for_hello(logs.path());
    fs::remove_file(logs.path().join("logfile")).expect("a log");
    managed.restart();
    wait_for_hello(logs.path());
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
}

#[test]
fn a_log_keeps_owner_mode_and_time_when_it_is_put_aside() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join("logfile"), "old\n");
    fs::set_permissions(logs.join("logfile"), PermissionsExt::from_mode(0o604)).expect("an owner");
    age(logs.join("logfile"), "3 hours ago");
    let before = snapshot(&logs)[OsStr::new("logfile")].clone();
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(snapshot(&logs)[OsStr::new("logfile.1")], before);
}

#[test]
fn the_number_is_one_more_than_the_highest_whatever_the_gaps() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for name in ["logfile.3", "logfile.7", "vsrun.log.41", "logfile", "vsrun.log"] {
        users_file(logs.join(name), name);
    }
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile.8")), "logfile");
    assert_eq!(text(logs.join("vsrun.log.42")), "vsrun.log");
    assert_eq!(LogDirectory::at(&logs).names().len(), 7);
}

#[test]
fn at_the_top_of_the_numbers_the_lowest_free_one_is_taken() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let top = u64::MAX;
    for name in ["logfile.1", "logfile.2", "logfile.4", &format!("logfile.{top}"), "logfile"] {
        users_file(logs.join(name), name);
    }
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile.3")), "logfile");
    say(&sandbox, &logs, "1d", "hello again");
    assert_eq!(text(logs.join("logfile.5")), "hello\n");
    assert_eq!(text(logs.join(format!("logfile.{top}"))), format!("logfile.{top}"));
}

#[test]
fn one_below_the_top_of_the_numbers_the_top_is_taken() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join(format!("logfile.{}", u64::MAX - 1)), "old\n");
    users_file(logs.join("logfile"), "newer\n");
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join(format!("logfile.{}", u64::MAX))), "newer\n");
}

/// Names that look like an old log's and are not.
fn odd_names() -> Vec<&'static OsStr> {
    let names: [&[u8]; 24] = [
        b"logfile.01",
        b"logfile.00",
        b"logfile.+5",
        b"logfile.-1",
        b"logfile.",
        b"logfile.9 ",
        b"logfile. 9",
        b"logfile.9\n",
        b"logfile.0x10",
        b"logfile.1e3",
        b"logfile.7.gz",
        b"logfile.7~",
        b"logfile.18446744073709551616",
        b"logfile.1000000000000000000000000000000",
        b"logfile.\xff",
        b"logfile.\xd9\xa3",
        b"logfile1",
        b"Logfile.8",
        b".logfile.8",
        b"xlogfile.8",
        b"vsrun.8",
        b"vsrun.log.08",
        b"vsrun.log.x",
        b"access.log",
    ];
    names.map(OsStr::from_bytes).to_vec()
}

#[test]
fn only_canonical_numbers_count() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    odd_names().iter().for_each(|name| users_file(logs.join(name), "other"));
    users_file(logs.join("logfile"), "old\n");
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile.1")), "old\n");
}

#[test]
fn the_first_server_log_of_a_start_is_never_what_an_older_server_still_writes_to() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(users_dir(&sandbox, "logs"));
    let out = sandbox.open_dir("flags");
    let script = format!(
        "echo before; until [ -e '{0}/go' ]; do sleep 0.01; done; echo after",
        out.display()
    );
    let vsrun = as_user(sandbox.vsrun()).logdir(&logs, "1d");
    let older = vsrun.command(["/bin/sh", "-c", &script]).spawn();
    wait_for("the first line", || logs.server() == "before\n");
    say(&sandbox, &logs, "1d", "newer");
    fs::write(out.join("go"), "").expect("the sandbox can be written");
    older.wait().expect_code(0);
    assert_eq!(
        (text(logs.path().join("logfile.1")), logs.server()),
        ("before\nafter\n".into(), "newer\n".into())
    );
}

#[test]
fn files_older_than_keep_are_deleted_and_younger_ones_stay() {
    let cases = [
        ("1h", "50 minutes ago", "70 minutes ago"),
        ("36h", "35 hours ago", "37 hours ago"),
        ("2d", "46 hours ago", "50 hours ago"),
        ("2", "46 hours ago", "50 hours ago"),
        ("1w", "6 days ago", "8 days ago"),
        ("1m", "27 days ago", "32 days ago"),
        // A year of calendar months, which twelve times thirty days are not.
        ("12m", "363 days ago", "368 days ago"),
    ];
    for (keep, young, old) in cases {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        for (name, when) in
            [("logfile", old), ("logfile", young), ("vsrun.log", old), ("vsrun.log", young)]
        {
            let number = if when == old { 1 } else { 2 };
            let path = logs.join(format!("{name}.{number}"));
            users_file(&path, "x");
            age(&path, when);
        }
        say(&sandbox, &logs, keep, "hello");
        settle(&sandbox);
        let names = LogDirectory::at(&logs).names();
        assert_eq!(names, ["logfile", "logfile.2", "vsrun.log", "vsrun.log.2"], "KEEP {keep}");
    }
}

#[test]
fn old_files_are_deleted_however_the_server_is_started() {
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile.1"), "x");
        age(logs.join("logfile.1"), "2 days ago");
        let end = sandbox.open_dir("flags").join("end");
        let vsrun = every_way(&sandbox).remove(way).logdir(&logs, "1d");
        let running = vsrun.command(sandbox.probe().until(&end).exit(0)).spawn();
        wait_for("the old file to go", || !logs.join("logfile.1").exists());
        fs::write(&end, "").expect("the sandbox can be written");
        running.wait().expect_code(0);
    }
}

#[test]
fn a_start_that_fails_deletes_no_old_files() {
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile.1"), "x");
        age(logs.join("logfile.1"), "2 days ago");
        let vsrun = every_way(&sandbox).remove(way).logdir(&logs, "1d");
        vsrun.command(["/nowhere/to/be/found"]).run().expect_code(127);
        settle(&sandbox);
        assert_eq!(LogDirectory::at(&logs).names(), ["logfile.1"], "{way}");
    }
}

#[test]
fn a_keep_of_nothing_deletes_every_older_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(users_dir(&sandbox, "logs"));
    for text in ["one", "two", "three"] {
        say(&sandbox, &logs, "1d", text);
    }
    say(&sandbox, &logs, "0h", "four");
    settle(&sandbox);
    let old = |name: &str| logs.path().join(name).exists();
    assert!(!old("logfile.1") && !old("logfile.2") && !old("vsrun.log.1"), "{:?}", logs.names());
    assert_eq!(logs.server(), "four\n");
}

#[test]
fn a_keep_longer_than_the_calendar_deletes_nothing() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    users_file(logs.join("logfile.1"), "x");
    age(logs.join("logfile.1"), "1970-01-02");
    say(&sandbox, &logs, "4294967295m", "hello");
    settle(&sandbox);
    assert_eq!(text(logs.join("logfile.1")), "x");
}

#[test]
fn a_time_in_the_future_never_expires() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for (name, when) in [("logfile.1", "tomorrow"), ("logfile.2", "2100-01-01")] {
        users_file(logs.join(name), "x");
        age(logs.join(name), when);
    }
    say(&sandbox, &logs, "0h", "hello");
    settle(&sandbox);
    assert_eq!(LogDirectory::at(&logs).names(), ["logfile", "logfile.1", "logfile.2", "vsrun.log"]);
}

#[test]
fn old_files_are_deleted_at_every_restart() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = managed(&sandbox, &logs, sandbox.probe());
    for name in ["logfile.1", "vsrun.log.5"] {
        users_file(logs.join(name), "x");
        age(logs.join(name), "2 days ago");
    }
    managed.restart();
    wait_for("the old files to go", || {
        let names = LogDirectory::at(&logs).names();
        if names == ["logfile", "vsrun.log"] { Ok(()) } else { Err(names) }
    });
    managed.stop().expect_code(0);
}

#[test]
fn old_files_are_deleted_once_a_day_while_a_manager_lives() {
    let sandbox = sandbox();
    let Some(clock) = Clock::new(&sandbox, "+0d") else {
        return;
    };
    let logs = users_dir(&sandbox, "logs");
    let vsrun = as_user(sandbox.vsrun()).clock(&clock).logdir(&logs, "2d");
    let signals = sandbox.open_dir("signals").join("log");
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe().log_signals(&signals));
    users_file(logs.join("logfile.1"), "x");
    let wake = |number: usize| {
        managed.vsrun.signal(SIGUSR1);
        wait_for("the signal to be passed on", || sandbox.lines(&signals).len() == number + 1);
    };
    clock.set("+25h");
    wake(1);
    clock.set("+47h");
    wake(2);
    assert!(logs.join("logfile.1").exists());
    clock.set("+50h");
    wake(3);
    wait_for("the old file to go", || !logs.join("logfile.1").exists());
    clock.set("+0d");
    managed.stop().expect_code(0);
}

#[test]
fn old_files_are_deleted_also_where_the_cutoff_is_an_hour_that_the_clocks_skip_or_repeat() {
    // The clocks go forward on 29 March 2026 at 2 and back on 25 October at 3.
    let moments = ["2026-04-28 02:30:00 29d", "2026-04-28 02:30:00 30d", "2026-11-04 02:30:00 10d"];
    for moment in moments {
        let (now, keep) = moment.rsplit_once(' ').expect("a time and a duration");
        let sandbox = sandbox();
        let Some(clock) = Clock::new(&sandbox, &format!("@{now}")) else {
            return;
        };
        let logs = users_dir(&sandbox, "logs");
        users_file(logs.join("logfile.1"), "x");
        age(logs.join("logfile.1"), "2020-01-01");
        let vsrun = as_user(sandbox.vsrun())
            .clock(&clock)
            .env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
            .logdir(&logs, keep);
        vsrun.command(sandbox.probe().out("hello").exit(0)).run().expect_code(0);
        settle(&sandbox);
        assert!(!logs.join("logfile.1").exists(), "{keep} before {now}");
    }
}

#[test]
fn files_of_other_names_are_not_touched_whatever_their_age() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    for name in odd_names() {
        users_file(logs.join(name), "other");
        age(logs.join(name), "10 years ago");
    }
    let before = snapshot(&logs);
    say(&sandbox, &logs, "0h", "hello");
    settle(&sandbox);
    let mut after = snapshot(&logs);
    after.retain(|name, _| name != "logfile" && name != "vsrun.log");
    assert_eq!(after, before);
}

#[test]
fn only_regular_files_are_deleted() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let precious = sandbox.file("precious", "precious\n");
    fs::create_dir(logs.join("logfile.3")).expect("a directory");
    symlink(&precious, logs.join("logfile.4")).expect("a link");
    symlink("/nowhere", logs.join("vsrun.log.5")).expect("a link");
    mkfifo(&logs.join("logfile.6"), Mode::S_IRWXU).expect("a FIFO");
    let socket = std::os::unix::net::UnixListener::bind(logs.join("logfile.7"));
    for entry in fs::read_dir(&logs).expect("a directory").flatten() {
        give(entry.path());
        age(entry.path(), "10 years ago");
    }
    age(&precious, "10 years ago");
    users_file(logs.join("logfile"), "old\n");
    let before = snapshot(&logs);
    say(&sandbox, &logs, "0h", "hello");
    settle(&sandbox);
    let mut after = snapshot(&logs);
    after.retain(|name, _| before.contains_key(name) && name != "logfile");
    assert_eq!(after.len() + 1, before.len());
    assert!(after.iter().all(|(name, facts)| before[name] == *facts), "{after:?}");
    assert_eq!(
        (text(precious), text(logs.join("logfile.8"))),
        ("precious\n".into(), "old\n".into())
    );
    drop(socket);
}

/// Puts something under the name of each log into a directory of the user's, which may be as
/// hostile as it likes, and sees that it is put aside as it is.
fn is_put_aside(place: impl Fn(&Sandbox, &Path)) {
    for name in ["logfile", "vsrun.log"] {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        place(&sandbox, &logs.join(name));
        let before = facts(logs.join(name));
        let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
        wait_for_hello(&logs);
        assert_eq!(facts(logs.join(format!("{name}.1"))), before, "{name}");
        wait_for("the new log to be written", || about(logs.join(name)).len() > 0);
        let log = about(logs.join(name));
        assert!(log.is_file() && log.nlink() == 1, "{name}: {log:?}");
        assert_eq!((mode(logs.join(name)), owner(logs.join(name))), (0o640, user()));
        managed.stop().expect_code(0);
    }
}

fn precious(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.path("precious");
    if !path.exists() {
        sandbox.file("precious", "precious\n");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("an owner");
    }
    path
}

fn is_unharmed(precious: &Path, links: u64) {
    let me = geteuid().as_raw();
    assert_eq!(text(precious), "precious\n");
    let about = about(precious);
    assert_eq!((about.uid(), about.nlink(), mode(precious)), (me, links, 0o600));
}

#[test]
fn a_link_in_the_place_of_a_log_is_put_aside_and_its_target_is_not_written() {
    let sandbox = sandbox();
    let precious = precious(&sandbox);
    is_put_aside(|_, path| {
        symlink(&precious, path).expect("a link");
        give(path);
    });
    is_unharmed(&precious, 1);
}

#[test]
fn a_dangling_link_in_the_place_of_a_log_is_put_aside_and_its_target_is_not_made() {
    let sandbox = sandbox();
    let target = sandbox.path("target");
    is_put_aside(|_, path| {
        symlink(&target, path).expect("a link");
        give(path);
    });
    assert!(!target.exists());
}

#[test]
fn a_fifo_in_the_place_of_a_log_is_put_aside() {
    is_put_aside(|_, path| {
        mkfifo(path, Mode::S_IRUSR).expect("a FIFO");
        give(path);
    });
}

#[test]
fn a_directory_in_the_place_of_a_log_is_put_aside() {
    is_put_aside(|_, path| {
        fs::create_dir(path).expect("a directory");
        users_file(path.join("logfile"), "inside\n");
        give(path);
    });
}

#[test]
fn a_socket_in_the_place_of_a_log_is_put_aside() {
    is_put_aside(|_, path| {
        drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
        assert!(about(path).file_type().is_socket());
    });
}

#[test]
fn a_device_in_the_place_of_a_log_is_put_aside() {
    if !require_root() {
        return;
    }
    is_put_aside(|_, path| {
        let full = makedev(1, 7);
        mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), full).expect("a device");
        give(path);
    });
}

#[test]
fn a_file_with_another_name_elsewhere_is_put_aside_and_not_written() {
    let sandbox = sandbox();
    let precious = precious(&sandbox);
    is_put_aside(|_, path| fs::hard_link(&precious, path).expect("a second name"));
    // The sandboxes with the second names are gone.
    is_unharmed(&precious, 1);
}

#[test]
fn an_empty_file_with_another_name_elsewhere_is_put_aside_and_not_written() {
    let sandbox = sandbox();
    let empty = sandbox.file("empty", "");
    give(&empty);
    is_put_aside(|_, path| fs::hard_link(&empty, path).expect("a second name"));
    assert_eq!(about(&empty).len(), 0);
}

#[test]
fn a_file_of_roots_in_a_users_directory_is_put_aside() {
    if !require_root() {
        return;
    }
    is_put_aside(|_, path| fs::write(path, "root's\n").expect("the sandbox can be written"));
    is_put_aside(|_, path| fs::write(path, "").expect("the sandbox can be written"));
}

#[test]
fn a_file_of_strangers_in_a_users_directory_is_put_aside() {
    if !require_root() {
        return;
    }
    is_put_aside(|_, path| {
        fs::write(path, "").expect("the sandbox can be written");
        chown(path, Some(5), Some(5)).expect("root may give a file away");
    });
}

#[test]
fn a_link_put_in_a_logs_place_in_mid_run_is_put_aside_at_the_next_start() {
    let sandbox = sandbox();
    let (logs, precious) = (users_dir(&sandbox, "logs"), precious(&sandbox));
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    fs::remove_file(logs.join("logfile")).expect("a log");
    symlink(&precious, logs.join("logfile")).expect("a link");
    give(logs.join("logfile"));
    managed.restart();
    wait_for_hello(&logs);
    managed.stop().expect_code(0);
    assert_eq!(fs::read_link(logs.join("logfile.1")).expect("a link"), precious);
    is_unharmed(&precious, 1);
}

#[test]
fn a_user_who_swaps_names_all_the_time_gets_nothing_of_roots_written() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (home, victims) = (sandbox.dir_of("home", NOBODY, NOBODY), sandbox.dir("victims"));
    let victim = sandbox.dir("victims/logs");
    for name in ["logfile", "vsrun.log", "logfile.1", "logfile.2", "vsrun.log.1"] {
        fs::write(victim.join(name), "precious\n").expect("the sandbox can be written");
        age(victim.join(name), "10 years ago");
    }
    let before = snapshot(&victim);
    let outside = snapshot(&victims);
    // home/middle/logs is the log directory, and home/middle/trap, home/trap are links to roots'.
    let (middle, logs) = (sandbox.dir("home/middle"), sandbox.dir("home/middle/logs"));
    for (link, target) in
        [("home/trap", &victims), ("home/middle/trap", &victim), ("home/middle/logs/trap", &victim)]
    {
        sandbox.link(link, target);
    }
    sandbox.link("home/middle/logs/bait", victim.join("logfile"));
    for path in ["home/trap", "home/middle", "home/middle/trap", "home/middle/logs"] {
        give(sandbox.path(path));
    }
    let over = AtomicBool::new(false);
    let started = thread::scope(|scope| {
        let attack = || {
            // By descriptors: the attacker must not fall into the traps.
            let [home, middle, logs] =
                [&home, &middle, &logs].map(|path| File::open(path).expect("a directory"));
            while !over.load(Ordering::Relaxed) {
                for (place, one, other) in [
                    (&home, "middle", "trap"),
                    (&middle, "logs", "trap"),
                    (&logs, "logfile", "bait"),
                    (&logs, "vsrun.log", "bait"),
                    (&logs, "logfile.1", "trap"),
                ] {
                    // A name that is not there is not swapped.
                    let _ = renameat2(place, one, place, other, RenameFlags::RENAME_EXCHANGE);
                }
                // Now the directory has to be made by vsrun.
                let _ = renameat2(&middle, "logs", &middle, "away", RenameFlags::RENAME_NOREPLACE);
                let _ = renameat2(&middle, "away", &middle, "logs", RenameFlags::RENAME_NOREPLACE);
            }
        };
        scope.spawn(attack);
        let end = Instant::now() + Duration::from_secs(4);
        let mut started = 0;
        while Instant::now() < end {
            let vsrun = as_user(sandbox.vsrun()).logdir("home/middle/logs", "0h");
            let outcome = vsrun.command(sandbox.probe().out("pwned").exit(0)).run();
            assert!(matches!(outcome.code(), Some(0 | 125)), "{outcome:?}");
            started += usize::from(outcome.code() == Some(0));
        }
        over.store(true, Ordering::Relaxed);
        started
    });
    settle(&sandbox);
    assert_eq!(snapshot(&victim), before);
    assert_eq!(snapshot(&victims), outside);
    assert!(started > 0, "the attack kept every server from starting");
}

fn expect_no_log_directory(outcome: &Outcome, path: &Path) {
    outcome.expect_code(125);
    let said = outcome.stderr_text();
    let beginning = format!("vsrun: cannot open log directory '{}': ", path.display());
    assert!(said.starts_with(&beginning) && said.lines().count() == 1, "{said}");
}

/// Starts a server with a log directory at `path`, which leads to `target` by a link that is not
/// to be trusted.
fn is_refused_as_a_link(sandbox: &Sandbox, path: &Path, target: &Path) {
    let before = snapshot(target);
    let outcome = as_user(sandbox.vsrun()).logdir(path, "0h").command(["/bin/true"]).run();
    expect_no_log_directory(&outcome, path);
    assert_eq!(snapshot(target), before);
}

#[test]
fn a_link_in_a_users_directory_is_no_log_directory() {
    if !require_root() {
        return;
    }
    for links_owner in [0, NOBODY] {
        let sandbox = sandbox();
        let (home, target) = (sandbox.dir_of("home", NOBODY, NOBODY), sandbox.dir("target"));
        let link = sandbox.link("home/logs", &target);
        lchown(&link, Some(links_owner), None).expect("root may give a link away");
        is_refused_as_a_link(&sandbox, &home.join("logs"), &target);
    }
}

#[test]
fn a_link_of_a_users_in_a_shared_directory_is_no_log_directory() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (shared, target) = (sandbox.open_dir("shared"), sandbox.dir("target"));
    give(sandbox.link("shared/logs", &target));
    is_refused_as_a_link(&sandbox, &shared.join("logs"), &target);
}

#[test]
fn a_link_of_roots_in_a_directory_that_all_may_write_is_no_log_directory() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (shared, target) = (sandbox.dir("shared"), sandbox.dir("target"));
    fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).expect("an owner");
    sandbox.link("shared/logs", &target);
    is_refused_as_a_link(&sandbox, &shared.join("logs"), &target);
}

#[test]
fn no_link_of_a_users_is_followed_on_the_way_to_the_log_directory() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (home, target) = (sandbox.dir_of("home", NOBODY, NOBODY), sandbox.dir("target"));
    give(sandbox.link("home/middle", &target));
    is_refused_as_a_link(&sandbox, &home.join("middle/logs"), &target);
    sandbox.dir("target/logs");
    is_refused_as_a_link(&sandbox, &home.join("middle/logs"), &target);
}

#[test]
fn links_of_the_callers_in_places_of_the_callers_are_followed() {
    let sandbox = sandbox();
    let target = users_dir(&sandbox, "target");
    // By a relative link, an absolute one, and one in another directory.
    sandbox.link("relative", "./target/../target");
    sandbox.dir("other");
    sandbox.link("other/absolute", sandbox.path("relative"));
    say(&sandbox, "other/absolute", "1d", "hello");
    assert_eq!(text(target.join("logfile")), "hello\n");
    sandbox.link("middle", ".");
    say(&sandbox, "middle/middle/relative/deeper", "1d", "hello");
    assert_eq!(text(target.join("deeper/logfile")), "hello\n");
}

#[test]
fn a_link_to_itself_is_no_log_directory() {
    let sandbox = sandbox();
    let link = sandbox.link("logs", "logs");
    let outcome = sandbox.vsrun().logdir(&link, "1d").command(["/bin/true"]).run();
    expect_no_log_directory(&outcome, &link);
}

#[test]
fn a_directory_removed_in_mid_run_is_made_again_at_the_next_start() {
    let sandbox = sandbox();
    let (logs, reports) = (LogDirectory::at(sandbox.path("a/logs")), sandbox.open_dir("reports"));
    let server = sandbox.probe().out("hello").report(reports.join("report"));
    let managed = managed(&sandbox, logs.path(), server);
    fs::remove_dir_all(sandbox.path("a")).expect("the sandbox can be written");
    fs::remove_file(reports.join("report")).expect("a report");
    managed.restart();
    wait_for_hello(logs.path());
    assert_eq!((mode(logs.path()), owner(logs.path())), (0o750, user()));
    assert_eq!(Report::wait(reports.join("report")).cwd.as_deref(), Some(logs.path()));
    wait_for("vsrun's line", || logs.vsrun().contains("started server"));
    managed.stop().expect_code(0);
}

#[test]
fn a_server_whose_log_directory_cannot_be_made_again_is_started_all_the_same() {
    let sandbox = sandbox();
    sandbox.dir("a");
    let logs = sandbox.path("a/logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    fs::remove_dir_all(sandbox.path("a")).expect("the sandbox can be written");
    sandbox.file("a", "no directory\n");
    managed.restart();
    assert!(managed.server().exists() && managed.handler.runs().is_empty());
    managed.stop().expect_code(0);
    assert_eq!(text(sandbox.path("a")), "no directory\n");
}

#[test]
fn a_server_whose_log_directory_is_gone_comes_back_after_a_crash() {
    let sandbox = sandbox();
    sandbox.dir("a");
    let logs = sandbox.path("a/logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    fs::remove_dir_all(sandbox.path("a")).expect("the sandbox can be written");
    sandbox.file("a", "no directory\n");
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(2);
    assert_eq!(managed.handler.runs().len(), 1);
    managed.stop().expect_code(0);
}

#[test]
fn a_link_that_takes_the_directorys_place_in_mid_run_is_not_followed() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (home, victim) = (sandbox.dir_of("home", NOBODY, NOBODY), sandbox.dir("victim"));
    fs::write(victim.join("logfile"), "precious\n").expect("the sandbox can be written");
    let before = snapshot(&victim);
    let logs = home.join("logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    fs::rename(&logs, home.join("kept")).expect("the sandbox can be written");
    symlink(&victim, &logs).expect("a link");
    give(&logs);
    managed.restart();
    wait_for_hello(&home.join("kept"));
    assert_eq!(text(home.join("kept/logfile.1")), "hello\n");
    managed.stop().expect_code(0);
    assert_eq!(snapshot(&victim), before);
}

#[test]
fn a_link_in_the_place_of_a_removed_directory_is_not_followed() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let (home, victim) = (sandbox.dir_of("home", NOBODY, NOBODY), sandbox.dir("victim"));
    fs::write(victim.join("logfile"), "precious\n").expect("the sandbox can be written");
    let before = snapshot(&victim);
    let logs = home.join("logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    fs::remove_dir_all(&logs).expect("the sandbox can be written");
    symlink(&victim, &logs).expect("a link");
    give(&logs);
    managed.restart();
    managed.stop().expect_code(0);
    assert_eq!(snapshot(&victim), before);
}

#[test]
fn a_link_that_takes_the_directorys_place_does_not_become_the_working_directory() {
    if !require_root() {
        return;
    }
    for removed in [false, true] {
        let sandbox = sandbox();
        let (home, reports) = (sandbox.dir_of("home", NOBODY, NOBODY), sandbox.open_dir("reports"));
        // The user could not even get to it.
        let secret = sandbox.dir("secret");
        let victim = sandbox.dir("secret/victim");
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).expect("an owner");
        let (logs, report) = (home.join("logs"), reports.join("report"));
        let managed = managed(&sandbox, &logs, sandbox.probe().report(&report));
        fs::remove_file(Report::wait(&report).cwd.map(|_| &report).expect("a report")).expect("it");
        if removed {
            fs::remove_dir_all(&logs).expect("the sandbox can be written");
        } else {
            fs::rename(&logs, home.join("kept")).expect("the sandbox can be written");
        }
        symlink(&victim, &logs).expect("a link");
        give(&logs);
        managed.restart();
        assert_ne!(managed.server().cwd(), Some(victim), "directory removed: {removed}");
        managed.stop().expect_code(0);
    }
}

#[test]
fn a_server_whose_log_cannot_be_put_aside_appends_to_the_old_one() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let vsrun = sandbox.vsrun().logdir(&logs, "1d");
    let vsrun = if geteuid().is_root() { vsrun.run_as(NOBODY, NOBODY, &[]) } else { vsrun };
    // The monitor pidfile's directory must be the caller's.
    fs::set_permissions(sandbox.directory(), PermissionsExt::from_mode(0o777)).expect("an owner");
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    fs::set_permissions(&logs, PermissionsExt::from_mode(0o555)).expect("an owner");
    managed.restart();
    wait_for("the second hello", || text(logs.join("logfile")) == "hello\nhello\n");
    let log = text(logs.join("vsrun.log"));
    assert!(log.contains("Permission denied"), "{log}");
    managed.stop().expect_code(0);
    fs::set_permissions(&logs, PermissionsExt::from_mode(0o755)).expect("an owner");
}

#[test]
fn a_server_is_started_again_though_no_new_log_can_be_made() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    // Room for the directory and the two logs.
    let vsrun = as_user(sandbox.vsrun()).tmpfs(&logs, "size=64k,nr_inodes=3,mode=777");
    let managed = Managed::new(&sandbox, vsrun.logdir(&logs, "1d"), sandbox.probe().out("hello"));
    let inside = managed.vsrun.process().path_inside(&logs);
    wait_for_hello(&inside);
    managed.restart();
    let names = LogDirectory::at(&inside).names();
    let servers = names.into_iter().find(|name| name.as_bytes().starts_with(b"logfile"));
    let log = inside.join(servers.expect("a log"));
    wait_for("the second hello", || text(&log) == "hello\nhello\n");
    assert!(text(inside.join("vsrun.log")).contains("No space left on device"));
    managed.stop().expect_code(0);
}

/// A server that fills a log directory of 64 KiB at each start, and then stays.
fn on_a_full_disk<'a>(sandbox: &'a Sandbox, logs: &Path, words: &[&str]) -> Managed<'a> {
    let out = sandbox.open_dir("out");
    let script = format!(
        "#!/bin/sh\nhead -c 200000 /dev/zero\nexec '{}' 'append={1}/starts' 'log-signals={1}/signals' term=exit:0\n",
        sandbox.probe().words()[0].to_string_lossy(),
        out.display()
    );
    let server = sandbox.executable("server", script);
    let words = words.iter().map(OsString::from);
    let vsrun = as_user(sandbox.vsrun()).tmpfs(logs, "size=64k,mode=777").logdir(logs, "1d");
    Managed::of(sandbox, vsrun, [server.into_os_string()].into_iter().chain(words))
}

#[test]
fn on_a_full_disk_server_and_manager_live_on() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let managed = on_a_full_disk(&sandbox, &logs, &[]);
    let server = managed.server();
    let written = about(managed.vsrun.process().path_inside(logs.join("logfile"))).len();
    assert!(written > 0 && written <= 64 * 1024, "{written}");
    managed.vsrun.signal(SIGUSR1);
    wait_for("the signal to be passed on", || {
        sandbox.lines("out/signals").contains(&"USR1".into())
    });
    assert!(server.exists() && managed.vsrun.process().exists());
    managed.stop().expect_code(0);
}

#[test]
fn on_a_full_disk_the_server_can_be_restarted_and_stopped() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let managed = on_a_full_disk(&sandbox, &logs, &[]);
    managed.restart();
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(3);
    let asked = Instant::now();
    managed.stop().expect_code(0);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

/// Lets the manager lose lines on a full disk and then say something else, and returns its log.
/// The words are long, so that the file's last page does not hold all lines.
fn log_of_a_disk_that_was_full() -> Vec<String> {
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let managed = on_a_full_disk(&sandbox, &logs, &[&"long".repeat(400)]);
    for _ in 0..4 {
        managed.restart();
    }
    let inside = managed.vsrun.process().path_inside(&logs);
    let filler = fs::read_dir(&inside).expect("a directory").flatten();
    for entry in filler.filter(|entry| entry.file_name().as_bytes().starts_with(b"logfile")) {
        let file = File::options().write(true).open(entry.path());
        // The newest is a server's that is still writing: what is left is room for the manager.
        file.and_then(|file| file.set_len(0)).expect("the test's own file system");
    }
    let server = managed.server();
    sandbox.signal(server, SIGKILL);
    wait_for("a new line", || text(inside.join("vsrun.log")).contains("terminated by signal 9"));
    let lines = text(inside.join("vsrun.log")).lines().map(str::to_owned).collect();
    managed.stop();
    lines
}

#[test]
fn the_manager_says_that_the_disk_was_full_once_it_can() {
    if !require_root() {
        return;
    }
    let lines = log_of_a_disk_that_was_full();
    assert!(lines.iter().any(|line| line.contains("could not be written")), "{lines:#?}");
}

#[test]
fn no_line_runs_into_one_that_a_full_disk_cut() {
    if !require_root() {
        return;
    }
    let lines = log_of_a_disk_that_was_full();
    let glued: Vec<&String> =
        lines.iter().filter(|line| line.matches(" vsrun[").count() > 1).collect();
    assert!(glued.is_empty(), "{glued:#?}");
}

/// A server in a directory that held so many old logs and a log that is put aside.
fn among_old_logs<'a>(sandbox: &'a Sandbox, logs: &Path, count: u32, keep: &str) -> Managed<'a> {
    let fill = format!(
        "cd logs && seq -f logfile.%.0f {count} | xargs touch && echo old >logfile &&
        : >../filled && exec \"$@\""
    );
    let sh = sandbox.program("/bin/sh");
    // In memory, where that can be had, the files are no burden for the tests beside this one.
    let sh = if geteuid().is_root() { sh.tmpfs(logs, "mode=777") } else { sh };
    let vsrun = sh.args(["-c", &fill, "sh"]).arg(env!("CARGO_BIN_EXE_vsrun"));
    Managed::new(sandbox, as_user(vsrun).logdir(logs, keep), sandbox.probe())
}

fn expect_prompt_start(sandbox: &Sandbox) {
    let time = |path: &str| about(sandbox.path(path)).modified().expect("a time");
    let took = time("out/starts").duration_since(time("filled")).expect("a start after that");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_hundred_thousand_old_logs_are_deleted_while_the_server_runs() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = among_old_logs(&sandbox, &logs, 100_000, "0h");
    expect_prompt_start(&sandbox);
    let inside = managed.vsrun.process().path_inside(&logs);
    // To read so large a directory over and over would take longer than to empty it.
    for number in [1, 50_000, 100_000] {
        wait_for("an old log to go", || !inside.join(format!("logfile.{number}")).exists());
    }
    wait_for("all old logs to go", || {
        let left = LogDirectory::at(&inside).names();
        if left == ["logfile", "logfile.100001", "vsrun.log"] { Ok(()) } else { Err(left.len()) }
    });
    let memory = managed.vsrun.process().status().expect("a running manager").rss_kib;
    assert!(memory < 16 * 1024, "{memory} KiB");
    managed.stop().expect_code(0);
}

#[test]
fn twenty_thousand_young_logs_stay_and_do_not_hold_up_a_start() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = among_old_logs(&sandbox, &logs, 20_000, "1d");
    expect_prompt_start(&sandbox);
    let inside = managed.vsrun.process().path_inside(&logs);
    assert_eq!(text(inside.join("logfile.20001")), "old\n");
    assert_eq!(LogDirectory::at(&inside).names().len(), 20_003);
    managed.stop().expect_code(0);
}

/// Makes empty files with the names of old logs.
fn make_old_logs(logs: &Path, count: u64) {
    for number in 1..=count {
        File::create(logs.join(format!("logfile.{number}"))).expect("the sandbox can be written");
    }
}

/// strace(1), which makes each deletion take five milliseconds.
fn slow_deletions(sandbox: &Sandbox) -> Invocation<'_> {
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]);
    strace.args(["-e", "trace=unlinkat", "-e", "inject=unlinkat:delay_enter=5000"])
}

fn with_slow_deletions<'a>(sandbox: &'a Sandbox, logs: &Path) -> Invocation<'a> {
    let vsrun = slow_deletions(sandbox).arg(env!("CARGO_BIN_EXE_vsrun"));
    as_user(vsrun).logdir(logs, "0h")
}

const MANY: u64 = 1_500;

fn expect_most_are_left(logs: &Path) {
    let left = LogDirectory::at(logs).names().len() as u64;
    assert!(left > MANY / 2, "only {left} old logs are left");
}

#[test]
fn deletion_does_not_hold_up_the_server() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    make_old_logs(&logs, MANY);
    let managed = Managed::new(&sandbox, with_slow_deletions(&sandbox, &logs), sandbox.probe());
    expect_most_are_left(&logs);
    drop(managed);
}

#[test]
fn deletion_does_not_hold_up_a_server_that_vsrun_becomes() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (logs, report) = (users_dir(&sandbox, "logs"), sandbox.open_dir("out").join("report"));
    make_old_logs(&logs, MANY);
    let server = sandbox.probe().report(&report);
    let running = with_slow_deletions(&sandbox, &logs).command(server).spawn();
    Report::wait(&report);
    expect_most_are_left(&logs);
    drop(running);
}

#[test]
fn what_deletes_old_logs_is_no_child_of_a_server_that_vsrun_becomes() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (logs, report) = (users_dir(&sandbox, "logs"), sandbox.open_dir("out").join("report"));
    make_old_logs(&logs, MANY);
    let server = sandbox.probe().report(&report);
    let running = with_slow_deletions(&sandbox, &logs).command(server).spawn();
    let server = Report::wait(&report).pid;
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    assert_eq!(children.expect("a running server"), "");
    expect_most_are_left(&logs);
    drop(running);
}

#[test]
fn what_deletes_old_logs_keeps_nobody_waiting_for_the_end_of_the_output() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (logs, pipe) = (users_dir(&sandbox, "logs"), sandbox.path("pipe"));
    make_old_logs(&logs, MANY);
    mkfifo(&pipe, Mode::S_IRWXU).expect("a FIFO");
    let redirect = format!("exec \"$@\" >'{}' 2>&1", pipe.display());
    let strace = slow_deletions(&sandbox).args(["/bin/sh", "-c", &redirect, "sh"]);
    let vsrun = as_user(strace.arg(env!("CARGO_BIN_EXE_vsrun"))).logdir(&logs, "0h");
    let running = vsrun.command(["/bin/true"]).spawn();
    assert_eq!(fs::read(&pipe).expect("a FIFO"), b"");
    expect_most_are_left(&logs);
    drop(running);
}

#[test]
fn deletion_does_not_hold_up_a_stop() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    make_old_logs(&logs, MANY);
    let managed = Managed::new(&sandbox, with_slow_deletions(&sandbox, &logs), sandbox.probe());
    let manager = sandbox.wait_for_pidfile(sandbox.path("monitor"));
    sandbox.signal(manager, SIGTERM);
    managed.vsrun.wait().expect_code(0);
    expect_most_are_left(&logs);
}

#[test]
fn deletion_does_not_hold_up_a_restart() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    make_old_logs(&logs, MANY);
    let managed = Managed::new(&sandbox, with_slow_deletions(&sandbox, &logs), sandbox.probe());
    sandbox.signal(sandbox.wait_for_pidfile(sandbox.path("monitor")), SIGHUP);
    managed.wait_for_start(2);
    expect_most_are_left(&logs);
}

#[test]
fn the_directory_is_read_once_at_a_start_and_once_at_a_restart() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let (logs, trace) = (users_dir(&sandbox, "logs"), sandbox.path("trace"));
    make_old_logs(&logs, MANY);
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "--seccomp-bpf", "-y", "-e", "trace=getdents64", "-o"]);
    let vsrun = as_user(strace.arg(&trace).arg(env!("CARGO_BIN_EXE_vsrun"))).logdir(&logs, "1d");
    let managed = Managed::new(&sandbox, vsrun, sandbox.probe());
    let manager = sandbox.wait_for_pidfile(sandbox.path("monitor"));
    // A pass ends with a call that returns nothing.
    let passes = || {
        let trace = text(&trace);
        let ours = trace.lines().filter(|call| call.contains(&format!("<{}>", logs.display())));
        ours.filter(|call| call.ends_with(" = 0")).count()
    };
    let at_start = passes();
    sandbox.signal(manager, SIGHUP);
    managed.wait_for_start(2);
    let at_restart = passes() - at_start;
    sandbox.signal(manager, SIGTERM);
    managed.vsrun.wait().expect_code(0);
    assert_eq!((at_start, at_restart), (1, 1));
}

#[test]
fn two_vsruns_in_one_directory_lose_no_line() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    // Made before the threads compete for it.
    sandbox.probe();
    thread::scope(|scope| {
        for thread in 0..6 {
            let (sandbox, logs) = (&sandbox, &logs);
            scope.spawn(move || {
                for round in 0..8 {
                    say(sandbox, logs, "1d", &format!("{thread}/{round}"));
                }
            });
        }
    });
    let mut said: Vec<String> = Vec::new();
    for name in LogDirectory::at(&logs).names() {
        if name.as_bytes().starts_with(b"logfile") {
            said.extend(text(logs.join(name)).lines().map(str::to_owned));
        }
    }
    said.sort();
    let expected: Vec<String> =
        (0..6).flat_map(|thread| (0..8).map(move |round| format!("{thread}/{round}"))).collect();
    assert_eq!(said, expected);
}

#[test]
fn two_vsruns_in_one_directory_lose_no_line_of_their_own() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    sandbox.probe();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..8).for_each(|_| say(&sandbox, &logs, "1d", "x")));
        }
    });
    let mut lines = 0;
    for name in LogDirectory::at(&logs).names() {
        if name.as_bytes().starts_with(b"vsrun.log") {
            lines += text(logs.join(name)).lines().count();
        }
    }
    assert_eq!(lines, 48);
}

#[test]
fn a_start_that_fails_takes_no_log_away_that_another_vsrun_uses() {
    if !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let strace = sandbox.program("/usr/bin/strace");
    let strace = strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=execve"]);
    // The execve(2) of vsrun itself does not count.
    let strace = strace.args(["-e", "inject=execve:delay_enter=1500000:when=1"]);
    let failing = as_user(strace.arg(env!("CARGO_BIN_EXE_vsrun"))).logdir(&logs, "1d");
    let failing = failing.command(["/nowhere/to/be/found"]).spawn();
    wait_for("the new log", || logs.join("logfile").exists());
    say(&sandbox, &logs, "1d", "hello");
    failing.wait().expect_code(127);
    assert_eq!(text(logs.join("logfile")), "hello\n");
}

/// Lets vsrun be killed at the `when`th call of `syscall`, in a directory that `prepare` makes, and
/// sees that the next start works and that nothing that was there is lost.
fn survives_a_kill(syscall: &str, when: u32, prepare: fn(&Path)) -> Outcome {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    prepare(&logs);
    let strace = sandbox.program("/usr/bin/strace");
    let strace =
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={syscall}"));
    let inject = format!("inject={syscall}:signal=KILL:when={when}");
    let vsrun = as_user(strace.arg("-e").arg(inject).arg(env!("CARGO_BIN_EXE_vsrun")));
    let killed = vsrun.logdir(&logs, "1d").command(["/bin/true"]).run();
    say(&sandbox, &logs, "1d", "hello");
    assert_eq!(text(logs.join("logfile")), "hello\n", "{syscall} {when}");
    let names = LogDirectory::at(&logs).names();
    let all: Vec<String> = names.into_iter().map(|name| text(logs.join(name))).collect();
    let kept = |what: &str| all.iter().any(|content| content.contains(what));
    assert!(!logs.with_extension("full").exists() || kept("old server") && kept("old vsrun"));
    killed
}

fn with_old_logs(logs: &Path) {
    fs::create_dir(logs).expect("the sandbox can be written");
    give(logs);
    users_file(logs.join("logfile"), "old server\n");
    users_file(logs.join("vsrun.log"), "old vsrun\n");
    fs::write(logs.with_extension("full"), "").expect("the sandbox can be written");
}

#[test]
fn a_vsrun_killed_while_it_puts_logs_aside_leaves_a_directory_to_start_in() {
    if !require_program("strace") {
        return;
    }
    for when in [1, 2] {
        let killed = survives_a_kill("renameat2", when, with_old_logs);
        assert_eq!(killed.signal(), Some(SIGKILL));
    }
    for when in [1, 2, 3, 4, 5, 6, 7, 8] {
        survives_a_kill("newfstatat", when, with_old_logs);
    }
}

#[test]
fn a_vsrun_killed_while_it_makes_the_directory_leaves_one_to_start_in() {
    if !require_program("strace") {
        return;
    }
    for syscall in ["mkdirat", "fchown", "fchmod"] {
        for when in [1, 2] {
            survives_a_kill(syscall, when, |_| {});
        }
    }
}

#[test]
fn a_vsrun_killed_while_it_opens_files_leaves_a_directory_to_start_in() {
    if !require_program("strace") {
        return;
    }
    for when in (4..40).step_by(3) {
        survives_a_kill("openat", when, with_old_logs);
    }
}

/// The ways to start a server, each of which may fail.
fn every_way(sandbox: &Sandbox) -> Vec<Invocation<'_>> {
    if !sandbox.path("handler").exists() {
        sandbox.handler("handler").create();
    }
    let (monitor, handler) = (sandbox.path("monitor"), sandbox.path("handler"));
    vec![
        as_user(sandbox.vsrun()),
        as_user(sandbox.vsrun()).background(),
        as_user(sandbox.vsrun()).manager(&monitor, &handler),
        as_user(sandbox.vsrun()).background().manager(&monitor, &handler),
    ]
}

#[test]
fn a_start_that_fails_leaves_no_new_directory() {
    let sandbox = sandbox();
    for vsrun in every_way(&sandbox) {
        let vsrun = vsrun.logdir(sandbox.path("a/b/logs"), "1d");
        vsrun.command(["/nowhere/to/be/found"]).run().expect_code(127);
        assert!(!sandbox.path("a").exists());
    }
}

#[test]
fn a_start_that_fails_leaves_no_new_file() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let no_program = sandbox.file("no-program", "");
    for vsrun in every_way(&sandbox) {
        vsrun.logdir(&logs, "1d").command([&no_program]).run().expect_code(126);
        assert!(LogDirectory::at(&logs).names().is_empty());
    }
}

#[test]
fn a_start_that_fails_leaves_the_logs_of_earlier_ones_as_they_were() {
    for way in 0..4 {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        for name in ["logfile", "logfile.1", "vsrun.log", "other"] {
            users_file(logs.join(name), name);
        }
        let before = snapshot(&logs);
        let vsrun = every_way(&sandbox).remove(way).logdir(&logs, "1d");
        vsrun.command(["/nowhere/to/be/found"]).run().expect_code(127);
        assert_eq!(snapshot(&logs), before, "way {way}");
    }
}

#[test]
fn a_start_that_another_manager_forbids_leaves_the_logs_alone() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    let managed = managed(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    wait_for("vsrun's line", || text(logs.join("vsrun.log")).contains("started server"));
    let before = snapshot(&logs);
    let second = as_user(sandbox.vsrun()).logdir(&logs, "0h");
    let second = second.manager(sandbox.path("monitor"), &managed.handler);
    second.command(["/bin/true"]).run().expect_code(125);
    stays("the logs as they were", Duration::from_millis(100), || snapshot(&logs) == before);
    managed.stop().expect_code(0);
}

#[test]
fn a_manager_that_stops_leaves_its_logs() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed =
        managed(&sandbox, logs.path(), sandbox.probe().out("hello").on_term(OnTerm::Exit(0)));
    wait_for_hello(logs.path());
    managed.stop().expect_code(0);
    assert_eq!(logs.names(), ["logfile", "vsrun.log"]);
    assert_eq!(logs.server(), "hello\n");
}

#[test]
fn a_hundred_restarts_leave_no_descriptor_open() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = managed(&sandbox, logs.path(), sandbox.probe().out("hello"));
    let again = || {
        wait_for_hello(logs.path());
        managed.restart();
    };
    again();
    // While it starts a server, a manager has a socket pair.
    let at_rest = || {
        wait_for("a manager at rest", || {
            let open = managed.vsrun.process().open_files().expect("a running manager");
            let starts = open.values().any(|it| it.to_string_lossy().starts_with("socket:"));
            if starts { Err(open) } else { Ok(open) }
        })
    };
    let before = at_rest();
    (0..100).for_each(|_| again());
    let after = at_rest();
    assert_eq!(after.len(), before.len(), "{after:?}");
    // One log for each start, and vsrun's own.
    assert_eq!(logs.names().len(), 103);
    managed.stop().expect_code(0);
}

#[test]
fn a_server_whose_manager_is_killed_goes_on_writing_to_its_log() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let server = sandbox.probe().ticks(Duration::from_millis(5));
    let managed = managed(&sandbox, logs.path(), server);
    let server = managed.server();
    managed.vsrun.signal(SIGKILL);
    managed.vsrun.wait();
    let ticks = || logs.server().lines().count();
    let before = ticks();
    wait_for("more of the server's lines", || ticks() > before + 5);
    assert!(server.exists());
}
