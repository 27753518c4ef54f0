//! Real daemons under vsrun: they answer, come back when they crash, are restarted and stopped.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, process};

use crate::prelude::*;

/// A loopback address that no other test listens on or connects from, with a port that is free.
fn own_address() -> SocketAddrV4 {
    static SERIAL: AtomicU32 = AtomicU32::new(1);
    let (pid, serial) = (process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
    let [_, _, high, low] = pid.to_be_bytes();
    let address = Ipv4Addr::new(127, serial as u8, high, low.clamp(1, 254));
    let listener = TcpListener::bind((address, 0)).expect("all of 127/8 is loopback");
    let port = listener.local_addr().expect("a bound socket").port();
    SocketAddrV4::new(address, port)
}

/// Where a daemon listens.
enum Place {
    Loopback(SocketAddrV4),
    Socket(PathBuf),
}

/// A daemon of Debian's: how it is started, where it listens, what it answers.
struct Daemon {
    command: Vec<OsString>,
    place: Place,
    question: &'static str,
    answer: &'static str,
    /// What it writes at its start or when it is asked; it must be in the log.
    says: &'static str,
}

impl Daemon {
    fn nginx(sandbox: &Sandbox) -> Option<Daemon> {
        let address = own_address();
        let dir = sandbox.open_dir("nginx");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
            .concat();
        let configuration = format!(
            "daemon off;\npid {0}/pid;\nerror_log stderr notice;\nworker_processes 2;\nevents {{ }}\n\
             http {{\naccess_log off;\n{temporary}\
             server {{ listen {address}; location / {{ return 200 hello; }} }}\n}}\n",
            dir.display()
        );
        let configuration = sandbox.file("nginx.conf", configuration);
        require_program("nginx").then(|| Daemon {
            command: vec![
                "nginx".into(),
                "-e".into(),
                "stderr".into(),
                "-c".into(),
                configuration.into(),
            ],
            place: Place::Loopback(address),
            question: "GET / HTTP/1.0\r\n\r\n",
            answer: "HTTP/1.1 200 OK",
            says: "start worker process",
        })
    }

    fn redis(sandbox: &Sandbox) -> Option<Daemon> {
        let dir = sandbox.open_dir("redis");
        let socket = dir.join("socket");
        let words = [
            "redis-server",
            "--port",
            "0",
            "--save",
            "",
            "--daemonize",
            "no",
            "--dir",
        ];
        let mut command: Vec<OsString> = words.map(OsString::from).to_vec();
        command.extend([dir.into(), "--unixsocket".into(), socket.clone().into()]);
        require_program("redis-server").then_some(Daemon {
            command,
            place: Place::Socket(socket),
            question: "PING\r\n",
            answer: "+PONG",
            says: "Redis",
        })
    }

    fn redis_on_loopback(sandbox: &Sandbox) -> Option<Daemon> {
        let address = own_address();
        let dir = sandbox.open_dir("redis");
        let words = ["redis-server", "--save", "", "--daemonize", "no", "--bind"];
        let mut command: Vec<OsString> = words.map(OsString::from).to_vec();
        command.extend([address.ip().to_string().into(), "--port".into()]);
        command.extend([
            address.port().to_string().into(),
            "--dir".into(),
            dir.into(),
        ]);
        require_program("redis-server").then_some(Daemon {
            command,
            place: Place::Loopback(address),
            question: "PING\r\n",
            answer: "+PONG",
            says: "Redis",
        })
    }

    fn memcached(sandbox: &Sandbox) -> Option<Daemon> {
        let socket = sandbox.open_dir("memcached").join("socket");
        let command = vec![
            "memcached".into(),
            "-vv".into(),
            "-s".into(),
            socket.clone().into(),
        ];
        require_program("memcached").then_some(Daemon {
            command,
            place: Place::Socket(socket),
            question: "version\r\n",
            answer: "VERSION",
            says: "version",
        })
    }

    /// Waits until it answers as it should.
    #[track_caller]
    fn wait_for_answer(&self) {
        wait_for("the daemon's answer", || {
            let answer = self.ask().map_err(|error| error.to_string())?;
            if answer.starts_with(self.answer) {
                Ok(())
            } else {
                Err(answer)
            }
        });
    }

    fn ask(&self) -> std::io::Result<String> {
        let patience = Some(Duration::from_secs(2));
        match &self.place {
            Place::Loopback(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(patience)?;
                self.ask_on(stream)
            }
            Place::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(patience)?;
                self.ask_on(stream)
            }
        }
    }

    fn ask_on(&self, mut stream: impl Read + Write) -> std::io::Result<String> {
        stream.write_all(self.question.as_bytes())?;
        let mut answer = Vec::new();
        while answer.len() < self.answer.len() {
            let mut bytes = [0; 256];
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&bytes[..count]);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// A daemon under a manager.
struct Managed<'a> {
    sandbox: &'a Sandbox,
    daemon: Daemon,
    vsrun: Running<'a>,
    handler: Handler,
}

impl<'a> Managed<'a> {
    /// Starts it with the options in `vsrun`.
    fn start(sandbox: &'a Sandbox, daemon: Daemon, vsrun: Invocation<'a>) -> Managed<'a> {
        // What is left of a crashed daemon would keep the next one from listening. With a manager,
        // a server leads its process group.
        let handler = sandbox
            .handler("handler")
            .line("kill -9 -$VSRUN_SERVER_PID 2>/dev/null");
        let handler = handler.create();
        let vsrun = vsrun
            .user(user().0.to_string())
            .pidfile(sandbox.path("pidfile"))
            .manager(sandbox.path("monitor"), &handler)
            .command(&daemon.command)
            .spawn();
        let managed = Managed {
            sandbox,
            daemon,
            vsrun,
            handler,
        };
        managed.daemon.wait_for_answer();
        managed
    }

    fn logged(sandbox: &'a Sandbox, daemon: Daemon) -> Managed<'a> {
        let vsrun = sandbox.vsrun().logdir(sandbox.path("logs"), "1d");
        Managed::start(sandbox, daemon, vsrun)
    }

    fn server(&self) -> Process {
        self.sandbox.wait_for_pidfile(self.sandbox.path("pidfile"))
    }

    /// Waits until another process than `old` is the server and answers.
    #[track_caller]
    fn wait_for_another(&self, old: Process) {
        wait_for("another server", || self.server() != old);
        self.daemon.wait_for_answer();
    }

    #[track_caller]
    fn comes_back_after(&self, signal: i32) {
        let runs = self.handler.runs().len();
        let old = self.server();
        self.sandbox.signal(old, signal);
        self.wait_for_another(old);
        let run = self.handler.wait_for_run(runs + 1);
        assert_eq!(
            run.env("VSRUN_SERVER_PID"),
            Some(old.pid().to_string().as_ref())
        );
    }

    fn stop(self) {
        let server = self.server();
        self.vsrun.signal(SIGTERM);
        self.vsrun.wait().expect_code(0);
        assert!(!server.exists());
        assert!(self.daemon.ask().is_err());
        for file in ["pidfile", "monitor", "monitor.lock"] {
            assert!(!self.sandbox.path(file).exists(), "{file}");
        }
    }
}

/// Takes a daemon through a crash by SIGSEGV and one by SIGKILL, a restart and a stop.
fn lives_under_vsrun(make: fn(&Sandbox) -> Option<Daemon>) {
    let sandbox = sandbox();
    let Some(daemon) = make(&sandbox) else {
        return;
    };
    let managed = Managed::logged(&sandbox, daemon);
    let status = managed.server().status().expect("a running server");
    assert_eq!((status.uids.effective, status.gids.effective), user());
    managed.comes_back_after(SIGSEGV);
    managed.comes_back_after(SIGKILL);
    let old = managed.server();
    managed.vsrun.signal(SIGHUP);
    managed.wait_for_another(old);
    assert_eq!(managed.handler.runs().len(), 2);
    managed.stop();
}

#[test]
fn nginx_answers_again_after_crashes_and_a_restart_and_can_be_stopped() {
    lives_under_vsrun(Daemon::nginx);
}

#[test]
fn redis_answers_again_after_crashes_and_a_restart_and_can_be_stopped() {
    lives_under_vsrun(Daemon::redis);
}

#[test]
fn redis_on_loopback_answers_again_after_crashes_and_a_restart_and_can_be_stopped() {
    lives_under_vsrun(Daemon::redis_on_loopback);
}

#[test]
fn memcached_answers_again_after_crashes_and_a_restart_and_can_be_stopped() {
    lives_under_vsrun(Daemon::memcached);
}

/// Checks that each start has a log with the daemon's output, written without a pipe in between.
fn is_logged(make: fn(&Sandbox) -> Option<Daemon>) {
    let sandbox = sandbox();
    let Some(daemon) = make(&sandbox) else {
        return;
    };
    let managed = Managed::logged(&sandbox, daemon);
    let logs = LogDirectory::at(sandbox.path("logs"));
    let says = managed.daemon.says;
    managed.comes_back_after(SIGKILL);
    for log in ["logfile", "logfile.1"] {
        wait_for("the daemon's words", || {
            let output = String::from_utf8_lossy(&logs.read(log)).into_owned();
            if output.contains(says) {
                Ok(())
            } else {
                Err(output)
            }
        });
    }
    wait_for("vsrun's lines", || {
        let output = logs.vsrun();
        if output.matches("started server").count() == 2 {
            Ok(())
        } else {
            Err(output)
        }
    });
    managed.stop();
}

#[test]
fn nginx_has_a_log_for_each_start() {
    is_logged(Daemon::nginx);
}

#[test]
fn redis_has_a_log_for_each_start() {
    is_logged(Daemon::redis);
}

#[test]
fn memcached_has_a_log_for_each_start() {
    is_logged(Daemon::memcached);
}

/// Checks that the daemon's output goes to logger, also after a crash.
fn is_sent_to_syslog(make: fn(&Sandbox) -> Option<Daemon>) {
    let sandbox = sandbox();
    let Some(daemon) = make(&sandbox) else {
        return;
    };
    let bin = sandbox.dir("bin");
    let lines = sandbox.open_dir("kept").join("lines");
    let script = format!(
        "#!/bin/sh\nexec sed \"s/^/$2: /;\" -u >>'{}'\n",
        lines.display()
    );
    sandbox.executable("bin/logger", script);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let vsrun = sandbox.vsrun().env("PATH", path).syslog("web");
    let managed = Managed::start(&sandbox, daemon, vsrun);
    managed.comes_back_after(SIGKILL);
    let says = managed.daemon.says;
    wait_for("the daemon's words of two lives", || {
        let output = sandbox.lines(&lines);
        let theirs = |line: &&String| line.starts_with("web: ") && line.contains(says);
        if output.iter().filter(theirs).count() >= 2 {
            Ok(())
        } else {
            Err(output)
        }
    });
    managed.stop();
}

#[test]
fn output_of_nginx_goes_to_logger() {
    is_sent_to_syslog(Daemon::nginx);
}

#[test]
fn output_of_redis_goes_to_logger() {
    is_sent_to_syslog(Daemon::redis);
}

#[test]
fn output_of_memcached_goes_to_logger() {
    is_sent_to_syslog(Daemon::memcached);
}

/// Checks a daemon in the background, started without a manager.
fn runs_in_the_background(make: fn(&Sandbox) -> Option<Daemon>) {
    let sandbox = sandbox();
    let Some(daemon) = make(&sandbox) else {
        return;
    };
    let vsrun = sandbox
        .vsrun()
        .user(user().0.to_string())
        .pidfile(sandbox.path("pidfile"));
    let vsrun = vsrun.background().logdir(sandbox.path("logs"), "1d");
    vsrun.command(&daemon.command).run().expect_code(0);
    daemon.wait_for_answer();
    let server = sandbox.wait_for_pidfile(sandbox.path("pidfile"));
    sandbox.signal(server, SIGTERM);
    wait_for("the server to end", || !server.exists());
}

#[test]
fn nginx_runs_in_the_background() {
    runs_in_the_background(Daemon::nginx);
}

#[test]
fn redis_runs_in_the_background() {
    runs_in_the_background(Daemon::redis);
}

#[test]
fn memcached_runs_in_the_background() {
    runs_in_the_background(Daemon::memcached);
}

/// A statically linked web server in a root of its own.
fn httpd(sandbox: &Sandbox) -> Option<(PathBuf, Daemon)> {
    if !require_root() || !require_program("busybox") {
        return None;
    }
    let root = sandbox.dir("jail");
    ["jail/bin", "jail/www", "jail/dev"]
        .into_iter()
        .for_each(|dir| drop(sandbox.dir(dir)));
    sandbox.copy_of("/bin/busybox", "jail/bin/httpd");
    fs::write(root.join("www/index.html"), "hello\n").expect("the sandbox can be written");
    let address = own_address();
    let words = [
        "/bin/httpd",
        "-f",
        "-vv",
        "-h",
        "/www",
        "-p",
        &address.to_string(),
    ];
    let daemon = Daemon {
        command: words.map(OsString::from).to_vec(),
        place: Place::Loopback(address),
        question: "GET /index.html HTTP/1.0\r\n\r\n",
        answer: "HTTP/1.1 200 OK",
        says: "response:200",
    };
    Some((root, daemon))
}

#[test]
fn a_statically_linked_server_in_a_root_answers_again_after_crashes_and_a_restart() {
    let sandbox = sandbox();
    let Some((root, daemon)) = httpd(&sandbox) else {
        return;
    };
    let vsrun = sandbox.vsrun().root(&root).logdir(root.join("logs"), "1d");
    let managed = Managed::start(&sandbox, daemon, vsrun);
    let server = managed.server();
    assert_eq!(server.root(), Some(root));
    assert_eq!(
        server.status().expect("a running server").uids.effective,
        NOBODY
    );
    managed.comes_back_after(SIGSEGV);
    managed.comes_back_after(SIGKILL);
    let old = managed.server();
    managed.vsrun.signal(SIGHUP);
    managed.wait_for_another(old);
    managed.stop();
}

#[test]
fn output_of_a_server_in_a_root_is_in_the_log_outside() {
    let sandbox = sandbox();
    let Some((root, daemon)) = httpd(&sandbox) else {
        return;
    };
    let logs = LogDirectory::at(sandbox.path("logs"));
    let managed = Managed::start(
        &sandbox,
        daemon,
        sandbox.vsrun().root(&root).logdir(&logs, "1d"),
    );
    assert_eq!(managed.server().root(), Some(root));
    let says = managed.daemon.says;
    wait_for("the server's words", || {
        let output = logs.server();
        if output.contains(says) {
            Ok(())
        } else {
            Err(output)
        }
    });
    managed.stop();
}

#[test]
fn a_server_that_daemonizes_ends_its_manager_with_a_hint() {
    let sandbox = sandbox();
    let Some(mut daemon) = Daemon::redis(&sandbox) else {
        return;
    };
    daemon.command.extend(["--daemonize".into(), "yes".into()]);
    let logs = LogDirectory::at(sandbox.path("logs"));
    let vsrun = sandbox
        .vsrun()
        .logdir(&logs, "1d")
        .user(user().0.to_string());
    let vsrun = vsrun
        .manager(sandbox.path("monitor"), "/bin/true")
        .command(&daemon.command);
    vsrun.run().expect_code(0);
    daemon.wait_for_answer();
    assert!(logs.vsrun().contains("background"), "{}", logs.vsrun());
}
