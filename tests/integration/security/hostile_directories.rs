//! Directories of a hostile user, who changes them as fast as possible while a manager restarts its
//! server: no file of root's changes.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::prelude::*;

/// How often a name has another thing under it before an attack is over.
const SWAPS: usize = 40_000;

/// How often the server has been started by then.
const STARTS: usize = 150;

/// A file that only root may read.
fn victim(sandbox: &Sandbox) -> PathBuf {
    let victim = sandbox.file("victim", "precious\n");
    chmod(&victim, 0o600);
    victim
}

/// Expects a file to be unchanged except for the number of its names: the attacker links it, an old
/// log is deleted, a pidfile is replaced.
#[track_caller]
fn expect_unharmed(victim: &Path, before: &Facts) {
    let after = Facts {
        links: before.links,
        ..facts(victim)
    };
    assert_eq!(after, *before, "{victim:?}");
}

/// The kinds of things that an attacker may have under a name.
const KINDS: usize = 8;

/// Puts a thing of a kind under a name, if nothing stands there: a link to the victim, to where
/// nothing is or to a directory; a FIFO; a directory; a file, empty or not; the victim's second
/// name.
fn lay(kind: usize, path: &Path, victim: &Path) -> bool {
    let laid = match kind {
        0 => symlink(victim, path),
        1 => symlink(victim.with_file_name("nowhere"), path),
        2 => symlink("/tmp", path),
        3 => mkfifo(path, Mode::S_IRWXU).map_err(Into::into),
        4 => fs::create_dir(path),
        5 => File::create_new(path).map(drop),
        6 => File::create_new(path).and_then(|mut file| file.write_all(b"1\n")),
        _ => fs::hard_link(victim, path),
    };
    if laid.is_ok() && kind != 7 {
        give(path);
    }
    laid.is_ok()
}

/// An attack on names in a directory.
struct Attack<'a> {
    directory: PathBuf,
    names: &'a [&'a str],
    victim: &'a Path,
    swaps: AtomicUsize,
    over: AtomicBool,
}

impl<'a> Attack<'a> {
    fn new(directory: &Path, names: &'a [&'a str], victim: &'a Path) -> Attack<'a> {
        let (swaps, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        Attack {
            directory: directory.to_owned(),
            names,
            victim,
            swaps,
            over,
        }
    }

    /// Swaps what stands under each name with something of each kind, or takes it away, until it
    /// is over.
    fn go_on(&self) {
        let place = File::open(&self.directory).expect("a directory");
        let mut round = 0;
        while !self.over.load(Ordering::Relaxed) {
            // The link to the victim is the one that would do harm.
            let kind = if round % 2 == 0 { 0 } else { round / 2 % KINDS };
            let name = self.names[round / 2 % self.names.len()];
            let bait = format!("bait{kind}");
            lay(kind, &self.directory.join(&bait), self.victim);
            // A name that is not there is not swapped; one that is there is free for a while.
            for (from, to, flags) in [
                (bait.as_str(), name, RenameFlags::RENAME_EXCHANGE),
                (bait.as_str(), name, RenameFlags::RENAME_NOREPLACE),
                (name, bait.as_str(), RenameFlags::RENAME_NOREPLACE),
            ] {
                let swapped = renameat2(&place, from, &place, to, flags);
                self.swaps
                    .fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
            }
            round += 1;
        }
    }

    fn has_been_long(&self) -> bool {
        self.swaps.load(Ordering::Relaxed) >= SWAPS
    }
}

/// Ends the attack, however the test ends.
struct End<'a>(&'a Attack<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Restarts the server, by requests and deaths in turn, until the attack has been long enough, and
/// ends both.
#[track_caller]
fn is_restarted_under(attack: &Attack<'_>, sandbox: &Sandbox, manager: Running<'_>) {
    let mut count = 1;
    let mut server = started(sandbox, count);
    thread::scope(|scope| {
        scope.spawn(|| attack.go_on());
        let _end = End(attack);
        while count < STARTS || !attack.has_been_long() {
            if count % 5 == 0 {
                sandbox.signal(server, SIGKILL);
            } else {
                manager.signal(SIGHUP);
            }
            count += 1;
            server = started(sandbox, count);
        }
        stop(manager);
        assert!(!server.exists());
    });
}

#[test]
fn a_user_who_swaps_logs_during_rotations_reaches_no_file_of_root() {
    needs!(root);
    let sandbox = sandbox();
    let victim = victim(&sandbox);
    let before = facts(&victim);
    let logs = sandbox.dir_of("logs", NOBODY, NOBODY);
    let start = sandbox
        .vsrun()
        .user("nobody")
        .logdir(&logs, "1h")
        .manager("manager", CONSENT);
    let server = sandbox.probe().append(open_starts(&sandbox)).out("pwned");
    let manager = start.command(server).spawn();
    is_restarted_under(
        &Attack::new(&logs, &["logfile"], &victim),
        &sandbox,
        manager,
    );
    expect_unharmed(&victim, &before);
    assert!(!sandbox.path("nowhere").exists());
    // Everything that vsrun made there is the user's.
    for name in LogDirectory::at(&logs).names() {
        let about = fs::symlink_metadata(logs.join(&name)).expect("it is there");
        let is_victim = about.ino() == before.inode;
        assert!(is_victim || about.uid() == NOBODY, "{name:?}");
    }
}

#[test]
fn a_user_who_swaps_the_pidfile_during_restarts_reaches_no_file_of_root() {
    needs!(root);
    let sandbox = sandbox();
    let victim = victim(&sandbox);
    let before = facts(&victim);
    let run = sandbox.dir_of("run", NOBODY, NOBODY);
    let start = sandbox
        .vsrun()
        .user("nobody")
        .pidfile("run/pid")
        .manager("manager", CONSENT);
    let manager = start
        .command(sandbox.probe().append(open_starts(&sandbox)))
        .spawn();
    // The name that the new file has before it is renamed.
    let beside = format!(".vsrun-{}-0", manager.pid());
    let names = ["pid", &beside];
    is_restarted_under(&Attack::new(&run, &names, &victim), &sandbox, manager);
    expect_unharmed(&victim, &before);
    assert!(!sandbox.path("nowhere").exists());
}

/// Anything under a manager's two names, by turns: each start is refused, or the name was taken
/// away in time.
#[test]
fn a_user_who_swaps_a_managers_files_reaches_no_file_of_root() {
    needs!(root);
    let sandbox = sandbox();
    let victim = victim(&sandbox);
    let before = facts(&victim);
    let run = sandbox.dir_of("run", NOBODY, NOBODY);
    let attack = Attack::new(&run, &["manager", "manager.lock"], &victim);
    thread::scope(|scope| {
        scope.spawn(|| attack.go_on());
        let _end = End(&attack);
        let mut ends = [0; 2];
        while !attack.has_been_long() || ends.iter().sum::<usize>() < STARTS {
            let start = sandbox
                .vsrun()
                .user("nobody")
                .manager("run/manager", CONSENT);
            let outcome = start.command(["/bin/true"]).run();
            match outcome.code() {
                Some(0) => ends[0] += 1,
                Some(125) => ends[1] += 1,
                _ => panic!("{outcome:?}"),
            }
        }
    });
    expect_unharmed(&victim, &before);
    assert!(!sandbox.path("nowhere").exists());
}

/// Root's files in a directory of root's, under names that vsrun uses.
fn victims(sandbox: &Sandbox) -> Vec<PathBuf> {
    let directory = sandbox.dir("victims");
    let names = [
        "logfile",
        "vsrun.log",
        "logfile.1",
        "pid",
        "manager",
        "manager.lock",
    ];
    let files = names.map(|name| {
        let path = sandbox.file(Path::new("victims").join(name), "precious\n");
        chmod(&path, 0o600);
        path
    });
    files.into_iter().chain([directory]).collect()
}

/// A link in the middle of a path, put there between look and use: CVE-2018-21269 and issue 195 of
/// OpenRC, CVE-2018-6954 of systemd, CVE-2016-1247 of nginx, CVE-2016-9566 of Nagios.
#[test]
fn a_directory_in_the_path_that_is_swapped_10_000_times_does_not_mislead_root() {
    needs!(root);
    let sandbox = sandbox();
    let victims = victims(&sandbox);
    let before: Vec<Facts> = victims.iter().map(|path| facts(path)).collect();
    let names = LogDirectory::at(sandbox.path("victims")).names();
    // home/middle is the user's own directory, home/trap a link to root's.
    let home = sandbox.dir_of("home", NOBODY, NOBODY);
    sandbox.dir_of("home/middle", NOBODY, NOBODY);
    give(sandbox.link("home/trap", sandbox.path("victims")));
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
    wait_for("the end of every process", || {
        sandbox.processes().is_empty()
    });
    victims
        .iter()
        .zip(&before)
        .for_each(|(path, before)| expect_unharmed(path, before));
    assert_eq!(LogDirectory::at(sandbox.path("victims")).names(), names);
    assert!(
        started > 0 && refused > 0,
        "{started} started, {refused} refused"
    );
}

/// A second name for root's file in the user's directory: CVE-2017-18925 and issues 3 and 4 of
/// opentmpfiles, issue 7736 of systemd, tests 24 and 90 of logrotate.
#[test]
fn a_hard_link_to_a_file_of_root_changes_neither_content_nor_owner() {
    needs!(root);
    let sandbox = sandbox();
    let victims = victims(&sandbox);
    let logs = sandbox.dir_of("logs", NOBODY, NOBODY);
    for victim in victims.iter().filter(|path| path.is_file()) {
        fs::hard_link(victim, logs.join(victim.file_name().expect("a name"))).expect("a link");
    }
    let before: Vec<Facts> = victims.iter().map(|path| facts(path)).collect();
    let start = || sandbox.vsrun().user("nobody").logdir(&logs, "1h");
    let echo = ["/bin/echo", "pwned"];
    start()
        .manager(logs.join("manager"), CONSENT)
        .command(echo)
        .run()
        .expect_code(125);
    start()
        .pidfile(logs.join("pid"))
        .command(echo)
        .run()
        .expect_code(0);
    wait_for("the end of every process", || {
        sandbox.processes().is_empty()
    });
    victims
        .iter()
        .zip(&before)
        .for_each(|(path, before)| expect_unharmed(path, before));
}

/// Files that every user may write because their mode was not set: pyinotify 1, uwsgi 2752,
/// proftpd 1015, and supervisord as measured.
#[test]
fn under_umask_0_nothing_that_vsrun_makes_can_be_written_by_others() {
    let sandbox = sandbox();
    let start = sandbox
        .vsrun()
        .umask(0)
        .pidfile("pid")
        .logdir("var/log/logs", "1");
    let manager = start
        .manager("manager", CONSENT)
        .command(probe(&sandbox))
        .spawn();
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
