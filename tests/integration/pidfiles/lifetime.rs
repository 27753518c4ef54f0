//! A pidfile over restarts, at the end, and at a start that fails.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::process::Command;

use super::*;
use crate::prelude::*;

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
        assert_eq!(mode_of(&pidfile), 0o644);
        if cause == SIGKILL {
            sandbox.signal(server, SIGKILL);
        } else {
            manager.signal(cause);
        }
    }
    manager.wait().expect_code(0);
}

#[test]
fn it_is_removed_as_soon_as_the_server_is_gone() {
    let sandbox = sandbox();
    let handler = sandbox
        .handler("handler")
        .line("read -r line <\"${0%/*}/gate\"")
        .exits(1)
        .create();
    make("mkfifo", &[sandbox.path("gate").as_os_str()]);
    let start = sandbox.vsrun().pidfile("pid").manager("manager", &handler);
    let running = start.command(sandbox.probe().exit(3)).spawn();
    handler.wait_for_run(1);
    assert!(
        !sandbox.path("pid").exists(),
        "a stale id while the handler runs"
    );
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("manager")),
        Some(running.pid())
    );
    fs::write(sandbox.path("gate"), "\n").expect("a FIFO");
    running.wait().expect_code(3);
}

/// Restarts a managed server with the pidfile `run/pid` once `change` has changed that; then runs
/// `check`, and stops the manager.
#[track_caller]
fn restart_after(
    change: impl FnOnce(&Sandbox, &Path),
    check: impl FnOnce(&Sandbox, &Path),
) -> Sandbox {
    let sandbox = sandbox();
    let pidfile = run_dir(&sandbox).path().join("pid");
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("manager", CONSENT);
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    change(&sandbox, &pidfile);
    manager.signal(SIGHUP);
    started(&sandbox, 2);
    check(&sandbox, &pidfile);
    stop(manager);
    sandbox
}

#[test]
fn a_link_put_in_its_place_is_replaced_at_the_restart() {
    let change = |sandbox: &Sandbox, pidfile: &Path| {
        fs::remove_file(pidfile).expect("a pidfile");
        sandbox.link("run/pid", sandbox.file("victim", "precious"));
    };
    restart_after(change, |sandbox, pidfile| {
        assert!(about(pidfile).is_file());
        assert_eq!(text(sandbox.path("victim")), "precious");
    });
}

#[test]
fn a_fifo_in_its_place_does_not_block_the_manager() {
    let change = |_: &Sandbox, pidfile: &Path| {
        fs::remove_file(pidfile).expect("a pidfile");
        make("mkfifo", &[pidfile.as_os_str()]);
    };
    restart_after(change, |_, _| {});
}

#[test]
fn a_removed_directory_does_not_prevent_a_restart() {
    let remove = |sandbox: &Sandbox, _: &Path| {
        fs::remove_dir_all(sandbox.path("run")).expect("a directory");
    };
    restart_after(remove, |_, _| {});
}

#[test]
fn after_a_move_of_the_directory_the_one_at_its_path_is_used() {
    let change = |sandbox: &Sandbox, _: &Path| {
        fs::rename(sandbox.path("run"), sandbox.path("moved")).expect("a directory");
        sandbox.dir("run");
    };
    let sandbox = restart_after(change, |sandbox, pidfile| {
        assert_eq!(sandbox.lines(pidfile), sandbox.lines("starts")[1..]);
    });
    assert!(!sandbox.path("run/pid").exists());
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
        let start = sandbox
            .vsrun()
            .pidfile("run/pid")
            .manager("run/manager", &handler);
        let running = start.command(server).spawn();
        started(&sandbox, 1);
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
    let running = sandbox
        .vsrun()
        .pidfile(&pidfile)
        .command(sandbox.probe().exit(0))
        .spawn();
    let pid = running.pid();
    running.wait().expect_code(0);
    assert_eq!(sandbox.read_pidfile(pidfile), Some(pid));
}

/// A server that runs under a manager, with both pidfiles in `run`.
fn managed_in_run(sandbox: &Sandbox) -> Running<'_> {
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", handler(sandbox));
    let running = start.command(server).spawn();
    started(sandbox, 1);
    running
}

#[test]
fn files_that_name_another_process_are_left() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let running = managed_in_run(&sandbox);
    for name in ["pid", "manager", "manager.lock"] {
        let beside = sandbox.file(format!("run/{name}.new"), "4242\n");
        fs::rename(beside, run.path().join(name)).expect("a file");
    }
    stop(running);
    assert_eq!(run.names(), ["manager", "manager.lock", "pid"]);
    for name in ["pid", "manager", "manager.lock"] {
        assert_eq!(sandbox.lines(run.path().join(name)), ["4242"]);
    }
}

#[test]
fn links_in_place_of_the_files_are_not_followed_at_the_end() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let running = managed_in_run(&sandbox);
    for name in ["pid", "manager", "manager.lock"] {
        // The target has the content that vsrun would look for.
        fs::rename(run.path().join(name), sandbox.path(name)).expect("a file");
        sandbox.link(format!("run/{name}"), sandbox.path(name));
    }
    stop(running);
    for name in ["pid", "manager", "manager.lock"] {
        assert!(
            sandbox.path(name).exists(),
            "the target of '{name}' is gone"
        );
        assert!(run.path().join(name).is_symlink(), "'{name}' is gone");
    }
}

#[test]
fn files_that_were_removed_do_not_change_the_exit() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let running = managed_in_run(&sandbox);
    fs::remove_dir_all(run.path()).expect("a directory");
    stop(running);
}

#[test]
fn the_first_managers_end_leaves_the_second_managers_files() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let start = |starts: &str| {
        let start = sandbox
            .vsrun()
            .pidfile("run/pid")
            .manager("run/manager", handler(&sandbox));
        start
            .command(sandbox.probe().append(sandbox.path(starts)))
            .spawn()
    };
    let first = start("first");
    wait_for("the first server", || sandbox.lines("first").len() == 1);
    // With its files removed, nothing prevents a second manager.
    for name in ["pid", "manager", "manager.lock"] {
        fs::remove_file(run.path().join(name)).expect("a file");
    }
    let second = start("second");
    wait_for("the second server", || sandbox.lines("second").len() == 1);
    stop(first);
    assert_eq!(
        sandbox.read_pidfile(run.path().join("manager")),
        Some(second.pid())
    );
    assert_eq!(sandbox.lines("run/pid"), sandbox.lines("second"));
    assert_eq!(run.names(), ["manager", "manager.lock", "pid"]);
}

// Failed starts.

/// A start that must fail, on top of `-p run/pid`.
type Fault = for<'a> fn(Invocation<'a>, &'a Sandbox) -> Invocation<'a>;

const FAULTS: [(&str, Fault); 8] = [
    ("not found", |start, _| start.command(["/no/such/server"])),
    ("not executable", |start, _| start.command(["/etc/passwd"])),
    ("no work dir", |start, sandbox| {
        start.work_dir("/no/such").command(forbidden(sandbox))
    }),
    ("no root", |start, sandbox| {
        start.root("/no/such").command(forbidden(sandbox))
    }),
    ("no user", |start, sandbox| {
        start.user("no such").command(forbidden(sandbox))
    }),
    ("no log directory", |start, sandbox| {
        start
            .logdir("/etc/passwd/logs", "1")
            .command(forbidden(sandbox))
    }),
    ("keep", |start, sandbox| {
        start.logdir("logs", "-1").command(forbidden(sandbox))
    }),
    ("log directory and no server", |start, _| {
        start.logdir("run/a/b", "1").command(["/no/such/server"])
    }),
];

/// The starts with each fault, in all four ways.
fn failing_starts(sandbox: &Sandbox) -> Vec<(String, Outcome)> {
    let handler = handler(sandbox);
    let mut outcomes = Vec::new();
    for (name, fault) in FAULTS {
        for (background, managed) in WAYS {
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
fn a_start_that_fails_leaves_no_file() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    for (way, outcome) in failing_starts(&sandbox) {
        assert!(
            outcome
                .code()
                .is_some_and(|code| (125..=127).contains(&code)),
            "{way}"
        );
        let line = outcome.stderr_text();
        assert!(
            line.starts_with("vsrun: cannot ") && line.lines().count() == 1,
            "{way}: {line}"
        );
        assert_eq!(run.names(), [""; 0], "{way}");
    }
    assert!(!sandbox.path("ran").exists() && !sandbox.path("logs").exists());
    wait_for("the end of every process", || {
        sandbox.processes().is_empty()
    });
}

#[test]
fn a_start_that_fails_leaves_the_id_of_a_live_process() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let pidfile = sandbox.file("run/pid", format!("{}\n", std::process::id()));
    for (way, outcome) in failing_starts(&sandbox) {
        assert_ne!(outcome.code(), Some(0), "{way}");
        assert_eq!(
            sandbox.read_pidfile(&pidfile),
            Some(std::process::id() as i32),
            "{way}"
        );
        assert_eq!(run.names(), ["pid"], "{way}");
    }
}

#[test]
fn what_is_put_back_is_a_pidfile_of_the_callers() {
    needs!(root);
    for caller in [0, NOBODY] {
        let sandbox = sandbox();
        let run = run_dir(&sandbox);
        give(run.path());
        let pidfile = sandbox.file("run/pid", format!("{}", std::process::id()));
        lchown(&pidfile, Some(DAEMON), Some(DAEMON)).expect("an owner");
        chmod(&pidfile, 0o4755);
        let start = sandbox
            .vsrun()
            .run_as(caller, caller, &[])
            .pidfile("run/pid");
        start.command(["/nonexistent"]).run().expect_code(127);
        let about = fs::metadata(&pidfile).expect("a file");
        let seen = (about.uid(), about.gid(), about.mode() & 0o7777);
        assert_eq!(seen, (caller, caller, 0o644));
        assert_eq!(sandbox.lines(&pidfile), [std::process::id().to_string()]);
        assert_eq!(run.names(), ["pid"]);
    }
}

#[test]
fn a_start_that_fails_puts_back_nothing_but_the_id_of_a_live_process() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let live = std::process::id().to_string();
    let victim = sandbox.file("victim", &live);
    let mut zombie = Command::new("/bin/true").spawn().expect("a process");
    let process = Process::of(zombie.id() as i32);
    wait_for("a zombie", || {
        process.stat().is_some_and(|stat| stat.state == 'Z')
    });
    let dead = [i32::MAX.to_string(), zombie.id().to_string()];
    let (two, long) = (format!("{live} {live}"), "1".repeat(4096));
    let odd = [
        "",
        "0",
        "-1",
        "no id",
        "99999999999",
        &two,
        &long,
        "second name",
        "link",
    ];
    for old in dead.iter().map(String::as_str).chain(odd) {
        for (background, managed) in WAYS {
            match old {
                "second name" => fs::hard_link(&victim, run.path().join("pid")).expect("a link"),
                "link" => drop(sandbox.link("run/pid", &victim)),
                content => drop(sandbox.file("run/pid", content)),
            }
            let start = sandbox.vsrun().pidfile("run/pid");
            let start = if background {
                start.background()
            } else {
                start
            };
            let start = if managed {
                start.manager("manager", handler(&sandbox))
            } else {
                start
            };
            start.command(["/nonexistent"]).run().expect_code(127);
            assert_eq!(run.names(), [""; 0], "{old}");
        }
    }
    assert_eq!(fs::read_to_string(&victim).expect("a file"), live);
    zombie.wait().expect("a zombie");
}

#[test]
fn a_pidfile_may_stand_in_the_log_directory_that_is_made_for_it() {
    for (background, managed) in WAYS {
        let sandbox = sandbox();
        let start = sandbox.vsrun().logdir("logs", "1").pidfile("logs/pid");
        let start = if managed {
            start.manager("manager", handler(&sandbox))
        } else {
            start
        };
        let start = if background {
            start.background()
        } else {
            start
        };
        let running = start
            .command(sandbox.probe().append(sandbox.path("starts")))
            .spawn();
        started(&sandbox, 1);
        let server = sandbox.wait_for_pidfile(sandbox.path("logs/pid"));
        assert_eq!(sandbox.lines("starts"), [server.pid().to_string()]);
        let first = if managed {
            sandbox.wait_for_pidfile(sandbox.path("manager"))
        } else {
            server
        };
        sandbox.signal(first, SIGTERM);
        running.wait();
        wait_for("the end of every process", || {
            sandbox.processes().is_empty()
        });
    }
    let sandbox = sandbox();
    let start = sandbox.vsrun().logdir("logs", "1").pidfile("logs/pid");
    start.command(["/nonexistent"]).run().expect_code(127);
    assert!(!sandbox.path("logs").exists());
}

#[test]
fn a_bad_pidfile_leaves_no_file_of_the_manager() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.dir("run/pid");
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", handler(&sandbox));
    let start = start.logdir("run/logs", "1").command(forbidden(&sandbox));
    is_refused(&start.run(), &run.path().join("pid"));
    assert_eq!(run.names(), ["pid"]);
}

/// Root killed the process whose id the user had written into a file: CVE-2018-16888
/// of systemd, CVE-2017-11747 of tinyproxy, issues 404 of nagioscore and 303 of unbound.
#[test]
fn a_forged_pidfile_redirects_no_signal() {
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir_of("run", NOBODY, NOBODY);
    let log = sandbox.path("signals");
    let mut words = sandbox.probe().log_signals(&log).into_iter();
    let other = sandbox
        .program(words.next().expect("a program"))
        .args(words)
        .spawn();
    wait_for("the other process", || {
        sandbox.lines("signals") == ["READY"]
    });
    let forge = || {
        for name in ["pid", "manager"] {
            // The directory's owner can do this.
            let beside = sandbox.file("run/forged", format!("{}\n", other.pid()));
            give(&beside);
            fs::rename(beside, sandbox.path("run").join(name)).expect("a file");
        }
    };
    let start = sandbox
        .vsrun()
        .pidfile("run/pid")
        .manager("run/manager", CONSENT);
    let manager = start.command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    forge();
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    assert!(!first.exists());
    forge();
    sandbox.signal(second, SIGKILL);
    let third = started(&sandbox, 3);
    forge();
    stop(manager);
    assert!(!third.exists() && other.process().exists());
    assert_eq!(sandbox.lines("signals"), ["READY"]);
}
