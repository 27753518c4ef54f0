//! What went wrong with the files of programs of the same trade, tried on vsrun. Each test names
//! its advisories; docs/advisories.md has them all, also those that other tests answer.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::fcntl::{RenameFlags, renameat2};

use crate::prelude::*;

/// Root's files in a directory of root's, under names that vsrun uses.
fn victims(sandbox: &Sandbox) -> Vec<PathBuf> {
    let directory = sandbox.dir("victims");
    let names = ["logfile", "vsrun.log", "logfile.1", "pid", "manager", "manager.lock"];
    let files = names.map(|name| {
        let path = sandbox.file(Path::new("victims").join(name), "precious\n");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
        path
    });
    files.into_iter().chain([directory]).collect()
}

/// A link in the middle of a path, put there between look and use: CVE-2018-21269 and issue 195 of
/// OpenRC, CVE-2018-6954 of systemd, CVE-2016-1247 of nginx, CVE-2016-9566 of Nagios.
#[test]
fn a_directory_on_the_way_that_is_swapped_10_000_times_leads_root_nowhere() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let victims = victims(&sandbox);
    let before: Vec<Facts> = victims.iter().map(|path| facts(path)).collect();
    let names = LogDirectory::at(sandbox.path("victims")).names();
    // home/middle is the user's own directory, home/trap a link to root's.
    let home = sandbox.dir_of("home", NOBODY, NOBODY);
    sandbox.dir_of("home/middle", NOBODY, NOBODY);
    lchown(sandbox.link("home/trap", sandbox.path("victims")), Some(NOBODY), Some(NOBODY))
        .expect("root may give a link away");
    let (swaps, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over =
        || swaps.load(Ordering::Relaxed) >= 10_000 && rounds.load(Ordering::Relaxed) >= 50;
    let attack = || {
        // By its descriptor: the attacker must not fall into the trap.
        let home = File::open(&home).expect("a directory");
        while !is_over() {
            renameat2(&home, "middle", &home, "trap", RenameFlags::RENAME_EXCHANGE)
                .expect("both names are there");
            swaps.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (mut started, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(attack);
        while !is_over() {
            let start = || sandbox.vsrun().user("nobody");
            // The last component is root's own under the trap, and is made anew otherwise.
            let starts = [
                start().logdir("home/middle", "1h"),
                start().logdir("home/middle/new/logs", "1h"),
                start().pidfile("home/middle/pid"),
                start().manager("home/middle/manager", "/bin/false"),
            ];
            for start in starts {
                let outcome = start.command(["/bin/echo", "pwned"]).run();
                match outcome.code() {
                    Some(0) => started += 1,
                    Some(125) => refused += 1,
                    _ => panic!("{outcome:?}"),
                }
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    });
    wait_for("the end of every process", || sandbox.processes().is_empty());
    let after: Vec<Facts> = victims.iter().map(|path| facts(path)).collect();
    assert_eq!(after, before);
    assert_eq!(LogDirectory::at(sandbox.path("victims")).names(), names);
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused");
}

/// A second name for root's file in the user's directory: CVE-2017-18925 and issues 3 and 4 of
/// opentmpfiles, issue 7736 of systemd, tests 24 and 90 of logrotate.
#[test]
fn a_hard_link_to_a_file_of_roots_gives_nobody_its_content_or_its_owner() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let victims = victims(&sandbox);
    let logs = sandbox.dir_of("logs", NOBODY, NOBODY);
    for victim in victims.iter().filter(|path| path.is_file()) {
        fs::hard_link(victim, logs.join(victim.file_name().expect("a name"))).expect("a link");
    }
    let before: Vec<Facts> = victims.iter().map(|path| facts(path)).collect();
    let start = || sandbox.vsrun().user("nobody").logdir(&logs, "1h");
    let echo = ["/bin/echo", "pwned"];
    start().manager(logs.join("manager"), CONSENT).command(echo).run().expect_code(125);
    start().pidfile(logs.join("pid")).command(echo).run().expect_code(0);
    wait_for("the end of every process", || sandbox.processes().is_empty());
    for (victim, before) in victims.iter().zip(before) {
        // Fewer names are no harm: an old log is deleted and a pidfile replaced.
        let after = facts(victim);
        assert_eq!(Facts { links: before.links, ..after }, before, "{victim:?}");
    }
}

/// A number in a file that the server's user may write, and whom root kills by it: CVE-2018-16888
/// of systemd, CVE-2017-11747 of tinyproxy, issues 404 of nagioscore and 303 of unbound.
#[test]
fn a_forged_pidfile_leads_no_signal_astray() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir_of("run", NOBODY, NOBODY);
    let log = sandbox.path("signals");
    let mut words = sandbox.probe().log_signals(&log).into_iter();
    let stranger = sandbox.program(words.next().expect("a program")).args(words).spawn();
    wait_for("the stranger", || sandbox.lines("signals") == ["READY"]);
    let forge = || {
        for name in ["pid", "manager"] {
            // As the directory's owner can.
            let beside = sandbox.file("run/forged", format!("{}\n", stranger.pid()));
            chown(&beside, Some(NOBODY), Some(NOBODY)).expect("root may give a file away");
            fs::rename(beside, sandbox.path("run").join(name)).expect("a file");
        }
    };
    let start = sandbox.vsrun().pidfile("run/pid").manager("run/manager", CONSENT);
    let manager = start.command(probe(&sandbox)).spawn();
    let first = started(&sandbox, 1);
    forge();
    manager.signal(SIGHUP);
    let second = started(&sandbox, 2);
    assert!(!first.exists());
    forge();
    sandbox.signal(second, SIGKILL);
    let third = started(&sandbox, 3);
    forge();
    stop(manager);
    assert!(!third.exists() && stranger.process().exists());
    assert_eq!(sandbox.lines("signals"), ["READY"]);
}

/// Files that everybody may write because nobody set their mode: pyinotify 1, uwsgi 2752,
/// proftpd 1015, and supervisord as measured.
#[test]
fn under_umask_0_nothing_that_vsrun_makes_can_be_written_by_others() {
    let sandbox = sandbox();
    let start = sandbox.vsrun().umask(0).pidfile("pid").logdir("var/log/logs", "1");
    let manager = start.manager("manager", CONSENT).command(probe(&sandbox)).spawn();
    started(&sandbox, 1);
    let modes = [
        ("pid", 0o644),
        ("manager", 0o644),
        ("manager.lock", 0o600),
        ("var", 0o755),
        ("var/log", 0o755),
        ("var/log/logs", 0o750),
        ("var/log/logs/logfile", 0o640),
        ("var/log/logs/vsrun.log", 0o640),
    ];
    for (name, mode) in modes {
        let about = fs::metadata(sandbox.path(name)).expect("it is there");
        assert_eq!(about.mode() & 0o7777, mode, "{name}");
    }
    stop(manager);
}
