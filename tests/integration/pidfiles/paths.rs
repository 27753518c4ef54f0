//! The directories in a pidfile's path.

use std::os::unix::fs::lchown;

use super::*;
use crate::prelude::*;

#[test]
fn links_that_only_root_or_the_caller_can_have_made_are_followed() {
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.dir("sub");
    sandbox.link("link", "run");
    sandbox.link("absolute", sandbox.path("link"));
    sandbox.link("sub/link", "../absolute");
    for path in [
        "link/pid",
        "absolute/pid",
        "sub/link/pid",
        "sub/../link/../absolute/pid",
    ] {
        let start = sandbox
            .vsrun()
            .pidfile(path)
            .manager("link/manager", handler(&sandbox));
        let server = sandbox
            .probe()
            .report("report")
            .pidfile(run.path().join("pid"))
            .exit(0);
        start.command(server).run().expect_code(0);
        let report = Report::wait(sandbox.path("report"));
        assert_eq!(
            report.pidfile,
            Some(format!("{}\n", report.pid).into()),
            "{path}"
        );
        assert_eq!(run.names(), [""; 0]);
    }
}

#[test]
fn a_link_in_the_path_that_another_user_can_have_made_is_refused() {
    needs!(root);
    let sandbox = sandbox();
    let run = run_dir(&sandbox);
    sandbox.open_dir("sticky");
    sandbox.dir_of("theirs", NOBODY, NOBODY);
    sandbox.dir("shared");
    chmod(sandbox.path("shared"), 0o777);
    sandbox.dir("group");
    chmod(sandbox.path("group"), 0o775);
    for directory in ["sticky", "theirs", "shared", "group"] {
        let link = sandbox.link(format!("{directory}/link"), run.path());
        // In a directory that others may write, they may have moved a link of root's there.
        if directory == "theirs" {
            give(&link);
        }
        let pidfile = link.join("pid");
        let start = sandbox
            .vsrun()
            .pidfile(&pidfile)
            .command(forbidden(&sandbox));
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
    needs!(root);
    let sandbox = sandbox();
    sandbox.dir("roots");
    sandbox.dir_of("mine", NOBODY, NOBODY);
    for (owner, code) in [(DAEMON, 125), (NOBODY, 0), (0, 0)] {
        let link = sandbox.link(format!("roots/{owner}"), "../mine");
        lchown(&link, Some(owner), Some(owner)).expect("an owner");
        let start = sandbox
            .vsrun()
            .run_as(NOBODY, NOBODY, &[])
            .pidfile(link.join("pid"));
        start.command(["/bin/true"]).run().expect_code(code);
    }
}

#[test]
fn a_loop_of_links_in_the_path_is_an_error() {
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
    needs!(root);
    let sandbox = sandbox();
    let sticky = LogDirectory::at(sandbox.open_dir("sticky"));
    let pidfile = sandbox.file("sticky/pid", "1\n");
    lchown(&pidfile, Some(DAEMON), Some(DAEMON)).expect("an owner");
    let start = sandbox
        .vsrun()
        .run_as(NOBODY, NOBODY, &[])
        .pidfile(&pidfile);
    is_refused(&start.command(["/bin/true"]).run(), &pidfile);
    assert_eq!(sandbox.read_pidfile(&pidfile), Some(1));
    assert_eq!(sticky.names(), ["pid"]);
}
