//! Core dumps: of a server that really dumps core, reported to the handler and opened by a
//! debugger.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;

use crate::prelude::*;

/// Where this machine puts core files, see core(5).
fn pattern() -> String {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a core pattern");
    pattern.trim_end().to_owned()
}

fn skip(need: &str) -> bool {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI must not skip: needs {need}"
    );
    let thread = std::thread::current();
    eprintln!("SKIP {}: needs {need}", thread.name().unwrap_or("a test"));
    false
}

/// Whether the size limit applies: a program that receives cores is run at any limit.
fn require_core_files() -> bool {
    !pattern().starts_with('|') || skip("cores that are not piped to a program")
}

/// Whether core files are in the working directory.
fn require_cores_in_place() -> bool {
    require_core_files()
        && (!pattern().contains('/') || skip("core files in the working directory"))
}

/// Whether a server may be given an unlimited size of core files.
fn require_big_cores() -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).expect("limits can be read");
    geteuid().is_root() || hard == u64::MAX || skip("unlimited core files")
}

/// Lets a server die of `signal` and returns the run of its handler. The log directory is the
/// working directory.
fn death_of(sandbox: &Sandbox, signal: i32, core_limit: u64) -> HandlerRun {
    let handler: Handler = sandbox.handler("handler").exits(1).create();
    let vsrun = as_user(sandbox.vsrun())
        .limit(Resource::RLIMIT_CORE, core_limit, core_limit)
        .logdir(sandbox.path("logs"), "1d")
        .manager(sandbox.path("monitor"), &handler);
    let server = sandbox.probe().dumping_core().kill(signal);
    vsrun.command(server).run().expect_code(128 + signal);
    handler.wait_for_run(1)
}

fn core_in(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut cores = entries.filter(|entry| {
        let name = entry.file_name();
        name != OsStr::new("logfile") && name != OsStr::new("vsrun.log")
    });
    cores.next().expect("a core file").path()
}

#[test]
fn the_core_file_lies_in_the_log_directory_and_a_debugger_opens_it() {
    if !require_big_cores() || !require_cores_in_place() || !require_program("gdb") {
        return;
    }
    let sandbox = sandbox();
    death_of(&sandbox, SIGSEGV, u64::MAX);
    let core = core_in(&sandbox.path("logs"));
    let gdb = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "info registers"])
        .arg(sandbox.path("probe"))
        .arg(&core)
        .env("HOME", sandbox.directory())
        .output()
        .expect("gdb runs");
    let output = String::from_utf8_lossy(&gdb.stdout);
    assert!(
        output.contains("terminated with signal SIGSEGV"),
        "{output}"
    );
    assert!(
        output.contains(&format!("{}", sandbox.path("probe").display())),
        "{output}"
    );
}

#[test]
fn the_core_of_a_users_server_is_the_users() {
    use std::os::unix::fs::MetadataExt;
    if !require_root() || !require_cores_in_place() {
        return;
    }
    let sandbox = sandbox();
    death_of(&sandbox, SIGSEGV, u64::MAX);
    let core = core_in(&sandbox.path("logs"));
    assert_eq!(fs::metadata(core).expect("a core file").uid(), NOBODY);
}

#[test]
fn a_core_dump_changes_no_status_of_a_server_that_vsrun_becomes() {
    if !require_big_cores() {
        return;
    }
    use std::os::unix::process::ExitStatusExt;
    let sandbox = sandbox();
    let cores = sandbox.open_dir("cores");
    let vsrun = as_user(sandbox.vsrun()).work_dir(&cores);
    let vsrun = vsrun.limit(Resource::RLIMIT_CORE, u64::MAX, u64::MAX);
    let outcome = vsrun
        .command(sandbox.probe().dumping_core().kill(SIGSEGV))
        .run();
    assert_eq!(outcome.signal(), Some(SIGSEGV));
    assert!(outcome.status.core_dumped());
}

#[test]
fn cores_do_not_count_as_logs() {
    if !require_big_cores() || !require_cores_in_place() {
        return;
    }
    let sandbox = sandbox();
    death_of(&sandbox, SIGSEGV, u64::MAX);
    let core = core_in(&sandbox.path("logs"));
    let vsrun = as_user(sandbox.vsrun()).logdir(sandbox.path("logs"), "1h");
    vsrun.command(["/bin/true"]).run().expect_code(0);
    assert!(core.exists());
}
