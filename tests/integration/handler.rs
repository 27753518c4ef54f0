//! The termination handler: when it is run, what it is given, and what its end means.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::prelude::*;

/// A user that no machine has, with a group and supplementary groups.
const UID: u32 = 47_001;
const GID: u32 = 47_002;
const GROUPS: [&str; 2] = ["vstesta:x:47003:vstest", "vstestb:x:47004:vstest"];
const PASSWD: [&str; 1] = ["vstest:x:47001:47002:A test:/home/of/vstest:/bin/sh"];
const ALL_GROUPS: [u32; 3] = [GID, 47_003, 47_004];

/// How much of the command line the variable holds.
const COMMAND_MAX: usize = 100 * 1024;

/// Runs a server that ends unexpectedly under a handler that refuses, and returns the handler's
/// run and vsrun's exit status.
#[track_caller]
fn end_of(sandbox: &Sandbox, server: Probe) -> (HandlerRun, Option<i32>) {
    let handler = sandbox.handler("handler").exits(1).create();
    let outcome = managed(sandbox, &handler)
        .limit(Resource::RLIMIT_CORE, 0, u64::MAX)
        .command(server)
        .run();
    (handler.wait_for_run(1), outcome.code())
}

/// The value of `VSRUN_SERVER_<name>`.
fn variable(run: &HandlerRun, name: &str) -> Option<String> {
    let value = run.env(&format!("VSRUN_SERVER_{name}"))?;
    Some(value.to_str().expect("text").to_owned())
}

/// Checks the variables about the end of the server.
#[track_caller]
fn expect_variables(run: &HandlerRun, expected: [(&str, Option<&str>); 5]) {
    for (name, value) in expected {
        assert_eq!(variable(run, name).as_deref(), value, "{name}");
    }
}

// How the server ended.

#[test]
fn the_handler_gets_the_servers_exit_status() {
    for status in [1, 2, 77, 126, 127, 255] {
        let sandbox = sandbox();
        let (run, code) = end_of(&sandbox, probe(&sandbox).exit(status));
        expect_variables(
            &run,
            [
                ("EXITED", Some("1")),
                ("EXITSTATUS", Some(&status.to_string())),
                ("TERMSIG", None),
                ("COREDUMP", Some("0")),
                ("EXPLAIN", Some(&format!("exited with status {status}"))),
            ],
        );
        assert_eq!(code, Some(status.into()));
    }
}

#[test]
fn the_handler_gets_the_signal_that_killed_the_server() {
    let signals = [
        SIGHUP,
        SIGKILL,
        SIGUSR1,
        SIGPIPE,
        SIGTERM,
        32,
        33,
        SIGRTMIN(),
        50,
        SIGRTMAX(),
    ];
    for signal in signals {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(1).create();
        let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
        // From outside: the C library would not raise every one.
        sandbox.signal(started(&sandbox, 1), signal);
        manager.wait().expect_code(128 + signal);
        expect_variables(
            &handler.wait_for_run(1),
            [
                ("EXITED", Some("0")),
                ("EXITSTATUS", None),
                ("TERMSIG", Some(&signal.to_string())),
                ("COREDUMP", Some("0")),
                ("EXPLAIN", Some(&format!("terminated by signal {signal}"))),
            ],
        );
    }
}

#[test]
fn the_handler_gets_coredump_1_after_a_core_dump() {
    for signal in [SIGSEGV, SIGABRT] {
        let sandbox = sandbox();
        let directory = sandbox.open_dir("work");
        let handler = sandbox.handler("handler").exits(1).create();
        let outcome = managed(&sandbox, &handler)
            .work_dir(&directory)
            .limit(Resource::RLIMIT_CORE, 0, u64::MAX)
            .command(probe(&sandbox).dumping_core().kill(signal))
            .run();
        outcome.expect_code(128 + signal);
        let run = handler.wait_for_run(1);
        expect_variables(
            &run,
            [
                ("EXITED", Some("0")),
                ("EXITSTATUS", None),
                ("TERMSIG", Some(&signal.to_string())),
                ("COREDUMP", Some("1")),
                (
                    "EXPLAIN",
                    Some(&format!("dumped core with signal {signal}")),
                ),
            ],
        );
        expect_core(&directory);
    }
}

#[test]
fn a_server_of_another_user_can_dump_core() {
    needs!(root);
    let sandbox = sandbox();
    let directory = sandbox.dir_of("work", UID, GID);
    let handler = sandbox.handler("handler").exits(1).create();
    let starts = sandbox.open_dir("open").join("starts");
    let outcome = managed(&sandbox, &handler)
        .with_passwd(&PASSWD, &GROUPS)
        .user("vstest")
        .work_dir(&directory)
        .limit(Resource::RLIMIT_CORE, 0, u64::MAX)
        .command(sandbox.probe().append(starts).dumping_core().kill(SIGSEGV))
        .run();
    outcome.expect_code(128 + SIGSEGV);
    let run = handler.wait_for_run(1);
    assert_eq!(variable(&run, "COREDUMP").as_deref(), Some("1"));
    assert_eq!(
        variable(&run, "WORKDIR").map(Into::into),
        Some(directory.clone())
    );
    expect_core(&directory);
}

/// Checks that there is a core file, on a machine that puts them into the working directory (see
/// core(5)).
fn expect_core(directory: &Path) {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if !pattern.starts_with(['|', '/']) {
        let files = fs::read_dir(directory)
            .expect("the directory is there")
            .count();
        assert_eq!(files, 1, "core files");
    }
}

#[test]
fn the_handler_gets_coredump_0_where_no_core_was_dumped() {
    let sandbox = sandbox();
    let (run, code) = end_of(&sandbox, probe(&sandbox).kill(SIGSEGV));
    assert_eq!(code, Some(128 + SIGSEGV));
    assert_eq!(variable(&run, "COREDUMP").as_deref(), Some("0"));
    assert_eq!(
        variable(&run, "EXPLAIN").as_deref(),
        Some("terminated by signal 11")
    );
}

#[test]
fn the_handler_gets_the_error_of_an_exec_that_failed() {
    let sandbox = sandbox();
    let program = sandbox.copy_of(&sandbox.probe().words()[0], "program");
    let server = Probe::at(&program).append(sandbox.path("starts"));
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = managed(&sandbox, &handler).command(server).spawn();
    let first = started(&sandbox, 1);
    fs::remove_file(&program).expect("the program is there");
    manager.signal(SIGHUP);
    manager.wait().expect_code(127);
    let run = handler.wait_for_run(1);
    let explained = variable(&run, "EXPLAIN").expect("an explanation");
    assert!(
        explained.contains("No such file or directory"),
        "{explained}"
    );
    expect_variables(
        &run,
        [
            ("EXITED", Some("1")),
            ("EXITSTATUS", Some("127")),
            ("TERMSIG", None),
            ("COREDUMP", Some("0")),
            ("UPTIME", Some("0")),
        ],
    );
    assert_ne!(variable(&run, "PID"), Some(first.pid().to_string()));
}

#[test]
fn the_uptime_is_in_whole_seconds() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let born = Instant::now();
    wait_for("two seconds and a half", || {
        born.elapsed() >= Duration::from_millis(2500)
    });
    sandbox.signal(server, SIGKILL);
    manager.wait();
    let longest = born.elapsed().as_secs() + 1;
    let uptime: u64 = variable(&handler.wait_for_run(1), "UPTIME")
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!((2..=longest).contains(&uptime), "{uptime}");
}

#[test]
fn a_life_of_less_than_a_second_is_an_uptime_of_0() {
    let sandbox = sandbox();
    let (run, _) = end_of(&sandbox, probe(&sandbox).exit(1));
    assert_eq!(variable(&run, "UPTIME").as_deref(), Some("0"));
}

#[test]
fn each_run_has_the_variables_of_one_death() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let server = probe(&sandbox).until(sandbox.path("end")).exit(7);
    let manager = managed(&sandbox, &handler).command(server).spawn();
    let first = started(&sandbox, 1);
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    handler.set_exit(1);
    sandbox.file("end", "");
    manager.wait().expect_code(7);
    let runs = handler.runs();
    let [by_signal, by_exit] = &runs[..] else {
        panic!("{} runs", runs.len());
    };
    assert_eq!(variable(by_signal, "PID"), Some(first.pid().to_string()));
    assert_eq!(variable(by_signal, "TERMSIG").as_deref(), Some("9"));
    assert_eq!(variable(by_signal, "EXITSTATUS"), None);
    assert_eq!(variable(by_signal, "RESTARTS").as_deref(), Some("0"));
    assert_eq!(variable(by_exit, "PID"), Some(second.pid().to_string()));
    assert_eq!(variable(by_exit, "TERMSIG"), None);
    assert_eq!(variable(by_exit, "EXITSTATUS").as_deref(), Some("7"));
    assert_eq!(variable(by_exit, "RESTARTS").as_deref(), Some("1"));
}

// Its other variables.

#[test]
fn the_handler_gets_ids_and_paths_and_no_variable_that_does_not_apply() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let server = started(&sandbox, 1);
    let id = manager.pid().to_string();
    sandbox.signal(server, SIGKILL);
    manager.wait();
    let run = handler.wait_for_run(1);
    assert_eq!(variable(&run, "PID"), Some(server.pid().to_string()));
    assert_eq!(run.env("VSRUN_MANAGER_PID"), Some(OsStr::new(&id)));
    let pidfile = sandbox.path("server.pid");
    assert_eq!(run.env("VSRUN_SERVER_PIDFILE"), Some(pidfile.as_os_str()));
    // Without -w the server works where vsrun was started.
    let start_dir = sandbox.directory().as_os_str();
    assert!(
        run.env("VSRUN_SERVER_WORKDIR")
            .is_none_or(|dir| dir == start_dir)
    );
    assert_eq!(variable(&run, "USER"), None);
    assert_eq!(run.env("VSRUN_LOGDIR"), None);
}

#[test]
fn without_a_pidfile_the_variable_for_it_is_unset() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = sandbox.path("manager.pid");
    let vsrun = sandbox.vsrun().manager(manager, &handler);
    vsrun.command(probe(&sandbox).exit(3)).run().expect_code(3);
    assert_eq!(variable(&handler.wait_for_run(1), "PIDFILE"), None);
}

#[test]
fn relative_paths_are_absolute_in_the_variables() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    sandbox.dir("work");
    let outcome = sandbox
        .vsrun()
        .pidfile("server.pid")
        .work_dir("work")
        .logdir("logs", "1")
        .manager("manager.pid", "./handler")
        .command(probe(&sandbox).exit(3))
        .run();
    outcome.expect_code(3);
    let run = handler.wait_for_run(1);
    let variable = |name| run.env(name).map(OsStr::to_owned);
    let path = |name| Some(sandbox.path(name).into_os_string());
    assert_eq!(variable("VSRUN_SERVER_PIDFILE"), path("server.pid"));
    assert_eq!(variable("VSRUN_SERVER_WORKDIR"), path("work"));
    assert_eq!(variable("VSRUN_LOGDIR"), path("logs"));
}

/// Lets a shell read a command line, and returns the words that it finds.
fn words_of(sandbox: &Sandbox, line: &OsStr) -> Vec<OsString> {
    let mut script = b"printf '%s\\0' ".to_vec();
    script.extend_from_slice(line.as_bytes());
    let script = sandbox.file("words.sh", script);
    let outcome = sandbox.program("/bin/sh").arg(script).run();
    outcome.expect_code(0);
    let words = outcome.stdout.split_inclusive(|byte| *byte == 0);
    words
        .map(|word| OsString::from_vec(word[..word.len() - 1].to_vec()))
        .collect()
}

#[test]
fn a_command_line_of_any_bytes_is_quoted_for_sh() {
    let sandbox = sandbox();
    let hostile: [&[u8]; 14] = [
        b"",
        b"two words",
        b"it's",
        b"\"quoted\"",
        b"$HOME `id` $(id)",
        b"new\nline\n",
        b"\ttab\r",
        b"back\\slash\\",
        b"*?[a]{b,c}~!#&|;<>()",
        b"\xff\xfe not UTF-8",
        b"\x1b[31m",
        b"=x",
        b"-n",
        b"'",
    ];
    let server = probe(&sandbox)
        .carrying(hostile.map(OsStr::from_bytes))
        .into_iter();
    let mut words: Vec<OsString> = server.collect();
    // The end of the probe's own words is marked by the first of the carried ones.
    words.insert(1, "exit=1".into());
    let handler = sandbox.handler("handler").exits(1).create();
    managed(&sandbox, &handler)
        .command(&words)
        .run()
        .expect_code(1);
    let run = handler.wait_for_run(1);
    let line = run.env("VSRUN_SERVER_COMMAND").expect("a command line");
    assert_eq!(words_of(&sandbox, line), words);
}

#[test]
fn plain_words_have_no_quotes() {
    let sandbox = sandbox();
    let (run, _) = end_of(&sandbox, sandbox.probe().exit(1).carrying(["-x", "/a/b.c"]));
    let program = sandbox.path("probe");
    let line = variable(&run, "COMMAND").expect("a command line");
    assert!(line.starts_with(program.to_str().expect("text")), "{line}");
    assert!(line.ends_with(" -- -x /a/b.c"), "{line}");
}

/// The command line in the variable for a server with words of this length after its own.
fn command_of(sandbox: &Sandbox, name: &str, words: &[String]) -> OsString {
    let handler = sandbox.handler(name).exits(1).create();
    let server = sandbox.probe().exit(1).carrying(words);
    managed(sandbox, &handler)
        .command(server)
        .run()
        .expect_code(1);
    let run = handler.wait_for_run(1);
    run.env("VSRUN_SERVER_COMMAND")
        .expect("a command line")
        .to_owned()
}

#[test]
fn a_command_line_over_100_kib_is_cut_and_the_handler_runs() {
    let sandbox = sandbox();
    for (name, count) in [("large", 2), ("huge", 10)] {
        let words = vec!["x".repeat(100_000); count];
        let line = command_of(&sandbox, name, &words);
        assert!(line.as_bytes().ends_with(b"x..."), "{name}");
        assert!(
            (COMMAND_MAX - 3..=COMMAND_MAX + 3).contains(&line.len()),
            "{}",
            line.len()
        );
    }
}

#[test]
fn a_command_line_of_at_most_100_kib_is_not_cut() {
    let sandbox = sandbox();
    let short = command_of(&sandbox, "short", &["x".to_owned()]);
    let room = COMMAND_MAX - 3 - short.len();
    let long = command_of(&sandbox, "long", &["x".repeat(1 + room)]);
    assert_eq!(long.len(), COMMAND_MAX - 3);
    assert!(long.as_bytes().ends_with(b"xxxx"));
}

#[test]
fn with_a_large_environment_the_handler_runs() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let mut vsrun = managed(&sandbox, &handler);
    for number in 0..8 {
        vsrun = vsrun.env(format!("LARGE{number}"), "y".repeat(100_000));
    }
    let words = vec!["z w".repeat(30_000); 5];
    vsrun
        .command(sandbox.probe().exit(9).carrying(words))
        .run()
        .expect_code(9);
    let run = handler.wait_for_run(1);
    assert_eq!(run.env("LARGE7").map(OsStr::len), Some(100_000));
}

#[test]
fn with_an_environment_near_the_kernels_limit_the_handler_runs() {
    let sandbox = sandbox();
    // Its commands could not be executed either.
    let script = "#!/bin/sh\n\
        echo \"${VSRUN_SERVER_COMMAND-none} $VSRUN_SERVER_EXITSTATUS ${LAST+all}\" >out\n\
        exit 1\n";
    let handler = sandbox.executable("handler", script);
    // The handler's own variables hold more than is left of the limit, a quarter of the stack's
    // (see execve(2)).
    let long_dir = sandbox.dir("d".repeat(250));
    for (word, expected) in [
        ("z".repeat(90_000), "none 9 all"),
        ("z".to_owned(), "none 9 "),
    ] {
        let start = sandbox
            .vsrun()
            .logdir(&long_dir, "1d")
            .manager("manager", &handler);
        let start = start
            .limit(Resource::RLIMIT_STACK, 4 << 20, 4 << 20)
            .pidfile("pid");
        let mut start = start.env_clear();
        let mut room = (1 << 20) - word.len() - 1000;
        while room > 0 {
            let size = room.min(100_000);
            room -= size;
            let name = if room > 0 {
                format!("X{room}")
            } else {
                "LAST".to_owned()
            };
            start = start.env(name, "y".repeat(size - 16));
        }
        start
            .command(sandbox.probe().exit(9).carrying([word]))
            .run()
            .expect_code(9);
        assert_eq!(
            fs::read_to_string(long_dir.join("out")).expect("a file"),
            format!("{expected}\n")
        );
    }
}

#[test]
fn inherited_vsrun_variables_are_removed_for_handler_and_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let handler = sandbox.handler("handler").exits(1).create();
    let outcome = managed(&sandbox, &handler)
        .env("VSRUN_SERVER_TERMSIG", "99")
        .env("VSRUN_SERVER_USER", "root")
        .env("VSRUN_LOGDIR", "/forged")
        .env("VSRUN_ANYTHING", "1")
        .env("VSRUN_", "1")
        .env("NOT_VSRUN_", "kept")
        .command(sandbox.probe().report(&report).exit(3))
        .run();
    outcome.expect_code(3);
    let run = handler.wait_for_run(1);
    for name in [
        "VSRUN_SERVER_TERMSIG",
        "VSRUN_SERVER_USER",
        "VSRUN_LOGDIR",
        "VSRUN_ANYTHING",
    ] {
        assert_eq!(run.env(name), None, "{name}");
    }
    assert_eq!(run.env("VSRUN_"), None);
    assert_eq!(run.env("NOT_VSRUN_"), Some(OsStr::new("kept")));
    let mut names: Vec<_> = run.env.iter().map(|it| name_of(it)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "no variable is there twice");
    let report = Report::wait(&report);
    let own = |variable: &&OsString| variable.as_bytes().starts_with(b"VSRUN_");
    assert_eq!(report.env.iter().find(own), None);
    assert_eq!(report.env("NOT_VSRUN_"), Some(OsStr::new("kept")));
}

fn name_of(variable: &OsStr) -> &[u8] {
    variable
        .as_bytes()
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
}

#[test]
fn a_server_that_is_started_again_gets_none_of_the_handlers_variables() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let handler = sandbox.handler("handler").create();
    let server = probe(&sandbox).report(&report).exit(3).only_first(1);
    let manager = managed(&sandbox, &handler).command(server).spawn();
    let second = started(&sandbox, 2);
    let report = Report::wait(&report);
    assert_eq!(report.pid, second.pid());
    let own = |variable: &&OsString| variable.as_bytes().starts_with(b"VSRUN_");
    assert_eq!(report.env.iter().find(own), None);
    stop(manager);
}

// What it is given.

#[test]
fn it_gets_no_arguments() {
    let sandbox = sandbox();
    let (run, _) = end_of(&sandbox, probe(&sandbox).exit(1));
    assert_eq!(run.args, [] as [OsString; 0]);
}

#[test]
fn its_input_is_dev_null_and_it_inherits_no_other_descriptor() {
    let sandbox = sandbox();
    let handler = sandbox
        .handler("handler")
        .line("cat >&2; echo end of input")
        .create();
    let file = || File::open("/etc/passwd").expect("a file");
    let manager = managed(&sandbox, &handler)
        .stdin(file())
        .inheriting(3, file())
        .inheriting(99, file())
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    started(&sandbox, 2);
    assert!(manager.stdout().contains("end of input"));
    let run = handler.wait_for_run(1);
    assert_eq!(
        run.fds.keys().copied().collect::<Vec<_>>(),
        [0, 1, 2],
        "{:?}",
        run.fds
    );
    assert_eq!(run.fds[&0], Path::new("/dev/null"));
    // Nor does the manager keep them.
    let open = manager.process().open_files().expect("a manager");
    assert!(
        !open
            .values()
            .any(|target| target == Path::new("/etc/passwd")),
        "{open:?}"
    );
    stop(manager);
}

#[test]
fn where_vsruns_streams_were_closed_its_own_are_dev_null() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let vsrun = managed(&sandbox, &handler).closed([0, 1, 2]);
    vsrun.command(probe(&sandbox).exit(3)).run().expect_code(3);
    let run = handler.wait_for_run(1);
    let null = Path::new("/dev/null").to_owned();
    assert_eq!(
        run.fds,
        [0, 1, 2].map(|number| (number, null.clone())).into()
    );
}

#[test]
fn its_output_goes_where_vsruns_own_goes() {
    let sandbox = sandbox();
    let lines = "echo to standard output; echo to standard error >&2";
    let handler = sandbox.handler("handler").exits(1).line(lines).create();
    let outcome = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3))
        .run();
    outcome.expect_code(3);
    assert!(outcome.stdout_text().contains("to standard output\n"));
    assert!(outcome.stderr_text().contains("to standard error\n"));
}

#[test]
fn with_a_log_directory_its_output_is_in_vsrun_log_and_it_works_there() {
    let sandbox = sandbox();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let lines = "echo to standard output; echo to standard error >&2";
    let handler = sandbox.handler("handler").line(lines).create();
    let manager = managed(&sandbox, &handler)
        .logdir(&logs, "1")
        .command(probe(&sandbox).out("the server").exit(3).only_first(2))
        .spawn();
    started(&sandbox, 3);
    stop(manager);
    let text = logs.vsrun();
    assert_eq!(text.matches("\nto standard output\n").count(), 2, "{text}");
    assert_eq!(text.matches("\nto standard error\n").count(), 2, "{text}");
    assert_eq!(logs.server(), "the server\n");
    for run in handler.runs() {
        assert_eq!(run.cwd, logs.path());
        assert_eq!(run.fds[&1], logs.path().join("vsrun.log"));
        assert_eq!(run.fds[&2], logs.path().join("vsrun.log"));
        assert_eq!(run.fds.len(), 3);
        assert_eq!(run.env("VSRUN_LOGDIR"), Some(logs.path().as_os_str()));
        assert_eq!(
            run.env("VSRUN_SERVER_WORKDIR"),
            Some(logs.path().as_os_str())
        );
    }
}

#[test]
fn without_a_log_directory_it_works_where_the_manager_does() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let vsrun = managed(&sandbox, &handler).work_dir(sandbox.dir("work"));
    vsrun.command(probe(&sandbox).exit(1)).run().expect_code(1);
    assert_eq!(handler.wait_for_run(1).cwd, Path::new("/"));
}

#[test]
fn it_has_a_session_of_its_own_and_no_terminal() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let manager = managed(&sandbox, &handler)
        .terminal()
        .command(probe(&sandbox))
        .spawn();
    let server = started(&sandbox, 1);
    let sessions = [manager.process(), server].map(|it| it.stat().expect("it lives").sid);
    sandbox.signal(server, SIGKILL);
    manager.wait();
    let stat = handler.wait_for_run(1).stat;
    assert_eq!((stat.sid, stat.pgid, stat.tty), (stat.pid, stat.pid, 0));
    assert!(!sessions.contains(&stat.sid));
}

#[test]
fn its_signals_are_default_and_none_is_blocked() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    // A shell blocks signals at times; what it executes in its own place reports them.
    let words = sandbox.probe().report(&report).exit(1);
    let words = words.words().join(OsStr::new(" "));
    let script = format!("#!/bin/sh\nexec {}\n", words.to_str().expect("plain words"));
    let outcome = managed(&sandbox, sandbox.executable("handler", script))
        .ignoring([SIGPIPE, SIGCHLD, SIGHUP, 40])
        .blocking_all_signals()
        .command(probe(&sandbox).exit(3))
        .run();
    outcome.expect_code(3);
    let report = Report::wait(&report);
    assert!(report.ignored.is_empty(), "{:?}", report.ignored);
    assert!(report.blocked.is_empty(), "{:?}", report.blocked);
}

#[test]
fn its_umask_is_the_callers() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let vsrun = managed(&sandbox, &handler).umask(0o027);
    vsrun.command(probe(&sandbox).exit(1)).run().expect_code(1);
    assert_eq!(handler.wait_for_run(1).status.umask, 0o027);
}

#[test]
fn it_runs_as_the_user_with_the_users_groups_and_without_privilege() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let outcome = managed(&sandbox, &handler)
        .with_passwd(&PASSWD, &GROUPS)
        .run_as(0, 0, &[0, 4, 27])
        .env("HOME", "/root")
        .user("vstest")
        .command(sandbox.probe().exit(3))
        .run();
    outcome.expect_code(3);
    let run = handler.wait_for_run(1);
    assert_eq!(
        (run.status.uids, run.status.gids),
        (Ids::all(UID), Ids::all(GID))
    );
    assert_eq!(run.status.groups, ALL_GROUPS);
    let capabilities = run.status.capabilities;
    let held = capabilities.permitted | capabilities.effective | capabilities.inheritable;
    assert_eq!(held | capabilities.ambient, 0);
    assert_eq!(run.env("HOME"), Some(OsStr::new("/home/of/vstest")));
    assert_eq!(run.env("USER"), Some(OsStr::new("vstest")));
    assert_eq!(run.env("LOGNAME"), Some(OsStr::new("vstest")));
    assert_eq!(run.env("VSRUN_SERVER_USER"), Some(OsStr::new("vstest")));
}

#[test]
fn it_runs_outside_the_root_and_its_paths_are_those_outside() {
    needs!(root);
    let sandbox = sandbox();
    let root = sandbox.root("root");
    sandbox.dir("root/work");
    let handler = sandbox.handler("handler").exits(1).create();
    let outcome = managed(&sandbox, &handler)
        .root(&root)
        .user("nobody")
        .work_dir("/work")
        .command(Probe::at("/bin/probe").exit(3))
        .run();
    outcome.expect_code(3);
    let run = handler.wait_for_run(1);
    assert_eq!((&*run.root, &*run.cwd), (Path::new("/"), Path::new("/")));
    assert_eq!(run.status.uids, Ids::all(NOBODY));
    let work_dir = run.env("VSRUN_SERVER_WORKDIR");
    assert_eq!(work_dir, Some(sandbox.path("root/work").as_os_str()));
    let pidfile = run.env("VSRUN_SERVER_PIDFILE");
    assert_eq!(pidfile, Some(sandbox.path("server.pid").as_os_str()));
}

#[test]
fn the_handler_has_the_users_permissions() {
    needs!(root);
    let sandbox = sandbox();
    let directory = sandbox.dir_of("mine", UID, GID);
    let line = format!("touch '{}/made'", directory.display());
    let handler = sandbox.handler("handler").line(line).exits(1).create();
    let vsrun = managed(&sandbox, &handler)
        .with_passwd(&PASSWD, &GROUPS)
        .user("vstest");
    vsrun.command(sandbox.probe().exit(3)).run().expect_code(3);
    assert!(directory.join("made").exists());
}

// The check at the start.

/// Checks that vsrun refuses this handler before it does anything.
#[track_caller]
fn expect_refused(vsrun: Invocation<'_>, sandbox: &Sandbox, code: i32, message: &str) {
    let logs = sandbox.path("logs");
    let outcome = vsrun.logdir(&logs, "1").command(probe(sandbox)).run();
    outcome.expect_error(code, message);
    assert!(!logs.exists() && !sandbox.path("starts").exists());
    expect_nothing_left(sandbox);
}

fn refusal(handler: &Path, reason: &str) -> String {
    format!(
        "vsrun: cannot execute handler '{}': {reason}",
        handler.display()
    )
}

const MISSING: &str = "No such file or directory";
const DENIED: &str = "Permission denied";

#[test]
fn a_handler_that_is_not_there_is_127_before_anything_is_done() {
    let sandbox = sandbox();
    sandbox.link("dangling", "nowhere");
    sandbox.file("file", "");
    for (name, reason) in [
        ("none", MISSING),
        ("dangling", MISSING),
        ("file/x", "Not a directory"),
    ] {
        let handler = sandbox.path(name);
        let message = refusal(&handler, reason);
        expect_refused(managed(&sandbox, &handler), &sandbox, 127, &message);
    }
}

#[test]
fn a_handler_that_may_not_be_executed_is_126_before_anything_is_done() {
    let sandbox = sandbox();
    let file = sandbox.file("file", "#!/bin/sh\n");
    let directory = sandbox.dir("directory");
    let cases = [
        (&*file, DENIED),
        (&directory, "Is a directory"),
        (Path::new("/dev/null"), DENIED),
    ];
    for (handler, reason) in cases {
        let message = refusal(handler, reason);
        expect_refused(managed(&sandbox, handler), &sandbox, 126, &message);
    }
}

#[test]
fn the_handler_is_checked_as_the_user_who_will_run_it() {
    needs!(root);
    let sandbox = sandbox();
    let roots = sandbox.executable("roots", "#!/bin/sh\n");
    chmod(&roots, 0o700);
    sandbox.dir("closed");
    let hidden = sandbox.executable("closed/handler", "#!/bin/sh\n");
    chmod(sandbox.path("closed"), 0o700);
    for handler in [roots, hidden] {
        let vsrun = managed(&sandbox, &handler)
            .with_passwd(&PASSWD, &GROUPS)
            .user("vstest");
        expect_refused(vsrun, &sandbox, 126, &refusal(&handler, DENIED));
    }
}

#[test]
fn a_handler_that_only_a_group_of_the_users_may_execute_is_accepted() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    chown(handler.path(), Some(0), Some(47_004)).expect("root may give a file away");
    chmod(handler.path(), 0o750);
    let vsrun = managed(&sandbox, &handler)
        .with_passwd(&PASSWD, &GROUPS)
        .user("vstest");
    vsrun.command(sandbox.probe().exit(3)).run().expect_code(3);
    assert_eq!(handler.runs().len(), 1);
}

#[test]
fn the_check_at_the_start_runs_no_handler() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    managed(&sandbox, &handler)
        .command(sandbox.probe().exit(0))
        .run()
        .expect_code(0);
    assert!(handler.runs().is_empty());
}

#[test]
fn in_the_background_a_bad_handler_has_the_same_status() {
    let sandbox = sandbox();
    let missing = sandbox.path("none");
    let message = refusal(&missing, MISSING);
    expect_refused(
        managed(&sandbox, &missing).background(),
        &sandbox,
        127,
        &message,
    );
    let file = sandbox.file("file", "");
    let message = refusal(&file, DENIED);
    expect_refused(
        managed(&sandbox, &file).background(),
        &sandbox,
        126,
        &message,
    );
}

#[test]
fn a_handler_is_a_path_and_is_not_searched_for() {
    let sandbox = sandbox();
    let message = format!("vsrun: cannot execute handler 'true': {MISSING}");
    let outcome = managed(&sandbox, "true").command(probe(&sandbox)).run();
    outcome.expect_code(127);
    // The path is shown as it was typed, or whole.
    let whole = refusal(&sandbox.path("true"), MISSING);
    let output = outcome.stderr_text();
    assert!(
        [message, whole].contains(&output.trim_end().to_owned()),
        "{output}"
    );
    expect_nothing_left(&sandbox);
}

#[test]
fn a_handler_of_any_bytes_is_one_word() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let odd = sandbox
        .directory()
        .join(OsStr::from_bytes(b"a b;\xff'$(x)\n"));
    symlink(handler.path(), &odd).expect("the sandbox can be written");
    managed(&sandbox, &odd)
        .command(sandbox.probe().exit(3))
        .run()
        .expect_code(3);
    assert_eq!(handler.wait_for_run(1).args, [] as [OsString; 0]);
}

// What its end means.

/// A server that dies once under a handler which does not exit with 0: the manager exits with the
/// server's status and reports the end of the handler.
#[track_caller]
fn expect_no_restart(sandbox: &Sandbox, handler: &Path, words: &str) {
    expect_no_restart_after(sandbox, handler, words, || {});
}

/// Likewise, and the server dies after `change`.
#[track_caller]
fn expect_no_restart_after(sandbox: &Sandbox, handler: &Path, words: &str, change: impl FnOnce()) {
    let manager = managed(sandbox, handler).command(probe(sandbox)).spawn();
    let server = started(sandbox, 1);
    change();
    sandbox.signal(server, SIGKILL);
    let outcome = manager.wait();
    outcome.expect_code(128 + SIGKILL);
    let output = outcome.stderr_text();
    let is_reported = output
        .lines()
        .any(|line| line.contains("handler") && line.contains(words));
    assert!(
        is_reported,
        "no line with 'handler' and '{words}' in:\n{output}"
    );
    assert_eq!(sandbox.lines("starts").len(), 1);
    expect_nothing_left(sandbox);
}

#[test]
fn any_status_but_0_is_a_refusal() {
    for status in [1, 2, 75, 126, 127, 255] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").exits(status).create();
        expect_no_restart(
            &sandbox,
            handler.path(),
            &format!("exited with status {status}"),
        );
        assert_eq!(handler.runs().len(), 1);
    }
}

#[test]
fn a_handler_that_is_killed_refuses_the_restart() {
    for signal in [SIGTERM, SIGKILL, SIGHUP, SIGRTMIN()] {
        let sandbox = sandbox();
        let handler = sandbox
            .handler("handler")
            .line(format!("kill -{signal} $$"))
            .create();
        expect_no_restart(&sandbox, handler.path(), &format!("signal {signal}"));
    }
}

/// Changes the handler by `break_it` while the server runs, and expects no restart.
#[track_caller]
fn expect_no_restart_once_broken(break_it: impl FnOnce(&Path), reason: &str) {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    expect_no_restart_after(&sandbox, handler.path(), reason, || {
        break_it(handler.path())
    });
    assert_eq!(handler.runs().len(), 0);
}

#[test]
fn a_handler_that_was_removed_refuses_the_restart() {
    let remove = |path: &Path| fs::remove_file(path).expect("the handler is there");
    expect_no_restart_once_broken(remove, MISSING);
}

#[test]
fn a_handler_without_execute_permission_refuses_the_restart() {
    let take_permission = |path: &Path| {
        chmod(path, 0o644);
    };
    expect_no_restart_once_broken(take_permission, DENIED);
}

#[test]
fn a_handler_without_its_interpreter_refuses_the_restart() {
    let sandbox = sandbox();
    let handler = sandbox.executable("handler", "#!/nowhere/to/be/found\nexit 0\n");
    expect_no_restart(&sandbox, &handler, "cannot find the interpreter of handler");
}

#[test]
fn a_script_without_an_interpreter_line_is_given_to_no_shell() {
    let sandbox = sandbox();
    let made = sandbox.path("made");
    let handler = sandbox.executable("handler", format!(": >'{}'\nexit 0\n", made.display()));
    expect_no_restart(&sandbox, &handler, "Exec format error");
    assert!(!made.exists());
}

#[test]
fn a_repaired_handler_is_run_at_the_next_death() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    sandbox.executable("handler", "#!/bin/sh\nexit 1\n");
    sandbox.signal(first, SIGKILL);
    manager.wait().expect_code(128 + SIGKILL);
    assert!(handler.runs().is_empty());
}

#[test]
fn a_child_that_the_handler_leaves_is_not_waited_for() {
    // With and without the handler's output open.
    for leave in [
        "sleep 1000 &",
        "sleep 1000 >/dev/null 2>&1 &",
        "setsid sleep 1000 &",
    ] {
        let sandbox = sandbox();
        let handler = sandbox.handler("handler").line(leave).create();
        let manager = managed(&sandbox, &handler)
            .command(probe(&sandbox).exit(3).only_first(1))
            .spawn();
        let second = started(&sandbox, 2);
        assert!(second.exists());
        // It may not have had the processor yet.
        wait_for("the child that was left", || {
            let left: Vec<_> = sandbox.processes().iter().map(|it| it.cmdline()).collect();
            let sleeps = |words: &Vec<OsString>| words.contains(&"sleep".into());
            if left.iter().flatten().any(sleeps) {
                Ok(())
            } else {
                Err(left)
            }
        });
        stop(manager);
    }
}

#[test]
fn a_child_that_the_handler_leaves_does_not_delay_a_refusal_either() {
    let sandbox = sandbox();
    let handler = sandbox
        .handler("handler")
        .line("sleep 1000 &")
        .exits(1)
        .create();
    managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3))
        .run()
        .expect_code(3);
}

#[test]
fn the_end_of_a_child_of_the_handler_is_not_the_handlers_answer() {
    let sandbox = sandbox();
    let hold = format!(
        "(exit 1) & until test -e '{}'; do sleep 0.02; done",
        go(&sandbox)
    );
    let handler = sandbox.handler("handler").line(hold).create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    handler.wait_for_run(1);
    assert_eq!(sandbox.lines("starts").len(), 1);
    sandbox.file("go", "");
    assert!(started(&sandbox, 2).exists());
    stop(manager);
}

fn go(sandbox: &Sandbox) -> String {
    sandbox.path("go").display().to_string()
}

/// A handler that ignores SIGTERM, as do its children.
fn stubborn(sandbox: &Sandbox) -> Handler {
    sandbox
        .handler("handler")
        .on_term("")
        .line("sleep 1000")
        .create()
}

#[test]
fn a_handler_that_ignores_its_termination_is_killed_with_its_group_after_5_s() {
    // Both at once, because each takes seconds.
    let (stopped, restarted) = (sandbox(), sandbox());
    let (handler, other) = (stubborn(&stopped), stubborn(&restarted));
    let server = |sandbox| probe(sandbox).exit(3).only_first(1);
    let manager = managed(&stopped, &handler)
        .command(server(&stopped))
        .spawn();
    let restarter = managed(&restarted, &other)
        .command(server(&restarted))
        .spawn();
    handler.wait_for_run(1);
    other.wait_for_run(1);
    let begin = Instant::now();
    manager.signal(SIGTERM);
    restarter.signal(SIGHUP);
    manager.wait().expect_code(0);
    let grace = begin.elapsed();
    assert!(
        (5_000..8_000).contains(&grace.as_millis()),
        "after {grace:?}"
    );
    assert_eq!(stopped.lines("starts").len(), 1);
    expect_nothing_left(&stopped);
    let second = started(&restarted, 2);
    assert_eq!(restarter.process().children(), [second]);
    assert_eq!(other.runs().len(), 1);
    stop(restarter);
    expect_nothing_left(&restarted);
}

#[test]
fn a_handler_has_time_to_clean_up_when_it_is_terminated() {
    let sandbox = sandbox();
    let tidied = sandbox.path("tidied");
    let tidy = format!("sleep 0.3; : >{}; exit 1", tidied.display());
    let handler = sandbox
        .handler("handler")
        .on_term(tidy)
        .line("while :; do sleep 0.02; done")
        .create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3))
        .spawn();
    handler.wait_for_run(1);
    stop(manager);
    assert!(tidied.exists());
    expect_nothing_left(&sandbox);
}

#[test]
fn a_restart_waits_for_a_slow_handler() {
    let sandbox = sandbox();
    let hold = format!("until test -e '{}'; do sleep 0.02; done", go(&sandbox));
    let handler = sandbox.handler("handler").line(hold).create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    handler.wait_for_run(1);
    // Never a handler and a server at the same time.
    assert_eq!(manager.process().children().len(), 1);
    assert!(!sandbox.path("server.pid").exists());
    sandbox.file("go", "");
    let second = started(&sandbox, 2);
    assert_eq!(manager.process().children(), [second]);
    stop(manager);
}

#[test]
fn a_handler_that_hangs_is_reported_once_after_60_s() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    let Some(clock) = Clock::new(&sandbox, "+0") else {
        return;
    };
    let manager = managed(&sandbox, &handler)
        .clock(&clock)
        .command(probe(&sandbox).exit(3))
        .spawn();
    handler.wait_for_run(1);
    let remark = "the handler is still running";
    let remarks = || manager.stderr().matches(remark).count();
    // A signal makes the manager look at the clock; there is no server to pass it on to.
    clock.set("+50");
    manager.signal(SIGUSR1);
    holds_for("too early for a remark", Duration::from_millis(200), || {
        remarks() == 0
    });
    clock.set("+70");
    manager.signal(SIGUSR1);
    wait_for("the remark", || remarks() == 1);
    clock.set("+1000");
    manager.signal(SIGUSR1);
    holds_for("one remark", Duration::from_millis(200), || {
        remarks() == 1 && manager.process().exists()
    });
    stop(manager);
    assert_eq!(starts(&sandbox), 1);
}

#[test]
fn a_handler_that_reads_input_gets_none_and_does_not_hang() {
    let sandbox = sandbox();
    let asks = "if read -r line; then exit 9; fi; cat; [ -z \"$(head -c 1 </dev/stdin)\" ]";
    let handler = sandbox.handler("handler").line(asks).create();
    let (reader, _writer) = nix::unistd::pipe().expect("a pipe");
    let manager = managed(&sandbox, &handler)
        .stdin(reader)
        .command(probe(&sandbox).exit(3).only_first(1))
        .spawn();
    started(&sandbox, 2);
    assert_eq!(handler.runs().len(), 1);
    stop(manager);
}

#[test]
fn a_handler_that_opens_many_files_does_not_affect_the_next_server() {
    let sandbox = sandbox();
    let report = sandbox.path("report");
    let opens = "ulimit -n 1000
        bash -c 'while exec {fd}</dev/null; do :; done; sleep 1000 & exit 0' 2>/dev/null";
    let handler = sandbox.handler("handler").line(opens).create();
    let server = probe(&sandbox).report(&report).exit(3).only_first(1);
    let manager = managed(&sandbox, &handler).command(server).spawn();
    started(&sandbox, 2);
    let second = sandbox.wait_for_pidfile(sandbox.path("server.pid"));
    let seen = wait_for("the report of the second life", || {
        Report::read(&report).filter(|report| report.pid == second.pid())
    });
    assert_eq!(seen.fd_numbers(), [0, 1, 2]);
    // Among them is what the handler left behind.
    let left = sandbox.processes().into_iter().find(|it| {
        it.cmdline()
            .is_some_and(|words| words.first().is_some_and(|word| word == "sleep"))
    });
    assert!(
        left.and_then(|it| it.open_files())
            .is_some_and(|files| files.len() > 900)
    );
    stop(manager);
}

#[test]
fn a_handler_that_runs_out_of_memory_refuses_the_restart() {
    let sandbox = sandbox();
    // As much as doubling gives, in 64 MiB of its own.
    let eats = "ulimit -v 65536; x=xxxxxxxx; while :; do x=$x$x; done";
    let handler = sandbox.handler("handler").line(eats).create();
    let manager = managed(&sandbox, &handler)
        .command(probe(&sandbox).exit(3))
        .spawn();
    let outcome = manager.wait();
    outcome.expect_code(3);
    let output = outcome.stderr_text();
    assert!(output.contains("the server is not restarted"), "{output}");
    assert_eq!((starts(&sandbox), handler.runs().len()), (1, 1));
    assert!(sandbox.processes().is_empty());
    expect_no_files(&sandbox);
}

#[test]
fn a_handler_that_is_killed_while_it_is_being_terminated_changes_nothing() {
    for (request, status) in [(SIGTERM, Some(0)), (SIGHUP, None)] {
        let sandbox = sandbox();
        let terminated = sandbox.path("terminated");
        let note = format!(": >{}", terminated.display());
        let handler = sandbox
            .handler("handler")
            .on_term(note)
            .line("while :; do sleep 0.02; done")
            .create();
        let server = probe(&sandbox).exit(3).only_first(1);
        let manager = managed(&sandbox, &handler).command(server).spawn();
        let run = handler.wait_for_run(1);
        manager.signal(request);
        wait_for("SIGTERM to the handler", || terminated.exists());
        sandbox.signal(Process::of(run.stat.pid), SIGKILL);
        match status {
            Some(status) => _ = manager.wait().expect_code(status),
            None => {
                started(&sandbox, 2);
                stop(manager);
            }
        }
        assert_eq!(handler.runs().len(), 1);
        expect_no_files(&sandbox);
    }
}

#[test]
fn a_server_can_kill_a_handler_of_the_same_user() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("exec sleep 1000").create();
    let start = sandbox.vsrun().user("nobody").manager("manager", &handler);
    let manager = start.command(["/bin/sh", "-c", "exit 3"]).spawn();
    handler.wait_for_run(1);
    let running = wait_for("the handler", || {
        manager.process().children().into_iter().next()
    });
    let kill = sandbox.program("/bin/kill").run_as(NOBODY, NOBODY, &[]);
    kill.args(["-KILL", &running.pid().to_string()])
        .run()
        .expect_code(0);
    manager.wait().expect_code(3);
}
