//! What SECURITY.md says of directories that belong to a hostile user: attackers change them as
//! fast as they can while a manager restarts its server, and nothing of root's is touched.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::prelude::*;

/// How often a name has another thing under it before an attack is over.
const SWAPS: usize = 40_000;
/// How often the server has been started by then.
const STARTS: usize = 150;

/// A file of root's that nobody else may read.
fn victim(sandbox: &Sandbox) -> PathBuf {
    let victim = sandbox.file("victim", "precious\n");
    fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).expect("a mode");
    victim
}

/// The kinds of things that an attacker may have under a name.
const KINDS: usize = 8;

/// Puts a thing of a kind under a name, if nothing stands there: a link to the victim, to where
/// nothing is or to a directory; a FIFO; a directory; a file, empty or not; the victim's second name.
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
        lchown(path, Some(NOBODY), Some(NOBODY)).expect("root may give it away");
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
        Attack { directory: directory.to_owned(), names, victim, swaps, over }
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
                self.swaps.fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
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
        manager.signal(SIGTERM);
        manager.wait().expect_code(0);
        assert!(!server.exists());
    });
}

#[test]
fn a_user_who_swaps_anything_for_logs_during_rotations_reaches_nothing_of_roots() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let victim = victim(&sandbox);
    let before = facts(&victim);
    let logs = sandbox.dir_of("logs", NOBODY, NOBODY);
    let start = sandbox.vsrun().user("nobody").logdir(&logs, "1h").manager("manager", CONSENT);
    let server = sandbox.probe().append(open(&sandbox)).out("pwned");
    let manager = start.command(server).spawn();
    is_restarted_under(&Attack::new(&logs, &["logfile"], &victim), &sandbox, manager);
    assert_eq!(facts(&victim), before);
    assert!(!sandbox.path("nowhere").exists());
    // Everything that vsrun made there is the user's.
    for name in LogDirectory::at(&logs).names() {
        let about = fs::symlink_metadata(logs.join(&name)).expect("it is there");
        let is_victim = about.ino() == before.inode;
        assert!(is_victim || about.uid() == NOBODY, "{name:?}");
    }
}

/// The file that the server of any user may tell its starts in.
fn open(sandbox: &Sandbox) -> PathBuf {
    let starts = sandbox.file("starts", "");
    fs::set_permissions(&starts, PermissionsExt::from_mode(0o666)).expect("a mode");
    starts
}

#[test]
fn a_user_who_swaps_anything_for_the_pidfile_during_restarts_reaches_nothing_of_roots() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let victim = victim(&sandbox);
    let before = facts(&victim);
    let run = sandbox.dir_of("run", NOBODY, NOBODY);
    let start = sandbox.vsrun().user("nobody").pidfile("run/pid").manager("manager", CONSENT);
    let manager = start.command(sandbox.probe().append(open(&sandbox))).spawn();
    // The name that the new file has before it is renamed.
    let beside = format!(".vsrun-{}-0", manager.pid());
    let names = ["pid", &beside];
    is_restarted_under(&Attack::new(&run, &names, &victim), &sandbox, manager);
    assert_eq!(facts(&victim), before);
    assert!(!sandbox.path("nowhere").exists());
}

/// Anything under a manager's two names, by turns: each start is refused, or the name was taken
/// away in time.
#[test]
fn a_user_who_swaps_anything_for_a_managers_files_reaches_nothing_of_roots() {
    if !require_root() {
        return;
    }
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
            let start = sandbox.vsrun().user("nobody").manager("run/manager", CONSENT);
            let outcome = start.command(["/bin/true"]).run();
            match outcome.code() {
                Some(0) => ends[0] += 1,
                Some(125) => ends[1] += 1,
                _ => panic!("{outcome:?}"),
            }
        }
    });
    assert_eq!(facts(&victim), before);
    assert!(!sandbox.path("nowhere").exists());
}

/// Opens a file with a lease on it (see fcntl(2)), says so, and gives way to nobody.
const LESSOR: &str = "import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print('leased', flush=True)
signal.pause()
";

#[test]
fn a_lease_on_an_empty_log_keeps_no_server_from_starting() {
    if !require_root() || !require_program("python3") {
        return;
    }
    let sandbox = sandbox();
    let logs = sandbox.dir_of("logs", NOBODY, NOBODY);
    let log = sandbox.file("logs/logfile", "");
    chown(&log, Some(NOBODY), Some(NOBODY)).expect("root may give a file away");
    let lessor = sandbox.program("/usr/bin/python3").run_as(NOBODY, NOBODY, &[]);
    let lessor = lessor.args(["-c", LESSOR]).arg(&log).spawn();
    wait_for("the lease", || lessor.stdout() == "leased\n");
    let start = sandbox.vsrun().user("nobody").logdir(&logs, "1");
    start.command(["/bin/echo", "hello"]).run().expect_code(0);
    assert_eq!(LogDirectory::at(&logs).server(), "hello\n");
}

/// A link of root's can be moved into a sticky directory by whoever owns the directory it was in.
#[test]
fn a_link_of_roots_that_a_user_moved_into_a_shared_directory_is_not_followed() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    let victims = sandbox.dir("victims");
    let home = sandbox.dir_of("home", NOBODY, NOBODY);
    // As root may have made it for the user's convenience.
    let link = sandbox.link("home/link", &victims);
    let shared = sandbox.open_dir("shared");
    let mv = sandbox.program("/bin/mv").run_as(NOBODY, NOBODY, &[]);
    mv.args([&link, &shared.join("logs")]).run().expect_code(0);
    assert!(fs::read_dir(home).expect("a directory").next().is_none());
    let start = sandbox.vsrun().user("nobody").logdir("shared/logs", "1");
    start.command(["/bin/echo", "pwned"]).run().expect_code(125);
    assert!(LogDirectory::at(victims).names().is_empty());
}

/// In a container every vsrun has the same id, and one may have been killed at any moment.
#[test]
fn what_a_killed_vsrun_of_the_same_id_has_left_beside_keeps_no_log_directory_from_being_made() {
    if !require_root() {
        return;
    }
    let sandbox = sandbox();
    sandbox.dir("var");
    sandbox.dir("var/.vsrun-1");
    let start = sandbox.vsrun().pid_namespace().logdir("var/logs", "1");
    let _running = start.command(sandbox.probe().append(open(&sandbox)).out("hello")).spawn();
    wait_for("the server", || LogDirectory::at(sandbox.path("var/logs")).server() == "hello\n");
}

/// Tells whether a process holds a record lock on a file (see proc(5)).
fn holds_lock(process: Process, file: &Path) -> bool {
    let inode = fs::metadata(file).map(|about| about.ino()).unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").expect("a /proc");
    let (pid, inode) = (format!(" {} ", process.pid()), format!(":{inode} "));
    locks.lines().any(|lock| lock.contains(&pid) && lock.contains(&inode))
}

/// A record lock is lost when any descriptor of its file is closed (see fcntl(2)), so that a second
/// name of the lock must not be opened. Where `fs.protected_hardlinks` is 0 every user can make one.
#[test]
fn a_second_name_of_the_lock_in_the_place_of_the_pidfile_does_not_end_the_lock() {
    if !require_root() {
        return;
    }
    for _ in 0..60 {
        let sandbox = sandbox();
        let (pidfile, lock) = (sandbox.dir("run").join("pid"), sandbox.path("manager.lock"));
        let start = sandbox.vsrun().pidfile(&pidfile).manager("manager", CONSENT);
        let start = start.command(sandbox.probe().append(sandbox.path("starts")));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = fs::hard_link(&lock, &pidfile);
                }
            });
            let manager = start.spawn();
            let up = || !sandbox.lines("starts").is_empty();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !up() && manager.process().exists() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(!up() || holds_lock(manager.process(), &lock), "the manager has no lock");
        });
    }
}
