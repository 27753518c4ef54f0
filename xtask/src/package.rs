//! `cargo xtask deb`, `rpm` and `dist`: drive the distributions' own tools. What
//! is installed where stands in xtask/manifest alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::source::{Archives, VERSION, epoch, path_with_toolchain};
use crate::steps::{Failure, cargo, cargo_target, empty, root, run as step};

/// Whether a package's build runs the modules' tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Run them, as a distribution does.
    Run,
    /// Leave them out.
    Skip,
}

impl Checks {
    /// What a `--no-check` flag stands for.
    pub fn from_no_check(no_check: bool) -> Checks {
        if no_check { Checks::Skip } else { Checks::Run }
    }
}

/// Builds vsrun and installs everything that belongs to it below `destdir`.
pub fn dist(destdir: &Path, prefix: &str) -> Result<(), Failure> {
    step(&mut cargo("build --release --locked --package vsrun"))?;
    let destdir = absolute(destdir)?;
    let mut stage = Command::new("sh");
    stage
        .arg(root().join("xtask/stage.sh"))
        .args(["--for", "plain", "--prefix", prefix, "--binaries"])
        .arg(cargo_target().join("release"))
        .arg("--destdir")
        .arg(destdir);
    step(&mut stage)
}

/// Builds the Debian source package and its binary packages in the directory.
pub fn deb(directory: Option<&Path>, checks: Checks) -> Result<(), Failure> {
    let directory = fresh(directory, "deb")?;
    let archives = Archives::make(
        &directory,
        &format!("vsrun_{VERSION}.orig.tar.xz"),
        &format!("vsrun_{VERSION}.orig-vendor.tar.xz"),
    )?;
    let tree = archives.unpack(&directory)?;
    let mut copy = Command::new("cp");
    step(
        copy.arg("-a")
            .arg(root().join("debian"))
            .arg(tree.join("debian")),
    )?;
    // -d: a toolchain of rustup's is no package, so its version cannot be checked by dpkg.
    let mut build = Command::new("dpkg-buildpackage");
    build
        .args(["-us", "-uc", "-d"])
        .current_dir(&tree)
        .env("PATH", path_with_toolchain()?);
    if checks == Checks::Skip {
        build.env("DEB_BUILD_OPTIONS", "nocheck");
    }
    without_cargo_settings(&mut build);
    step(&mut build)?;
    remove(&tree)?;
    println!("xtask: the packages are in {}", directory.display());
    Ok(())
}

/// Builds the .rpm files in the directory.
pub fn rpm(directory: Option<&Path>, checks: Checks) -> Result<(), Failure> {
    let directory = fresh(directory, "rpm")?;
    let place = |name: &str| directory.join(name);
    for name in ["SOURCES", "SPECS"] {
        empty(&place(name))?;
    }
    let source = format!("vsrun-{VERSION}.tar.xz");
    let vendor = format!("vsrun-{VERSION}-vendor.tar.xz");
    let archives = Archives::make(&place("SOURCES"), &source, &vendor)?;
    let spec = place("SPECS/vsrun.spec");
    fs::copy(root().join("rpm/vsrun.spec"), &spec)
        .map_err(|error| format!("cannot copy the spec to '{}': {error}", spec.display()))?;
    let epoch = epoch()?;
    let mut touch = Command::new("touch");
    touch.args(["--date", &format!("@{epoch}")]);
    step(touch.args([&archives.source, &archives.vendor, &spec]))?;

    let without: &[&str] = match checks {
        Checks::Run => &[],
        Checks::Skip => &["--without", "check"],
    };
    // Apart: with -ba the binary packages carry a hash of the source package.
    for kind in ["-bb", "-bs"] {
        let mut build = Command::new("rpmbuild");
        // --nodeps: as above for dpkg-buildpackage.
        build
            .args([kind, "--nodeps"])
            .args(without)
            .args(["--define", &format!("_topdir {}", directory.display())])
            .args(["--define", "use_source_date_epoch_as_buildtime 1"])
            .args(["--define", "clamp_mtime_to_source_date_epoch 1"])
            .args(["--define", "_buildhost reproducible"])
            .arg(&spec)
            .env("SOURCE_DATE_EPOCH", &epoch)
            .env("PATH", path_with_toolchain()?);
        without_cargo_settings(&mut build);
        step(&mut build)?;
    }
    for name in ["BUILD", "BUILDROOT"] {
        remove(&place(name))?;
    }
    println!("xtask: the packages are in {}", directory.display());
    Ok(())
}

/// Takes away what a cargo that runs this would tell the cargo of the build.
fn without_cargo_settings(build: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") || text.starts_with("RUST") {
            build.env_remove(name);
        }
    }
}

fn fresh(directory: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let directory = directory.map_or_else(|| cargo_target().join(name), Path::to_owned);
    let directory = absolute(&directory)?;
    empty(&directory)?;
    Ok(directory)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| format!("cannot resolve '{}': {error}", path.display()).into())
}

fn remove(tree: &Path) -> Result<(), Failure> {
    fs::remove_dir_all(tree)
        .map_err(|error| format!("cannot remove '{}': {error}", tree.display()).into())
}
