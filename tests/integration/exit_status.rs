//! Exit statuses, in the foreground, under a manager and in the background
//! (spec 1.2).

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::pipe;

use crate::prelude::*;

/// The four ways to start, each in a sandbox of its own.
#[derive(Clone, Copy, Debug)]
enum Way {
    Foreground,
    Background,
    Managed,
    ManagedInBackground,
}

const EVERY_WAY: [Way; 4] = [
    Way::Foreground,
    Way::Background,
    Way::Managed,
    Way::ManagedInBackground,
];

impl Way {
    fn start<'a>(self, sandbox: &'a Sandbox, handler: &Handler) -> Invocation<'a> {
        let manager = sandbox.path("manager");
        match self {
            Way::Foreground => sandbox.vsrun(),
            Way::Background => sandbox.vsrun().background(),
            Way::Managed => sandbox.vsrun().manager(manager, handler),
            Way::ManagedInBackground => sandbox.vsrun().background().manager(manager, handler),
        }
    }
}

/// Starts a command that cannot run in all four ways and expects the same line and status.
#[track_caller]
fn is_refused(sandbox: &Sandbox, command: impl AsRef<OsStr>, code: i32, reason: &str) {
    refused_with(sandbox, command, code, reason, |start| start);
}

#[track_caller]
fn refused_with(
    sandbox: &Sandbox,
    command: impl AsRef<OsStr>,
    code: i32,
    reason: &str,
    with: impl Fn(Invocation<'_>) -> Invocation<'_>,
) {
    let command = command.as_ref();
    let handler = match sandbox.path("handler.runs").exists() {
        true => panic!("one refusal a sandbox"),
        false => sandbox.handler("handler").create(),
    };
    let line = format!(
        "vsrun: cannot execute command '{}': {reason}",
        Path::new(command).display()
    );
    for way in EVERY_WAY {
        let start = with(way.start(sandbox, &handler)).pidfile(sandbox.path("pid"));
        start.command([command]).run().expect_error(code, &line);
        for left in ["pid", "manager", "manager.lock"] {
            assert!(!sandbox.path(left).exists(), "{way:?} left '{left}'");
        }
    }
    assert!(
        handler.runs().is_empty(),
        "a start-up error is no case for the handler"
    );
    wait_for("the end of every process", || {
        sandbox.processes().is_empty()
    });
}

#[test]
fn in_the_foreground_the_status_is_the_servers_own() {
    let sandbox = sandbox();
    for status in [0, 1, 2, 124, 125, 126, 127, 128, 255] {
        let outcome = sandbox.vsrun().command(sandbox.probe().exit(status)).run();
        outcome.expect_code(status.into());
        assert_eq!(
            (outcome.stdout_text(), outcome.stderr_text()),
            Default::default()
        );
    }
}

#[test]
fn in_the_foreground_a_signal_that_kills_the_server_is_seen_by_the_caller() {
    let sandbox = sandbox();
    for signal in [
        SIGKILL,
        SIGSEGV,
        SIGTERM,
        SIGABRT,
        SIGHUP,
        SIGINT,
        SIGUSR1,
        SIGRTMIN() + 3,
    ] {
        let outcome = sandbox.vsrun().command(sandbox.probe().kill(signal)).run();
        assert_eq!(outcome.signal(), Some(signal));
    }
}

#[test]
fn in_the_background_the_status_is_0_once_the_server_is_executed() {
    let sandbox = sandbox();
    for status in [0, 3, 127] {
        let server = sandbox.probe().exit(status);
        sandbox
            .vsrun()
            .background()
            .command(server)
            .run()
            .expect_code(0);
    }
    let server = sandbox.probe().kill(SIGSEGV);
    sandbox
        .vsrun()
        .background()
        .command(server)
        .run()
        .expect_code(0);
}

#[test]
fn a_name_that_is_not_on_the_path_is_127() {
    is_refused(
        &sandbox(),
        "no-such-server",
        127,
        "No such file or directory on PATH",
    );
}

#[test]
fn a_directory_on_the_path_that_the_user_may_not_search_is_passed_over() {
    needs!(root);
    let sandbox = sandbox();
    let closed = sandbox.dir("closed");
    chmod(&closed, 0o700);
    let path = format!("{}:/usr/bin:/bin", closed.display());
    let start = || sandbox.vsrun().user("nobody").env("PATH", &path);
    start().command(["true"]).run().expect_code(0);
    let line = "vsrun: cannot execute command 'no-such-server': No such file or directory on PATH";
    start()
        .command(["no-such-server"])
        .run()
        .expect_error(127, line);
}

#[test]
fn a_path_that_does_not_exist_is_127() {
    let sandbox = sandbox();
    is_refused(
        &sandbox,
        sandbox.path("missing/server"),
        127,
        "No such file or directory",
    );
}

#[test]
fn a_path_through_a_file_is_127() {
    let sandbox = sandbox();
    let file = sandbox.file("file", "");
    is_refused(&sandbox, file.join("server"), 127, "Not a directory");
}

#[test]
fn a_dangling_link_is_127() {
    let sandbox = sandbox();
    let link = sandbox.link("link", "nowhere");
    is_refused(&sandbox, link, 127, "No such file or directory");
}

#[test]
fn an_empty_command_is_127() {
    is_refused(&sandbox(), "", 127, "it is empty");
}

#[test]
fn a_file_without_execute_permission_is_126() {
    let sandbox = sandbox();
    let file = sandbox.file("file", "#!/bin/sh\n");
    is_refused(&sandbox, file, 126, "Permission denied");
}

#[test]
fn a_directory_is_126() {
    let sandbox = sandbox();
    let directory = sandbox.dir("directory");
    is_refused(&sandbox, directory, 126, "Is a directory");
}

#[test]
fn a_script_without_an_interpreter_line_is_126() {
    let sandbox = sandbox();
    let script = sandbox.executable("script", "touch ran\n");
    is_refused(&sandbox, script, 126, "Exec format error");
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_missing_interpreter_and_a_missing_script_have_different_errors() {
    let sandbox = sandbox();
    let script = sandbox.executable("script", "#!/nonexistent/interpreter\n");
    let handler = sandbox.handler("handler").create();
    let reason = "No such file or directory";
    let line = format!(
        "vsrun: cannot find the interpreter of command '{}': {reason}",
        script.display()
    );
    for way in EVERY_WAY {
        way.start(&sandbox, &handler)
            .command([&script])
            .run()
            .expect_error(127, &line);
    }
    assert!(handler.runs().is_empty());
}

#[test]
fn an_empty_executable_file_is_126() {
    let sandbox = sandbox();
    let script = sandbox.executable("script", "");
    is_refused(&sandbox, script, 126, "Exec format error");
}

#[test]
fn a_program_that_is_being_written_is_126() {
    let sandbox = sandbox();
    let program = sandbox.copy_of("/bin/true", "server");
    let _writer = OpenOptions::new()
        .append(true)
        .open(&program)
        .expect("a file");
    is_refused(&sandbox, program, 126, "Text file busy");
}

#[test]
fn a_loop_of_links_is_126() {
    let sandbox = sandbox();
    let link = sandbox.link("link", "link");
    let start = sandbox
        .vsrun()
        .pidfile(sandbox.path("pid"))
        .command([&link]);
    start.run().expect_code(126);
    let start = sandbox.vsrun().background().pidfile(sandbox.path("pid"));
    start.command([&link]).run().expect_code(126);
    assert!(!sandbox.path("pid").exists());
}

#[test]
fn a_program_on_the_path_that_may_not_be_executed_is_126() {
    let sandbox = sandbox();
    sandbox.dir("bin");
    sandbox.file("bin/server", "");
    let path = format!("/no/such/directory:{}", sandbox.path("bin").display());
    refused_with(&sandbox, "server", 126, "Permission denied", |start| {
        start.env("PATH", &path)
    });
}

#[test]
fn a_program_that_the_user_may_not_execute_is_126() {
    needs!(root);
    let sandbox = sandbox();
    let program = sandbox.copy_of("/bin/true", "server");
    chmod(&program, 0o700);
    refused_with(&sandbox, &program, 126, "Permission denied", |start| {
        start.user("nobody")
    });
}

#[test]
fn the_search_on_the_path_passes_over_missing_and_forbidden_programs() {
    let sandbox = sandbox();
    for name in ["empty", "denied", "good"] {
        sandbox.dir(name);
    }
    sandbox.file("denied/server", "");
    sandbox.file("file", "");
    sandbox.dir("empty/server");
    sandbox.executable("good/server", "#!/bin/sh\nexit 5\n");
    let names = ["missing", "file", "empty", "denied", "good"];
    let path: Vec<String> = names
        .iter()
        .map(|name| sandbox.path(name).display().to_string())
        .collect();
    let start = sandbox
        .vsrun()
        .env("PATH", path.join(":"))
        .command(["server"]);
    start.run().expect_code(5);
}

#[test]
fn without_a_path_the_usual_directories_are_searched() {
    let sandbox = sandbox();
    sandbox
        .vsrun()
        .env_clear()
        .command(["true"])
        .run()
        .expect_code(0);
    sandbox
        .vsrun()
        .env_clear()
        .command(["false"])
        .run()
        .expect_code(1);
}

#[test]
fn an_empty_part_of_the_path_is_the_directory_of_the_start() {
    let sandbox = sandbox();
    sandbox.executable("server", "#!/bin/sh\nexit 5\n");
    for path in ["", ":/bin", "/bin::/sbin", "/bin:", "."] {
        let start = sandbox
            .vsrun()
            .env("PATH", path)
            .work_dir("/")
            .command(["server"]);
        start.run().expect_code(5);
    }
}

#[test]
fn what_vsrun_itself_cannot_do_is_125_in_every_way() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let missing = sandbox.path("missing");
    let file = sandbox.file("file", "");
    type Fault = (&'static str, PathBuf);
    let faults: [Fault; 5] = [
        ("-p", missing.join("pid")),
        ("-w", missing.clone()),
        ("-w", file.clone()),
        ("-r", missing),
        ("-u", "no-such-user".into()),
    ];
    for (option, value) in faults {
        let mut lines = Vec::new();
        for way in EVERY_WAY {
            let start = way.start(&sandbox, &handler).arg(option).arg(&value);
            let server = sandbox.probe().append(sandbox.path("ran")).exit(0);
            let outcome = start.command(server).run();
            outcome.expect_code(125);
            let line = outcome.stderr_text();
            assert!(
                line.contains(&format!("'{}'", value.display())),
                "{way:?} {option}: {line}"
            );
            assert_eq!(line.lines().count(), 1, "{line}");
            lines.push(line);
        }
        lines.dedup();
        assert_eq!(lines.len(), 1, "the ways differ: {lines:?}");
    }
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_log_directory_that_cannot_be_made_is_125_in_every_way() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let file = sandbox.file("file", "");
    for way in EVERY_WAY {
        let start = way.start(&sandbox, &handler).logdir(file.join("logs"), "1");
        let server = sandbox.probe().append(sandbox.path("ran")).exit(0);
        let line = format!(
            "vsrun: cannot open log directory '{}/logs': Not a directory",
            file.display()
        );
        start.command(server).run().expect_error(125, &line);
    }
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_change_of_user_without_privilege_is_125_in_every_way() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    for way in EVERY_WAY {
        let start = way.start(&sandbox, &handler).run_as(NOBODY, NOBODY, &[]);
        let outcome = start.user("root").command(["/bin/true"]).run();
        let line = "vsrun: cannot change to user 'root': Operation not permitted";
        outcome.expect_error(125, line);
    }
}

#[test]
fn a_file_system_of_the_search_path_that_is_gone_is_passed_over() {
    needs!("strace");
    let sandbox = sandbox();
    let gone = sandbox.dir("gone");
    let path = format!("{}:/usr/bin:/bin", gone.display());
    for reason in ["ESTALE", "ENODEV", "ETIMEDOUT"] {
        let inject = format!("inject=execve:error={reason}");
        let start = sandbox
            .program("/usr/bin/strace")
            .args(["-f", "-qq", "-o", "/dev/null"]);
        let start = start.arg("-P").arg(gone.join("true"));
        let start = start.args(["-e", "trace=execve", "-e", &inject, "--"]);
        let start = start.arg(VSRUN).env("PATH", &path);
        start.command(["true"]).run().expect_code(0);
    }
}

#[test]
fn the_line_with_the_reason_waits_for_its_reader() {
    let sandbox = sandbox();
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    let start = sandbox
        .vsrun()
        .stderr(writer)
        .command(["/nonexistent"])
        .spawn();
    wait_for("vsrun to wait", || {
        start
            .process()
            .stat()
            .is_some_and(|stat| stat.state == 'S' || stat.state == 'Z')
    });
    let mut text = Vec::new();
    let mut bytes = [0; 65536];
    wait_for("the line", || {
        while let Ok(count @ 1..) = nix::unistd::read(&reader, &mut bytes) {
            text.extend_from_slice(&bytes[..count]);
        }
        text.ends_with(b"\n")
    });
    let line = String::from_utf8_lossy(&text)
        .trim_start_matches('x')
        .to_owned();
    assert_eq!(
        line,
        "vsrun: cannot execute command '/nonexistent': No such file or directory\n"
    );
    start.wait().expect_code(127);
}

/// A standard error that takes nothing.
#[derive(Clone, Copy, Debug)]
enum Mute {
    Closed,
    Full,
    BrokenPipe,
    BrokenSocket,
}

impl Mute {
    const ALL: [Mute; 4] = [
        Mute::Closed,
        Mute::Full,
        Mute::BrokenPipe,
        Mute::BrokenSocket,
    ];

    fn apply(self, start: Invocation<'_>) -> Invocation<'_> {
        match self {
            Mute::Closed => start.closed([2]),
            Mute::Full => start.stderr(File::create("/dev/full").expect("a device")),
            Mute::BrokenPipe => {
                let (_, writer) = pipe().expect("a pipe");
                start.stderr(writer)
            }
            Mute::BrokenSocket => {
                let (_, writer) = UnixStream::pair().expect("a socket");
                start.stderr(OwnedFd::from(writer))
            }
        }
    }
}

#[test]
fn where_no_message_can_be_written_the_status_is_the_same() {
    let sandbox = sandbox();
    let probe = sandbox.probe().words()[0].clone();
    let file = sandbox.file("file", "").join("below");
    let word = |text: &str| text.into();
    let monitor = [word("-m"), sandbox.path("manager.pid").into_os_string()];
    let with = |options: &[&str], words: &[&str]| {
        let mut all: Vec<_> = options.iter().map(|it| word(it)).collect();
        all.push(word("--"));
        all.extend(words.iter().map(|it| word(it)));
        all
    };
    let under = |handler: &str, words: &[&str]| {
        let mut all = monitor.to_vec();
        all.push(word(handler));
        all.push(word("--"));
        all.push(probe.clone());
        all.extend(words.iter().map(|it| word(it)));
        all
    };
    let logs = file.to_str().expect("plain names");
    let cases = [
        (125, vec![]),
        (125, vec![word("--no-such-option")]),
        (127, with(&[], &["/no/such/server"])),
        (126, with(&[], &["/etc"])),
        (127, with(&["-b"], &["/no/such/server"])),
        (125, with(&["-d", logs, "1d"], &["/bin/true"])),
        (125, with(&["-b", "-d", logs, "1d"], &["/bin/true"])),
        (127, under("/no/such/handler", &["exit=0"])),
        (0, under(CONSENT, &["exit=0"])),
        (3, under(REFUSAL, &["exit=3"])),
        (137, under(REFUSAL, &["kill=9"])),
        (0, with(&[], &["/bin/true"])),
        (1, with(&[], &["/bin/false"])),
    ];
    for (status, words) in &cases {
        for mute in Mute::ALL {
            let outcome = mute.apply(sandbox.vsrun().args(words)).run();
            assert_eq!(
                outcome.code(),
                Some(*status),
                "{mute:?} {words:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn help_into_a_closed_pipe_is_an_error() {
    let sandbox = sandbox();
    for option in ["-h", "--help", "-V", "--version"] {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let outcome = sandbox.vsrun().arg(option).stdout(writer).run();
        outcome.expect_code(125);
        assert_eq!(outcome.stderr_text().lines().count(), 1);
    }
}
