//! Installing, upgrading and removing, by the distributions' own tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::{Sandbox, require_program, wait_for};

use crate::built::{
    can_build_debs, can_build_rpms, deb, debs, output, rpm, succeed, target, the_file,
};
use crate::manifest::repository;
use crate::roots::{Root, can_have_roots, mirror};

/// The same package under a lower version, in the directory.
fn older_deb(directory: &Path) -> PathBuf {
    let tree = directory.join("older");
    succeed(
        Command::new("dpkg-deb")
            .arg("--raw-extract")
            .arg(deb())
            .arg(&tree),
    );
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("a control file");
    let older = text.replace(
        &format!("Version: {}", env!("CARGO_PKG_VERSION")),
        "Version: 0.0.1",
    );
    assert_ne!(text, older);
    fs::write(&control, older).expect("a file");
    let package = directory.join("older.deb");
    succeed(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&tree)
            .arg(&package),
    );
    package
}

#[test]
fn an_upgrade_leaves_the_server_running_and_purge_leaves_nothing() {
    if !can_build_debs() || !can_have_roots() {
        return;
    }
    let sandbox = Sandbox::new("/bin/true");
    let shared = sandbox.path("shared");
    fs::create_dir(&shared).expect("a directory");
    older_deb(&shared);
    fs::copy(deb(), shared.join("newer.deb")).expect("a copy");
    Root::SYSTEM.succeed(&shared, include_str!("upgrade.sh"));
}

#[test]
fn what_the_test_command_installs_is_neither_started_nor_enabled() {
    if !can_have_roots() {
        return;
    }
    let sandbox = Sandbox::new("/bin/true");
    let shared = sandbox.dir("shared");
    fs::copy(
        repository().join("xtask/src/install.sh"),
        shared.join("install.sh"),
    )
    .expect("a copy");
    Root::SYSTEM.succeed(&shared, include_str!("install_services.sh"));
}

#[test]
fn rpm_installs_verifies_and_erases_it_without_a_trace() {
    if !can_build_rpms() {
        return;
    }
    let sandbox = Sandbox::new("/bin/true");
    let root = sandbox.path("root");
    fs::create_dir(&root).expect("a directory");
    let rpm_command = |arguments: &[&str]| {
        let mut command = Command::new("rpm");
        command
            .arg("--root")
            .arg(&root)
            .args(["--dbpath", "/db"])
            .args(arguments);
        command
    };
    let listing = || {
        let mut find = Command::new("find");
        output(
            find.current_dir(&root)
                .args([".", "-path", "./db", "-prune", "-o", "-print"]),
        )
    };
    succeed(&mut rpm_command(&["--initdb"]));
    let before = listing();
    // --nodeps: the root has no C library that rpm knows of.
    succeed(rpm_command(&["--install", "--nodeps"]).arg(rpm()));
    assert!(root.join("usr/sbin/vsrun").is_file());
    let changed = output(&mut rpm_command(&["--verify", "--nodeps", "vsrun"]));
    assert_eq!(changed, "");
    succeed(&mut rpm_command(&["--erase", "vsrun"]));
    // Directories of the file system standard, which a package of the distribution owns.
    let left = listing();
    let ours = left.lines().filter(|path| path.contains("vsrun"));
    assert_eq!(
        ours.collect::<Vec<_>>(),
        Vec::<&str>::new(),
        "before:\n{before}\nafter:\n{left}"
    );
}

#[test]
fn piuparts_finds_nothing() {
    if !can_build_debs() || !can_have_roots() || !require_program("piuparts") {
        return;
    }
    let work = target("packages/piuparts");
    fs::create_dir_all(&work).expect("a directory");
    let mut piuparts = Command::new("unshare");
    piuparts.args([
        "--mount",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child",
        "piuparts",
    ]);
    piuparts.arg("--basetgz").arg(Root::ARCHIVE.path()).args([
        "--no-eatmydata",
        "--distribution",
        "bookworm",
    ]);
    piuparts
        .args(["--mirror", &format!("{} main", mirror())])
        .arg("--tmpdir")
        .arg(&work);
    succeed(piuparts.arg(deb()));
    succeed(
        Command::new("rm")
            .args(["-rf", "--one-file-system"])
            .arg(&work),
    );
}

/// A booted container; killed when it is dropped.
struct Machine {
    nspawn: Child,
}

impl Machine {
    fn boot(root: &Root, shared: &Path) -> Machine {
        // The kernel kills it with this thread, should nobody live to drop it.
        let mut nspawn = Command::new("setpriv");
        nspawn.args([
            "--pdeathsig",
            "KILL",
            "systemd-nspawn",
            "--quiet",
            "--register=no",
        ]);
        nspawn.args([
            "--keep-unit",
            "--volatile=overlay",
            "--private-network",
            "--boot",
        ]);
        nspawn.arg(format!("--machine=vsrun-test-{}", std::process::id()));
        nspawn.arg(format!("--bind={}:/shared", shared.display()));
        nspawn
            .arg("--console=pipe")
            .arg("--directory")
            .arg(root.path());
        nspawn.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        nspawn
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Machine {
            nspawn: nspawn.spawn().expect("systemd-nspawn runs"),
        }
    }

    /// The id of its first process, once there is one.
    fn leader(&self) -> Option<String> {
        let id = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let leader = children.split_whitespace().next()?.to_owned();
        let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
        (name.trim() == "systemd").then_some(leader)
    }

    /// A command for a script that runs there as root, once there is a first process.
    fn enter(&self, script: &str) -> Option<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args([
            "--all",
            "--target",
            &self.leader()?,
            "env",
            "-i",
            "HOME=/root",
        ]);
        nsenter
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["sh", "-euc", script]);
        nsenter.stdin(Stdio::null());
        Some(nsenter)
    }

    /// Whether it has booted, or what systemd says instead.
    fn state(&self) -> Result<(), String> {
        let mut asked = self
            .enter("systemctl is-system-running")
            .ok_or("no first process")?;
        let told = asked.output().map_err(|error| error.to_string())?;
        match String::from_utf8_lossy(&told.stdout).trim() {
            "running" => Ok(()),
            other => Err(other.to_owned()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process first: nspawn cleans up after it. There may be none yet or any more.
        if let Some(leader) = self.leader() {
            let _ = Command::new("kill").args(["-KILL", &leader]).status();
        } else {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
    }
}

#[test]
fn its_own_tests_pass_on_a_machine_that_systemd_runs() {
    if !can_build_debs() || !can_have_roots() || !require_program("systemd-nspawn") {
        return;
    }
    let sandbox = Sandbox::new("/bin/true");
    let shared = sandbox.path("shared");
    fs::create_dir(&shared).expect("a directory");
    let names = [
        ("vsrun_", ".deb"),
        ("vsrun_", ".dsc"),
        ("vsrun_", ".debian.tar.xz"),
    ];
    let sources = [
        ("vsrun_", ".orig.tar.xz"),
        ("vsrun_", ".orig-vendor.tar.xz"),
    ];
    for (begin, end) in names.into_iter().chain(sources) {
        let file = the_file(debs(), begin, end);
        fs::copy(&file, shared.join(file.file_name().expect("a name"))).expect("a copy");
    }
    let machine = Machine::boot(&Root::SYSTEM, &shared);
    wait_for("the machine has booted", || machine.state());
    let tests = "cd /shared; autopkgtest --no-built-binaries vsrun_*.deb vsrun_*.dsc -- null 2>&1";
    let told = output(&mut machine.enter(tests).expect("it runs"));
    for test in ["command1", "smoke", "systemd"] {
        let passed = |line: &str| line.split_whitespace().take(2).eq([test, "PASS"]);
        let passed = told.lines().any(passed);
        assert!(passed, "{test} has not passed:\n{told}");
    }
}
