//! Words, variables, umask and limits of a server.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::prelude::*;

#[test]
fn the_server_is_given_the_name_that_was_typed() {
    let sandbox = sandbox();
    let program = sandbox.probe().words()[0].clone();
    let report = sandbox.path("report");
    for typed in ["probe", "./probe", program.to_str().expect("a plain path")] {
        fs::remove_file(&report).ok();
        let start = sandbox.vsrun().env("PATH", sandbox.directory());
        start
            .command(Probe::at(typed).report(&report).exit(0))
            .run()
            .expect_code(0);
        assert_eq!(Report::wait(&report).args[0], typed);
    }
}

#[test]
fn no_shell_is_involved() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let words = [
        "$(touch ran)",
        "`touch ran`",
        "; touch ran",
        "> ran",
        "*",
        "~",
    ];
    let server = sandbox.probe().report(&report).exit(0).carrying(words);
    sandbox.vsrun().command(server).run().expect_code(0);
    let args = Report::wait(report).args;
    assert_eq!(args[args.len() - words.len()..], words);
    assert!(!sandbox.path("ran").exists());
    let line = "vsrun: cannot execute command 'exit 0': No such file or directory on PATH; \
                it is one word, and no shell is involved";
    sandbox
        .vsrun()
        .command(["exit 0"])
        .run()
        .expect_error(127, line);
}

#[test]
fn a_script_is_run_by_its_interpreter() {
    let sandbox = sandbox();
    let script = sandbox.executable(
        "script",
        "#!/bin/sh -e\nprintf '<%s>' \"$0\" \"$@\"\nexit 3\n",
    );
    let outcome = sandbox
        .vsrun()
        .command([script.as_os_str(), "a b".as_ref(), "".as_ref()])
        .run();
    outcome.expect_code(3);
    assert_eq!(
        outcome.stdout_text(),
        format!("<{}><a b><>", script.display())
    );
}

#[test]
fn the_environment_is_the_callers() {
    let odd = OsString::from("one\ntwo = three");
    let reports = in_every_way(|start| {
        let start = start
            .env("ODD", &odd)
            .env("EMPTY", "")
            .env("HOME", "/callers")
            .env("A.b-c", "d");
        start.env("USER", "caller").env("PATH", "/bin:relative")
    });
    for report in reports {
        for (name, value) in [
            ("ODD", odd.as_os_str()),
            ("EMPTY", "".as_ref()),
            ("HOME", "/callers".as_ref()),
            ("USER", "caller".as_ref()),
            ("A.b-c", "d".as_ref()),
            ("PATH", "/bin:relative".as_ref()),
        ] {
            assert_eq!(report.env(name), Some(value), "{name}");
        }
        // And the sandbox's own.
        assert_eq!(report.env.len(), 7, "{:?}", report.env);
    }
}

#[test]
fn the_server_gets_no_variable_of_vsruns() {
    let reports = in_every_way(|start| {
        let start = start.env("VSRUN_SERVER_PID", "1").env("VSRUN_", "x");
        start.env("VSRUN_ANYTHING", "1").env("VSRUNNER", "stays")
    });
    for report in reports {
        let left = report
            .env
            .iter()
            .filter(|it| it.to_string_lossy().starts_with("VSRUN_"));
        assert_eq!(left.count(), 0, "{:?}", report.env);
        assert_eq!(report.env("VSRUNNER"), Some(OsStr::new("stays")));
    }
}

#[test]
fn the_umask_is_the_callers() {
    // Only root can read what is written under umask 0777.
    let masks = if is_root() {
        &[0, 0o027, 0o777][..]
    } else {
        &[0, 0o027]
    };
    for mask in masks.iter().copied() {
        for report in in_every_way(|start| start.umask(mask)) {
            assert_eq!(report.umask, mask);
        }
    }
}

#[test]
fn resource_limits_are_the_callers() {
    let reports = in_every_way(|start| {
        let start = start.limit(Resource::RLIMIT_NOFILE, 60, 70);
        start.limit(Resource::RLIMIT_CORE, 0, 4096)
    });
    for report in reports {
        assert_eq!(
            (report.limits["nofile"], report.limits["core"]),
            ((60, 70), (0, 4096))
        );
    }
}

#[test]
fn a_line_of_vsruns_that_meets_a_limit_on_file_sizes_does_not_kill_the_server() {
    let sandbox = sandbox();
    let start = sandbox
        .vsrun()
        .limit(Resource::RLIMIT_FSIZE, 0, 0)
        .logdir("logs", "1");
    start.command(sandbox.probe().exit(4)).run().expect_code(4);
}

#[test]
fn a_server_may_still_gain_privilege_by_what_it_executes() {
    for report in in_every_way(|start| start) {
        assert_eq!(report.no_new_privs, Some(false));
    }
}

#[test]
fn an_absurd_stack_size_in_the_environment_fails_no_start() {
    let sandbox = sandbox();
    let user = if is_root() { "nobody" } else { "" };
    let start = sandbox
        .vsrun()
        .env("RUST_MIN_STACK", "99999999999999")
        .pidfile("pid");
    let start = if user.is_empty() {
        start
    } else {
        start.user(user)
    };
    start.command(["/bin/true"]).run().expect_code(0);
}

#[test]
fn the_callers_preloaded_libraries_are_loaded_into_vsrun_and_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let start = sandbox
        .vsrun()
        .env("LD_PRELOAD", "/no/such.so")
        .env("PATH", "relative:/bin");
    let outcome = start.command(sandbox.probe().report(&report).exit(0)).run();
    assert!(
        outcome
            .stderr_text()
            .contains("'/no/such.so' from LD_PRELOAD"),
        "{outcome:?}"
    );
    let report = Report::wait(report);
    assert!(
        report
            .env
            .iter()
            .any(|variable| variable == "LD_PRELOAD=/no/such.so")
    );
    assert!(
        report
            .env
            .iter()
            .any(|variable| variable == "PATH=relative:/bin")
    );
}

#[test]
fn values_of_any_bytes_and_any_size_are_passed_on_as_they_are() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let odd = std::ffi::OsStr::from_bytes(b"a\nb\x1b[2J\xff=\r\tc");
    let large = "x".repeat(120 * 1024);
    let mut start = sandbox.vsrun().env("ODD", odd);
    let names: Vec<String> = (0..8).map(|number| format!("LARGE{number}")).collect();
    for name in &names {
        start = start.env(name, &large);
    }
    start
        .command(sandbox.probe().report(&report).exit(0))
        .run()
        .expect_code(0);
    let report = Report::wait(report);
    let variable = |name: &str| {
        report
            .env
            .iter()
            .find_map(|it| it.as_bytes().strip_prefix(format!("{name}=").as_bytes()))
    };
    assert_eq!(variable("ODD"), Some(odd.as_bytes()));
    assert!(
        names
            .iter()
            .all(|name| variable(name) == Some(large.as_bytes()))
    );
}
