//! Who the server is: `-u` in all its forms, with privilege and without
//! (spec 1.3).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::prelude::*;

/// A login name, a user and a group of the machine that a test starts vsrun on.
const FOO: &str = "foo:x:5000:5001:Foo:/home/foo:/bin/fsh";
const FOO_GROUPS: [&str; 4] = [
    "foo:x:5001:",
    "bar:x:5002:foo,other",
    "baz:x:5003:other",
    "qux:x:5004:other,foo",
];

/// Runs a server and returns what it saw.
#[track_caller]
fn seen(sandbox: &Sandbox, start: Invocation<'_>) -> Report {
    let out = sandbox.path("out");
    if !out.exists() {
        sandbox.open_dir("out");
    }
    let report = out.join("report");
    fs::remove_file(&report).ok();
    start
        .command(sandbox.probe().report(&report).exit(0))
        .run()
        .expect_code(0);
    Report::wait(report)
}

/// A server that must not run.
fn forbidden(sandbox: &Sandbox) -> Probe {
    if !sandbox.path("forbidden").exists() {
        sandbox.open_dir("forbidden");
    }
    sandbox
        .probe()
        .append(sandbox.path("forbidden/ran"))
        .exit(0)
}

/// Checks that a start was refused in one line and left nothing at all.
#[track_caller]
fn is_refused(sandbox: &Sandbox, start: Invocation<'_>) -> String {
    let handler = match sandbox.path("handler").exists() {
        true => sandbox.path("handler"),
        false => sandbox.handler("handler").create().path().to_owned(),
    };
    let start = start
        .pidfile(sandbox.path("pid"))
        .logdir(sandbox.path("var/logs"), "1");
    let start = start.manager(sandbox.path("manager"), handler);
    let outcome = start.command(forbidden(sandbox)).run();
    outcome.expect_code(125);
    let line = outcome.stderr_text();
    assert!(
        line.starts_with("vsrun: cannot ") && line.lines().count() == 1,
        "{line:?}"
    );
    for left in ["forbidden/ran", "pid", "var", "manager", "manager.lock"] {
        assert!(!sandbox.path(left).exists(), "'{left}' is there");
    }
    line
}

#[track_caller]
fn is(report: &Report, uid: u32, gid: u32, groups: &[u32]) {
    assert_eq!((report.uids, report.gids), (Ids::all(uid), Ids::all(gid)));
    assert_eq!(report.groups, groups);
}

#[test]
fn the_server_runs_as_the_user_with_the_users_groups_and_no_others() {
    needs!(root);
    let sandbox = sandbox();
    for groups in [&[][..], &[0, 4, 27], &[0, 5003]] {
        let start = sandbox
            .vsrun()
            .with_passwd(&[FOO], &FOO_GROUPS)
            .run_as(0, 0, groups);
        let report = seen(&sandbox, start.user("foo"));
        is(&report, 5000, 5001, &[5001, 5002, 5004]);
    }
}

#[test]
fn home_user_logname_and_shell_are_the_users() {
    needs!(root);
    let sandbox = sandbox();
    let start = sandbox.vsrun().with_passwd(&[FOO], &FOO_GROUPS);
    let start = start
        .env("HOME", "/root")
        .env("USER", "root")
        .env("SHELL", "/bin/rootsh");
    let report = seen(&sandbox, start.user("foo"));
    let pairs = [
        ("HOME", "/home/foo"),
        ("USER", "foo"),
        ("LOGNAME", "foo"),
        ("SHELL", "/bin/fsh"),
    ];
    for (name, value) in pairs {
        assert_eq!(report.env(name), Some(OsStr::new(value)));
        let prefix = format!("{name}=");
        let count = report
            .env
            .iter()
            .filter(|it| it.as_bytes().starts_with(prefix.as_bytes()));
        assert_eq!(count.count(), 1, "{:?}", report.env);
    }
}

#[test]
fn without_a_user_identity_and_environment_stay_the_callers() {
    needs!(root);
    let sandbox = sandbox();
    let start = sandbox
        .vsrun()
        .run_as(NOBODY, 7, &[4, 27])
        .env("HOME", "/callers");
    let report = seen(&sandbox, start);
    is(&report, NOBODY, 7, &[4, 27]);
    assert_eq!(
        (report.env("HOME"), report.env("USER")),
        (Some(OsStr::new("/callers")), None)
    );
}

#[test]
fn a_numeric_id_stands_for_its_user() {
    needs!(root);
    let sandbox = sandbox();
    let start = sandbox
        .vsrun()
        .with_passwd(&[FOO], &FOO_GROUPS)
        .run_as(0, 0, &[0, 4]);
    let report = seen(&sandbox, start.user("5000"));
    is(&report, 5000, 5001, &[5001, 5002, 5004]);
    assert_eq!(report.env("USER"), Some(OsStr::new("foo")));
    assert_eq!(report.env("HOME"), Some(OsStr::new("/home/foo")));
}

#[test]
fn a_name_made_of_digits_comes_before_the_number() {
    needs!(root);
    let sandbox = sandbox();
    let users = [
        "4711:x:5000:5001::/:/bin/sh",
        "other:x:4711:5002::/:/bin/sh",
    ];
    let start = sandbox.vsrun().with_passwd(&users, &[]).user("4711");
    assert_eq!(seen(&sandbox, start).uids, Ids::all(5000));
}

#[test]
fn a_group_name_made_of_digits_comes_before_the_number() {
    needs!(root);
    let sandbox = sandbox();
    let groups = ["4711:x:5002:", "other:x:4711:"];
    let start = sandbox
        .vsrun()
        .with_passwd(&[FOO], &groups)
        .user("foo:4711");
    assert_eq!(seen(&sandbox, start).gids, Ids::all(5002));
}

#[test]
fn a_group_after_a_colon_is_the_primary_group() {
    needs!(root);
    let sandbox = sandbox();
    for user in ["foo:baz", "foo:5003", "5000:baz", "5000:5003"] {
        let start = sandbox
            .vsrun()
            .with_passwd(&[FOO], &FOO_GROUPS)
            .run_as(0, 0, &[0, 4]);
        let report = seen(&sandbox, start.user(user));
        assert_eq!(
            (report.uids, report.gids),
            (Ids::all(5000), Ids::all(5003)),
            "{user}"
        );
        // Still the user's own: those that the group file names the user in.
        assert!(
            [5002, 5004]
                .iter()
                .all(|group| report.groups.contains(group)),
            "{user}"
        );
        assert!(
            ![0, 4].iter().any(|group| report.groups.contains(group)),
            "{user}"
        );
    }
}

#[test]
fn a_number_without_a_user_runs_with_the_group_that_is_given() {
    needs!(root);
    let sandbox = sandbox();
    let start = sandbox
        .vsrun()
        .run_as(0, 0, &[0, 4, 27])
        .env("HOME", "/root")
        .env("USER", "root");
    let report = seen(&sandbox, start.user("54321:54322"));
    is(&report, 54321, 54322, &[54322]);
    assert_ne!(report.env("HOME"), Some(OsStr::new("/root")));
    assert_ne!(report.env("USER"), Some(OsStr::new("root")));
}

#[test]
fn the_highest_id_but_one_is_an_id() {
    needs!(root);
    let sandbox = sandbox();
    let report = seen(&sandbox, sandbox.vsrun().user("4294967294:4294967294"));
    assert_eq!(
        (report.uids, report.gids),
        (Ids::all(u32::MAX - 1), Ids::all(u32::MAX - 1))
    );
}

#[test]
fn a_user_of_very_many_groups_has_them_all() {
    needs!(root);
    let sandbox = sandbox();
    let lines: Vec<String> = (0..1000)
        .map(|number| format!("g{number}:x:{}:foo", 20_000 + number))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let report = seen(
        &sandbox,
        sandbox.vsrun().with_passwd(&[FOO], &lines).user("foo"),
    );
    let expected: Vec<u32> = [5001].into_iter().chain(20_000..21_000).collect();
    assert_eq!(report.groups, expected);
}

#[test]
fn what_is_neither_a_user_nor_a_whole_number_never_runs_a_server() {
    let sandbox = sandbox();
    let strings = [
        "",
        " ",
        "0day",
        "0x0",
        "0X10",
        "4foo",
        "-1",
        "-0",
        "+0",
        "00",
        "0 ",
        " 0",
        "0\n",
        "\n0",
        "0\t",
        "1e3",
        "0.0",
        "4294967295",
        "4294967296",
        "99999999999",
        "18446744073709551616",
        "no-such-user",
        "../root",
        "/root",
        "root ",
        " root",
        "root\n",
        "ROOT",
        "root,root",
        "*",
        "٠",
        "０",
        "root.root",
        "#0",
        "@0",
    ];
    for user in strings {
        let line = is_refused(&sandbox, sandbox.vsrun().user(user));
        let shown = user.replace('\n', "\\n").replace('\t', "\\t");
        assert!(line.contains(&format!("'{shown}'")), "{user:?}: {line}");
    }
    let odd = OsStr::from_bytes(b"root\xff");
    let line = is_refused(&sandbox, sandbox.vsrun().user(odd));
    assert!(line.contains(r"'root\xff'"), "{line}");
    is_refused(&sandbox, sandbox.vsrun().user("x".repeat(100_000)));
}

#[test]
fn what_is_neither_a_group_nor_a_whole_number_never_runs_a_server() {
    let sandbox = sandbox();
    let strings = [
        "root:",
        ":",
        ":root",
        ":0",
        "root:0day",
        "root:0x0",
        "root:-1",
        "root:+0",
        "root:00",
        "root: 0",
        "root:0 ",
        "root:0\n",
        "root:4294967295",
        "root:4294967296",
        "root::",
        "root::0",
        "root:0:0",
        "root:no-such-group",
        "no-such-user:root",
        "0day:0",
        "-1:0",
        "4294967295:0",
        "0:4294967295",
    ];
    for user in strings {
        is_refused(&sandbox, sandbox.vsrun().user(user));
    }
}

#[test]
fn a_start_does_not_wait_for_a_child_that_cannot_be_killed() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let pidfile = sandbox.dir("run").join("pid");
    let errors = UnixStream::pair().expect("a socket");
    // No line can be written to a file, so the pidfile cannot be written.
    let start = sandbox
        .program("/usr/bin/setpriv")
        .limit(Resource::RLIMIT_FSIZE, 0, 0);
    let start = start.args(["--bounding-set", "-kill", "--inh-caps", "-kill", "--"]);
    let start = start.arg(VSRUN).background().user("nobody");
    let start = start.pidfile(&pidfile).stderr(OwnedFd::from(errors.0));
    start.command(forbidden(&sandbox)).run().expect_code(125);
    let mut line = String::new();
    (&errors.1).read_to_string(&mut line).expect("text");
    let path = pidfile.display();
    assert_eq!(
        line,
        format!("vsrun: cannot write pidfile '{path}': File too large\n")
    );
    assert!(!pidfile.exists());
}

#[test]
fn root_without_privilege_over_ids_is_refused_before_anything_else() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let start = sandbox
        .program("/usr/bin/setpriv")
        .args(["--bounding-set", "-setuid,-setgid"]);
    let start = start.args(["--inh-caps", "-setuid,-setgid", "--"]);
    let line = is_refused(&sandbox, start.arg(VSRUN).user("nobody"));
    assert_eq!(
        line,
        "vsrun: cannot change to user 'nobody': Operation not permitted\n"
    );
}

#[test]
fn another_user_without_privilege_is_refused_before_anything_else() {
    needs!(root);
    let sandbox = sandbox();
    let here = sandbox.open_dir("here");
    let handler = sandbox.handler("handler").create();
    for user in [
        "root",
        "0",
        "daemon",
        "nobody:daemon",
        "nobody:0",
        "54321:54322",
    ] {
        let start = sandbox
            .vsrun()
            .run_as(NOBODY, NOBODY, &[])
            .current_dir(&here);
        let start = start.user(user).pidfile("pid").logdir("logs", "1");
        let outcome = start
            .manager("manager", &handler)
            .command(forbidden(&sandbox))
            .run();
        let line = format!("vsrun: cannot change to user '{user}': Operation not permitted");
        outcome.expect_error(125, &line);
        assert_eq!(fs::read_dir(&here).expect("a directory").count(), 0);
    }
}

#[test]
fn an_ordinary_user_cannot_become_root() {
    let sandbox = sandbox();
    let start = if is_root() {
        sandbox.vsrun().run_as(NOBODY, NOBODY, &[])
    } else {
        sandbox.vsrun()
    };
    let outcome = start.user("root").command(forbidden(&sandbox)).run();
    outcome.expect_error(
        125,
        "vsrun: cannot change to user 'root': Operation not permitted",
    );
}

#[test]
fn the_callers_own_id_works_without_privilege() {
    needs!(root);
    let sandbox = sandbox();
    for user in ["nobody", "65534", "nobody:nogroup", "65534:65534"] {
        let start = sandbox
            .vsrun()
            .run_as(NOBODY, NOBODY, &[])
            .env("HOME", "/callers");
        let report = seen(&sandbox, start.user(user));
        assert_eq!(
            (report.uids, report.gids),
            (Ids::all(NOBODY), Ids::all(NOBODY)),
            "{user}"
        );
        assert_eq!(report.env("USER"), Some(OsStr::new("nobody")));
        assert_eq!(report.env("HOME"), Some(OsStr::new("/nonexistent")));
    }
}

#[test]
fn the_callers_own_id_works_under_a_manager_with_files() {
    needs!(root);
    let sandbox = sandbox();
    let here = sandbox.dir_of("here", NOBODY, NOBODY);
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox
        .vsrun()
        .run_as(NOBODY, NOBODY, &[])
        .current_dir(&here)
        .user("nobody");
    let start = start
        .pidfile("pid")
        .logdir("logs", "1")
        .manager("manager", &handler);
    start
        .command(sandbox.probe().out("out").exit(3))
        .run()
        .expect_code(3);
    assert_eq!(
        fs::read_to_string(here.join("logs/logfile")).expect("a log"),
        "out\n"
    );
    assert_eq!(handler.wait_for_run(1).status.uids, Ids::all(NOBODY));
}

#[test]
fn the_callers_own_number_works_without_an_entry() {
    needs!(root);
    let sandbox = sandbox();
    let start = || sandbox.vsrun().run_as(54321, 54322, &[]);
    for user in ["54321:54322", "54321"] {
        let report = seen(&sandbox, start().user(user));
        assert_eq!(
            (report.uids, report.gids),
            (Ids::all(54321), Ids::all(54322)),
            "{user}"
        );
    }
}

#[test]
fn the_callers_own_id_is_refused_where_the_groups_differ() {
    needs!(root);
    let sandbox = sandbox();
    let as_foo = |groups: &[u32]| {
        sandbox
            .vsrun()
            .with_passwd(&[FOO], &FOO_GROUPS)
            .run_as(5000, 5001, groups)
            .user("foo")
    };
    for groups in [&[0, 5002, 5004][..], &[5002], &[]] {
        let outcome = as_foo(groups).command(forbidden(&sandbox)).run();
        outcome.expect_code(125);
        assert!(
            outcome.stderr_text().contains("other supplementary groups"),
            "{outcome:?}"
        );
    }
    for groups in [&[5002, 5004][..], &[5001, 5002, 5004]] {
        is(&seen(&sandbox, as_foo(groups)), 5000, 5001, groups);
    }
    assert!(!sandbox.path("forbidden/ran").exists());
}

#[test]
fn the_callers_own_id_drops_its_capabilities() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let words = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+net_raw,+net_admin",
        "--ambient-caps=+net_raw,+net_admin",
        "--",
    ];
    let vsrun = sandbox.copy_of(VSRUN, "vsrun");
    let setpriv = sandbox.program("/usr/bin/setpriv").args(words).arg(vsrun);
    let sets = seen(&sandbox, setpriv.user("nobody"))
        .capabilities
        .expect("a /proc");
    assert_eq!(
        (
            sets.permitted,
            sets.effective,
            sets.inheritable,
            sets.ambient
        ),
        (0, 0, 0, 0)
    );
}

#[test]
fn a_group_of_very_many_members_does_not_hide_others() {
    needs!(root);
    let sandbox = sandbox();
    let large = format!(
        "large:x:5003:{}",
        vec!["a-member-with-a-long-name"; 60_000].join(",")
    );
    let groups = [&large, "behind:x:5006:"];
    let start = |user: &str| sandbox.vsrun().with_passwd(&[FOO], &groups).user(user);
    for (user, gid) in [
        ("foo:large", 5003),
        ("foo:behind", 5006),
        ("foo:5007", 5007),
    ] {
        is(&seen(&sandbox, start(user)), 5000, gid, &[gid]);
    }
}

#[test]
fn an_account_without_home_and_shell_has_the_root_directory_and_sh() {
    needs!(root);
    let sandbox = sandbox();
    let start = sandbox
        .vsrun()
        .with_passwd(&["bare:x:5000:5001:::"], &[])
        .user("bare");
    let report = seen(&sandbox, start);
    assert_eq!(report.env("HOME"), Some(OsStr::new("/")));
    assert_eq!(report.env("SHELL"), Some(OsStr::new("/bin/sh")));
}

#[test]
fn root_may_be_named_by_root() {
    needs!(root);
    let sandbox = sandbox();
    for user in ["root", "0", "root:root", "0:0"] {
        let start = sandbox.vsrun().run_as(0, 0, &[4, 27]).user(user);
        let report = seen(&sandbox, start);
        assert_eq!(
            (report.uids, report.gids),
            (Ids::all(0), Ids::all(0)),
            "{user}"
        );
        assert!(
            ![4, 27].iter().any(|group| report.groups.contains(group)),
            "{user}"
        );
    }
}

#[test]
fn a_server_of_another_user_has_no_capability() {
    needs!(root);
    let sandbox = sandbox();
    let report = seen(&sandbox, sandbox.vsrun().user("nobody"));
    let sets = report.capabilities.expect("a /proc");
    assert_eq!(
        (
            sets.permitted,
            sets.effective,
            sets.inheritable,
            sets.ambient
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(report.no_new_privs, Some(false));
}

#[test]
fn no_capability_survives_the_callers_securebits_and_ambient_set() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let words = [
        "--securebits=+no_setuid_fixup",
        "--inh-caps=+net_raw,+sys_admin,+setuid",
        "--ambient-caps=+net_raw,+sys_admin,+setuid",
        "--",
        VSRUN,
    ];
    let report = seen(
        &sandbox,
        sandbox
            .program("/usr/bin/setpriv")
            .args(words)
            .user("nobody"),
    );
    let sets = report.capabilities.expect("a /proc");
    assert_eq!(
        (
            sets.permitted,
            sets.effective,
            sets.inheritable,
            sets.ambient
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(report.uids, Ids::all(NOBODY));
}

#[test]
fn real_effective_and_saved_ids_are_all_the_users() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let words = ["--ruid=1", "--rgid=1", "--clear-groups", "--", VSRUN];
    let report = seen(
        &sandbox,
        sandbox
            .program("/usr/bin/setpriv")
            .args(words)
            .user("nobody"),
    );
    is(&report, NOBODY, NOBODY, &[NOBODY]);
}

#[test]
fn the_handler_runs_as_the_user_with_the_users_groups() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox
        .vsrun()
        .with_passwd(&[FOO], &FOO_GROUPS)
        .run_as(0, 0, &[0, 4, 27]);
    let start = start.user("foo").manager(sandbox.path("manager"), &handler);
    start.command(sandbox.probe().exit(1)).run().expect_code(1);
    let run = handler.wait_for_run(1);
    assert_eq!(
        (run.status.uids, run.status.gids),
        (Ids::all(5000), Ids::all(5001))
    );
    assert_eq!(run.status.groups, [5001, 5002, 5004]);
    let sets = run.status.capabilities;
    assert_eq!((sets.permitted, sets.inheritable, sets.ambient), (0, 0, 0));
    assert_eq!(run.env("HOME"), Some(OsStr::new("/home/foo")));
}

#[test]
fn the_manager_keeps_its_identity() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let out = sandbox.open_dir("out");
    let start = sandbox
        .vsrun()
        .user("nobody")
        .manager(sandbox.path("manager"), &handler);
    let running = start
        .command(sandbox.probe().append(out.join("starts")))
        .spawn();
    wait_for("the server", || sandbox.lines("out/starts").len() == 1);
    assert_eq!(
        running.process().status().map(|status| status.uids),
        Some(Ids::all(0))
    );
    stop(running);
}

#[test]
fn a_user_who_is_removed_still_owns_the_server_at_a_restart() {
    needs!(root);
    let sandbox = sandbox();
    let copy = |original: &str, line: &str| -> PathBuf {
        let name = original.replace('/', "-");
        let content = fs::read_to_string(original).expect("a file");
        sandbox.file(name, format!("{content}{line}\n"))
    };
    let (passwd, group) = (
        copy("/etc/passwd", FOO),
        copy("/etc/group", "bar:x:5002:foo"),
    );
    let handler = sandbox.handler("handler").exits(0).create();
    let (out, starts) = (sandbox.open_dir("out"), sandbox.path("out/starts"));
    let server = sandbox
        .probe()
        .report(out.join("report"))
        .append(&starts)
        .only_first(1);
    let running = sandbox
        .vsrun()
        .bind(&passwd, "/etc/passwd")
        .bind(&group, "/etc/group")
        .run_as(0, 0, &[0, 4])
        .user("foo")
        .manager(sandbox.path("manager"), &handler)
        .command(server.until(sandbox.path("die")).exit(1))
        .spawn();
    wait_for("the first start", || sandbox.lines(&starts).len() == 1);
    // The same files, which are mounted there: all users and groups are gone.
    fs::write(&passwd, "").expect("a file");
    fs::write(&group, "").expect("a file");
    fs::remove_file(out.join("report")).expect("the first report");
    sandbox.file("die", "");
    assert_eq!(handler.wait_for_run(1).status.groups, [5001, 5002]);
    wait_for("the second start", || sandbox.lines(&starts).len() == 2);
    is(&Report::wait(out.join("report")), 5000, 5001, &[5001, 5002]);
    fs::remove_file(out.join("report")).expect("the second report");
    running.signal(SIGHUP);
    is(&Report::wait(out.join("report")), 5000, 5001, &[5001, 5002]);
    stop(running);
}

#[test]
fn a_user_namespaces_root_may_start_a_server() {
    let sandbox = sandbox();
    sandbox.open_dir("out");
    for user in [None, Some("root"), Some("0"), Some("0:0")] {
        let start = sandbox.vsrun().user_namespace();
        let start = match user {
            Some(user) => start.user(user),
            None => start,
        };
        let report = seen(&sandbox, start);
        assert_eq!(
            (report.uids, report.gids),
            (Ids::all(0), Ids::all(0)),
            "{user:?}"
        );
    }
}

#[test]
fn an_ordinary_users_namespace_may_start_a_managed_server() {
    needs!(root);
    let sandbox = sandbox();
    let here = sandbox.dir_of("here", NOBODY, NOBODY);
    let handler = sandbox.handler("handler").exits(1).create();
    let start = sandbox
        .vsrun()
        .run_as(NOBODY, NOBODY, &[])
        .user_namespace()
        .current_dir(&here);
    let start = start
        .user("root")
        .pidfile("pid")
        .logdir("logs", "1")
        .manager("m", &handler);
    start
        .command(sandbox.probe().out("out").exit(3))
        .run()
        .expect_code(3);
    assert_eq!(
        fs::read_to_string(here.join("logs/logfile")).expect("a log"),
        "out\n"
    );
}

#[test]
fn a_user_that_a_namespace_cannot_have_is_refused_before_anything_else() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    // A file of that name would be refused next.
    let pidfile = sandbox.dir("pid");
    let start = || {
        sandbox
            .vsrun()
            .user_namespace()
            .user("daemon")
            .pidfile(&pidfile)
    };
    for start in [
        start(),
        start().background(),
        start().manager(sandbox.path("manager"), &handler),
    ] {
        let outcome = start.command(forbidden(&sandbox)).run();
        outcome.expect_code(125);
        let line = outcome.stderr_text();
        assert_eq!(
            line,
            "vsrun: cannot change to user 'daemon': Operation not permitted\n"
        );
        for left in ["forbidden/ran", "manager", "manager.lock"] {
            assert!(!sandbox.path(left).exists(), "'{left}' is there");
        }
    }
}

/// Runs vsrun with one system call failing in every process of it.
fn with_failing(sandbox: &Sandbox, call: &str, words: &[&str]) -> Outcome {
    let start = injecting(sandbox, &format!("{call}:error=EAGAIN"));
    start
        .args(words)
        .pidfile(sandbox.path("pid"))
        .command(forbidden(sandbox))
        .run()
}

#[test]
fn each_failing_step_of_a_change_of_user_is_named() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let handler = handler.path().to_str().expect("a plain path").to_owned();
    let manager = sandbox.path("manager");
    let manager = manager.to_str().expect("a plain path");
    for (call, doing) in [
        ("setgroups", "set the groups of user"),
        ("setresgid", "set the group of user"),
        ("setresuid", "change to user"),
        ("capset", "drop the capabilities of user"),
    ] {
        let ways: [&[&str]; 3] = [
            &["-u", "nobody"],
            &["-b", "-u", "nobody"],
            &["-u", "nobody", "-m", manager, &handler],
        ];
        for words in ways {
            let outcome = with_failing(&sandbox, call, words);
            outcome.expect_code(125);
            let line = outcome.stderr_text();
            assert!(
                line.starts_with(&format!("vsrun: cannot {doing} 'nobody': ")),
                "{line}"
            );
            assert_eq!(line.lines().count(), 1, "{line}");
            for left in ["forbidden/ran", "pid", "manager", "manager.lock"] {
                assert!(
                    !sandbox.path(left).exists(),
                    "{call} {words:?}: '{left}' is there"
                );
            }
        }
    }
}

#[test]
fn a_change_of_user_without_effect_is_detected() {
    needs!(root, "strace");
    let sandbox = sandbox();
    for call in ["setresuid", "setresgid"] {
        let start = injecting(&sandbox, &format!("{call}:retval=0"));
        let outcome = start.user("nobody").command(forbidden(&sandbox)).run();
        outcome.expect_code(125);
        let line = outcome.stderr_text();
        assert!(
            line.contains("'nobody'") && line.lines().count() == 1,
            "{line}"
        );
        assert!(!sandbox.path("forbidden/ran").exists());
    }
}

#[test]
fn a_user_with_too_many_processes_is_an_error() {
    needs!(root);
    let sandbox = sandbox();
    // Limits count by user, so it takes one that no other test has processes of.
    let uid = 1_000_000_000 + std::process::id();
    let user = OsString::from(format!("{uid}:{uid}"));
    let ready = sandbox.open_dir("out").join("ready");
    let occupy = || {
        sandbox
            .vsrun()
            .user(&user)
            .command(sandbox.probe().append(&ready))
            .spawn()
    };
    let _occupants = [occupy(), occupy()];
    wait_for("two processes of the user", || {
        sandbox.lines(&ready).len() == 2
    });
    let limited = sandbox.vsrun().limit(Resource::RLIMIT_NPROC, 1, 1);
    let outcome = limited.user(&user).command(forbidden(&sandbox)).run();
    assert!(
        matches!(outcome.code(), Some(125 | 126)),
        "{:?}",
        outcome.status
    );
    assert_eq!(outcome.stderr_text().lines().count(), 1);
    assert!(!sandbox.path("forbidden/ran").exists());
}

const PATH_LIKE: &str = "../x:x:5000:5001::/home/x:/bin/sh";

/// Privilege is a matter of capabilities, not of uid 0: issue 88716 of Rust's standard library,
/// which drops the groups only if the caller's uid is 0.
#[test]
fn a_caller_with_only_the_capabilities_leaves_none_of_its_groups() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let (vsrun, out) = (sandbox.copy_of(VSRUN, "vsrun"), sandbox.open_dir("out"));
    let words = [
        "--reuid=1",
        "--regid=1",
        "--groups=4,27",
        "--inh-caps=+setuid,+setgid",
        "--ambient-caps=+setuid,+setgid",
        "--",
    ];
    let start = sandbox
        .program("/usr/bin/setpriv")
        .args(words)
        .arg(vsrun)
        .user("nobody");
    let server = sandbox.probe().report(out.join("report")).exit(0);
    start.command(server).run().expect_code(0);
    let report = Report::wait(out.join("report"));
    assert_eq!(
        (report.uids, report.gids),
        (Ids::all(NOBODY), Ids::all(NOBODY))
    );
    assert_eq!(report.groups, [NOBODY]);
    let sets = report.capabilities.expect("a /proc");
    assert_eq!(
        (
            sets.permitted,
            sets.effective,
            sets.inheritable,
            sets.ambient
        ),
        (0, 0, 0, 0)
    );
}

/// A user's name in a path: CVE-2023-42456 of sudo-rs.
#[test]
fn no_path_is_built_from_a_user_name() {
    needs!(root, "strace");
    let sandbox = sandbox();
    let (out, trace) = (sandbox.open_dir("out"), sandbox.path("trace"));
    let strace = sandbox
        .program("/usr/bin/strace")
        .with_passwd(&[PATH_LIKE], &["bar:x:5002:../x"]);
    let strace = strace.args([
        "-f",
        "-qq",
        "-e",
        "trace=%file",
        "-e",
        "trace=!execve",
        "-o",
    ]);
    let start = strace.arg(&trace).arg(VSRUN).user("../x");
    let start = start
        .pidfile("pid")
        .manager("manager", "/bin/false")
        .logdir("logs", "1");
    let server = sandbox.probe().report(out.join("report")).exit(3);
    start.command(server).run().expect_code(3);
    let report = Report::wait(out.join("report"));
    assert_eq!(
        (report.uids, report.groups),
        (Ids::all(5000), vec![5001, 5002])
    );
    let calls = sandbox.lines(&trace);
    assert!(
        calls.iter().any(|call| call.contains("\"manager.lock\"")),
        "{calls:#?}"
    );
    let odd: Vec<_> = calls.iter().filter(|call| call.contains("../x")).collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

#[test]
fn the_server_has_none_of_an_unprivileged_callers_other_ids() {
    needs!(root, "setpriv");
    let sandbox = sandbox();
    let (vsrun, out) = (sandbox.copy_of(VSRUN, "vsrun"), sandbox.open_dir("out"));
    // As when a set-user-id program starts it.
    let words = [
        "--ruid=1",
        "--euid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let start = sandbox
        .program("/usr/bin/setpriv")
        .args(words)
        .arg(vsrun)
        .user("nobody");
    let report = out.join("report");
    let outcome = start.command(sandbox.probe().report(&report).exit(0)).run();
    if outcome.code() != Some(125) {
        outcome.expect_code(0);
        assert_eq!(Report::wait(report).uids, Ids::all(NOBODY));
    }
}

/// Prints what the session keyring of keyrings(7) holds that can be read.
const KEYS: &str = "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
KEYCTL, SEARCH, READ, SESSION = 250, 10, 11, -3
key = libc.syscall(KEYCTL, SEARCH, SESSION, b'user', b'vsrun-test', 0)
content = ctypes.create_string_buffer(64)
if key > 0 and libc.syscall(KEYCTL, READ, key, content, 64) > 0:
    print(content.value.decode())
";

/// Puts a key into a session keyring of its own, and executes the rest of its words.
const KEEPER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL, JOIN, SESSION = 248, 250, 1, -3
assert libc.syscall(KEYCTL, JOIN, None) > 0
assert libc.syscall(ADD_KEY, b'user', b'vsrun-test', b'precious', 8, SESSION) > 0
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
#[cfg(target_arch = "x86_64")]
fn a_server_of_another_user_cannot_read_the_keys_of_the_callers_session() {
    needs!(root, "python3");
    let sandbox = sandbox();
    let read = |words: &[&str]| {
        let keeper = sandbox.program(PYTHON).args(["-c", KEEPER]).args(words);
        let outcome = keeper.args([PYTHON, "-c", KEYS]).run();
        outcome.expect_code(0);
        outcome.stdout_text()
    };
    assert_eq!(read(&[]), "precious\n");
    for options in [&[][..], &["-p", "pid"]] {
        let vsrun = [&[VSRUN, "-u", "nobody"][..], options, &["--"]].concat();
        assert_eq!(read(&vsrun), "", "{options:?}");
    }
}
