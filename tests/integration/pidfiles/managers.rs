//! One manager at a time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use super::*;
use crate::prelude::*;

/// A managed server that is up, with files in `run`.
fn managed<'a>(sandbox: &'a Sandbox) -> Running<'a> {
    let handler = handler(sandbox);
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", handler);
    let running = start.logdir("run/logs", "1").command(server).spawn();
    started(sandbox, 1);
    wait_for("the log", || {
        LogDirectory::at(sandbox.path("run/logs"))
            .vsrun()
            .contains("started")
    });
    running
}

#[test]
fn a_start_that_fails_leaves_no_monitor_pidfile() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    // Without a lock no manager is alive, whichever process has this id.
    sandbox.file("run/manager", format!("{}\n", std::process::id()));
    let start = sandbox.vsrun().manager("run/manager", handler(&sandbox));
    start.command(["/nonexistent"]).run().expect_code(127);
    assert_eq!(run.names(), [""; 0]);
}

#[test]
fn a_file_with_more_than_an_id_is_no_pidfile_and_no_lock_and_is_left_alone() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    for (name, doing) in [("manager", "write pidfile"), ("manager.lock", "lock")] {
        for content in [
            "precious",
            "1\nx",
            "\u{7f}\0",
            &"1".repeat(100),
            &"x".repeat(2 << 20),
        ] {
            let file = sandbox.file(format!("run/{name}"), content);
            let mode = mode_of(&file);
            let start = sandbox.vsrun().manager("run/manager", handler(&sandbox));
            let reason = "it holds more than a process id";
            let line = format!("vsrun: cannot {doing} '{}': {reason}", file.display());
            start
                .command(forbidden(&sandbox))
                .run()
                .expect_error(125, &line);
            assert_eq!(fs::read_to_string(&file).expect("a file"), content);
            assert_eq!(mode_of(&file), mode);
            assert_eq!(run.names(), [name]);
            fs::remove_file(file).expect("removed");
        }
    }
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
    let files = [
        "pid",
        "manager",
        "manager.lock",
        "logs",
        "logs/logfile",
        "logs/vsrun.log",
    ];
    let seen = || {
        let logs = LogDirectory::at(sandbox.path("run/logs"));
        let times = files.map(|name| inode_times(&sandbox, name));
        (
            times,
            run.names(),
            logs.names(),
            logs.vsrun(),
            sandbox.lines("run/pid"),
        )
    };
    let before = seen();
    let line = format!("vsrun: already managed by process {}", running.pid());
    for background in [false, true] {
        let start = sandbox
            .vsrun()
            .pidfile("run/pid")
            .manager("run/manager", handler(&sandbox));
        let start = start.logdir("run/logs", "1").command(forbidden(&sandbox));
        let start = if background {
            start
        } else {
            start.deadline(Duration::from_secs(10))
        };
        start.run().expect_error(125, &line);
        let start = sandbox.vsrun().background().pidfile("run/pid");
        let start = start
            .manager("run/manager", handler(&sandbox))
            .logdir("run/logs", "1");
        start
            .command(forbidden(&sandbox))
            .run()
            .expect_error(125, &line);
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
    let server = sandbox
        .probe()
        .append(sandbox.path("starts"))
        .only_first(3)
        .exit(1);
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", &handler);
    let running = start.logdir("run/logs", "1").command(server).spawn();
    wait_for("the fourth start", || sandbox.lines("starts").len() == 4);
    running.signal(SIGHUP);
    wait_for("the fifth start", || sandbox.lines("starts").len() == 5);
    let start = sandbox
        .vsrun()
        .manager("run/manager", &handler)
        .command(forbidden(&sandbox));
    start.run().expect_error(
        125,
        &format!("vsrun: already managed by process {}", running.pid()),
    );
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
    wait_for("the signal", || {
        sandbox.lines("signals") == ["READY", "TERM"]
    });
    let start = sandbox.vsrun().manager("run/manager", handler(&sandbox));
    let start = start.command(forbidden(&sandbox));
    start.run().expect_error(
        125,
        &format!("vsrun: already managed by process {}", running.pid()),
    );
}

#[test]
fn another_spelling_of_the_path_is_the_same_manager() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    sandbox.link("link", "run");
    let running = managed(&sandbox);
    let line = format!("vsrun: already managed by process {}", running.pid());
    for path in [
        "./run/manager",
        "run//manager",
        "run/../run/manager",
        "link/manager",
    ] {
        let start = sandbox
            .vsrun()
            .manager(path, handler(&sandbox))
            .command(forbidden(&sandbox));
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
        let start = sandbox
            .vsrun()
            .pidfile(path)
            .manager("run/manager", handler(&sandbox));
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
    let start = start
        .manager("run/manager", handler(&sandbox))
        .command(forbidden(&sandbox));
    start.run().expect_code(125);
    assert_eq!(run.names(), [""; 0]);
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_servers_pidfile_never_takes_the_place_of_a_live_managers_file() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.link("link", "run");
    let running = managed(&sandbox);
    let seen = || {
        (
            ["manager", "manager.lock"].map(|name| inode_times(&sandbox, name)),
            run.names(),
        )
    };
    let before = seen();
    let pid = running.pid();
    for (name, used_as) in [
        ("manager", "monitor pidfile"),
        ("manager.lock", "lock file"),
    ] {
        for directory in ["run", "link"] {
            let path = sandbox.path(directory).join(name);
            let reason = format!("process {pid} uses it as its {used_as}");
            let line = format!("vsrun: cannot write pidfile '{}': {reason}", path.display());
            for start in [
                sandbox.vsrun(),
                sandbox.vsrun().background(),
                sandbox.vsrun().manager("other", handler(&sandbox)),
            ] {
                let start = start.pidfile(&path).command(forbidden(&sandbox));
                start.run().expect_error(125, &line);
            }
        }
    }
    assert_eq!(seen(), before);
    assert!(!sandbox.path("ran").exists() && !sandbox.path("other").exists());
    // This manager still holds the lock; a file without a lock prevents no start.
    let start = sandbox.vsrun().manager("run/manager", handler(&sandbox));
    let start = start.command(forbidden(&sandbox));
    start
        .run()
        .expect_error(125, &format!("vsrun: already managed by process {pid}"));
    running.signal(SIGKILL);
    running.wait();
    let start = sandbox
        .vsrun()
        .pidfile("run/manager")
        .command(sandbox.probe().exit(0));
    start.run().expect_code(0);
}

#[test]
fn a_lock_that_the_caller_may_not_read_does_not_prevent_a_pidfile() {
    needs!(root);
    let sandbox = sandbox();
    run_dir(&sandbox);
    let _running = managed(&sandbox);
    give(sandbox.path("run"));
    let start = sandbox
        .vsrun()
        .run_as(NOBODY, NOBODY, &[])
        .pidfile("run/manager");
    start.command(["/bin/true"]).run().expect_code(0);
}

/// Starts a manager while strace(1) makes calls on its lock file return wrong results.
fn start_deceived(sandbox: &Sandbox, path: &Path, injection: &str) -> Outcome {
    let strace = sandbox
        .program("/usr/bin/strace")
        .arg("-o")
        .arg(sandbox.path("trace"));
    let strace = strace.arg("-P").arg(path).args(["-e", injection]);
    let start = strace.args(["--", VSRUN]);
    let start = start
        .manager("run/manager", handler(sandbox))
        .command(forbidden(sandbox));
    let outcome = start.run();
    assert!(!sandbox.path("ran").exists());
    outcome
}

#[test]
fn a_lock_file_that_is_removed_again_and_again_is_an_error() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let lock = run_dir(&sandbox).path().join("manager.lock");
    let injection = "inject=newfstatat:error=ENOENT";
    let outcome = start_deceived(&sandbox, Path::new("manager.lock"), injection);
    let reason = "it is removed or replaced again and again";
    let line = format!("vsrun: cannot lock '{}': {reason}", lock.display());
    outcome.expect_error(125, &line);
}

#[test]
fn a_lock_that_is_held_and_released_again_and_again_is_anothers() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let lock = run_dir(&sandbox).path().join("manager.lock");
    // Each second call asks for the holder.
    let outcome = start_deceived(&sandbox, &lock, "inject=fcntl:error=EAGAIN:when=1+2");
    outcome.expect_error(125, "vsrun: already managed by another process");
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
                let start = sandbox
                    .vsrun()
                    .pidfile(&pidfile)
                    .manager(&manager, handler(&sandbox));
                // Some of them in the background: those return while their server runs.
                let start = if number % 3 == 0 {
                    start.background()
                } else {
                    start
                };
                start.command(sandbox.probe().append(&starts)).spawn()
            })
            .collect();
        wait_for("the one server", || sandbox.lines(&starts).len() == 1);
        let server = sandbox.wait_for_pidfile(&pidfile);
        let winner = sandbox.wait_for_pidfile(&manager);
        // The one that starts runs until all others have tried.
        let is_winner = |starter: &Running<'_>| starter.pid() == winner.pid();
        let (winners, others): (Vec<_>, Vec<_>) = starters.into_iter().partition(is_winner);
        let outcomes: Vec<Outcome> = others.into_iter().map(Running::wait).collect();
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
                    let start = sandbox
                        .vsrun()
                        .pidfile("run/pid")
                        .manager("run/manager", &refuse);
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
fn files_of_a_killed_manager_are_taken_over() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let running = managed(&sandbox);
    let server = sandbox.wait_for_pidfile(sandbox.path("run/pid"));
    running.signal(SIGKILL);
    assert_eq!(running.wait().signal(), Some(SIGKILL));
    sandbox.signal(server, SIGKILL);
    wait_for("the server's end", || !server.exists());
    assert_eq!(run.names(), ["logs", "manager", "manager.lock", "pid"]);
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", handler(&sandbox));
    let running = start
        .command(sandbox.probe().append(sandbox.path("starts")))
        .spawn();
    wait_for("the second server", || sandbox.lines("starts").len() == 2);
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("run/manager")),
        Some(running.pid())
    );
    stop(running);
    assert_eq!(run.names(), ["logs"]);
}

#[test]
fn a_stale_pidfile_is_overwritten_and_its_id_is_not_signalled() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let log = sandbox.path("signals");
    let mut words = sandbox.probe().log_signals(&log).into_iter();
    let other = sandbox
        .program(words.next().expect("a program"))
        .args(words)
        .spawn();
    wait_for("the other process", || {
        sandbox.lines("signals") == ["READY"]
    });
    for name in ["run/pid", "run/manager"] {
        sandbox.file(name, format!("{}\n", other.pid()));
    }
    sandbox.file("run/manager.lock", format!("{}\n", other.pid()));
    let running = managed(&sandbox);
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("run/manager")),
        Some(running.pid())
    );
    assert_eq!(sandbox.lines("run/pid"), sandbox.lines("starts"));
    running.signal(SIGHUP);
    wait_for("the restart", || sandbox.lines("starts").len() == 2);
    stop(running);
    assert!(other.process().exists());
    assert_eq!(sandbox.lines("signals"), ["READY"]);
}

#[test]
fn any_stale_content_of_the_monitor_pidfile_is_overwritten() {
    for content in [
        &b""[..],
        b"\n",
        b"-1\n",
        b"0\n",
        b"1\n",
        b"99999999999\n",
        &[0; 8],
    ] {
        let sandbox = sandbox();
        run_dir(&sandbox);
        sandbox.file("run/manager", content);
        let running = managed(&sandbox);
        assert_eq!(
            sandbox.read_pidfile(sandbox.path("run/manager")),
            Some(running.pid())
        );
        stop(running);
    }
}

/// Tries to start a manager with something in the place of one of its files, which must survive.
fn keeps_no_manager(sandbox: &Sandbox, name: &str) {
    let run = LogDirectory::at(sandbox.path("run"));
    let before = (inode_times(sandbox, name), run.names());
    for background in [false, true] {
        let start = sandbox
            .vsrun()
            .pidfile("run/pid")
            .manager("run/manager", handler(sandbox));
        let start = start
            .logdir("run/logs", "1")
            .deadline(Duration::from_secs(10));
        let start = if background {
            start.background()
        } else {
            start
        };
        is_refused(
            &start.command(forbidden(sandbox)).run(),
            &run.path().join(name),
        );
    }
    assert_eq!((inode_times(sandbox, name), run.names()), before);
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_link_in_place_of_a_managers_file_is_refused() {
    for name in ["manager", "manager.lock"] {
        for target in ["../victim", "nowhere", "."] {
            let sandbox = sandbox();
            run_dir(&sandbox);
            let victim = sandbox.file("victim", "precious");
            chmod(&victim, 0o640);
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
        chmod(&victim, 0o640);
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
    needs!(root);
    let sandbox = sandbox();
    run_dir(&sandbox);
    for name in ["manager", "manager.lock"] {
        let path = sandbox.path("run").join(name);
        make(
            "mknod",
            &[path.as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()],
        );
        keeps_no_manager(&sandbox, name);
        fs::remove_file(path).expect("a device");
    }
}

#[test]
fn a_lock_file_that_others_can_read_is_closed_to_them() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let lock = sandbox.file("run/manager.lock", "");
    chmod(&lock, 0o666);
    let running = managed(&sandbox);
    assert_eq!(mode_of(&lock), 0o600);
    stop(running);
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
    needs!(root, "strace");
    let sandbox = sandbox();
    run_dir(&sandbox);
    let trace = sandbox.path("trace");
    let start = sandbox.program("/usr/bin/strace").arg("-o").arg(&trace);
    let start = start.args(["-e", "trace=unlinkat,renameat2", "--", VSRUN]);
    let start = start
        .pidfile("run/pid")
        .manager("run/manager", handler(&sandbox));
    start.command(sandbox.probe().exit(0)).run().expect_code(0);
    let trace = sandbox.lines(&trace);
    let place = |name: &str| {
        let quoted = format!("\"{name}\"");
        trace
            .iter()
            .rposition(|line| line.contains(&quoted) && line.contains("= 0"))
    };
    let places = ["pid", "manager", "manager.lock"].map(place);
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{trace:#?}"
    );
}

#[test]
fn names_of_any_bytes_work() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let name = OsString::from_vec(b"-odd \xff\n'".to_vec());
    let manager = run.path().join(&name);
    let start = sandbox.vsrun().manager(&manager, handler(&sandbox));
    let running = start
        .command(sandbox.probe().append(sandbox.path("starts")))
        .spawn();
    started(&sandbox, 1);
    let lock = OsString::from_vec([name.as_bytes(), b".lock"].concat());
    assert_eq!(run.names(), [name, lock]);
    assert_eq!(sandbox.read_pidfile(&manager), Some(running.pid()));
}

#[test]
fn managers_of_different_files_are_independent() {
    let sandbox = sandbox();
    run_dir(&sandbox);
    let running: Vec<_> = (0..4)
        .map(|number| {
            let start = sandbox.vsrun().pidfile(format!("run/{number}.pid"));
            let start = start.manager(format!("run/{number}"), handler(&sandbox));
            start
                .command(sandbox.probe().append(sandbox.path("starts")))
                .spawn()
        })
        .collect();
    wait_for("four servers", || sandbox.lines("starts").len() == 4);
    holds_for("four managers", Duration::from_millis(50), || {
        running.iter().all(|manager| manager.process().exists())
    });
}

#[test]
fn a_lock_of_another_process_is_reported_with_its_id() {
    let sandbox = sandbox();
    let run = LogDirectory::at(sandbox.dir("run"));
    let path = sandbox.file("run/manager.lock", "");
    chmod(&path, 0o600);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("a file");
    let line = format!("vsrun: already managed by process {}", std::process::id());
    for kind in [libc::F_WRLCK, libc::F_RDLCK] {
        lock(&file, kind).expect("a lock");
        for background in [false, true] {
            let start = sandbox
                .vsrun()
                .pidfile("run/pid")
                .manager("run/manager", CONSENT);
            let start = if background {
                start.background()
            } else {
                start
            };
            start
                .command(probe(&sandbox))
                .run()
                .expect_error(125, &line);
            assert_eq!(run.names(), ["manager.lock"]);
        }
    }
    assert!(!sandbox.path("starts").exists());
    // The next start finds it free.
    drop(file);
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", CONSENT);
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    stop(manager);
    assert_eq!(run.names(), [""; 0]);
}

/// What a user who may read the files of a manager could do to prevent the next start
/// (CVE-2022-1348 of logrotate: a state file that every user could lock).
#[test]
fn locks_on_world_readable_files_do_not_prevent_a_start() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir("run");
    let start = || {
        let start = sandbox
            .vsrun()
            .pidfile("run/pid")
            .manager("run/manager", CONSENT);
        start.command(probe(&sandbox)).spawn()
    };
    let manager = start();
    let first = started(&sandbox, 1);
    for name in ["manager.lock", "pid", "manager"] {
        let cat = sandbox.program("/bin/cat").run_as(NOBODY, NOBODY, &[]);
        let outcome = cat.arg(sandbox.path("run").join(name)).run();
        assert_eq!(
            outcome.code(),
            Some(if name == "manager.lock" { 1 } else { 0 }),
            "{name}"
        );
    }
    // Opened for reading only, which is what user nobody may do.
    let files = ["pid", "manager"].map(|name| File::open(sandbox.path("run").join(name)));
    let files = files.map(|file| file.expect("every user may read it"));
    files
        .iter()
        .for_each(|file| lock(file, libc::F_RDLCK).expect("a lock"));
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    assert!(!first.exists());
    manager.signal(SIGKILL);
    manager.wait();
    sandbox.signal(second, SIGKILL);
    let manager = start();
    started(&sandbox, 3);
    let lock = fs::metadata(sandbox.path("run/manager.lock")).expect("a file");
    assert_eq!((lock.uid(), lock.mode() & 0o777), (0, 0o600));
    stop(manager);
    assert_eq!(
        LogDirectory::at(Path::new(&sandbox.path("run"))).names(),
        [""; 0]
    );
}

/// Tells whether a process holds a record lock on a file (see proc(5)).
fn holds_lock(process: Process, file: &Path) -> bool {
    let inode = fs::metadata(file)
        .map(|about| about.ino())
        .unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").expect("a /proc");
    let (pid, inode) = (format!(" {} ", process.pid()), format!(":{inode} "));
    locks
        .lines()
        .any(|lock| lock.contains(&pid) && lock.contains(&inode))
}

/// A record lock is lost when any descriptor of its file is closed (see fcntl(2)), so that a second
/// name of the lock must not be opened. Where `fs.protected_hardlinks` is 0 every user can make
/// one.
#[test]
fn a_hard_link_of_the_lock_as_pidfile_does_not_end_the_lock() {
    needs!(root);
    for _ in 0..60 {
        let sandbox = sandbox();
        let (pidfile, lock) = (sandbox.dir("run").join("pid"), sandbox.path("manager.lock"));
        let start = sandbox
            .vsrun()
            .pidfile(&pidfile)
            .manager("manager", CONSENT);
        let start = start.command(sandbox.probe().append(sandbox.path("starts")));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = fs::hard_link(&lock, &pidfile);
                }
            });
            let manager = start.spawn();
            let up = || !sandbox.lines("starts").is_empty();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !up() && manager.process().exists() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(
                !up() || holds_lock(manager.process(), &lock),
                "the manager has no lock"
            );
        });
    }
}
