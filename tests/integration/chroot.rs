//! The new root: what is looked up outside, what inside, and where the server
//! starts (spec 1.3, `-r` and `-w`).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::prelude::*;

/// A sandbox with a root directory `jail` in it.
fn with_jail() -> Sandbox {
    let sandbox = sandbox();
    sandbox.root("jail");
    sandbox
}

/// The server inside; it is linked statically and needs nothing else.
fn server() -> Probe {
    Probe::at("/bin/probe").report("/tmp/report").exit(0)
}

#[track_caller]
fn seen(sandbox: &Sandbox, start: Invocation<'_>) -> Report {
    let report = sandbox.path("jail/tmp/report");
    fs::remove_file(&report).ok();
    start.run().expect_code(0);
    Report::wait(report)
}

#[test]
fn a_statically_linked_server_runs_in_a_bare_root() {
    needs!(root);
    let sandbox = with_jail();
    let start = sandbox.vsrun().root(sandbox.path("jail"));
    let pidfile = sandbox.path("pid");
    let running = start
        .pidfile(&pidfile)
        .command(Probe::at("/bin/probe").append("/tmp/s"))
        .spawn();
    wait_for("the server", || sandbox.lines("jail/tmp/s").len() == 1);
    assert_eq!(running.process().root(), Some(sandbox.path("jail")));
    assert_eq!(
        running.process().exe(),
        Some(sandbox.path("jail/bin/probe"))
    );
    assert_eq!(sandbox.read_pidfile(pidfile), Some(running.pid()));
}

/// The reason in the error about a program that does not exist inside the root `jail`.
fn missing_inside(sandbox: &Sandbox) -> String {
    let jail = sandbox.path("jail");
    format!(
        "No such file or directory inside the new root '{}'",
        jail.display()
    )
}

#[test]
fn a_missing_loader_and_a_missing_server_have_different_errors() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.copy_of("/bin/true", "jail/bin/true");
    let start = |command| sandbox.vsrun().root("jail").command([command]).run();
    let line = |what| format!("vsrun: cannot {what}: {}", missing_inside(&sandbox));
    start("/bin/true").expect_error(127, &line("find the interpreter of command '/bin/true'"));
    start("/bin/false").expect_error(127, &line("execute command '/bin/false'"));
}

#[test]
fn standard_input_is_the_null_device_that_was_opened_outside() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.file("jail/dev/null", "not a device");
    let report = seen(&sandbox, sandbox.vsrun().root("jail").command(server()));
    assert_eq!(report.fds[&0], Path::new("/dev/null"));
    assert_eq!(report.fd_numbers(), [0, 1, 2]);
}

#[test]
fn without_a_work_dir_the_server_starts_at_the_new_root() {
    needs!(root);
    let sandbox = with_jail();
    let inside = sandbox.path("jail/tmp");
    for start in [sandbox.vsrun(), sandbox.vsrun().current_dir(&inside)] {
        let report = seen(&sandbox, start.root(sandbox.path("jail")).command(server()));
        assert_eq!(report.cwd.as_deref(), Some(Path::new("/")));
    }
}

#[test]
fn no_descriptor_of_a_directory_outside_is_left() {
    needs!(root);
    let sandbox = with_jail();
    let outside = fs::File::open("/etc").expect("a directory");
    let start = sandbox.vsrun().inheriting(9, outside).root("jail");
    let start = start
        .logdir(sandbox.path("logs"), "1")
        .pidfile(sandbox.path("pid"));
    let report = seen(&sandbox, start.command(server()));
    assert_eq!(report.fd_numbers(), [0, 1, 2]);
}

#[test]
fn every_spelling_of_a_work_dir_is_inside_the_new_root() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/srv");
    sandbox.dir("srv");
    for (typed, expected) in [
        ("/srv", "/srv"),
        ("srv", "/srv"),
        ("./srv/", "/srv"),
        (".", "/"),
        ("/", "/"),
        ("..", "/"),
        ("/../../../../srv", "/srv"),
        ("../../../../../..", "/"),
    ] {
        let start = sandbox
            .vsrun()
            .root("jail")
            .work_dir(typed)
            .command(server());
        assert_eq!(
            seen(&sandbox, start).cwd.as_deref(),
            Some(Path::new(expected)),
            "{typed}"
        );
        let start = sandbox
            .vsrun()
            .work_dir(typed)
            .root("jail")
            .command(server());
        assert_eq!(
            seen(&sandbox, start).cwd.as_deref(),
            Some(Path::new(expected)),
            "{typed}"
        );
    }
}

#[test]
fn a_link_to_a_directory_outside_cannot_be_followed_inside() {
    needs!(root);
    let sandbox = with_jail();
    let outside = sandbox.dir("outside");
    symlink(&outside, sandbox.path("jail/link")).expect("a link");
    let start = sandbox
        .vsrun()
        .root("jail")
        .work_dir("/link")
        .command(server());
    let line = "vsrun: cannot change directory to '/link': No such file or directory";
    start.run().expect_error(125, line);
}

#[test]
fn a_work_dir_that_exists_only_outside_is_an_error() {
    needs!(root);
    let sandbox = with_jail();
    let outside = sandbox.dir("outside");
    let start = sandbox
        .vsrun()
        .root("jail")
        .work_dir(&outside)
        .command(server());
    let line = format!(
        "vsrun: cannot change directory to '{}': No such file or directory",
        outside.display()
    );
    start.run().expect_error(125, &line);
}

#[test]
fn the_command_is_searched_for_on_the_path_inside() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/opt");
    sandbox.copy_of(sandbox.path("jail/bin/probe"), "jail/opt/server");
    let typed = || Probe::at("server").report("/tmp/report").exit(0);
    let start = || sandbox.vsrun().root("jail");
    let report = seen(&sandbox, start().env("PATH", "/no:/opt").command(typed()));
    assert_eq!(report.args[0], "server");
    // Relative parts of PATH begin at the new root, and so does nothing outside.
    seen(&sandbox, start().env("PATH", "opt").command(typed()));
    let outside = sandbox.path("jail/opt");
    let missing = missing_inside(&sandbox).replace("directory inside", "directory on PATH inside");
    let line = format!("vsrun: cannot execute command 'server': {missing}");
    start()
        .env("PATH", outside)
        .command(typed())
        .run()
        .expect_error(127, &line);
}

#[test]
fn a_command_that_exists_only_outside_is_not_found() {
    needs!(root);
    let sandbox = with_jail();
    let handler = sandbox.handler("handler").create();
    for (command, line) in [
        (
            "true",
            missing_inside(&sandbox).replace("directory inside", "directory on PATH inside"),
        ),
        ("/bin/true", missing_inside(&sandbox)),
    ] {
        let line = format!("vsrun: cannot execute command '{command}': {line}");
        let start = || sandbox.vsrun().root("jail").pidfile(sandbox.path("pid"));
        for start in [
            start(),
            start().background(),
            start().manager(sandbox.path("manager"), &handler),
        ] {
            start.command([command]).run().expect_error(127, &line);
        }
    }
    assert!(!sandbox.path("pid").exists() && !sandbox.path("manager").exists());
}

#[test]
fn a_relative_command_begins_at_the_new_root() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/srv");
    for command in ["bin/probe", "./bin/probe", "../bin/probe"] {
        let typed = Probe::at(command).report("/tmp/report").exit(0);
        let start = sandbox.vsrun().root("jail").work_dir("/srv").command(typed);
        assert_eq!(seen(&sandbox, start).args[0], command);
    }
}

#[test]
fn users_and_groups_are_looked_up_outside() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/etc");
    sandbox.file(
        "jail/etc/passwd",
        "nobody:x:0:0::/evil:/evil\nfoo:x:0:0::/evil:/evil\n",
    );
    sandbox.file(
        "jail/etc/group",
        "nogroup:x:0:nobody\nfoo:x:0:foo\nroot:x:0:foo,nobody\n",
    );
    sandbox.file(
        "jail/etc/nsswitch.conf",
        "passwd: files evil\ngroup: files evil\n",
    );
    let start = || {
        let start = sandbox.vsrun().run_as(0, 0, &[0, 4]);
        let passwd = ["foo:x:5000:5001::/home/foo:/bin/fsh"];
        start.with_passwd(&passwd, &["bar:x:5002:foo"]).root("jail")
    };
    let report = seen(&sandbox, start().user("foo").command(server()));
    assert_eq!((report.uids, report.gids), (Ids::all(5000), Ids::all(5001)));
    assert_eq!(report.groups, [5001, 5002]);
    assert_eq!(report.env("HOME"), Some(OsStr::new("/home/foo")));
    let report = seen(&sandbox, start().user("nobody").command(server()));
    assert_eq!(
        (report.uids, report.gids),
        (Ids::all(NOBODY), Ids::all(NOBODY))
    );
    assert_eq!(report.groups, [NOBODY]);
}

#[test]
fn a_user_who_exists_only_inside_is_no_user() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/etc");
    sandbox.file("jail/etc/passwd", "insider:x:5000:5000::/:/bin/sh\n");
    let start = sandbox
        .vsrun()
        .root("jail")
        .user("insider")
        .command(server());
    start.run().expect_code(125);
    assert!(!sandbox.path("jail/tmp/report").exists());
}

#[test]
fn the_server_cannot_get_out_again() {
    needs!(root);
    let sandbox = with_jail();
    let report = seen(
        &sandbox,
        sandbox
            .vsrun()
            .root("jail")
            .user("nobody")
            .command(server()),
    );
    assert_eq!(
        (report.uids, report.gids),
        (Ids::all(NOBODY), Ids::all(NOBODY))
    );
    assert_eq!(report.cwd.as_deref(), Some(Path::new("/")));
}

#[test]
fn without_privilege_the_root_cannot_be_changed_and_nothing_is_left() {
    needs!(root);
    let sandbox = with_jail();
    let here = sandbox.dir_of("here", NOBODY, NOBODY);
    let jail = sandbox.path("jail");
    let handler = sandbox.handler("handler").create();
    let start = || {
        let start = sandbox
            .vsrun()
            .run_as(NOBODY, NOBODY, &[])
            .current_dir(&here);
        start.root(&jail).pidfile("pid").logdir("var/logs", "1")
    };
    let line = format!(
        "vsrun: cannot change root to '{}': Operation not permitted",
        jail.display()
    );
    for start in [
        start(),
        start().background(),
        start().manager("manager", &handler),
    ] {
        start.command(server()).run().expect_error(125, &line);
        assert_eq!(LogDirectory::at(&here).names(), [""; 0]);
    }
}

#[test]
fn a_root_of_any_bytes_works() {
    needs!(root);
    let sandbox = with_jail();
    let odd: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"jail \xff\n");
    fs::rename(sandbox.path("jail"), sandbox.path(odd)).expect("a directory");
    sandbox
        .vsrun()
        .root(odd)
        .command(server())
        .run()
        .expect_code(0);
    assert!(sandbox.path(odd).join("tmp/report").exists());
}

#[test]
fn a_root_that_is_a_link_is_followed() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.link("link", "jail");
    seen(&sandbox, sandbox.vsrun().root("link").command(server()));
}

#[test]
fn a_log_directory_inside_the_root_is_the_work_dir() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/var");
    let logs = sandbox.path("jail/var/logs");
    let start = sandbox
        .vsrun()
        .root("jail")
        .logdir(&logs, "1")
        .command(server());
    assert_eq!(seen(&sandbox, start).cwd, Some(PathBuf::from("/var/logs")));
    let start = sandbox
        .vsrun()
        .root("jail")
        .logdir("jail/var/logs", "1")
        .command(server());
    assert_eq!(seen(&sandbox, start).cwd, Some(PathBuf::from("/var/logs")));
    assert!(logs.join("logfile.1").exists() || logs.join("logfile").exists());
}

#[test]
fn a_log_directory_inside_a_root_that_is_a_link_is_the_work_dir() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.link("link", "jail");
    for (root, logs) in [
        ("link", "jail/logs"),
        ("jail", "link/logs"),
        ("link", "link/logs"),
    ] {
        let start = sandbox
            .vsrun()
            .root(root)
            .logdir(logs, "1")
            .command(server());
        assert_eq!(
            seen(&sandbox, start).cwd,
            Some(PathBuf::from("/logs")),
            "{root} {logs}"
        );
    }
}

#[test]
fn a_log_directory_outside_the_root_is_not_the_work_dir() {
    needs!(root);
    let sandbox = with_jail();
    // Its name begins like the root's.
    for logs in ["logs", "jail-logs", "jail/../logs"] {
        let start = sandbox
            .vsrun()
            .root("jail")
            .logdir(logs, "1")
            .command(server());
        assert_eq!(
            seen(&sandbox, start).cwd.as_deref(),
            Some(Path::new("/")),
            "{logs}"
        );
    }
}

#[test]
fn the_root_itself_may_be_the_log_directory() {
    needs!(root);
    let sandbox = with_jail();
    let start = sandbox
        .vsrun()
        .root("jail")
        .logdir("jail", "1")
        .command(server());
    assert_eq!(seen(&sandbox, start).cwd.as_deref(), Some(Path::new("/")));
    assert!(sandbox.path("jail/logfile").exists());
}

#[test]
fn the_work_dir_wins_over_a_log_directory_inside_the_root() {
    needs!(root);
    let sandbox = with_jail();
    let start = sandbox
        .vsrun()
        .root("jail")
        .logdir("jail/logs", "1")
        .work_dir("/tmp");
    assert_eq!(
        seen(&sandbox, start.command(server())).cwd,
        Some(PathBuf::from("/tmp"))
    );
}

#[test]
fn output_goes_to_a_log_directory_outside_the_root() {
    needs!(root);
    let sandbox = with_jail();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let start = sandbox
        .vsrun()
        .root("jail")
        .user("nobody")
        .logdir(&logs, "1");
    start
        .command(Probe::at("/bin/probe").out("out").err("err").exit(0))
        .run()
        .expect_code(0);
    assert_eq!(logs.server(), "out\nerr\n");
}

#[test]
fn pidfiles_are_written_outside() {
    needs!(root);
    let sandbox = with_jail();
    let handler = sandbox.handler("handler").create();
    let running = sandbox
        .vsrun()
        .root("jail")
        .pidfile("tmp-pid")
        .manager("manager", &handler)
        .command(Probe::at("/bin/probe"))
        .spawn();
    let server = sandbox.wait_for_pidfile(sandbox.path("tmp-pid"));
    wait_for("the change of root", || {
        server.root() == Some(sandbox.path("jail"))
    });
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("manager")),
        Some(running.pid())
    );
    assert_eq!(running.process().root().as_deref(), Some(Path::new("/")));
}

#[test]
fn every_restart_is_inside_the_root() {
    needs!(root);
    let sandbox = with_jail();
    sandbox.dir("jail/srv");
    let handler = sandbox.handler("handler").create();
    let server = Probe::at("/bin/probe")
        .append("/tmp/starts")
        .only_first(1)
        .exit(1);
    let start = sandbox
        .vsrun()
        .root("jail")
        .work_dir("srv")
        .user("nobody")
        .pidfile("pid");
    let running = start.manager("manager", &handler).command(server).spawn();
    wait_for("the second start", || {
        sandbox.lines("jail/tmp/starts").len() == 2
    });
    running.signal(SIGHUP);
    wait_for("the third start", || {
        sandbox.lines("jail/tmp/starts").len() == 3
    });
    let server = sandbox.wait_for_pidfile(sandbox.path("pid"));
    assert_eq!(server.root(), Some(sandbox.path("jail")));
    assert_eq!(server.cwd(), Some(sandbox.path("jail/srv")));
    assert_eq!(
        server.status().map(|status| status.uids),
        Some(Ids::all(NOBODY))
    );
    stop(running);
}

#[test]
fn the_manuals_example_works() {
    needs!(root);
    let sandbox = with_jail();
    let words = ["-b", "-r", "jail", "-w", "/", "-u", "nobody"];
    let start = sandbox.vsrun().args(words).env("PATH", "/bin");
    start
        .command(Probe::at("probe").report("/tmp/report"))
        .run()
        .expect_code(0);
    let report = Report::wait(sandbox.path("jail/tmp/report"));
    assert_eq!(report.cwd.as_deref(), Some(Path::new("/")));
    assert_eq!((report.uids, report.terminal), (Ids::all(NOBODY), false));
}

#[test]
fn a_root_does_not_confine_a_server_that_runs_as_root() {
    needs!(root, "python3");
    let sandbox = sandbox();
    let (jail, deeper) = (sandbox.dir("jail"), sandbox.dir("deeper"));
    let escape = "import os, sys
before = os.path.exists('/proc/self')
os.chroot(sys.argv[1])
for _ in range(100):
    os.chdir('..')
os.chroot('.')
print(before, os.path.exists('/proc/self'))
";
    let words = [PYTHON, "-c", escape, deeper.to_str().expect("a plain path")];
    // What lies under the root is the machine's own, except what is mounted there.
    let start = || sandbox.vsrun().bind("/", &jail).root(&jail);
    let escaped = start().command(words).run();
    assert_eq!(escaped.stdout_text(), "False True\n", "{escaped:?}");
    let kept = start().user("nobody").command(words).run();
    assert!(
        kept.stderr_text().contains("Operation not permitted"),
        "{kept:?}"
    );
}
