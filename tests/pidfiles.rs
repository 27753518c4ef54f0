//! Pidfiles and the manager's lock: what they hold, what they replace and
//! refuse, and what is left of them (spec 1.4).

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testkit::signal::{SIGHUP, SIGKILL, SIGTERM};
use testkit::{
    Invocation, LogDirectory, OnTerm, Outcome, Probe, Report, Resource, Sandbox, require_program,
    require_root, stays, wait_for,
};

const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_vsrun"))
}

/// A directory `run` of a test's own, of which everything in it is known.
fn run_dir(sandbox: &Sandbox) -> LogDirectory {
    LogDirectory::at(sandbox.dir("run"))
}

/// Checks that a start failed in one line that names `path`.
#[track_caller]
fn is_refused(outcome: &Outcome, path: &Path) {
    outcome.expect_code(125);
    assert_eq!(outcome.stdout_text(), "");
    let line = outcome.stderr_text();
    assert!(line.starts_with("vsrun: cannot ") && line.lines().count() == 1, "{line:?}");
    assert!(line.contains(&format!("'{}'", path.display())), "{line}");
}

/// A server that must not run.
fn forbidden(sandbox: &Sandbox) -> Probe {
    sandbox.probe().append(sandbox.path("ran")).exit(0)
}

/// Tells whether the tests run as root, where being it is no condition.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

fn mode_of(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

fn handler(sandbox: &Sandbox) -> PathBuf {
    if !sandbox.path("handler").exists() {
        sandbox.handler("handler").create();
    }
    sandbox.path("handler")
}

fn make(program: &str, words: &[&OsStr]) {
    let status = Command::new(program).args(words).status();
    assert!(status.is_ok_and(|it| it.success()), "{program} {words:?}");
}

// What a pidfile is.

#[test]
fn it_holds_the_servers_id_before_the_servers_first_instruction() {
    for (background, managed) in [(false, false), (true, false), (false, true), (true, true)] {
        let sandbox = sandbox();
        let (pidfile, report) = (sandbox.path("pid"), sandbox.path("report"));
        let mut start = sandbox.vsrun().pidfile(&pidfile);
        if background {
            start = start.background();
        }
        if managed {
            start = start.manager(sandbox.path("manager"), handler(&sandbox));
        }
        let server = sandbox.probe().report(&report).pidfile(&pidfile);
        let _running = start.command(server).spawn();
        let report = Report::wait(&report);
        assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
        assert_eq!(sandbox.wait_for_pidfile(&pidfile).pid(), report.pid);
    }
}

#[test]
fn the_monitor_pidfile_holds_the_managers_id() {
    for background in [false, true] {
        let sandbox = sandbox();
        let (pidfile, report) = (sandbox.path("manager"), sandbox.path("report"));
        let start = sandbox.vsrun().manager(&pidfile, handler(&sandbox));
        let start = if background { start.background() } else { start };
        let server = sandbox.probe().report(&report).pidfile(&pidfile);
        let _running = start.command(server).spawn();
        let report = Report::wait(&report);
        assert_eq!(report.pidfile, Some(format!("{}\n", report.ppid).into()));
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    for mask in [0, 0o022, 0o077, 0o777] {
        let sandbox = sandbox();
        let run = run_dir(&sandbox);
        let running = sandbox
            .vsrun()
            .umask(mask)
            .pidfile("run/pid")
            .manager("run/manager", handler(&sandbox))
            .command(sandbox.probe())
            .spawn();
        sandbox.wait_for_pidfile(run.path().join("pid"));
        let modes = ["pid", "manager", "manager.lock"].map(|name| mode_of(run.path().join(name)));
        assert_eq!(modes, [0o644, 0o644, 0o600], "umask {mask:o}");
        running.signal(SIGTERM);
        running.wait().expect_code(0);
    }
}

#[test]
fn a_pidfile_belongs_to_whoever_runs_vsrun_and_never_to_the_user() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let start = sandbox.vsrun().user("nobody").pidfile("run/pid");
    let start = start.manager("run/manager", handler(&sandbox));
    let _running = start.command(sandbox.probe()).spawn();
    sandbox.wait_for_pidfile(run.path().join("pid"));
    for name in ["pid", "manager", "manager.lock"] {
        let about = fs::metadata(run.path().join(name)).expect("a file");
        assert_eq!((about.uid(), about.gid()), (0, 0), "{name}");
    }
}

#[test]
fn a_file_of_somebody_elses_with_no_permissions_is_replaced_by_ones_own() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let pidfile = sandbox.file("pid", "1\n");
    fs::set_permissions(&pidfile, Permissions::from_mode(0o0)).expect("a mode");
    lchown(&pidfile, Some(NOBODY), Some(NOBODY)).expect("an owner");
    let start = sandbox.vsrun().user("nobody").pidfile(&pidfile);
    start.command(sandbox.probe().exit(0)).run().expect_code(0);
    let about = fs::metadata(&pidfile).expect("a file");
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, 0, 0o644));
}

// What it replaces.

#[test]
fn a_file_that_exists_is_overwritten() {
    for content in ["", "1", "1\n", "no number", "99999999999999999999\n", &"x".repeat(1 << 20)] {
        let sandbox = sandbox();
        let pidfile = sandbox.file("pid", content);
        let server = sandbox.probe().report("report").pidfile(&pidfile).exit(0);
        sandbox.vsrun().pidfile(&pidfile).command(server).run().expect_code(0);
        let report = Report::wait(sandbox.path("report"));
        assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
    }
}

#[test]
fn a_reader_sees_the_old_id_or_the_new_one() {
    let sandbox = sandbox();
    let pidfile = sandbox.file("pid", "1\n");
    let done = AtomicBool::new(false);
    let server = || sandbox.probe().exit(0);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let id = sandbox.read_pidfile(&pidfile).expect("it is never away");
                if seen.last() != Some(&id) {
                    seen.push(id);
                }
            }
            seen
        });
        for _ in 0..50 {
            sandbox.vsrun().pidfile(&pidfile).command(server()).run().expect_code(0);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("no surprise")
    });
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn a_reader_never_sees_half_a_file_during_restarts() {
    let sandbox = sandbox();
    let (pidfile, starts) = (sandbox.path("pid"), sandbox.path("starts"));
    let server = sandbox.probe().append(&starts).pidfile(&pidfile);
    let start = sandbox.vsrun().pidfile(&pidfile).manager("manager", handler(&sandbox));
    let running = start.command(server).spawn();
    for count in 1..=30 {
        wait_for("another start", || {
            // Panics if the file is there and is not whole.
            sandbox.read_pidfile(&pidfile);
            sandbox.lines(&starts).len() == count
        });
        running.signal(SIGHUP);
    }
}

#[test]
fn a_symbolic_link_is_replaced_and_not_followed() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let victim = sandbox.file("victim", "precious");
    let directory = sandbox.dir("directory");
    let pidfile = run.path().join("pid");
    for target in [victim.as_path(), &directory, Path::new("nowhere"), Path::new("pid")] {
        fs::remove_file(&pidfile).ok();
        sandbox.link("run/pid", target);
        sandbox.vsrun().pidfile(&pidfile).command(sandbox.probe().exit(0)).run().expect_code(0);
        assert!(fs::symlink_metadata(&pidfile).expect("a file").is_file(), "{target:?}");
        assert!(sandbox.read_pidfile(&pidfile).is_some());
        assert_eq!(run.names(), ["pid"]);
    }
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
    assert_eq!(fs::read_dir(directory).expect("a directory").count(), 0);
}

#[test]
fn the_other_name_of_a_hard_linked_file_keeps_its_content() {
    let sandbox = sandbox();
    let victim = sandbox.file("victim", "precious");
    let pidfile = sandbox.path("pid");
    fs::hard_link(&victim, &pidfile).expect("a link");
    sandbox.vsrun().pidfile(&pidfile).command(sandbox.probe().exit(0)).run().expect_code(0);
    assert!(sandbox.read_pidfile(&pidfile).is_some());
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
}

#[test]
fn a_planted_temporary_file_is_neither_followed_nor_overwritten() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let victim = sandbox.file("victim", "precious");
    // In a namespace of its own vsrun's id is known beforehand.
    for attempt in 0..20 {
        sandbox.link(format!("run/.vsrun-1-{attempt}"), &victim);
    }
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pid_namespace().pidfile("run/pid").command(server);
    let _running = start.spawn();
    wait_for("the server", || sandbox.lines("starts") == ["1"]);
    assert_eq!(sandbox.read_pidfile(run.path().join("pid")), Some(1));
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
    assert_eq!(run.names().len(), 21);
}

// What it refuses.

/// Tries to start with something in the pidfile's place, which must survive.
fn is_kept(sandbox: &Sandbox, pidfile: &Path) {
    let before = fs::symlink_metadata(pidfile).expect("it is there");
    let names = run_names(pidfile);
    let start = || sandbox.vsrun().pidfile(pidfile);
    let manager = sandbox.path("manager");
    for start in [
        start(),
        start().background(),
        start().manager(&manager, handler(sandbox)),
        start().manager(&manager, handler(sandbox)).background(),
        sandbox.vsrun().manager(pidfile, handler(sandbox)),
    ] {
        let start = start.deadline(Duration::from_secs(10));
        is_refused(&start.command(forbidden(sandbox)).run(), pidfile);
    }
    let after = fs::symlink_metadata(pidfile).expect("it is there");
    assert_eq!(
        (before.ino(), before.mode(), before.len()),
        (after.ino(), after.mode(), after.len())
    );
    assert_eq!(run_names(pidfile), names);
    for left in ["manager", "manager.lock", "ran"] {
        assert!(!sandbox.path(left).exists(), "'{left}' is there");
    }
}

fn run_names(pidfile: &Path) -> Vec<OsString> {
    LogDirectory::at(pidfile.parent().expect("a directory")).names()
}

#[test]
fn a_fifo_is_refused_at_once() {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    make("mkfifo", &[pidfile.as_os_str()]);
    is_kept(&sandbox, &pidfile);
    assert!(fs::symlink_metadata(pidfile).expect("it is there").file_type().is_fifo());
}

#[test]
fn a_socket_is_refused() {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    let _listener = UnixListener::bind(&pidfile).expect("a socket");
    is_kept(&sandbox, &pidfile);
}

#[test]
fn a_directory_is_refused() {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    sandbox.dir("run/pid");
    is_kept(&sandbox, &pidfile);
}

#[test]
fn a_device_is_refused() {
    if !require_root() {
        return;
    }
    for (kind, major, minor) in [("c", "1", "5"), ("c", "1", "7"), ("b", "7", "0")] {
        let sandbox = sandbox();
        let pidfile = run_dir(&sandbox).path().join("pid");
        let words = [kind, major, minor].map(OsStr::new);
        make("mknod", &[pidfile.as_os_str(), words[0], words[1], words[2]]);
        is_kept(&sandbox, &pidfile);
    }
}

#[test]
fn the_null_device_is_accepted_and_never_replaced() {
    let sandbox = sandbox();
    let start = || {
        let start = sandbox.vsrun().pidfile("/dev/null");
        // With another mount on it the machine's own device is safe from a vsrun gone wrong.
        if is_root() { start.bind("/dev/null", "/dev/null") } else { start }
    };
    start().command(sandbox.probe().exit(3)).run().expect_code(3);
    let server = sandbox.probe().append(sandbox.path("starts")).only_first(1).exit(1);
    let start = start().manager("manager", handler(&sandbox)).command(server);
    let running = start.spawn();
    wait_for("the restart", || sandbox.lines("starts").len() == 2);
    running.signal(SIGTERM);
    running.wait().expect_code(0);
    let device = fs::metadata("/dev/null").expect("a device");
    assert!(device.file_type().is_char_device());
    assert_eq!(device.mode() & 0o777, 0o666);
}

#[test]
fn a_node_of_the_null_device_is_never_replaced_by_root() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("null");
    make("mknod", &[pidfile.as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
    sandbox.vsrun().pidfile(&pidfile).command(sandbox.probe().exit(0)).run().expect_code(0);
    assert!(fs::symlink_metadata(&pidfile).expect("a device").file_type().is_char_device());
    assert_eq!(run_names(&pidfile), ["null"]);
}

#[test]
fn a_missing_directory_is_an_error() {
    let sandbox = sandbox();
    let file = sandbox.file("file", "");
    for (path, reason) in [
        (sandbox.path("missing/pid"), "No such file or directory"),
        (file.join("pid"), "Not a directory"),
    ] {
        let line = format!("vsrun: cannot write pidfile '{}': {reason}", path.display());
        for start in [sandbox.vsrun(), sandbox.vsrun().background()] {
            start.pidfile(&path).command(forbidden(&sandbox)).run().expect_error(125, &line);
        }
        let start = sandbox.vsrun().manager(&path, handler(&sandbox));
        let outcome = start.command(forbidden(&sandbox)).run();
        outcome.expect_code(125);
        assert!(outcome.stderr_text().contains(path.to_str().expect("text")));
        assert!(outcome.stderr_text().contains(reason));
    }
    assert!(!sandbox.path("missing").exists() && !sandbox.path("ran").exists());
}

#[test]
fn a_path_that_ends_in_a_slash_or_dots_names_no_file() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.dir("run/directory");
    for path in ["run/pid/", "run/directory/", "run/.", "run/..", "/", ".", "..", "run/pid/."] {
        let start = sandbox.vsrun().pidfile(path).command(forbidden(&sandbox));
        start.run().expect_code(125);
        let start = sandbox.vsrun().manager(path, handler(&sandbox));
        start.command(forbidden(&sandbox)).run().expect_code(125);
        assert_eq!(run.names(), ["directory"], "{path}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("run");
    let pidfile = sandbox.path("run/pid");
    let line = format!("vsrun: cannot write pidfile '{}': Permission denied", pidfile.display());
    let start = sandbox.vsrun().run_as(NOBODY, NOBODY, &[]).pidfile(&pidfile);
    start.command(["/bin/true"]).run().expect_error(125, &line);
}

#[test]
fn a_name_of_the_greatest_length_works_and_a_longer_one_is_an_error() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let longest = run.path().join("x".repeat(255));
    sandbox.vsrun().pidfile(&longest).command(sandbox.probe().exit(0)).run().expect_code(0);
    assert!(sandbox.read_pidfile(&longest).is_some());
    fs::remove_file(&longest).expect("a pidfile");
    let longer = run.path().join("x".repeat(256));
    is_refused(&sandbox.vsrun().pidfile(&longer).command(forbidden(&sandbox)).run(), &longer);
    // There is no room for the lock's name.
    let start = sandbox.vsrun().manager(&longest, handler(&sandbox));
    start.command(forbidden(&sandbox)).run().expect_code(125);
    assert_eq!(run.names(), [""; 0]);
}

#[test]
fn a_read_only_file_system_is_an_error_and_no_server_runs() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let ran = sandbox.open_dir("out").join("ran");
    sandbox.file("run/pid", "1\n");
    let pidfile = run.path().join("pid");
    let start = || sandbox.vsrun().read_only(run.path());
    let line =
        format!("vsrun: cannot write pidfile '{}': Read-only file system", pidfile.display());
    let server = || sandbox.probe().append(&ran).exit(0);
    let manager = sandbox.path("manager");
    for start in [start(), start().background(), start().manager(&manager, handler(&sandbox))] {
        start.pidfile(&pidfile).command(server()).run().expect_error(125, &line);
    }
    let outcome = start().manager("run/manager", handler(&sandbox)).command(server()).run();
    outcome.expect_code(125);
    assert!(outcome.stderr_text().contains("Read-only file system"));
    assert!(!ran.exists() && !manager.exists());
    assert_eq!(run.names(), ["pid"]);
}

/// Runs vsrun in a shell on a machine where `full` has no room left, and shows what is in it then.
fn on_a_full_disk(sandbox: &Sandbox, options: &str, words: &[&OsStr]) -> String {
    let full = sandbox.dir("full");
    let fill = match options.contains("nr_inodes") {
        true => "while true 2>/dev/null >full/fill$n; do n=x$n; done",
        false => "cat /dev/zero 2>/dev/null >full/fill",
    };
    let script = format!(
        "echo 77 >full/pid; {fill}; \"$@\"; echo \"status $?\"; cat full/pid; rm full/fill*; \
         ls -A full"
    );
    let start = sandbox.program("/bin/sh").args(["-c", &script, "sh"]);
    let start = start.arg(env!("CARGO_BIN_EXE_vsrun")).args(words);
    let start = start.command(forbidden(sandbox)).tmpfs(full, options);
    let outcome = start.run();
    assert!(!sandbox.path("ran").exists(), "a server ran");
    let errors = outcome.stderr_text();
    let own: Vec<&str> = errors.lines().filter(|line| line.starts_with("vsrun")).collect();
    assert_eq!(own.len(), 1, "{errors}");
    assert!(own[0].ends_with("No space left on device"), "{errors}");
    outcome.stdout_text()
}

#[test]
fn a_full_disk_leaves_the_old_file_and_starts_no_server() {
    if !require_root() {
        return;
    }
    for options in ["size=64k", "size=1m,nr_inodes=8"] {
        let sandbox = sandbox();
        let seen = on_a_full_disk(&sandbox, options, &["-p".as_ref(), "full/pid".as_ref()]);
        assert_eq!(seen, "status 125\n77\npid\n", "{options}");
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_under_a_manager_too() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let handler = handler(&sandbox);
    let words = ["-p", "full/pid", "-m", "manager"].map(OsStr::new);
    let words: Vec<&OsStr> = words.into_iter().chain([handler.as_os_str()]).collect();
    assert_eq!(on_a_full_disk(&sandbox, "size=64k", &words), "status 125\n77\npid\n");
    assert!(!sandbox.path("manager").exists() && !sandbox.path("manager.lock").exists());
}

#[test]
fn a_full_disk_keeps_a_manager_from_starting_and_leaves_no_lock() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let handler = handler(&sandbox);
    let words = ["-m".as_ref(), "full/manager".as_ref(), handler.as_os_str()];
    assert_eq!(on_a_full_disk(&sandbox, "size=64k", &words), "status 125\n77\npid\n");
}

#[test]
fn a_disk_that_becomes_full_keeps_no_server_from_being_restarted() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let full = sandbox.dir("full");
    let server = sandbox.probe().append(sandbox.path("starts")).only_first(1);
    let start = sandbox.vsrun().tmpfs(&full, "size=64k").pidfile("full/pid");
    let server = server.until(sandbox.path("die")).exit(1);
    let running = start.manager("manager", handler(&sandbox)).command(server).spawn();
    wait_for("the first start", || sandbox.lines("starts").len() == 1);
    let inside = running.process().path_inside(&full);
    fs::write(inside.join("fill"), vec![0; 1 << 20]).expect_err("a full disk");
    sandbox.file("die", "");
    wait_for("the second start", || sandbox.lines("starts").len() == 2);
    let stale = sandbox.lines("starts")[0].clone();
    assert_ne!(fs::read_to_string(inside.join("pid")).ok(), Some(format!("{stale}\n")));
    running.signal(SIGTERM);
    running.wait().expect_code(0);
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_leaves_the_old_file() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let pidfile = sandbox.file("run/pid", "1\n");
    for background in [false, true] {
        let errors = UnixStream::pair().expect("a socket");
        // Files can take no line any more, but this can.
        let start = sandbox.vsrun().limit(Resource::RLIMIT_FSIZE, 0, 0).pidfile(&pidfile);
        let start = if background { start.background() } else { start };
        let start = start.stderr(OwnedFd::from(errors.0)).command(forbidden(&sandbox));
        start.run().expect_code(125);
        let mut line = String::new();
        (&errors.1).read_to_string(&mut line).expect("text");
        let path = pidfile.display();
        assert_eq!(line, format!("vsrun: cannot write pidfile '{path}': File too large\n"));
        assert_eq!(sandbox.read_pidfile(&pidfile), Some(1));
        assert_eq!(run.names(), ["pid"]);
    }
}

#[test]
fn a_file_that_is_mounted_there_is_written_in_place() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let (real, pidfile) = (sandbox.file("real", "12345678\n"), sandbox.file("run/pid", ""));
    let server = sandbox.probe().report("report").pidfile(&pidfile).exit(0);
    let start = sandbox.vsrun().bind(&real, &pidfile).pidfile(&pidfile).command(server);
    start.run().expect_code(0);
    let report = Report::wait(sandbox.path("report"));
    assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
    assert_eq!(sandbox.read_pidfile(&real), Some(report.pid));
    assert_eq!(run.names(), ["pid"]);
}

// Directories on the way.

#[test]
fn links_that_only_root_or_the_caller_can_have_made_are_followed() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.dir("sub");
    sandbox.link("link", "run");
    sandbox.link("absolute", sandbox.path("link"));
    sandbox.link("sub/link", "../absolute");
    for path in ["link/pid", "absolute/pid", "sub/link/pid", "sub/../link/../absolute/pid"] {
        let start = sandbox.vsrun().pidfile(path).manager("link/manager", handler(&sandbox));
        let server = sandbox.probe().report("report").pidfile(run.path().join("pid")).exit(0);
        start.command(server).run().expect_code(0);
        let report = Report::wait(sandbox.path("report"));
        assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()), "{path}");
        assert_eq!(run.names(), [""; 0]);
    }
}

#[test]
fn a_link_on_the_way_that_somebody_else_can_have_made_is_refused() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.open_dir("sticky");
    sandbox.dir_of("theirs", NOBODY, NOBODY);
    sandbox.dir("shared");
    fs::set_permissions(sandbox.path("shared"), Permissions::from_mode(0o777)).expect("a mode");
    sandbox.dir("group");
    fs::set_permissions(sandbox.path("group"), Permissions::from_mode(0o775)).expect("a mode");
    for directory in ["sticky", "theirs", "shared", "group"] {
        let link = sandbox.link(format!("{directory}/link"), run.path());
        // In a directory that others may write even root's own link may have been moved there.
        if directory == "theirs" {
            lchown(&link, Some(NOBODY), Some(NOBODY)).expect("an owner");
        }
        let pidfile = link.join("pid");
        let start = sandbox.vsrun().pidfile(&pidfile).command(forbidden(&sandbox));
        is_refused(&start.run(), &pidfile);
        let manager = link.join("manager");
        let start = sandbox.vsrun().manager(&manager, handler(&sandbox));
        start.command(forbidden(&sandbox)).run().expect_code(125);
        assert_eq!(run.names(), [""; 0], "{directory}");
    }
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_link_of_another_users_is_refused_by_an_ordinary_user() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("roots");
    sandbox.dir_of("mine", NOBODY, NOBODY);
    for (owner, code) in [(DAEMON, 125), (NOBODY, 0), (0, 0)] {
        let link = sandbox.link(format!("roots/{owner}"), "../mine");
        lchown(&link, Some(owner), Some(owner)).expect("an owner");
        let start = sandbox.vsrun().run_as(NOBODY, NOBODY, &[]).pidfile(link.join("pid"));
        start.command(["/bin/true"]).run().expect_code(code);
    }
}

#[test]
fn a_loop_of_links_on_the_way_is_an_error() {
    let sandbox = sandbox();
    sandbox.link("loop", "loop");
    sandbox.link("a", "b");
    sandbox.link("b", "a");
    for path in ["loop/pid", "a/pid"] {
        let start = sandbox.vsrun().pidfile(path).command(forbidden(&sandbox));
        is_refused(&start.run(), &sandbox.path(path));
    }
}

#[test]
fn a_file_of_another_users_in_a_sticky_directory_cannot_be_replaced() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let sticky = LogDirectory::at(sandbox.open_dir("sticky"));
    let pidfile = sandbox.file("sticky/pid", "1\n");
    lchown(&pidfile, Some(DAEMON), Some(DAEMON)).expect("an owner");
    let start = sandbox.vsrun().run_as(NOBODY, NOBODY, &[]).pidfile(&pidfile);
    is_refused(&start.command(["/bin/true"]).run(), &pidfile);
    assert_eq!(sandbox.read_pidfile(&pidfile), Some(1));
    assert_eq!(sticky.names(), ["pid"]);
}

// Restarts.

#[test]
fn it_is_written_again_at_each_restart() {
    let sandbox = sandbox();
    let (pidfile, report) = (sandbox.path("pid"), sandbox.path("report"));
    let server = sandbox.probe().report(&report).pidfile(&pidfile).append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile(&pidfile).manager("manager", handler(&sandbox));
    let running = start.command(server).spawn();
    for count in 1..=4 {
        wait_for("another start", || sandbox.lines("starts").len() == count);
        let seen = Report::wait(&report);
        assert_eq!(seen.pidfile, Some(format!("{}\n", seen.pid).into()));
        assert_eq!(sandbox.lines("starts")[count - 1], seen.pid.to_string());
        assert_eq!(mode_of(&pidfile), 0o644);
        running.signal(SIGHUP);
    }
}

#[test]
fn it_is_away_as_soon_as_the_server_is_gone() {
    let sandbox = sandbox();
    let handler =
        sandbox.handler("handler").line("read -r line <\"${0%/*}/gate\"").exits(1).create();
    make("mkfifo", &[sandbox.path("gate").as_os_str()]);
    let start = sandbox.vsrun().pidfile("pid").manager("manager", &handler);
    let running = start.command(sandbox.probe().exit(3)).spawn();
    handler.wait_for_run(1);
    assert!(!sandbox.path("pid").exists(), "a stale id while the handler runs");
    assert_eq!(sandbox.read_pidfile(sandbox.path("manager")), Some(running.pid()));
    fs::write(sandbox.path("gate"), "\n").expect("a FIFO");
    running.wait().expect_code(3);
}

#[test]
fn a_link_put_in_its_place_is_replaced_at_the_restart() {
    let sandbox = sandbox();
    let victim = sandbox.file("victim", "precious");
    let pidfile = sandbox.path("pid");
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile(&pidfile).manager("manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the first start", || sandbox.lines("starts").len() == 1);
    fs::remove_file(&pidfile).expect("a pidfile");
    sandbox.link("pid", &victim);
    running.signal(SIGHUP);
    wait_for("the second start", || sandbox.lines("starts").len() == 2);
    assert!(fs::symlink_metadata(&pidfile).expect("a file").is_file());
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
}

#[test]
fn a_fifo_put_in_its_place_keeps_no_manager_from_going_on() {
    let sandbox = sandbox();
    let pidfile = sandbox.path("pid");
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile(&pidfile).manager("manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the first start", || sandbox.lines("starts").len() == 1);
    fs::remove_file(&pidfile).expect("a pidfile");
    make("mkfifo", &[pidfile.as_os_str()]);
    running.signal(SIGHUP);
    wait_for("the second start", || sandbox.lines("starts").len() == 2);
    running.signal(SIGTERM);
    running.wait().expect_code(0);
}

#[test]
fn a_directory_that_is_removed_keeps_no_server_from_being_restarted() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile("run/pid").manager("manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the first start", || sandbox.lines("starts").len() == 1);
    fs::remove_dir_all(run.path()).expect("a directory");
    running.signal(SIGHUP);
    wait_for("the second start", || sandbox.lines("starts").len() == 2);
    running.signal(SIGTERM);
    running.wait().expect_code(0);
}

// The end.

#[test]
fn a_manager_removes_its_files_when_it_exits() {
    for (status, signal) in [(Some(0), None), (Some(3), None), (None, Some(SIGTERM))] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(1).create();
        let run = run_dir(&sandbox);
        let mut server = sandbox.probe().append(sandbox.path("starts"));
        if let Some(status) = status {
            server = server.exit(status);
        }
        let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", &handler);
        let running = start.command(server).spawn();
        wait_for("the server", || sandbox.lines("starts").len() == 1);
        if let Some(signal) = signal {
            running.signal(signal);
        }
        running.wait();
        assert_eq!(run.names(), [""; 0]);
    }
}

#[test]
fn without_a_manager_the_pidfile_stays() {
    let sandbox = sandbox();
    let pidfile = sandbox.path("pid");
    let running = sandbox.vsrun().pidfile(&pidfile).command(sandbox.probe().exit(0)).spawn();
    let pid = running.pid();
    running.wait().expect_code(0);
    assert_eq!(sandbox.read_pidfile(pidfile), Some(pid));
}

#[test]
fn files_that_have_become_somebody_elses_are_left_alone() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    for name in ["pid", "manager", "manager.lock"] {
        let beside = sandbox.file(format!("run/{name}.new"), "4242\n");
        fs::rename(beside, run.path().join(name)).expect("a file");
    }
    running.signal(SIGTERM);
    running.wait().expect_code(0);
    assert_eq!(run.names(), ["manager", "manager.lock", "pid"]);
    for name in ["pid", "manager", "manager.lock"] {
        assert_eq!(sandbox.lines(run.path().join(name)), ["4242"]);
    }
}

#[test]
fn links_put_in_the_files_places_are_not_followed_at_the_end() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    for name in ["pid", "manager", "manager.lock"] {
        // The content is the very one, in a file elsewhere.
        fs::rename(run.path().join(name), sandbox.path(name)).expect("a file");
        sandbox.link(format!("run/{name}"), sandbox.path(name));
    }
    running.signal(SIGTERM);
    running.wait().expect_code(0);
    for name in ["pid", "manager", "manager.lock"] {
        assert!(sandbox.path(name).exists(), "the target of '{name}' is gone");
        assert!(run.path().join(name).is_symlink(), "'{name}' is gone");
    }
}

#[test]
fn files_that_are_gone_already_are_no_trouble() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    fs::remove_dir_all(run.path()).expect("a directory");
    running.signal(SIGTERM);
    running.wait().expect_code(0);
}

#[test]
fn the_first_managers_end_leaves_the_second_managers_files() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let start = |starts: &str| {
        let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
        start.command(sandbox.probe().append(sandbox.path(starts))).spawn()
    };
    let first = start("first");
    wait_for("the first server", || sandbox.lines("first").len() == 1);
    // Somebody tidies up, so nothing keeps a second manager away.
    for name in ["pid", "manager", "manager.lock"] {
        fs::remove_file(run.path().join(name)).expect("a file");
    }
    let second = start("second");
    wait_for("the second server", || sandbox.lines("second").len() == 1);
    first.signal(SIGTERM);
    first.wait().expect_code(0);
    assert_eq!(sandbox.read_pidfile(run.path().join("manager")), Some(second.pid()));
    assert_eq!(sandbox.lines("run/pid"), sandbox.lines("second"));
    assert_eq!(run.names(), ["manager", "manager.lock", "pid"]);
}

// Failed starts.

/// A start that must fail, on top of `-p run/pid`.
type Fault = for<'a> fn(Invocation<'a>, &'a Sandbox) -> Invocation<'a>;

const FAULTS: [(&str, Fault); 8] = [
    ("not found", |start, _| start.command(["/no/such/server"])),
    ("not executable", |start, _| start.command(["/etc/passwd"])),
    ("no work dir", |start, sandbox| start.work_dir("/no/such").command(forbidden(sandbox))),
    ("no root", |start, sandbox| start.root("/no/such").command(forbidden(sandbox))),
    ("no user", |start, sandbox| start.user("no such").command(forbidden(sandbox))),
    ("no log directory", |start, sandbox| {
        start.logdir("/etc/passwd/logs", "1").command(forbidden(sandbox))
    }),
    ("keep", |start, sandbox| start.logdir("logs", "-1").command(forbidden(sandbox))),
    ("log directory and no server", |start, _| {
        start.logdir("run/a/b", "1").command(["/no/such/server"])
    }),
];

/// The starts with each fault, in all four ways.
fn failing_starts(sandbox: &Sandbox) -> Vec<(String, Outcome)> {
    let handler = handler(sandbox);
    let mut outcomes = Vec::new();
    for (name, fault) in FAULTS {
        for (background, managed) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut start = sandbox.vsrun().pidfile("run/pid");
            if background {
                start = start.background();
            }
            if managed {
                start = start.manager("run/manager", &handler);
            }
            let way = format!("{name}, background {background}, managed {managed}");
            outcomes.push((way, fault(start, sandbox).run()));
        }
    }
    outcomes
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    for (way, outcome) in failing_starts(&sandbox) {
        assert!(outcome.code().is_some_and(|code| (125..=127).contains(&code)), "{way}");
        let line = outcome.stderr_text();
        assert!(line.starts_with("vsrun: cannot ") && line.lines().count() == 1, "{way}: {line}");
        assert_eq!(run.names(), [""; 0], "{way}");
    }
    assert!(!sandbox.path("ran").exists() && !sandbox.path("logs").exists());
    wait_for("the end of every process", || sandbox.processes().is_empty());
}

#[test]
fn a_start_that_fails_leaves_the_old_pidfile_with_its_content() {
    // Not every file that is named by mistake is small, or text.
    let odd: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for content in [&b""[..], b"1\n", b"no number \xff\xfe", &odd] {
        let sandbox = sandbox();
        let run = run_dir(&sandbox);
        let pidfile = sandbox.file("run/pid", content);
        for (way, outcome) in failing_starts(&sandbox) {
            assert_ne!(outcome.code(), Some(0), "{way}");
            assert!(fs::read(&pidfile).ok().as_deref() == Some(content), "{way}: it changed");
            assert_eq!(run.names(), ["pid"], "{way}");
        }
    }
}

#[test]
fn a_start_that_fails_leaves_the_old_pidfile_with_its_mode_and_owner() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    run_dir(&sandbox);
    let pidfile = sandbox.file("run/pid", "1\n");
    fs::set_permissions(&pidfile, Permissions::from_mode(0o600)).expect("a mode");
    lchown(&pidfile, Some(NOBODY), Some(DAEMON)).expect("an owner");
    for (way, _) in failing_starts(&sandbox) {
        let about = fs::metadata(&pidfile).expect("a file");
        let seen = (about.uid(), about.gid(), about.mode() & 0o7777);
        assert_eq!(seen, (NOBODY, DAEMON, 0o600), "{way}");
    }
}

#[test]
fn a_start_that_fails_leaves_the_link_that_was_there() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let victim = sandbox.file("victim", "precious");
    let pidfile = sandbox.link("run/pid", &victim);
    for (way, _) in failing_starts(&sandbox) {
        assert_eq!(fs::read_link(&pidfile).ok().as_ref(), Some(&victim), "{way}");
        assert_eq!(run.names(), ["pid"], "{way}");
    }
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
}

#[test]
fn a_bad_pidfile_leaves_no_trace_of_the_manager() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.dir("run/pid");
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
    let start = start.logdir("run/logs", "1").command(forbidden(&sandbox));
    is_refused(&start.run(), &run.path().join("pid"));
    assert_eq!(run.names(), ["pid"]);
}

// One manager at a time.

/// A managed server that is up, with files in `run`.
fn managed<'a>(sandbox: &'a Sandbox) -> testkit::Running<'a> {
    let handler = handler(sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler);
    let running = start.logdir("run/logs", "1").command(server).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    wait_for("the log", || LogDirectory::at(sandbox.path("run/logs")).vsrun().contains("started"));
    running
}

fn inode_times(sandbox: &Sandbox, name: &str) -> (u64, i64, i64) {
    let about = fs::symlink_metadata(sandbox.path("run").join(name)).expect("a file");
    (about.ino(), about.mtime_nsec(), about.ctime_nsec())
}

#[test]
fn a_second_manager_is_refused_and_touches_nothing() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let running = managed(&sandbox);
    let files = ["pid", "manager", "manager.lock", "logs", "logs/logfile", "logs/vsrun.log"];
    let seen = || {
        let logs = LogDirectory::at(sandbox.path("run/logs"));
        let times = files.map(|name| inode_times(&sandbox, name));
        (times, run.names(), logs.names(), logs.vsrun(), sandbox.lines("run/pid"))
    };
    let before = seen();
    let line = format!("vsrun: already managed by process {}", running.pid());
    for background in [false, true] {
        let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
        let start = start.logdir("run/logs", "1").command(forbidden(&sandbox));
        let start = if background { start } else { start.deadline(Duration::from_secs(10)) };
        start.run().expect_error(125, &line);
        let start = sandbox.vsrun().background().pidfile("run/pid");
        let start = start.manager("run/manager", handler(&sandbox)).logdir("run/logs", "1");
        start.command(forbidden(&sandbox)).run().expect_error(125, &line);
    }
    assert_eq!(seen(), before);
    assert!(!sandbox.path("ran").exists());
    assert!(sandbox.wait_for_pidfile(sandbox.path("run/pid")).exists());
}

#[test]
fn a_second_manager_is_refused_after_restarts_and_handler_runs_as_well() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let handler = handler(&sandbox);
    let server = sandbox.probe().append(sandbox.path("starts")).only_first(3).exit(1);
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", &handler);
    let running = start.logdir("run/logs", "1").command(server).spawn();
    wait_for("the fourth start", || sandbox.lines("starts").len() == 4);
    running.signal(SIGHUP);
    wait_for("the fifth start", || sandbox.lines("starts").len() == 5);
    let start = sandbox.vsrun().manager("run/manager", &handler).command(forbidden(&sandbox));
    start.run().expect_error(125, &format!("vsrun: already managed by process {}", running.pid()));
}

#[test]
fn a_second_manager_is_refused_while_the_first_waits_for_its_server_to_end() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let log = sandbox.path("signals");
    let server = sandbox.probe().log_signals(&log).on_term(OnTerm::Ignore);
    let start = sandbox.vsrun().manager("run/manager", handler(&sandbox));
    let running = start.command(server).spawn();
    wait_for("the server", || sandbox.lines("signals") == ["READY"]);
    running.signal(SIGTERM);
    wait_for("the signal", || sandbox.lines("signals") == ["READY", "TERM"]);
    let start = sandbox.vsrun().manager("run/manager", handler(&sandbox));
    let start = start.command(forbidden(&sandbox));
    start.run().expect_error(125, &format!("vsrun: already managed by process {}", running.pid()));
}

#[test]
fn another_spelling_of_the_path_is_the_same_manager() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    sandbox.link("link", "run");
    let running = managed(&sandbox);
    let line = format!("vsrun: already managed by process {}", running.pid());
    for path in ["./run/manager", "run//manager", "run/../run/manager", "link/manager"] {
        let start = sandbox.vsrun().manager(path, handler(&sandbox)).command(forbidden(&sandbox));
        start.run().expect_error(125, &line);
    }
}

#[test]
fn the_server_and_the_manager_need_two_files() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.link("link", "run");
    for path in [
        "run/manager",
        "./run/manager",
        "run/./manager",
        "run//manager",
        "run/../run/manager",
        "link/manager",
    ] {
        let start = sandbox.vsrun().pidfile(path).manager("run/manager", handler(&sandbox));
        let outcome = start.command(forbidden(&sandbox)).run();
        outcome.expect_code(125);
        assert_eq!(outcome.stderr_text().lines().count(), 1);
        assert_eq!(run.names(), [""; 0], "{path}");
    }
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_servers_pidfile_never_takes_the_place_of_the_lock() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let start = sandbox.vsrun().pidfile("run/manager.lock");
    let start = start.manager("run/manager", handler(&sandbox)).command(forbidden(&sandbox));
    start.run().expect_code(125);
    assert_eq!(run.names(), [""; 0]);
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn of_twelve_that_start_at_once_exactly_one_wins() {
    let sandbox = sandbox();
    for round in 0..5 {
        let run = LogDirectory::at(sandbox.dir(format!("run{round}")));
        let (pidfile, manager) = (run.path().join("pid"), run.path().join("manager"));
        let starts = sandbox.path(format!("starts{round}"));
        let starters: Vec<_> = (0..12)
            .map(|number| {
                let start = sandbox.vsrun().pidfile(&pidfile).manager(&manager, handler(&sandbox));
                // Some of them in the background: those return while their server runs.
                let start = if number % 3 == 0 { start.background() } else { start };
                start.command(sandbox.probe().append(&starts)).spawn()
            })
            .collect();
        wait_for("the one server", || sandbox.lines(&starts).len() == 1);
        let server = sandbox.wait_for_pidfile(&pidfile);
        let winner = sandbox.wait_for_pidfile(&manager);
        // The winner runs on until all others have looked.
        let is_winner = |starter: &testkit::Running<'_>| starter.pid() == winner.pid();
        let (winners, others): (Vec<_>, Vec<_>) = starters.into_iter().partition(is_winner);
        let outcomes: Vec<Outcome> = others.into_iter().map(testkit::Running::wait).collect();
        let line = format!("vsrun: already managed by process {}", winner.pid());
        let losers: Vec<_> = outcomes.iter().filter(|it| it.code() != Some(0)).collect();
        assert_eq!(losers.len(), 11);
        losers.into_iter().for_each(|loser| {
            loser.expect_error(125, &line);
        });
        sandbox.signal(winner, SIGTERM);
        winners.into_iter().for_each(|winner| {
            winner.wait().expect_code(0);
        });
        wait_for("the end", || !winner.exists() && !server.exists());
        assert_eq!(run.names(), [""; 0]);
        assert_eq!(sandbox.lines(&starts).len(), 1);
    }
}

#[test]
fn managers_that_come_and_go_never_run_two_servers_at_a_time() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let script = "#!/bin/sh\nmkdir \"$1\" || exit 9\necho >>\"$2\"\nrmdir \"$1\"\n";
    let server = sandbox.executable("server", script);
    let (busy, ran) = (sandbox.path("busy"), sandbox.path("ran"));
    let refuse = sandbox.handler("refuse").exits(1).create();
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", &refuse);
                    let outcome = start.command([&server, &busy, &ran]).run();
                    let line = outcome.stderr_text();
                    match outcome.code() {
                        Some(0) => {}
                        Some(125) => assert!(line.contains("already managed by"), "{line}"),
                        _ => panic!("{:?}: {line}", outcome.status),
                    }
                }
            });
        }
    });
    assert!(!sandbox.lines("ran").is_empty());
    assert!(refuse.runs().is_empty(), "two servers met");
    assert_eq!(run.names(), [""; 0]);
}

#[test]
fn what_a_killed_manager_left_is_taken_over() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let running = managed(&sandbox);
    let server = sandbox.wait_for_pidfile(sandbox.path("run/pid"));
    running.signal(SIGKILL);
    assert_eq!(running.wait().signal(), Some(SIGKILL));
    sandbox.signal(server, SIGKILL);
    wait_for("the server's end", || !server.exists());
    assert_eq!(run.names(), ["logs", "manager", "manager.lock", "pid"]);
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(&sandbox));
    let running = start.command(sandbox.probe().append(sandbox.path("starts"))).spawn();
    wait_for("the second server", || sandbox.lines("starts").len() == 2);
    assert_eq!(sandbox.read_pidfile(sandbox.path("run/manager")), Some(running.pid()));
    running.signal(SIGTERM);
    running.wait().expect_code(0);
    assert_eq!(run.names(), ["logs"]);
}

#[test]
fn a_stale_pidfile_is_overwritten_and_the_stranger_who_has_its_id_is_left_alone() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let log = sandbox.path("signals");
    let mut words = sandbox.probe().log_signals(&log).into_iter();
    let stranger = sandbox.program(words.next().expect("a program")).args(words).spawn();
    wait_for("the stranger", || sandbox.lines("signals") == ["READY"]);
    for name in ["run/pid", "run/manager"] {
        sandbox.file(name, format!("{}\n", stranger.pid()));
    }
    sandbox.file("run/manager.lock", format!("{}\n", stranger.pid()));
    let running = managed(&sandbox);
    assert_eq!(sandbox.read_pidfile(sandbox.path("run/manager")), Some(running.pid()));
    assert_eq!(sandbox.lines("run/pid"), sandbox.lines("starts"));
    running.signal(SIGHUP);
    wait_for("the restart", || sandbox.lines("starts").len() == 2);
    running.signal(SIGTERM);
    running.wait().expect_code(0);
    assert!(stranger.process().exists());
    assert_eq!(sandbox.lines("signals"), ["READY"]);
}

#[test]
fn any_stale_content_of_the_monitor_pidfile_is_overwritten() {
    for content in [&b""[..], b"\n", b"-1\n", b"0\n", b"1\n", b"99999999999\n", b"\xff\x00x"] {
        let sandbox = sandbox();
        run_dir(&sandbox);
        sandbox.file("run/manager", content);
        let running = managed(&sandbox);
        assert_eq!(sandbox.read_pidfile(sandbox.path("run/manager")), Some(running.pid()));
        running.signal(SIGTERM);
        running.wait().expect_code(0);
    }
}

/// Tries to start a manager with something in the place of one of its files, which must survive.
fn keeps_no_manager(sandbox: &Sandbox, name: &str) {
    let run = LogDirectory::at(sandbox.path("run"));
    let before = (inode_times(sandbox, name), run.names());
    for background in [false, true] {
        let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", handler(sandbox));
        let start = start.logdir("run/logs", "1").deadline(Duration::from_secs(10));
        let start = if background { start.background() } else { start };
        is_refused(&start.command(forbidden(sandbox)).run(), &run.path().join(name));
    }
    assert_eq!((inode_times(sandbox, name), run.names()), before);
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_link_in_the_place_of_a_managers_file_is_refused_and_not_followed() {
    for name in ["manager", "manager.lock"] {
        for target in ["../victim", "nowhere", "."] {
            let sandbox = sandbox();
            run_dir(&sandbox);
            let victim = sandbox.file("victim", "precious");
            fs::set_permissions(&victim, Permissions::from_mode(0o640)).expect("a mode");
            sandbox.link(format!("run/{name}"), target);
            keeps_no_manager(&sandbox, name);
            assert_eq!(fs::read_to_string(&victim).expect("a file"), "precious");
            assert_eq!(mode_of(&victim), 0o640);
            assert!(!sandbox.path("run/nowhere").exists());
        }
    }
}

#[test]
fn a_managers_file_that_has_a_second_name_is_refused() {
    for name in ["manager", "manager.lock"] {
        let sandbox = sandbox();
        run_dir(&sandbox);
        let victim = sandbox.file("victim", "precious");
        fs::set_permissions(&victim, Permissions::from_mode(0o640)).expect("a mode");
        fs::hard_link(&victim, sandbox.path("run").join(name)).expect("a link");
        keeps_no_manager(&sandbox, name);
        assert_eq!(fs::read_to_string(&victim).expect("a file"), "precious");
        assert_eq!(mode_of(&victim), 0o640);
    }
}

#[test]
fn a_managers_file_that_is_not_regular_is_refused_at_once() {
    for name in ["manager", "manager.lock"] {
        let sandbox = sandbox();
        run_dir(&sandbox);
        let path = sandbox.path("run").join(name);
        make("mkfifo", &[path.as_os_str()]);
        keeps_no_manager(&sandbox, name);
        fs::remove_file(&path).expect("a FIFO");
        sandbox.dir(Path::new("run").join(name));
        keeps_no_manager(&sandbox, name);
        fs::remove_dir(&path).expect("a directory");
        let _listener = UnixListener::bind(&path).expect("a socket");
        keeps_no_manager(&sandbox, name);
    }
}

#[test]
fn the_null_device_is_no_monitor_pidfile() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    run_dir(&sandbox);
    for name in ["manager", "manager.lock"] {
        let path = sandbox.path("run").join(name);
        make("mknod", &[path.as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
        keeps_no_manager(&sandbox, name);
        fs::remove_file(path).expect("a device");
    }
}

#[test]
fn a_lock_file_that_others_can_read_is_closed_to_them() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let lock = sandbox.file("run/manager.lock", "");
    fs::set_permissions(&lock, Permissions::from_mode(0o666)).expect("a mode");
    let running = managed(&sandbox);
    assert_eq!(mode_of(&lock), 0o600);
    running.signal(SIGTERM);
    running.wait().expect_code(0);
}

#[test]
fn the_lock_is_held_on_one_descriptor() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let running = managed(&sandbox);
    let lock = sandbox.path("run/manager.lock");
    let descriptors = || {
        let open = running.process().open_files().expect("a manager");
        open.into_values().filter(|target| *target == lock).count()
    };
    assert_eq!(descriptors(), 1);
    running.signal(SIGHUP);
    wait_for("the restart", || sandbox.lines("starts").len() == 2);
    assert_eq!(descriptors(), 1);
}

#[test]
fn the_monitor_pidfile_is_removed_before_the_lock() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    run_dir(&sandbox);
    let trace = sandbox.path("trace");
    let start = sandbox.program("/usr/bin/strace").arg("-o").arg(&trace);
    let start = start.args(["-e", "trace=unlink,unlinkat", "--", env!("CARGO_BIN_EXE_vsrun")]);
    let start = start.pidfile("run/pid").manager("run/manager", handler(&sandbox));
    start.command(sandbox.probe().exit(0)).run().expect_code(0);
    let trace = sandbox.lines(&trace);
    let place = |name: &str| {
        let quoted = format!("\"{name}\"");
        trace.iter().rposition(|line| line.contains(&quoted) && line.contains("= 0"))
    };
    let places = ["pid", "manager", "manager.lock"].map(place);
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{trace:#?}");
}

#[test]
fn names_of_any_bytes_work() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let name = OsString::from_vec(b"-odd \xff\n'".to_vec());
    let manager = run.path().join(&name);
    let start = sandbox.vsrun().manager(&manager, handler(&sandbox));
    let running = start.command(sandbox.probe().append(sandbox.path("starts"))).spawn();
    wait_for("the server", || sandbox.lines("starts").len() == 1);
    let lock = OsString::from_vec([name.as_bytes(), b".lock"].concat());
    assert_eq!(run.names(), [name, lock]);
    assert_eq!(sandbox.read_pidfile(&manager), Some(running.pid()));
}

#[test]
fn managers_of_different_files_do_not_meet() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let running: Vec<_> = (0..4)
        .map(|number| {
            let start = sandbox.vsrun().pidfile(format!("run/{number}.pid"));
            let start = start.manager(format!("run/{number}"), handler(&sandbox));
            start.command(sandbox.probe().append(sandbox.path("starts"))).spawn()
        })
        .collect();
    wait_for("four servers", || sandbox.lines("starts").len() == 4);
    stays("four managers", Duration::from_millis(50), || {
        running.iter().all(|manager| manager.process().exists())
    });
}
