//! What a hostile owner of the directory puts in the place of a log.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{geteuid, mkfifo};

use super::*;
use crate::prelude::*;

/// Puts something under the name of each log into a directory of the user's, and checks that it is
/// renamed and otherwise unchanged.
fn is_put_aside(place: impl Fn(&Sandbox, &Path)) {
    for name in ["logfile", "vsrun.log"] {
        let sandbox = sandbox();
        let logs = users_dir(&sandbox, "logs");
        place(&sandbox, &logs.join(name));
        let before = facts(logs.join(name));
        let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
        wait_for_hello(&logs);
        assert_eq!(facts(logs.join(format!("{name}.1"))), before, "{name}");
        wait_for("the new log to be written", || {
            about(logs.join(name)).len() > 0
        });
        let log = about(logs.join(name));
        assert!(log.is_file() && log.nlink() == 1, "{name}: {log:?}");
        assert_eq!(
            (mode_of(logs.join(name)), owner_of(logs.join(name))),
            (0o640, user())
        );
        managed.stop().expect_code(0);
    }
}

fn precious(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.path("precious");
    if !path.exists() {
        sandbox.file("precious", "precious\n");
        chmod(&path, 0o600);
    }
    path
}

fn is_unharmed(precious: &Path, links: u64) {
    let me = geteuid().as_raw();
    assert_eq!(text(precious), "precious\n");
    let about = about(precious);
    assert_eq!(
        (about.uid(), about.nlink(), mode_of(precious)),
        (me, links, 0o600)
    );
}

#[test]
fn a_link_in_place_of_a_log_is_renamed_and_not_followed() {
    let sandbox = sandbox();
    let precious = precious(&sandbox);
    is_put_aside(|_, path| {
        symlink(&precious, path).expect("a link");
        give(path);
    });
    is_unharmed(&precious, 1);
}

#[test]
fn a_dangling_link_in_place_of_a_log_is_renamed_and_not_followed() {
    let sandbox = sandbox();
    let target = sandbox.path("target");
    is_put_aside(|_, path| {
        symlink(&target, path).expect("a link");
        give(path);
    });
    assert!(!target.exists());
}

#[test]
fn a_fifo_in_place_of_a_log_is_renamed() {
    is_put_aside(|_, path| {
        mkfifo(path, Mode::S_IRUSR).expect("a FIFO");
        give(path);
    });
}

#[test]
fn a_directory_in_place_of_a_log_is_renamed() {
    is_put_aside(|_, path| {
        fs::create_dir(path).expect("a directory");
        users_file(path.join("logfile"), "inside\n");
        give(path);
    });
}

#[test]
fn a_socket_in_place_of_a_log_is_renamed() {
    is_put_aside(|_, path| {
        drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
        assert!(about(path).file_type().is_socket());
    });
}

#[test]
fn a_device_in_place_of_a_log_is_renamed() {
    needs!(root);
    is_put_aside(|_, path| {
        let full = makedev(1, 7);
        mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), full).expect("a device");
        give(path);
    });
}

#[test]
fn a_hard_link_in_place_of_a_log_is_renamed_and_not_written() {
    let sandbox = sandbox();
    let precious = precious(&sandbox);
    is_put_aside(|_, path| fs::hard_link(&precious, path).expect("a second name"));
    // The sandboxes with the second names are gone.
    is_unharmed(&precious, 1);
}

#[test]
fn an_empty_hard_link_in_place_of_a_log_is_renamed_and_not_written() {
    let sandbox = sandbox();
    let empty = sandbox.file("empty", "");
    give(&empty);
    is_put_aside(|_, path| fs::hard_link(&empty, path).expect("a second name"));
    assert_eq!(about(&empty).len(), 0);
}

#[test]
fn a_file_of_root_in_a_users_directory_is_renamed() {
    needs!(root);
    is_put_aside(|_, path| fs::write(path, "root's\n").expect("the sandbox can be written"));
    is_put_aside(|_, path| fs::write(path, "").expect("the sandbox can be written"));
}

#[test]
fn a_file_of_another_user_in_a_users_directory_is_renamed() {
    needs!(root);
    is_put_aside(|_, path| {
        fs::write(path, "").expect("the sandbox can be written");
        chown(path, Some(5), Some(5)).expect("root may give a file away");
    });
}

#[test]
fn a_link_in_place_of_a_running_servers_log_is_renamed_at_the_next_start() {
    let sandbox = sandbox();
    let (logs, precious) = (users_dir(&sandbox, "logs"), precious(&sandbox));
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    fs::remove_file(logs.join("logfile")).expect("a log");
    symlink(&precious, logs.join("logfile")).expect("a link");
    give(logs.join("logfile"));
    managed.restart();
    wait_for_hello(&logs);
    managed.stop().expect_code(0);
    assert_eq!(
        fs::read_link(logs.join("logfile.1")).expect("a link"),
        precious
    );
    is_unharmed(&precious, 1);
}

#[test]
fn a_user_who_swaps_names_cannot_make_root_write_elsewhere() {
    needs!(root);
    let sandbox = sandbox();
    let (home, victims) = (
        sandbox.dir_of("home", NOBODY, NOBODY),
        sandbox.dir("victims"),
    );
    let victim = sandbox.dir("victims/logs");
    for name in [
        "logfile",
        "vsrun.log",
        "logfile.1",
        "logfile.2",
        "vsrun.log.1",
    ] {
        fs::write(victim.join(name), "precious\n").expect("the sandbox can be written");
        age(victim.join(name), "10 years ago");
    }
    let before = snapshot(&victim);
    let outside = snapshot(&victims);
    // home/middle/logs is the log directory, and home/middle/trap, home/trap are links to roots'.
    let (middle, logs) = (sandbox.dir("home/middle"), sandbox.dir("home/middle/logs"));
    for (link, target) in [
        ("home/trap", &victims),
        ("home/middle/trap", &victim),
        ("home/middle/logs/trap", &victim),
    ] {
        sandbox.link(link, target);
    }
    sandbox.link("home/middle/logs/bait", victim.join("logfile"));
    for path in [
        "home/trap",
        "home/middle",
        "home/middle/trap",
        "home/middle/logs",
    ] {
        give(sandbox.path(path));
    }
    let over = AtomicBool::new(false);
    let started = thread::scope(|scope| {
        let attack = || {
            // By descriptors: the attacker must not fall into the traps.
            let [home, middle, logs] =
                [&home, &middle, &logs].map(|path| File::open(path).expect("a directory"));
            while !over.load(Ordering::Relaxed) {
                for (place, one, other) in [
                    (&home, "middle", "trap"),
                    (&middle, "logs", "trap"),
                    (&logs, "logfile", "bait"),
                    (&logs, "vsrun.log", "bait"),
                    (&logs, "logfile.1", "trap"),
                ] {
                    // A name that is not there is not swapped.
                    let _ = renameat2(place, one, place, other, RenameFlags::RENAME_EXCHANGE);
                }
                // Now the directory has to be made by vsrun.
                let _ = renameat2(
                    &middle,
                    "logs",
                    &middle,
                    "away",
                    RenameFlags::RENAME_NOREPLACE,
                );
                let _ = renameat2(
                    &middle,
                    "away",
                    &middle,
                    "logs",
                    RenameFlags::RENAME_NOREPLACE,
                );
            }
        };
        scope.spawn(attack);
        let end = Instant::now() + Duration::from_secs(4);
        let mut started = 0;
        while Instant::now() < end {
            let vsrun = as_user(sandbox.vsrun()).logdir("home/middle/logs", "1h");
            let outcome = vsrun.command(sandbox.probe().out("pwned").exit(0)).run();
            assert!(matches!(outcome.code(), Some(0 | 125)), "{outcome:?}");
            started += usize::from(outcome.code() == Some(0));
        }
        over.store(true, Ordering::Relaxed);
        started
    });
    settle(&sandbox);
    assert_eq!(snapshot(&victim), before);
    assert_eq!(snapshot(&victims), outside);
    assert!(started > 0, "the attack kept every server from starting");
}

/// Opens a file with a lease on it (see fcntl(2)), prints a line, and never gives the lease up.
const LESSOR: &str = "import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print('leased', flush=True)
signal.pause()
";

#[test]
fn a_lease_on_an_empty_log_does_not_prevent_a_start() {
    needs!(root, "python3");
    let sandbox = sandbox();
    let logs = sandbox.dir_of("logs", NOBODY, NOBODY);
    let log = sandbox.file("logs/logfile", "");
    give(&log);
    let lessor = sandbox
        .program("/usr/bin/python3")
        .run_as(NOBODY, NOBODY, &[]);
    let lessor = lessor.args(["-c", LESSOR]).arg(&log).spawn();
    wait_for("the lease", || lessor.stdout() == "leased\n");
    let start = sandbox.vsrun().user("nobody").logdir(&logs, "1");
    start.command(["/bin/echo", "hello"]).run().expect_code(0);
    assert_eq!(LogDirectory::at(&logs).server(), "hello\n");
}
