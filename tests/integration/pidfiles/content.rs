//! What a pidfile is, and what it replaces.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use super::*;
use crate::prelude::*;

#[test]
fn it_holds_the_servers_id_before_the_servers_first_instruction() {
    for (background, managed) in WAYS {
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
        let start = if background {
            start.background()
        } else {
            start
        };
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
        stop(running);
    }
}

#[test]
fn a_pidfile_belongs_to_the_caller_and_never_to_the_user() {
    needs!(root);
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
fn a_file_of_another_user_is_replaced_whatever_its_mode() {
    needs!(root);
    let sandbox = sandbox();
    let pidfile = sandbox.file("pid", "1\n");
    chmod(&pidfile, 0o0);
    give(&pidfile);
    let start = sandbox.vsrun().user("nobody").pidfile(&pidfile);
    start.command(sandbox.probe().exit(0)).run().expect_code(0);
    let about = fs::metadata(&pidfile).expect("a file");
    assert_eq!(
        (about.uid(), about.gid(), about.mode() & 0o7777),
        (0, 0, 0o644)
    );
}

// What it replaces.

#[test]
fn a_file_that_exists_is_overwritten() {
    for content in [
        "",
        "1",
        "1\n",
        "no number",
        "99999999999999999999\n",
        &"x".repeat(1 << 20),
    ] {
        let sandbox = sandbox();
        let pidfile = sandbox.file("pid", content);
        let server = sandbox.probe().report("report").pidfile(&pidfile).exit(0);
        sandbox
            .vsrun()
            .pidfile(&pidfile)
            .command(server)
            .run()
            .expect_code(0);
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
            sandbox
                .vsrun()
                .pidfile(&pidfile)
                .command(server())
                .run()
                .expect_code(0);
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
    let start = sandbox
        .vsrun()
        .pidfile(&pidfile)
        .manager("manager", handler(&sandbox));
    let running = start.command(server).spawn();
    for count in 1..=30 {
        wait_for("another start", || {
            // Panics if the file exists and is incomplete.
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
    for target in [
        victim.as_path(),
        &directory,
        Path::new("nowhere"),
        Path::new("pid"),
    ] {
        fs::remove_file(&pidfile).ok();
        sandbox.link("run/pid", target);
        sandbox
            .vsrun()
            .pidfile(&pidfile)
            .command(sandbox.probe().exit(0))
            .run()
            .expect_code(0);
        assert!(
            fs::symlink_metadata(&pidfile).expect("a file").is_file(),
            "{target:?}"
        );
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
    sandbox
        .vsrun()
        .pidfile(&pidfile)
        .command(sandbox.probe().exit(0))
        .run()
        .expect_code(0);
    assert!(sandbox.read_pidfile(&pidfile).is_some());
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
}

#[test]
fn a_planted_temporary_file_is_neither_followed_nor_overwritten() {
    needs!(root);
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    let victim = sandbox.file("victim", "precious");
    // In a namespace of its own vsrun's id is known beforehand.
    for attempt in 0..20 {
        sandbox.link(format!("run/.vsrun-1-{attempt}"), &victim);
    }
    let server = sandbox.probe().append(sandbox.path("starts"));
    let start = sandbox
        .vsrun()
        .pid_namespace()
        .pidfile("run/pid")
        .command(server);
    let _running = start.spawn();
    wait_for("the server", || sandbox.lines("starts") == ["1"]);
    assert_eq!(sandbox.read_pidfile(run.path().join("pid")), Some(1));
    assert_eq!(fs::read_to_string(victim).expect("a file"), "precious");
    assert_eq!(run.names().len(), 21);
}

#[test]
fn without_a_manager_the_pidfile_names_the_last_server_started() {
    let sandbox = sandbox();
    let start = || {
        sandbox
            .vsrun()
            .pidfile("pid")
            .command(probe(&sandbox))
            .spawn()
    };
    let first = start();
    started(&sandbox, 1);
    let second = start();
    started(&sandbox, 2);
    assert!(first.process().exists() && second.process().exists());
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("pid")),
        Some(second.pid())
    );
}
