//! The demo's server, handlers, pidfiles and logs, in a directory that is removed when the demo
//! ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkdtemp};

use super::follow::Follower;
use crate::steps::cargo_target;

const SERVER: &str = "#!/bin/sh
n=0
while :; do
    n=$((n + 1))
    echo \"tick $n of server $$\"
    sleep 1
done
";

const HANDLER: &str = "#!/bin/sh
echo \"handler: server $VSRUN_SERVER_PID $VSRUN_SERVER_EXPLAIN\" \\
    \"after $VSRUN_SERVER_UPTIME s: restart\"
exit 0
";

const REFUSING_HANDLER: &str = "#!/bin/sh
echo \"handler: server $VSRUN_SERVER_PID $VSRUN_SERVER_EXPLAIN: no restart\"
exit 1
";

/// The time limit of each wait.
const LIMIT: Duration = Duration::from_secs(20);
/// How many ticks of a server are shown before the next step.
const TICKS: usize = 3;

/// The directory, and vsrun if it runs.
pub struct Stage {
    directory: PathBuf,
    user: Option<&'static str>,
    vsrun: Option<Child>,
    logs: Vec<Follower>,
    /// The last server that was seen.
    server: Option<Pid>,
}

impl Stage {
    /// Makes the directory with the server and the handlers.
    pub fn new(user: Option<&'static str>) -> Result<Stage, String> {
        let template = std::env::temp_dir().join("vsrun-demo-XXXXXX");
        let directory = mkdtemp(&template)
            .map_err(|error| format!("cannot make '{}': {error}", template.display()))?;
        let logs = ["vsrun.log", "logfile"];
        let logs = logs
            .map(|name| Follower::new(directory.join("logs").join(name)))
            .into();
        let stage = Stage {
            directory,
            user,
            vsrun: None,
            logs,
            server: None,
        };
        // The server's user must be able to enter it.
        make_executable(&stage.directory)?;
        let programs = [
            ("server", SERVER),
            ("handler", HANDLER),
            ("refuse", REFUSING_HANDLER),
        ];
        for (name, text) in programs {
            let path = stage.directory.join(name);
            fs::write(&path, text)
                .map_err(|error| format!("cannot write '{}': {error}", path.display()))?;
            make_executable(&path)?;
        }
        Ok(stage)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Prints the command line of vsrun with this handler, and starts it.
    pub fn start(&mut self, handler: &str) -> Result<(), String> {
        let user = self
            .user
            .map(|user| format!("-u {user} "))
            .unwrap_or_default();
        let words = format!("{user}-p server.pid -m manager.pid {handler} -d logs 1d -- ./server");
        println!("  $ vsrun {words}");
        let program = cargo_target().join("release/vsrun");
        let mut command = Command::new(&program);
        command
            .args(words.split(' '))
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        let started = command.spawn();
        let vsrun =
            started.map_err(|error| format!("cannot run '{}': {error}", program.display()))?;
        self.vsrun = Some(vsrun);
        Ok(())
    }

    /// Waits for a new server and some of its ticks.
    pub fn wait_for_a_new_server(&mut self) -> Result<(), String> {
        let before = self.server;
        let mut ticks = 0;
        self.wait("a new server and its ticks", |stage, lines| {
            if let Some(status) = stage.ended()? {
                return Err(format!("vsrun ended with {status}"));
            }
            if stage.server == before {
                stage.server = stage.read_pidfile("server.pid").or(before);
            }
            let tick = stage.server.map(|server| format!("of server {server}"));
            let is_tick = |line: &&String| tick.as_ref().is_some_and(|tick| line.ends_with(tick));
            ticks += lines.iter().filter(is_tick).count();
            Ok(stage.server != before && ticks >= TICKS)
        })
    }

    /// Sends a signal to the server itself.
    pub fn kill_server(&self, signal: Signal) -> Result<(), String> {
        send(self.server.ok_or("there is no server")?, signal)
    }

    /// Sends a signal to the manager.
    pub fn signal_manager(&self, signal: Signal) -> Result<(), String> {
        send(
            self.read_pidfile("manager.pid")
                .ok_or("there is no manager.pid")?,
            signal,
        )
    }

    /// Waits for the end of vsrun, and prints its status. Its pidfiles must be gone.
    pub fn wait_for_the_end(&mut self) -> Result<(), String> {
        let mut ended = None;
        self.wait("the end of vsrun", |stage, _| {
            ended = stage.ended()?;
            Ok(ended.is_some())
        })?;
        self.vsrun = None;
        for name in ["server.pid", "manager.pid"] {
            if self.directory.join(name).exists() {
                return Err(format!("{name} is still there"));
            }
        }
        if let Some(status) = ended {
            println!("  vsrun ended with {status}; its pidfiles are gone.");
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        let vsrun = self.vsrun.as_mut().ok_or("vsrun was not started")?;
        let ended = vsrun.try_wait();
        ended.map_err(|error| format!("cannot wait for vsrun: {error}"))
    }

    /// Prints the names of the log files.
    pub fn list_logs(&self) -> Result<(), String> {
        let directory = self.directory.join("logs");
        let listed = fs::read_dir(&directory)
            .map_err(|error| format!("cannot read '{}': {error}", directory.display()))?;
        let mut names: Vec<String> = listed
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        println!("  {}", names.join("  "));
        Ok(())
    }

    /// Prints new lines of the logs until the condition, which receives them, is true.
    fn wait(
        &mut self,
        effect: &str,
        mut condition: impl FnMut(&mut Stage, &[String]) -> Result<bool, String>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let lines = self.show_new_lines();
            match condition(self, &lines) {
                Ok(false) => {}
                done => {
                    self.show_new_lines();
                    return done.map(|_| ());
                }
            }
            if Instant::now() >= deadline {
                return Err(format!("waited {} s in vain for {effect}", LIMIT.as_secs()));
            }
            sleep(Duration::from_millis(10));
        }
    }

    fn show_new_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for log in &mut self.logs {
            for line in log.new_lines() {
                println!("  {:<9} | {line}", log.name());
                lines.push(line);
            }
        }
        lines
    }

    fn read_pidfile(&self, name: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.directory.join(name)).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut vsrun) = self.vsrun.take() {
            // vsrun may have ended.
            let _ = self.signal_manager(Signal::SIGTERM);
            let _ = vsrun.wait();
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!(
                "xtask: cannot remove '{}': {error}",
                self.directory.display()
            );
        }
    }
}

fn send(process: Pid, signal: Signal) -> Result<(), String> {
    println!(
        "  $ kill -{} {process}",
        signal.as_str().trim_start_matches("SIG")
    );
    kill(process, signal).map_err(|error| format!("cannot send {signal} to {process}: {error}"))
}

fn make_executable(path: &Path) -> Result<(), String> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("cannot change '{}': {error}", path.display()))
}
