//! Where a server starts.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::*;
use crate::prelude::*;

#[test]
fn without_a_work_dir_the_server_starts_where_vsrun_was_started() {
    let elsewhere = sandbox();
    let here = elsewhere.directory();
    for report in in_every_way(|start| start.current_dir(here)) {
        assert_eq!(report.cwd.as_deref(), Some(here));
    }
}

#[test]
fn the_work_dir_is_where_the_server_starts() {
    let elsewhere = sandbox();
    let here = elsewhere.dir("a b");
    for report in in_every_way(|start| start.work_dir(&here)) {
        assert_eq!(report.cwd.as_ref(), Some(&here));
    }
}

#[test]
fn with_a_log_directory_and_without_a_work_dir_the_server_starts_in_the_log_directory() {
    let elsewhere = sandbox();
    let logs = elsewhere.path("var/logs");
    for report in in_every_way(|start| start.logdir(&logs, "1")) {
        assert_eq!(report.cwd.as_ref(), Some(&logs));
    }
}

#[test]
fn the_work_dir_wins_over_the_log_directory() {
    let elsewhere = sandbox();
    let (logs, work_dir) = (elsewhere.path("logs"), elsewhere.dir("work"));
    for report in in_every_way(|start| start.work_dir(&work_dir).logdir(&logs, "1")) {
        assert_eq!(report.cwd.as_ref(), Some(&work_dir));
    }
    for report in in_every_way(|start| start.logdir(&logs, "1").work_dir(&work_dir)) {
        assert_eq!(report.cwd.as_ref(), Some(&work_dir));
    }
}

#[test]
fn the_directory_of_the_start_may_be_one_that_the_user_cannot_enter() {
    needs!(root);
    let sandbox = sandbox();
    let closed = sandbox.dir("closed");
    chmod(&closed, 0o700);
    let (out, handler) = (sandbox.open_dir("out"), sandbox.handler("handler").create());
    for managed in [false, true] {
        let report = out.join(format!("report-{managed}"));
        let start = sandbox.vsrun().user("nobody").current_dir(&closed);
        let start = if managed {
            start.manager(sandbox.path("manager"), &handler)
        } else {
            start
        };
        let server = sandbox.probe().report(&report).exit(0);
        start.command(server).run().expect_code(0);
        assert_eq!(Report::wait(report).uids.effective, NOBODY);
    }
}

#[test]
fn the_directory_of_the_start_may_be_one_that_the_caller_cannot_enter() {
    needs!(root);
    let sandbox = sandbox();
    let closed = sandbox.dir("closed");
    chmod(&closed, 0o700);
    let (out, handler) = (sandbox.open_dir("out"), sandbox.handler("handler").create());
    for managed in [false, true] {
        let report = out.join(format!("report-{managed}"));
        let start = sandbox
            .vsrun()
            .run_as(NOBODY, NOBODY, &[])
            .current_dir(&closed);
        let start = if managed {
            start.manager(out.join("manager"), &handler)
        } else {
            start
        };
        start
            .command(sandbox.probe().report(&report).exit(0))
            .run()
            .expect_code(0);
        assert_eq!(Report::wait(report).cwd.as_ref(), Some(&closed));
    }
}

#[test]
fn a_work_dir_that_only_the_user_may_enter_is_entered_as_the_user() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let private = sandbox.dir_of("private", NOBODY, NOBODY);
    chmod(&private, 0o700);
    let report = private.join("report");
    let caps = "-dac_override,-dac_read_search";
    let start = sandbox
        .program("/usr/bin/setpriv")
        .args(["--bounding-set", caps]);
    let start = start.args(["--inh-caps", caps, "--", VSRUN]);
    let server = sandbox.probe().report(&report).exit(0);
    start
        .user("nobody")
        .work_dir(&private)
        .command(server)
        .run()
        .expect_code(0);
    assert_eq!(Report::wait(report).cwd, Some(private));
}

#[test]
fn with_a_log_directory_closed_to_the_user_the_server_starts_at_the_root() {
    needs!(root);
    let sandbox = sandbox();
    let out = sandbox.open_dir("out");
    let handler = sandbox.handler("handler").exits(1).create();
    for closed in ["logs", "private/logs"] {
        let report = out.join("report");
        fs::remove_file(&report).ok();
        if closed.contains('/') {
            sandbox.dir("private");
        }
        let logs = sandbox.dir(closed);
        let private = sandbox.path(Path::new(closed).components().next().expect("a name"));
        chmod(private, 0o700);
        let count = handler.runs().len();
        let start = sandbox
            .vsrun()
            .user("nobody")
            .logdir(&logs, "1d")
            .manager("manager", &handler);
        start
            .command(sandbox.probe().report(&report).exit(3))
            .run()
            .expect_code(3);
        assert_eq!(
            Report::wait(report).cwd.as_deref(),
            Some(Path::new("/")),
            "{closed}"
        );
        let run = handler.wait_for_run(count + 1);
        assert_eq!(
            run.env("VSRUN_SERVER_WORKDIR"),
            Some(OsStr::new("/")),
            "{closed}"
        );
        assert_eq!(run.cwd, Path::new("/"), "{closed}");
    }
}

/// Expects the same line from the server's start in each of the four ways, and no server.
#[track_caller]
fn stage_fails(line: &str, with: impl Fn(Invocation<'_>) -> Invocation<'_>) {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let ran = sandbox.open_dir("out").join("ran");
    for (background, managed) in WAYS {
        let mut start = with(sandbox.vsrun()).pidfile(sandbox.path("pid"));
        if background {
            start = start.background();
        }
        if managed {
            start = start.manager(sandbox.path("manager"), &handler);
        }
        let server = sandbox.probe().append(&ran).exit(0);
        start.command(server).run().expect_error(125, line);
        for left in ["pid", "manager", "manager.lock", "out/ran"] {
            assert!(!sandbox.path(left).exists(), "'{left}' is there");
        }
    }
}

#[test]
fn a_work_dir_that_cannot_be_entered_is_named_with_its_stage() {
    let line = "vsrun: cannot change directory to '/no/such/dir': No such file or directory";
    stage_fails(line, |start| start.work_dir("/no/such/dir"));
    let line = "vsrun: cannot change directory to '/etc/passwd': Not a directory";
    stage_fails(line, |start| start.work_dir("/etc/passwd"));
}

#[test]
fn a_root_that_cannot_be_changed_to_is_named_with_its_stage() {
    needs!(root);
    let line = "vsrun: cannot change root to '/no/such/dir': No such file or directory";
    stage_fails(line, |start| start.root("/no/such/dir"));
    let line = "vsrun: cannot change root to '/etc/passwd': Not a directory";
    stage_fails(line, |start| start.root("/etc/passwd"));
}

/// A directory that only root may enter, and in it one with a mode for every user.
fn closed(sandbox: &Sandbox) -> std::path::PathBuf {
    let closed = sandbox.dir("closed");
    sandbox.dir("closed/open");
    sandbox.file("closed/open/file", "precious\n");
    chmod(&closed, 0o700);
    closed.join("open")
}

#[test]
fn a_server_can_use_the_callers_directory_where_its_path_is_closed() {
    needs!(root);
    let sandbox = sandbox();
    let open = closed(&sandbox);
    let cat = |file: &Path| ["/bin/cat".into(), file.to_owned()];
    let start = || sandbox.vsrun().user("nobody").current_dir(&open);
    let whole = start().command(cat(&open.join("file"))).run();
    assert!(
        whole.stderr_text().contains("Permission denied"),
        "{whole:?}"
    );
    assert_eq!(
        start().command(cat(Path::new("file"))).run().stdout_text(),
        "precious\n"
    );
    let elsewhere = start().work_dir("/").command(cat(Path::new("file"))).run();
    assert_eq!(elsewhere.stdout_text(), "");
}

#[test]
fn a_link_as_work_dir_or_root_is_followed_with_the_permissions_of_root() {
    needs!(root);
    let sandbox = sandbox();
    let open = closed(&sandbox);
    sandbox.dir_of("home", NOBODY, NOBODY);
    let link = sandbox.link("home/work", &open);
    give(&link);
    let start = || sandbox.vsrun().user("nobody");
    let shown = start().work_dir(&link).command(["/bin/cat", "file"]).run();
    assert_eq!(shown.stdout_text(), "precious\n");
    sandbox.root("closed/open/root");
    let root = sandbox.link("home/root", open.join("root"));
    give(&root);
    let server = Probe::at("/bin/probe").report("/tmp/report").exit(0);
    start().root(&root).command(server).run().expect_code(0);
    assert!(open.join("root/tmp/report").exists());
}

#[test]
fn a_link_in_place_of_the_callers_directory_is_not_followed() {
    needs!(root);
    let sandbox = sandbox();
    let open = closed(&sandbox);
    sandbox.dir_of("home", NOBODY, NOBODY);
    let work = sandbox.dir_of("home/work", NOBODY, NOBODY);
    let starts = sandbox.open_dir("out").join("starts");
    let start = sandbox
        .vsrun()
        .user("nobody")
        .manager(sandbox.path("manager"), CONSENT);
    let server = sandbox.probe().append(&starts);
    let manager = start.current_dir(&work).command(server).spawn();
    assert_eq!(
        started_in(&sandbox, "out/starts", 1).cwd().as_ref(),
        Some(&work)
    );
    fs::rename(&work, sandbox.path("home/moved")).expect("its owner may move it");
    let link = sandbox.link("home/work", &open);
    give(&link);
    manager.signal(SIGHUP);
    assert_eq!(
        started_in(&sandbox, "out/starts", 2).cwd().as_deref(),
        Some(Path::new("/"))
    );
    stop(manager);
}
