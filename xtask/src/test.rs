//! `cargo xtask test`: what the tests need from the distribution, then every
//! test. Installs only as root, starts and enables no service by it, and leaves nothing else but
//! what is under `target`.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use crate::leftovers;
use crate::steps::{Failure, cargo, cargo_target, find, run as step};

/// Debian packages that the tests use: servers to manage, a syslog daemon, what looks at processes,
/// pages and completions, what builds, checks and installs packages, and a compiler for libFuzzer.
const PACKAGES: &[&str] = &[
    "bash-completion",
    "binutils",
    "blhc",
    "bsdutils",
    "busybox-static",
    "curl",
    "debhelper",
    "debugedit",
    "devscripts",
    "dpkg-dev",
    "elfutils",
    "faketime",
    "fish",
    "g++",
    "gdb",
    "git",
    "libcap2-bin",
    "lintian",
    "logrotate",
    "man-db",
    "mandoc",
    "memcached",
    "mmdebstrap",
    "nginx",
    "piuparts",
    "procps",
    "python3",
    "redis-server",
    "rpm",
    "rpmlint",
    "rsyslog",
    "shellcheck",
    "strace",
    "systemd-container",
    "util-linux",
    "valgrind",
    "xz-utils",
    "zsh",
];

/// Provides what is missing and runs all tests; `arguments` go to `cargo test`.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    println!(
        "xtask: all tests take 4 GB in {}.",
        cargo_target().display()
    );
    println!("xtask: as root, half of it is Debian systems from apt's mirror.");
    provide(&missing())?;
    step(&mut cargo("build --locked --package testkit --bins"))?;
    leftovers::run_without(cargo("test --locked --workspace --no-fail-fast").args(arguments))
}

fn provide(missing: &[&str]) -> Result<(), Failure> {
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.join(" ");
    if !geteuid().is_root() {
        println!("xtask: not root: tests that need any of these will be skipped. To install them:");
        println!("sudo apt-get install --no-install-recommends {wanted}");
        return Ok(());
    }
    if find("apt-get").is_none() {
        println!("xtask: no apt-get here; the tests need what Debian calls {wanted}");
        return Ok(());
    }
    let script = ["-c", include_str!("install.sh"), "install"];
    println!("xtask: installing these packages and what they need, 760 MB on a bare Debian 12.");
    println!("xtask: they stay; no service of theirs is started or enabled: {wanted}");
    let status = Command::new("sh")
        .args(script)
        .args(missing)
        .stdin(Stdio::null())
        .status();
    let status = status.map_err(|error| format!("cannot run sh: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Step(format!("apt-get install {wanted}"), status))
    }
}

/// The packages of the list that dpkg does not know as installed; all of them where there is no
/// dpkg.
fn missing() -> Vec<&'static str> {
    let mut query = Command::new("dpkg-query");
    query
        .args([
            "--show",
            "--showformat",
            "${Package} ${db:Status-Status}\\n",
        ])
        .args(PACKAGES);
    // It exits with 1 and complains when it does not know one of the names, which is no error here.
    let listed = query.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    let installed: HashSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    PACKAGES
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect()
}
