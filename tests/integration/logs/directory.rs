//! The directory: how it is made, and which processes work in it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::{getegid, geteuid};

use super::*;
use crate::prelude::*;

#[test]
fn a_missing_directory_is_made_for_the_user_with_mode_0750() {
    for umask in [0o000, 0o077] {
        let sandbox = sandbox();
        let logs = sandbox.path("logs");
        let vsrun = as_user(sandbox.vsrun()).umask(umask).logdir(&logs, "1d");
        vsrun.command(["/bin/true"]).run().expect_code(0);
        assert_eq!((mode_of(&logs), owner_of(&logs)), (0o750, user()));
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
            assert_eq!(
                (mode_of(&parent), owner_of(&parent)),
                (0o755, me),
                "{parent:?}"
            );
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
            assert_eq!((mode_of(&file), owner_of(&file)), (0o640, user()), "{name}");
        }
    }
}

#[test]
fn without_a_user_everything_is_the_callers() {
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    sandbox
        .vsrun()
        .logdir(&logs, "1d")
        .command(["/bin/true"])
        .run()
        .expect_code(0);
    let me = (geteuid().as_raw(), getegid().as_raw());
    for path in [logs.clone(), logs.join("logfile"), logs.join("vsrun.log")] {
        assert_eq!(owner_of(&path), me, "{path:?}");
    }
}

#[test]
fn the_group_of_the_user_owns_the_logs() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.path("logs");
    let vsrun = sandbox
        .vsrun()
        .user(format!("{NOBODY}:7"))
        .logdir(&logs, "1d");
    vsrun.command(["/bin/true"]).run().expect_code(0);
    for path in [logs.clone(), logs.join("logfile"), logs.join("vsrun.log")] {
        assert_eq!(owner_of(&path), (NOBODY, 7), "{path:?}");
    }
}

#[test]
fn in_a_set_group_id_directory_new_logs_have_its_group_and_the_users_id() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir_of("logs", NOBODY, 7);
    chmod(&logs, 0o2750);
    say(&sandbox, &logs, "1d", "hello");
    for name in ["logfile", "vsrun.log"] {
        let file = logs.join(name);
        assert_eq!(
            (mode_of(&file), owner_of(&file)),
            (0o640, (NOBODY, 7)),
            "{name}"
        );
    }
}

#[test]
fn a_directory_that_exists_keeps_its_mode_and_owner() {
    let sandbox = sandbox();
    let logs = sandbox.open_dir("logs");
    say(&sandbox, &logs, "1d", "hello");
    let me = (geteuid().as_raw(), getegid().as_raw());
    assert_eq!((mode_of(&logs), owner_of(&logs)), (0o1777, me));
}

#[test]
fn a_relative_directory_lies_where_vsrun_was_started() {
    let sandbox = sandbox();
    let elsewhere = sandbox.dir("elsewhere");
    let vsrun = sandbox
        .vsrun()
        .current_dir(&elsewhere)
        .work_dir("/")
        .logdir("logs", "1d");
    vsrun
        .command(sandbox.probe().out("hello").exit(0))
        .run()
        .expect_code(0);
    assert_eq!(text(elsewhere.join("logs/logfile")), "hello\n");
}

#[test]
fn a_directory_may_have_any_bytes_in_its_name() {
    let sandbox = sandbox();
    let logs = sandbox.path(OsStr::from_bytes(b"a\xff\n'b/log s"));
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
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
        let vsrun = sandbox
            .vsrun()
            .current_dir(sandbox.path("place"))
            .logdir(name, "1d");
        vsrun
            .command(sandbox.probe().out("hello").exit(0))
            .run()
            .expect_code(0);
        let expected = if name.contains("logs") {
            logs
        } else {
            sandbox.path("place")
        };
        assert_eq!(text(expected.join("logfile")), "hello\n", "{name}");
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let sandbox = sandbox();
    let logs = sandbox.file("logs", "precious\n");
    let outcome = sandbox
        .vsrun()
        .logdir(&logs, "1d")
        .command(["/bin/true"])
        .run();
    let message = format!(
        "vsrun: cannot open log directory '{}': Not a directory",
        logs.display()
    );
    outcome.expect_error(125, &message);
    assert_eq!(text(&logs), "precious\n");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let sandbox = sandbox();
    let logs = users_dir(&sandbox, "logs");
    chmod(&logs, 0o555);
    let vsrun = sandbox.vsrun().logdir(&logs, "1d").command(["/bin/true"]);
    let vsrun = if geteuid().is_root() {
        vsrun.run_as(NOBODY, NOBODY, &[])
    } else {
        vsrun
    };
    let outcome = vsrun.run();
    outcome.expect_code(125);
    let output = outcome.stderr_text();
    let named = output.contains(&format!("'{}': Permission denied", logs.display()));
    assert!(named && output.lines().count() == 1, "{output}");
    assert!(LogDirectory::at(&logs).names().is_empty());
}

#[test]
fn a_directory_on_a_read_only_file_system_is_refused() {
    needs!(root);
    let sandbox = sandbox();
    let logs = sandbox.dir("logs");
    let vsrun = sandbox.vsrun().read_only(&logs).logdir(&logs, "1d");
    let outcome = vsrun.command(["/bin/true"]).run();
    outcome.expect_code(125);
    let output = outcome.stderr_text();
    let named = output.contains(&format!("'{}': Read-only file system", logs.display()));
    assert!(named && output.lines().count() == 1, "{output}");
}

#[test]
fn a_server_without_a_work_dir_works_in_the_log_directory() {
    let sandbox = sandbox();
    let (logs, report) = (sandbox.path("logs"), sandbox.open_dir("out").join("report"));
    let server = sandbox.probe().report(&report).exit(0);
    let vsrun = as_user(sandbox.vsrun())
        .current_dir("/")
        .logdir(&logs, "1d");
    vsrun.command(server).run().expect_code(0);
    assert_eq!(Report::wait(&report).cwd, Some(logs));
}

#[test]
fn a_work_dir_wins_over_the_log_directory() {
    let sandbox = sandbox();
    let (logs, report) = (sandbox.path("logs"), sandbox.open_dir("out").join("report"));
    let elsewhere = sandbox.dir("elsewhere");
    let server = sandbox.probe().report(&report).exit(0);
    let vsrun = as_user(sandbox.vsrun())
        .logdir(&logs, "1d")
        .work_dir(&elsewhere);
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
    needs!(root);
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    let server = Probe::at("/bin/probe")
        .report("/tmp/report")
        .out("hello")
        .exit(0);
    let vsrun = as_user(sandbox.vsrun())
        .root(&root)
        .logdir(root.join("var/log"), "1d");
    vsrun.command(server).run().expect_code(0);
    assert_eq!(
        Report::wait(root.join("tmp/report")).cwd,
        Some("/var/log".into())
    );
    assert_eq!(text(root.join("var/log/logfile")), "hello\n");
}

#[test]
fn in_a_root_the_server_works_at_the_top_if_the_log_directory_lies_outside() {
    needs!(root);
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    // The same path names a directory inside the root as well.
    let logs = sandbox.path("logs");
    fs::create_dir_all(root.join(logs.strip_prefix("/").expect("absolute"))).expect("a directory");
    let server = Probe::at("/bin/probe")
        .report("/tmp/report")
        .out("hello")
        .exit(0);
    let vsrun = as_user(sandbox.vsrun()).root(&root).logdir(&logs, "1d");
    vsrun.command(server).run().expect_code(0);
    assert_eq!(Report::wait(root.join("tmp/report")).cwd, Some("/".into()));
    assert_eq!(text(logs.join("logfile")), "hello\n");
}

#[test]
fn after_a_move_of_the_directory_the_one_at_its_path_is_used() {
    for is_replaced in [true, false] {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed_greeter(&sandbox, &logs);
        wait_for("vsrun's line", || logs.vsrun().contains("started server"));
        let moved = LogDirectory::at(sandbox.path("moved"));
        fs::rename(logs.path(), moved.path()).expect("the sandbox can be written");
        if is_replaced {
            sandbox.dir("logs");
        }
        manager.signal(SIGHUP);
        sandbox.signal(started(&sandbox, 2), SIGKILL);
        started(&sandbox, 3);
        wait_for_hello(&logs);
        assert_eq!(manager.process().cwd().as_deref(), Some(logs.path()));
        stop(manager);
        assert_eq!(logs.names(), ["logfile", "logfile.1", "vsrun.log"]);
        assert_eq!(logs.vsrun().matches("started server").count(), 2);
        assert_eq!(moved.names(), ["logfile", "vsrun.log"]);
    }
}

#[test]
fn a_stale_directory_is_opened_again_by_its_path() {
    needs!(root, "strace");
    for error in ["ESTALE", "ENOENT"] {
        let sandbox = sandbox();
        let logs = LogDirectory::at(sandbox.path("logs"));
        let manager = managed_greeter(&sandbox, &logs);
        let inject = format!("inject=openat:error={error}:when=1");
        let options = ["-e", "trace=openat", "-e", &inject];
        let tracer = traced(&sandbox, manager.process(), &options);
        manager.signal(SIGHUP);
        started(&sandbox, 2);
        tracer.signal(SIGINT);
        tracer.wait();
        wait_for_hello(&logs);
        assert_eq!(
            logs.names(),
            ["logfile", "logfile.1", "vsrun.log"],
            "{error}"
        );
        assert_eq!(lines(&logs, "vsrun.log", "cannot"), 0, "{error}");
        stop(manager);
    }
}

#[test]
fn a_new_log_directory_that_cannot_be_opened_is_removed() {
    let sandbox = sandbox();
    for limit in 4..16 {
        let start = sandbox.vsrun().limit(Resource::RLIMIT_NOFILE, limit, limit);
        let outcome = start.logdir("var/logs", "1").command(["/bin/true"]).run();
        if outcome.code() == Some(125) {
            assert!(
                !sandbox.path("var").exists(),
                "limit {limit}: {}",
                outcome.stderr_text()
            );
        }
        fs::remove_dir_all(sandbox.path("var")).ok();
    }
}
