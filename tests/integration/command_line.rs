//! The command line: what is taken, what is refused and how, and that words
//! and paths stay bytes (spec 1.1).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::prelude::*;

/// The one line that an error is, and nothing on standard output.
#[track_caller]
fn error_line(outcome: &Outcome, code: i32) -> String {
    outcome.expect_code(code);
    assert_eq!(outcome.stdout_text(), "");
    let text = outcome.stderr_text();
    let line = text
        .strip_suffix('\n')
        .unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(
        line.starts_with("vsrun: ") && !line.contains('\n'),
        "not one line: {text:?}"
    );
    assert!(
        !line.chars().any(char::is_control),
        "control characters: {text:?}"
    );
    line.to_owned()
}

/// Bytes that are no UTF-8, with a newline, an escape sequence and quotes.
fn odd_name() -> OsString {
    OsString::from_vec(b"odd \xff\xfe\n\x1b[31m'\"$x".to_vec())
}

/// The names in the sandbox that vsrun has made: all but captured output and what is `known`.
fn made(sandbox: &Sandbox, known: &[&str]) -> Vec<OsString> {
    let names = LogDirectory::at(sandbox.directory()).names();
    let is_new = |name: &OsString| {
        !name.as_bytes().starts_with(b".captured") && !known.iter().any(|known| name == known)
    };
    names.into_iter().filter(is_new).collect()
}

#[test]
fn without_the_double_dash_the_error_says_where_to_put_it() {
    let sandbox = sandbox();
    let lines: [&[&str]; 7] = [
        &[],
        &["-b"],
        &["/bin/true"],
        &["-u", "root", "/bin/true"],
        &["-b", "/bin/true", "-x"],
        &["/bin/true", "-b"],
        &["-p", "pid", "-d", "logs", "1", "/bin/true"],
    ];
    for words in lines {
        let line = error_line(&sandbox.vsrun().args(words).run(), 125);
        assert!(
            line.contains("put '--' before the server's command"),
            "{words:?}: {line}"
        );
    }
    assert!(made(&sandbox, &[]).is_empty());
}

#[test]
fn a_double_dash_without_a_command_is_a_usage_error() {
    let sandbox = sandbox();
    for words in [&["--"][..], &["-b", "--"], &["-p", "pid", "--"]] {
        error_line(&sandbox.vsrun().args(words).run(), 125);
    }
    assert!(made(&sandbox, &[]).is_empty());
}

#[test]
fn every_word_after_the_double_dash_belongs_to_the_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let words = ["-b", "--", "--help", "-u", "nobody", ""];
    let server = sandbox.probe().report(&report).exit(4).carrying(words);
    sandbox.vsrun().command(server).run().expect_code(4);
    let args = Report::wait(&report).args;
    assert_eq!(args[args.len() - words.len()..], words);
}

#[test]
fn a_double_dash_is_never_the_value_of_an_option() {
    let sandbox = sandbox();
    let lines: [&[&str]; 9] = [
        &["-u"],
        &["-p"],
        &["-r"],
        &["-w"],
        &["-s"],
        &["-d"],
        &["-d", "logs"],
        &["-m"],
        &["-m", "manager"],
    ];
    for words in lines {
        error_line(
            &sandbox.vsrun().args(words).command(["/bin/true"]).run(),
            125,
        );
    }
    assert!(made(&sandbox, &[]).is_empty());
}

#[test]
fn an_unknown_option_is_named() {
    let sandbox = sandbox();
    for word in ["-x", "--pid", "--managers", "-1", "-bx"] {
        let line = error_line(&sandbox.vsrun().arg(word).command(["/bin/true"]).run(), 125);
        assert!(line.contains(&word[word.len() - 1..]), "{line}");
    }
    let line = error_line(
        &sandbox
            .vsrun()
            .arg("--restart")
            .command(["/bin/true"])
            .run(),
        125,
    );
    assert!(line.contains("'--restart'"), "{line}");
}

#[test]
fn a_usage_error_is_one_line_whatever_bytes_are_in_it() {
    let sandbox = sandbox();
    let mut option = OsString::from("--");
    option.push(odd_name());
    for word in [
        option,
        odd_name(),
        OsString::from("a\nb"),
        OsString::from("-\r"),
    ] {
        error_line(
            &sandbox.vsrun().arg(&word).command(["/bin/true"]).run(),
            125,
        );
        error_line(&sandbox.vsrun().arg(&word).run(), 125);
    }
}

#[test]
fn an_option_given_twice_is_a_usage_error() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let handler = handler.path().to_str().expect("a plain path").to_owned();
    let options: [&[&str]; 9] = [
        &["-u", "root"],
        &["-p", "pid"],
        &["-r", "/"],
        &["-w", "/"],
        &["-m", "manager", &handler],
        &["-b"],
        &["-s", "tag"],
        &["-d", "logs", "1"],
        &["--pidfile=pid"],
    ];
    for words in options {
        let twice = sandbox
            .vsrun()
            .args(words)
            .args(words)
            .command(["/bin/true"]);
        error_line(&twice.run(), 125);
    }
    let mixed = sandbox.vsrun().args(["-p", "a", "--pidfile", "b"]);
    error_line(&mixed.command(["/bin/true"]).run(), 125);
    let known = ["handler", "handler.runs", "handler.status"];
    assert!(made(&sandbox, &known).is_empty());
}

#[test]
fn syslog_and_logdir_exclude_each_other_in_either_order() {
    let sandbox = sandbox();
    let lines: [&[&str]; 2] = [
        &["-s", "tag", "-d", "logs", "1"],
        &["-d", "logs", "1", "-s", "tag"],
    ];
    for words in lines {
        let line = error_line(
            &sandbox.vsrun().args(words).command(["/bin/true"]).run(),
            125,
        );
        assert!(
            line.contains("--syslog") && line.contains("--logdir"),
            "{line}"
        );
    }
    assert!(made(&sandbox, &[]).is_empty());
}

#[test]
fn options_may_stand_in_any_order() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let handler = handler.path().to_str().expect("a plain path").to_owned();
    let (report, work_dir) = (sandbox.path("report"), sandbox.dir("work"));
    let work_dir_word = work_dir.to_str().expect("a plain path");
    let options: [&[&str]; 4] = [
        &["-p", "pid"],
        &["-w", work_dir_word],
        &["-m", "manager", &handler],
        &["-d", "logs", "1"],
    ];
    for order in permutations(options.len()) {
        fs::remove_file(&report).ok();
        let words = order.iter().flat_map(|place| options[*place]);
        let server = sandbox
            .probe()
            .report(&report)
            .pidfile(sandbox.path("pid"))
            .exit(0);
        sandbox
            .vsrun()
            .args(words)
            .command(server)
            .run()
            .expect_code(0);
        let report = Report::wait(&report);
        assert_eq!(report.cwd.as_ref(), Some(&work_dir), "{order:?}");
        assert_eq!(
            report.pidfile,
            Some(format!("{}\n", report.pid).into()),
            "{order:?}"
        );
        assert!(sandbox.path("logs/vsrun.log").exists(), "{order:?}");
    }
}

fn permutations(length: usize) -> Vec<Vec<usize>> {
    if length == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(length - 1);
    let longer = shorter.iter().flat_map(|order| {
        (0..length).map(move |place| {
            let mut order = order.clone();
            order.insert(place, length - 1);
            order
        })
    });
    longer.collect()
}

#[test]
fn an_options_value_may_be_attached_to_it() {
    let sandbox = sandbox();
    for words in [
        &["--pidfile=pid", "--work-dir=/"][..],
        &["-ppid", "-w/"],
        &["--pidfile", "pid", "--work-dir", "/"],
        &["-ppid", "-w/", "-dlogs", "7d"],
        &["-ppid", "-w/", "--logdir=logs", "7d"],
    ] {
        let report = sandbox.path("report");
        let server = sandbox
            .probe()
            .report(&report)
            .pidfile(sandbox.path("pid"))
            .exit(0);
        sandbox
            .vsrun()
            .args(words)
            .command(server)
            .run()
            .expect_code(0);
        let seen = Report::wait(&report);
        assert_eq!(seen.cwd.as_deref(), Some(Path::new("/")), "{words:?}");
        assert_eq!(
            seen.pidfile,
            Some(format!("{}\n", seen.pid).into()),
            "{words:?}"
        );
        fs::remove_file(report).expect("a report");
        fs::remove_file(sandbox.path("pid")).expect("a pidfile");
    }
}

#[test]
fn a_path_may_begin_with_a_hyphen() {
    let sandbox = sandbox();
    let pidfile = sandbox.path("-pid");
    let server = sandbox.probe().pidfile(&pidfile).exit(0);
    sandbox
        .vsrun()
        .arg("--pidfile=-pid")
        .command(server)
        .run()
        .expect_code(0);
    assert!(sandbox.read_pidfile(pidfile).is_some());
}

#[test]
fn the_short_and_the_long_help_differ_and_name_every_option() {
    let sandbox = sandbox();
    let [short, long] = ["-h", "--help"].map(|word| {
        let outcome = sandbox.vsrun().arg(word).run();
        outcome.expect_code(0);
        assert_eq!(outcome.stderr_text(), "");
        outcome.stdout_text()
    });
    assert!(long.len() > short.len());
    for help in [short, long] {
        assert!(
            help.contains("vsrun [OPTIONS] -- COMMAND [ARG]..."),
            "{help}"
        );
        for option in [
            "-u, --user",
            "-p, --pidfile",
            "-r, --root",
            "-w, --work-dir",
            "-m, --manager",
            "-b, --background",
            "-s, --syslog",
            "-d, --logdir",
            "-h, --help",
            "-V, --version",
        ] {
            assert!(help.contains(option), "{option} is not in {help}");
        }
    }
}

#[test]
fn the_version_is_printed() {
    let sandbox = sandbox();
    for word in ["-V", "--version"] {
        let outcome = sandbox.vsrun().arg(word).run();
        outcome.expect_code(0);
        let version = format!("vsrun {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            (outcome.stdout_text(), outcome.stderr_text()),
            (version, String::new())
        );
    }
}

#[test]
fn help_after_the_double_dash_is_a_command() {
    let sandbox = sandbox();
    let line = error_line(&sandbox.vsrun().command(["--help"]).run(), 127);
    assert!(line.contains("'--help'"), "{line}");
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let sandbox = sandbox();
    let full = || File::create("/dev/full").expect("a device");
    for word in ["-h", "--help", "--version"] {
        let outcome = sandbox.vsrun().arg(word).stdout(full()).run();
        let line = error_line(&outcome, 125);
        assert!(line.ends_with("No space left on device"), "{line}");
    }
}

#[test]
fn an_empty_argument_vector_is_a_usage_error() {
    let sandbox = sandbox();
    let outcome = sandbox.vsrun().without_argv().run();
    error_line(&outcome, 125);
}

#[test]
fn a_keep_duration_is_a_whole_number_with_a_unit_or_without() {
    let sandbox = sandbox();
    for keep in ["7", "12h", "3d", "4w", "2m", "007d", "4294967295m"] {
        let outcome = sandbox
            .vsrun()
            .logdir("logs", keep)
            .command(["/bin/true"])
            .run();
        outcome.expect_code(0);
        assert_eq!(outcome.stderr_text(), "", "{keep}");
    }
}

#[test]
fn what_is_no_keep_duration_is_refused_with_the_value_in_the_message() {
    let sandbox = sandbox();
    let values = [
        "-1",
        "-1d",
        "",
        "+1",
        "1 d",
        " 1",
        "1 ",
        "1d ",
        "\t1",
        "1y",
        "1s",
        "1M",
        "1D",
        "d",
        "1.5d",
        "1e3",
        "0x1",
        "1dd",
        "1d1",
        "d1",
        "0",
        "00",
        "0h",
        "0m",
        "١",
        "4294967296",
        "99999999999999999999",
        "1,5",
        "99999999999999999999m",
        "9".repeat(500).leak(),
    ];
    for keep in values {
        let outcome = sandbox
            .vsrun()
            .logdir("logs", keep)
            .command(["/bin/true"])
            .run();
        let line = error_line(&outcome, 125);
        let shown = keep.replace('\t', "\\t");
        assert!(line.contains(&format!("'{shown}'")), "{keep:?}: {line}");
    }
    let odd = OsStr::from_bytes(b"1\xffd\n");
    let outcome = sandbox
        .vsrun()
        .logdir("logs", odd)
        .command(["/bin/true"])
        .run();
    let line = error_line(&outcome, 125);
    assert!(line.contains(r"'1\xffd\n'"), "{line}");
    assert!(made(&sandbox, &[]).is_empty());
}

#[test]
fn an_empty_path_is_an_error_and_no_server_runs() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let ran = sandbox.path("ran");
    let start = || sandbox.vsrun();
    let starts: [Invocation<'_>; 6] = [
        start().pidfile(""),
        start().root(""),
        start().work_dir(""),
        start().logdir("", "1"),
        start().manager("", &handler),
        start().manager("manager", ""),
    ];
    for invocation in starts {
        let server = sandbox.probe().append(&ran).exit(0);
        error_line(&invocation.command(server).run(), 125);
    }
    let known = ["handler", "handler.runs", "handler.status", "probe"];
    assert!(made(&sandbox, &known).is_empty());
}

#[test]
fn arguments_reach_the_server_byte_by_byte() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let every_byte = OsString::from_vec((1..=255).collect());
    let words = [
        every_byte,
        odd_name(),
        OsString::new(),
        "two words".into(),
        "\n".into(),
    ];
    let server = sandbox.probe().report(&report).exit(0).carrying(&words);
    sandbox.vsrun().command(server).run().expect_code(0);
    let args = Report::wait(&report).args;
    assert_eq!(args[args.len() - words.len()..], words);
}

#[test]
fn very_many_and_very_long_arguments_reach_the_server() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    // execve(2): 128 KiB a string with its NUL, 2 MiB in all where the stack may have 8 MiB.
    let long = "x".repeat(128 * 1024 - 1);
    let words: Vec<OsString> = (0..20_000)
        .map(|number| format!("argument {number}"))
        .chain([long])
        .map(OsString::from)
        .collect();
    for managed in [false, true] {
        let report = sandbox.path(format!("report-{managed}"));
        let server = sandbox.probe().report(&report).exit(0).carrying(&words);
        let start = if managed {
            sandbox.vsrun().manager(sandbox.path("manager"), &handler)
        } else {
            sandbox.vsrun()
        };
        start.command(server).run().expect_code(0);
        let args = Report::wait(&report).args;
        assert!(
            args[args.len() - words.len()..] == words[..],
            "arguments are lost"
        );
    }
}

#[test]
fn paths_may_hold_any_bytes() {
    let sandbox = sandbox();
    let base = sandbox.dir(Path::new(&odd_name()));
    let at = |name: &str| base.join([OsStr::new(name), &odd_name()].join(OsStr::new(".")));
    let handler = sandbox.handler("handler").create();
    fs::rename(handler.path(), at("handler")).expect("a handler");
    let program = sandbox.copy_of(sandbox.probe().words()[0].clone(), at("server"));
    let work_dir = sandbox.dir(at("work"));
    let server = Probe::at(program)
        .report(at("report"))
        .pidfile(at("pid"))
        .exit(0);
    let outcome = sandbox
        .vsrun()
        .pidfile(at("pid"))
        .manager(at("manager"), at("handler"))
        .logdir(at("logs"), "1")
        .work_dir(&work_dir)
        .command(server)
        .run();
    outcome.expect_code(0);
    let report = Report::wait(at("report"));
    assert_eq!(report.cwd, Some(work_dir));
    assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
    assert_eq!(
        LogDirectory::at(at("logs")).names(),
        ["logfile", "vsrun.log"]
    );
}

#[test]
fn a_path_of_any_bytes_is_shown_in_one_line() {
    let sandbox = sandbox();
    let missing = sandbox.path(odd_name()).join("server");
    let shown = r#"odd \xff\xfe\n\u{1b}[31m'"$x/server"#;
    for (invocation, code) in [
        (sandbox.vsrun().command([&missing]), 127),
        (
            sandbox.vsrun().pidfile(&missing).command(["/bin/true"]),
            125,
        ),
        (
            sandbox.vsrun().work_dir(&missing).command(["/bin/true"]),
            125,
        ),
    ] {
        let line = error_line(&invocation.run(), code);
        assert!(line.contains(shown), "{line}");
    }
}

#[test]
fn relative_paths_are_taken_from_the_directory_of_the_start() {
    let sandbox = sandbox();
    let program = sandbox.probe().words()[0].clone();
    sandbox.dir("bin");
    sandbox.copy_of(program, "bin/server");
    let work_dir = sandbox.dir("work");
    let handler = sandbox.handler("handler").create();
    let server = || {
        Probe::at("bin/server")
            .report(sandbox.path("report"))
            .exit(0)
    };
    let pidfile = sandbox.path("pid");
    let start = || sandbox.vsrun().work_dir("work").pidfile("pid");
    let managed = || {
        start()
            .manager("./manager", "bin/../handler")
            .logdir("var/logs", "1")
    };
    for invocation in [
        start().command(server().pidfile(&pidfile)),
        managed().command(server().pidfile(&pidfile)),
    ] {
        fs::remove_file(&pidfile).ok();
        fs::remove_file(sandbox.path("report")).ok();
        invocation.run().expect_code(0);
        let report = Report::wait(sandbox.path("report"));
        assert_eq!(report.cwd.as_ref(), Some(&work_dir));
        assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
        assert_eq!(report.args[0], "bin/server");
    }
    assert!(sandbox.path("var/logs/logfile").exists());
    assert!(handler.runs().is_empty());
}

#[test]
fn relative_paths_hold_for_every_restart() {
    let sandbox = sandbox();
    let program = sandbox.probe().words()[0].clone();
    sandbox.dir("bin");
    sandbox.copy_of(program, "bin/server");
    let handler = sandbox.handler("handler").create();
    let server = Probe::at("bin/server")
        .append(sandbox.path("starts"))
        .only_first(2)
        .exit(1);
    let running = sandbox
        .vsrun()
        .pidfile("pid")
        .manager("manager", "handler")
        .logdir("logs", "1")
        .command(server)
        .spawn();
    handler.wait_for_run(2);
    wait_for("the third start", || sandbox.lines("starts").len() == 3);
    let third: i32 = sandbox.lines("starts")[2].parse().expect("an id");
    assert_eq!(sandbox.read_pidfile(sandbox.path("pid")), Some(third));
    running.signal(signal::SIGTERM);
    running.wait().expect_code(0);
}

#[test]
fn relative_paths_work_in_a_directory_of_any_bytes() {
    let sandbox = sandbox();
    let here = sandbox.dir(Path::new(&odd_name()));
    let report = sandbox.path("report");
    let server = sandbox
        .probe()
        .report(&report)
        .pidfile(here.join("pid"))
        .exit(0);
    let start = sandbox
        .vsrun()
        .pidfile("pid")
        .logdir("logs", "1")
        .work_dir(".");
    start
        .current_dir(&here)
        .command(server)
        .run()
        .expect_code(0);
    let report = Report::wait(report);
    assert_eq!(report.cwd.as_ref(), Some(&here));
    assert_eq!(report.pidfile, Some(format!("{}\n", report.pid).into()));
    assert_eq!(
        LogDirectory::at(here.join("logs")).names(),
        ["logfile", "vsrun.log"]
    );
}

/// Runs vsrun in a directory that is removed before it starts.
fn in_a_removed_directory(sandbox: &Sandbox, words: &[&str]) -> Outcome {
    let gone = sandbox.dir("gone");
    let shell = sandbox.program("/bin/sh").current_dir(&gone);
    let script = "rmdir \"$1\"; shift; exec \"$@\"";
    let vsrun = VSRUN;
    let start = shell.args(["-c", script, "sh"]).arg(&gone).arg(vsrun);
    start.args(words).run()
}

#[test]
fn a_relative_command_in_a_removed_directory_is_not_looked_for_elsewhere() {
    let sandbox = sandbox();
    // From the file system's root these two would be programs.
    for command in ["bin/true", "./bin/true"] {
        let outcome = in_a_removed_directory(&sandbox, &["--", command]);
        assert_ne!(
            outcome.code(),
            Some(0),
            "{command} was found: {}",
            outcome.stderr_text()
        );
        let line = outcome.stderr_text();
        assert!(
            line.starts_with("vsrun: cannot ") && line.contains(command),
            "{line}"
        );
    }
}

#[test]
fn a_relative_pidfile_in_a_removed_directory_is_an_error() {
    let sandbox = sandbox();
    let outcome = in_a_removed_directory(&sandbox, &["-p", "pid", "--", "/bin/true"]);
    let line = error_line(&outcome, 125);
    assert!(line.contains("'pid'"), "{line}");
}

#[test]
fn a_start_in_a_removed_directory_works_where_no_path_is_relative() {
    let sandbox = sandbox();
    in_a_removed_directory(&sandbox, &["--", "/bin/true"]).expect_code(0);
}

#[test]
fn the_work_dir_is_relative_to_the_new_root() {
    needs!(root);
    let sandbox = sandbox();
    let root = sandbox.root("jail");
    sandbox.dir("jail/srv");
    sandbox.dir("srv");
    let server = Probe::at("/bin/probe").report("/tmp/report").exit(0);
    let start = sandbox.vsrun().root("jail").work_dir("srv").command(server);
    start.run().expect_code(0);
    let report = Report::wait(root.join("tmp/report"));
    assert_eq!(report.cwd, Some(PathBuf::from("/srv")));
}

#[test]
fn a_usage_error_leaves_no_file() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let start = || {
        let start = sandbox.vsrun().pidfile("pid").logdir("var/logs", "1");
        start.manager("manager", &handler)
    };
    let ran = sandbox.path("ran");
    let server = || sandbox.probe().append(&ran).exit(0);
    for invocation in [
        start().arg("--no-such-option").command(server()),
        start().arg("word").command(server()),
        start().args(server()),
        start().background().arg("-s").arg("tag").command(server()),
    ] {
        error_line(&invocation.run(), 125);
    }
    let known = ["handler", "handler.runs", "handler.status", "probe"];
    assert!(made(&sandbox, &known).is_empty());
}
