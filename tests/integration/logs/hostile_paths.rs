//! Links in the path of the directory, and what replaces it while a server runs.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;

use super::*;
use crate::prelude::*;

fn expect_no_log_directory(outcome: &Outcome, path: &Path) {
    outcome.expect_code(125);
    let output = outcome.stderr_text();
    let beginning = format!("vsrun: cannot open log directory '{}': ", path.display());
    assert!(
        output.starts_with(&beginning) && output.lines().count() == 1,
        "{output}"
    );
}

/// Starts a server with a log directory at `path`, which leads to `target` by a link that is not
/// to be trusted.
fn is_refused_as_a_link(sandbox: &Sandbox, path: &Path, target: &Path) {
    let before = snapshot(target);
    let outcome = as_user(sandbox.vsrun())
        .logdir(path, "1h")
        .command(["/bin/true"])
        .run();
    expect_no_log_directory(&outcome, path);
    let link = path
        .ancestors()
        .find(|it| it.is_symlink())
        .expect("a link")
        .display();
    let reason = format!(": symbolic link '{link}' is not followed: ");
    assert!(
        outcome.stderr_text().contains(&reason),
        "{}",
        outcome.stderr_text()
    );
    assert_eq!(snapshot(target), before);
}

#[test]
fn a_link_in_a_users_directory_is_no_log_directory() {
    needs!(root);
    for links_owner in [0, NOBODY] {
        let sandbox = sandbox();
        let (home, target) = (
            sandbox.dir_of("home", NOBODY, NOBODY),
            sandbox.dir("target"),
        );
        let link = sandbox.link("home/logs", &target);
        lchown(&link, Some(links_owner), None).expect("root may give a link away");
        is_refused_as_a_link(&sandbox, &home.join("logs"), &target);
    }
}

#[test]
fn a_link_of_a_users_in_a_shared_directory_is_no_log_directory() {
    needs!(root);
    let sandbox = sandbox();
    let (shared, target) = (sandbox.open_dir("shared"), sandbox.dir("target"));
    give(sandbox.link("shared/logs", &target));
    is_refused_as_a_link(&sandbox, &shared.join("logs"), &target);
}

#[test]
fn a_link_of_root_in_a_world_writable_directory_is_refused() {
    needs!(root);
    let sandbox = sandbox();
    let (shared, target) = (sandbox.dir("shared"), sandbox.dir("target"));
    chmod(&shared, 0o777);
    sandbox.link("shared/logs", &target);
    is_refused_as_a_link(&sandbox, &shared.join("logs"), &target);
}

#[test]
fn no_link_of_a_user_is_followed_in_the_path_of_the_log_directory() {
    needs!(root);
    let sandbox = sandbox();
    let (home, target) = (
        sandbox.dir_of("home", NOBODY, NOBODY),
        sandbox.dir("target"),
    );
    give(sandbox.link("home/middle", &target));
    is_refused_as_a_link(&sandbox, &home.join("middle/logs"), &target);
    sandbox.dir("target/logs");
    is_refused_as_a_link(&sandbox, &home.join("middle/logs"), &target);
}

#[test]
fn links_of_the_callers_in_places_of_the_callers_are_followed() {
    let sandbox = sandbox();
    let target = users_dir(&sandbox, "target");
    // By a relative link, an absolute one, and one in another directory.
    sandbox.link("relative", "./target/../target");
    sandbox.dir("other");
    sandbox.link("other/absolute", sandbox.path("relative"));
    say(&sandbox, "other/absolute", "1d", "hello");
    assert_eq!(text(target.join("logfile")), "hello\n");
    sandbox.link("middle", ".");
    say(&sandbox, "middle/middle/relative/deeper", "1d", "hello");
    assert_eq!(text(target.join("deeper/logfile")), "hello\n");
}

#[test]
fn a_link_to_itself_is_no_log_directory() {
    let sandbox = sandbox();
    let link = sandbox.link("logs", "logs");
    let outcome = sandbox
        .vsrun()
        .logdir(&link, "1d")
        .command(["/bin/true"])
        .run();
    expect_no_log_directory(&outcome, &link);
}

#[test]
fn a_directory_removed_in_mid_run_is_made_again_at_the_next_start() {
    let sandbox = sandbox();
    let (logs, reports) = (
        LogDirectory::at(sandbox.path("a/logs")),
        sandbox.open_dir("reports"),
    );
    let server = sandbox.probe().out("hello").report(reports.join("report"));
    let managed = managed_with_logs(&sandbox, logs.path(), server);
    fs::remove_dir_all(sandbox.path("a")).expect("the sandbox can be written");
    fs::remove_file(reports.join("report")).expect("a report");
    managed.restart();
    wait_for_hello(logs.path());
    assert_eq!(
        (mode_of(logs.path()), owner_of(logs.path())),
        (0o750, user())
    );
    assert_eq!(
        Report::wait(reports.join("report")).cwd.as_deref(),
        Some(logs.path())
    );
    wait_for("vsrun's line", || logs.vsrun().contains("started server"));
    managed.stop().expect_code(0);
}

#[test]
fn directories_removed_from_an_overlayfs_are_noticed() {
    needs!(root);
    let sandbox = sandbox();
    let place = sandbox.dir("place");
    // A container's directories: from its image, and still of one link when they are removed.
    let mount = "mkdir -p lower/log lower/run upper work merged && \
                 mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged && \
                 exec \"$@\"";
    let shell = sandbox
        .program("/bin/sh")
        .tmpfs(&place, "mode=755")
        .current_dir(&place);
    let vsrun = shell.args(["-c", mount, "sh", VSRUN]);
    let vsrun = vsrun.logdir("merged/log", "1d").pidfile("merged/run/pid");
    let vsrun = vsrun.manager(sandbox.path("manager"), "/bin/true");
    let manager = vsrun
        .command(sandbox.probe().append(sandbox.path("starts")))
        .spawn();
    started(&sandbox, 1);
    let inside = manager.process().path_inside(place.join("merged"));
    for name in ["log", "run"] {
        fs::remove_dir_all(inside.join(name)).expect("the test's own file system");
    }
    fs::create_dir(inside.join("run")).expect("the test's own file system");
    manager.signal(SIGHUP);
    started(&sandbox, 2);
    wait_for("vsrun's line", || {
        text(inside.join("log/vsrun.log")).contains("started server")
    });
    assert!(inside.join("log/logfile").exists());
    let server: Option<i32> = sandbox.lines("starts")[1].parse().ok();
    assert_eq!(sandbox.read_pidfile(inside.join("run/pid")), server);
    stop(manager);
}

#[test]
fn a_server_whose_log_directory_cannot_be_made_again_is_restarted() {
    let sandbox = sandbox();
    sandbox.dir("a");
    let logs = sandbox.path("a/logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
    fs::remove_dir_all(sandbox.path("a")).expect("the sandbox can be written");
    sandbox.file("a", "no directory\n");
    managed.restart();
    assert!(managed.server().exists() && managed.handler.runs().is_empty());
    managed.stop().expect_code(0);
    assert_eq!(text(sandbox.path("a")), "no directory\n");
}

#[test]
fn a_server_whose_log_directory_is_gone_comes_back_after_a_crash() {
    let sandbox = sandbox();
    sandbox.dir("a");
    let logs = sandbox.path("a/logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
    fs::remove_dir_all(sandbox.path("a")).expect("the sandbox can be written");
    sandbox.file("a", "no directory\n");
    sandbox.signal(managed.server(), SIGKILL);
    managed.wait_for_start(2);
    assert_eq!(managed.handler.runs().len(), 1);
    managed.stop().expect_code(0);
}

#[test]
fn a_link_that_takes_the_directorys_place_in_mid_run_is_not_followed() {
    needs!(root);
    let sandbox = sandbox();
    let (home, victim) = (
        sandbox.dir_of("home", NOBODY, NOBODY),
        sandbox.dir("victim"),
    );
    fs::write(victim.join("logfile"), "precious\n").expect("the sandbox can be written");
    let before = snapshot(&victim);
    let logs = home.join("logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
    wait_for_hello(&logs);
    fs::rename(&logs, home.join("kept")).expect("the sandbox can be written");
    symlink(&victim, &logs).expect("a link");
    give(&logs);
    managed.restart();
    wait_for_hello(home.join("kept"));
    assert_eq!(text(home.join("kept/logfile.1")), "hello\n");
    managed.stop().expect_code(0);
    assert_eq!(snapshot(&victim), before);
}

#[test]
fn a_link_in_the_place_of_a_removed_directory_is_not_followed() {
    needs!(root);
    let sandbox = sandbox();
    let (home, victim) = (
        sandbox.dir_of("home", NOBODY, NOBODY),
        sandbox.dir("victim"),
    );
    fs::write(victim.join("logfile"), "precious\n").expect("the sandbox can be written");
    let before = snapshot(&victim);
    let logs = home.join("logs");
    let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().out("hello"));
    fs::remove_dir_all(&logs).expect("the sandbox can be written");
    symlink(&victim, &logs).expect("a link");
    give(&logs);
    managed.restart();
    managed.stop().expect_code(0);
    assert_eq!(snapshot(&victim), before);
}

#[test]
fn a_link_that_takes_the_directorys_place_does_not_become_the_working_directory() {
    needs!(root);
    for removed in [false, true] {
        let sandbox = sandbox();
        let (home, reports) = (
            sandbox.dir_of("home", NOBODY, NOBODY),
            sandbox.open_dir("reports"),
        );
        // The user may not search the path to it.
        let secret = sandbox.dir("secret");
        let victim = sandbox.dir("secret/victim");
        chmod(&secret, 0o700);
        let (logs, report) = (home.join("logs"), reports.join("report"));
        let managed = managed_with_logs(&sandbox, &logs, sandbox.probe().report(&report));
        fs::remove_file(
            Report::wait(&report)
                .cwd
                .map(|_| &report)
                .expect("a report"),
        )
        .expect("it");
        if removed {
            fs::remove_dir_all(&logs).expect("the sandbox can be written");
        } else {
            fs::rename(&logs, home.join("kept")).expect("the sandbox can be written");
        }
        symlink(&victim, &logs).expect("a link");
        give(&logs);
        managed.restart();
        assert_ne!(
            managed.server().cwd(),
            Some(victim),
            "directory removed: {removed}"
        );
        managed.stop().expect_code(0);
    }
}

/// A link of root's can be moved into a sticky directory by the owner of the directory it was in.
#[test]
fn a_link_of_root_that_a_user_moved_is_not_followed() {
    needs!(root);
    let sandbox = sandbox();
    let victims = sandbox.dir("victims");
    let home = sandbox.dir_of("home", NOBODY, NOBODY);
    // Root may have made it for the user.
    let link = sandbox.link("home/link", &victims);
    let shared = sandbox.open_dir("shared");
    let mv = sandbox.program("/bin/mv").run_as(NOBODY, NOBODY, &[]);
    mv.args([&link, &shared.join("logs")]).run().expect_code(0);
    assert!(fs::read_dir(home).expect("a directory").next().is_none());
    let start = sandbox.vsrun().user("nobody").logdir("shared/logs", "1");
    start.command(["/bin/echo", "pwned"]).run().expect_code(125);
    assert!(LogDirectory::at(victims).names().is_empty());
}
