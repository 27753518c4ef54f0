//! Faults of the places that pidfiles lie in, at a start and at a restart, and other processes that
//! want the same files. Those that the tests of pidfiles prove already are not repeated.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::libc;

use crate::prelude::*;

// The file system.

#[test]
fn a_file_system_that_becomes_read_only_keeps_no_server_from_being_restarted() {
    if !require_root() || !require_program("nsenter") {
        return;
    }
    let sandbox = sandbox();
    let run = sandbox.dir("run");
    let start = sandbox.vsrun().tmpfs(&run, "size=64k").pidfile("run/pid");
    let manager = start.manager("manager", CONSENT).command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    let inside = manager.process().path_inside(&run);
    let old = fs::read_to_string(inside.join("pid")).expect("a pidfile");
    let namespace = format!("--mount=/proc/{}/ns/mnt", manager.pid());
    let remount = sandbox.program("/usr/bin/nsenter").arg(namespace);
    let remount = remount.args(["mount", "-o", "remount,ro"]).arg(&run);
    remount.run().expect_code(0);
    sandbox.signal(first, SIGKILL);
    let second = started(&sandbox, 2);
    manager.signal(SIGHUP);
    let third = started(&sandbox, 3);
    assert!(!second.exists() && third.exists());
    // It cannot be mended, but it is said.
    assert_eq!(fs::read_to_string(inside.join("pid")).expect("a pidfile"), old);
    let said = manager.stderr();
    assert!(said.contains("run/pid'") && said.contains("Read-only file system"), "{said}");
    stop(manager);
}

#[test]
fn a_pidfile_that_is_mounted_holds_the_id_of_each_server_that_runs() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("run");
    let (real, pidfile) = (sandbox.file("real", ""), sandbox.file("run/pid", ""));
    let start = sandbox.vsrun().bind(&real, &pidfile).pidfile(&pidfile);
    let manager = start.manager("manager", CONSENT).command(probe(&sandbox)).spawn();
    for count in 1..=3 {
        let server = started(&sandbox, count);
        assert_eq!(sandbox.lines(&real), [server.pid().to_string()]);
        if count < 3 {
            sandbox.signal(server, SIGKILL);
        }
    }
    stop(manager);
}

#[test]
fn a_pidfile_that_is_mounted_holds_no_id_once_the_server_is_gone() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("run");
    let (real, pidfile) = (sandbox.file("real", ""), sandbox.file("run/pid", ""));
    let start = sandbox.vsrun().bind(&real, &pidfile).pidfile(&pidfile);
    let manager = start.manager("manager", CONSENT).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    stop(manager);
    // What is mounted cannot be removed, but a stranger may get that id.
    assert_eq!(sandbox.lines(&real), [""; 0]);
}

#[test]
fn a_pidfile_that_is_mounted_has_the_id_of_a_live_process_after_a_start_that_fails() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("run");
    let (live, dead) = (format!("{}\n", std::process::id()), format!("{}\n", i32::MAX));
    let pidfile = sandbox.file("run/pid", "");
    for (old, new) in [(live.as_str(), live.as_str()), (&dead, ""), ("no id", "")] {
        let real = sandbox.file("real", old);
        let start = sandbox.vsrun().bind(&real, &pidfile).pidfile(&pidfile);
        start.command(["/no/such/server"]).run().expect_code(127);
        assert_eq!(fs::read_to_string(real).expect("a file"), new, "{old}");
    }
}

#[test]
fn a_file_system_that_can_neither_exchange_files_nor_spare_what_stands_there_takes_pidfiles() {
    if !require_root() || !require_program("strace") {
        return;
    }
    let sandbox = sandbox();
    let run = LogDirectory::at(sandbox.dir("run"));
    let live = std::process::id() as i32;
    let pidfile = sandbox.file("run/pid", format!("{live}\n"));
    let start = || {
        let strace = sandbox.program("/usr/bin/strace").arg("-o").arg(sandbox.path("trace"));
        let strace = strace.args(["-f", "-e", "inject=renameat2:error=EINVAL", "--"]);
        strace.arg(VSRUN).pidfile(&pidfile)
    };
    start().command(["/no/such/server"]).run().expect_code(127);
    assert_eq!(sandbox.read_pidfile(&pidfile), Some(live));
    start().command(sandbox.probe().append(sandbox.path("starts")).exit(0)).run().expect_code(0);
    assert_eq!(sandbox.lines(&pidfile), sandbox.lines("starts"));
    assert_eq!(run.names(), ["pid"]);
}

#[test]
fn a_log_directory_that_is_made_and_cannot_be_opened_is_taken_away_again() {
    let sandbox = sandbox();
    for limit in 4..16 {
        let start = sandbox.vsrun().limit(Resource::RLIMIT_NOFILE, limit, limit);
        let outcome = start.logdir("var/logs", "1").command(["/bin/true"]).run();
        if outcome.code() == Some(125) {
            assert!(!sandbox.path("var").exists(), "limit {limit}: {}", outcome.stderr_text());
        }
        fs::remove_dir_all(sandbox.path("var")).ok();
    }
}

// Others who want the same files.

#[test]
fn without_a_manager_two_servers_may_share_a_pidfile_and_it_names_the_second() {
    let sandbox = sandbox();
    let start = || sandbox.vsrun().pidfile("pid").command(probe(&sandbox)).spawn();
    let first = start();
    started(&sandbox, 1);
    let second = start();
    started(&sandbox, 2);
    assert!(first.process().exists() && second.process().exists());
    assert_eq!(sandbox.read_pidfile(sandbox.path("pid")), Some(second.pid()));
}

#[test]
fn a_lock_of_a_strangers_is_told_with_his_id_and_nothing_is_touched() {
    let sandbox = sandbox();
    let run = LogDirectory::at(sandbox.dir("run"));
    let path = sandbox.file("run/manager.lock", "");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("a file");
    let line = format!("vsrun: already managed by process {}", std::process::id());
    for kind in [libc::F_WRLCK, libc::F_RDLCK] {
        lock(&file, kind).expect("a lock");
        for background in [false, true] {
            let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", CONSENT);
            let start = if background { start.background() } else { start };
            start.command(probe(&sandbox)).run().expect_error(125, &line);
            assert_eq!(run.names(), ["manager.lock"]);
        }
    }
    assert!(!sandbox.path("starts").exists());
    // The next start finds it free.
    drop(file);
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", CONSENT);
    let manager = start.command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    stop(manager);
    assert_eq!(run.names(), [""; 0]);
}

/// What whoever may read the files of a manager could do to keep the next one away
/// (CVE-2022-1348 of logrotate: a state file that every user could lock).
#[test]
fn locks_on_what_everybody_may_read_keep_no_manager_away() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("run");
    let start = || {
        let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", CONSENT);
        start.command(probe(&sandbox)).spawn()
    };
    let manager = start();
    let first = started(&sandbox, 1);
    for name in ["manager.lock", "pid", "manager"] {
        let cat = sandbox.program("/bin/cat").run_as(NOBODY, NOBODY, &[]);
        let outcome = cat.arg(sandbox.path("run").join(name)).run();
        assert_eq!(outcome.code(), Some(if name == "manager.lock" { 1 } else { 0 }), "{name}");
    }
    // As good as nobody: open for reading only.
    let files = ["pid", "manager"].map(|name| File::open(sandbox.path("run").join(name)));
    let files = files.map(|file| file.expect("everybody may read it"));
    files.iter().for_each(|file| lock(file, libc::F_RDLCK).expect("a lock"));
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    assert!(!first.exists());
    manager.signal(SIGKILL);
    manager.wait();
    sandbox.signal(second, SIGKILL);
    let manager = start();
    started(&sandbox, 3);
    let lock = fs::metadata(sandbox.path("run/manager.lock")).expect("a file");
    assert_eq!((lock.uid(), lock.mode() & 0o777), (0, 0o600));
    stop(manager);
    assert_eq!(LogDirectory::at(Path::new(&sandbox.path("run"))).names(), [""; 0]);
}
