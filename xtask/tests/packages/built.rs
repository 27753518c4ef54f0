//! The packages that the tests look at, each built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use testkit::{require_program, require_root};

/// Where what the tests make lies: target/NAME.
pub fn target(name: &str) -> PathBuf {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    xtask
        .ancestors()
        .nth(2)
        .expect("cargo's target directory")
        .join(name)
}

/// Returns whether Debian packages can be built here.
#[track_caller]
pub fn can_build_debs() -> bool {
    require_root()
        && ["dpkg-buildpackage", "dh", "git"]
            .into_iter()
            .all(require_program)
}

/// Returns whether .rpm packages can be built here.
#[track_caller]
pub fn can_build_rpms() -> bool {
    require_root()
        && ["rpmbuild", "debugedit", "git"]
            .into_iter()
            .all(require_program)
}

/// The directory of the Debian packages.
pub fn debs() -> &'static Path {
    static DEBS: OnceLock<PathBuf> = OnceLock::new();
    DEBS.get_or_init(|| {
        let directory = target("packages/deb");
        build("deb", &directory, |_| ());
        directory
    })
}

/// What the build of the Debian packages said.
pub fn debs_log() -> PathBuf {
    debs().with_extension("log")
}

/// The directory of the .rpm packages.
pub fn rpms() -> &'static Path {
    static RPMS: OnceLock<PathBuf> = OnceLock::new();
    RPMS.get_or_init(|| {
        let directory = target("packages/rpm");
        build("rpm", &directory, |_| ());
        directory
    })
}

/// Builds packages by xtask; `change` may make its surroundings other than ours.
pub fn build(verb: &str, directory: &Path, change: impl FnOnce(&mut Command)) {
    let parent = directory.parent().expect("it lies in target");
    fs::create_dir_all(parent).expect("a directory");
    let log = directory.with_extension("log");
    let file = fs::File::create(&log).expect("a file");
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask
        .args([verb, "--no-check", "--directory"])
        .arg(directory);
    xtask
        .stdin(Stdio::null())
        .stderr(file.try_clone().expect("a descriptor"))
        .stdout(file);
    change(&mut xtask);
    let status = xtask.status().expect("xtask runs");
    let told = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = told.lines().collect();
    let last = lines[lines.len().saturating_sub(40)..].join("\n");
    assert!(
        status.success(),
        "xtask {verb}: {status}: {}\n{last}",
        log.display()
    );
}

/// The one file of a directory whose name begins and ends so.
pub fn the_file(directory: &Path, begin: &str, end: &str) -> PathBuf {
    let names = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("one").path());
    let mut found: Vec<PathBuf> = names
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(begin) && name.ends_with(end)
        })
        .collect();
    assert_eq!(
        found.len(),
        1,
        "{begin}*{end} in {}: {found:?}",
        directory.display()
    );
    found.remove(0)
}

/// The package itself, not its debug symbols.
pub fn deb() -> PathBuf {
    the_file(debs(), "vsrun_", ".deb")
}

/// The same as an .rpm.
pub fn rpm() -> PathBuf {
    let architecture = fs::read_dir(rpms().join("RPMS"))
        .expect("a directory")
        .next();
    let architecture = architecture
        .expect("one architecture")
        .expect("it can be read")
        .path();
    the_file(
        &architecture,
        &format!("vsrun-{}", env!("CARGO_PKG_VERSION")),
        ".rpm",
    )
}

/// Runs a program that must succeed, and returns what it prints.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = succeed(command);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program that must succeed.
#[track_caller]
pub fn succeed(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("it can be run");
    let (out, err) = (&output.stdout, &output.stderr);
    let told = [&out[..], &err[..]].map(String::from_utf8_lossy).concat();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{told}",
        output.status
    );
    output
}
