//! The manifest and stage.sh, without building anything.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::Sandbox;

use crate::built::{output, succeed};
use crate::manifest::{entries, expected, repository};

fn files_below(directory: &str) -> BTreeSet<String> {
    let mut git = Command::new("git");
    git.current_dir(repository());
    git.args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        directory,
    ]);
    output(&mut git).lines().map(str::to_owned).collect()
}

#[test]
fn no_page_no_completion_no_handler_and_no_sample_is_forgotten() {
    let sources: BTreeSet<String> = entries().into_iter().map(|entry| entry.source).collect();
    for directory in ["init", "man", "completions"] {
        let files = files_below(directory);
        assert!(!files.is_empty(), "{directory} is empty");
        for file in files.iter().filter(|file| !file.ends_with(".in")) {
            assert!(sources.contains(file), "{file} is not in xtask/manifest");
        }
    }
}

#[test]
fn every_program_is_installed() {
    let sources: BTreeSet<String> = entries().into_iter().map(|entry| entry.source).collect();
    let others = files_below("src/bin");
    let others = others.iter().filter_map(|file| {
        Path::new(file)
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
    });
    for program in others.chain(["vsrun".to_owned()]) {
        let source = format!("@bin/{program}");
        assert!(
            sources.contains(&source),
            "{source} is not in xtask/manifest"
        );
    }
}

#[test]
fn changelogs_spec_page_and_fuzz_lock_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let read = |file: &str| fs::read_to_string(repository().join(file)).expect("it can be read");
    let debian = read("debian/changelog");
    assert!(
        debian.starts_with(&format!("vsrun ({version}-")),
        "{debian}"
    );
    let spec = read("rpm/vsrun.spec");
    let line = spec
        .lines()
        .find(|line| line.starts_with("Version:"))
        .unwrap_or_default();
    assert_eq!(line.split_whitespace().nth(1), Some(version));
    let page = read("man/vsrun-handlers.7");
    assert!(
        page.contains(&format!("\"vsrun {version}\"")),
        "man/vsrun-handlers.7"
    );
    let lock = read("lab/fuzz/Cargo.lock");
    let entry = format!("name = \"vsrun\"\nversion = \"{version}\"");
    assert!(lock.contains(&entry), "lab/fuzz/Cargo.lock");
}

fn stage(shell: &[&str], prefix: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new("/bin/true");
    let (binaries, destdir) = (sandbox.path("built"), sandbox.path("staged"));
    fs::create_dir(&binaries).expect("a directory");
    for entry in entries() {
        if let Some(program) = entry.source.strip_prefix("@bin/") {
            fs::write(binaries.join(program), "a program").expect("a file");
        }
    }
    let mut stage = Command::new(shell[0]);
    stage
        .args(&shell[1..])
        .arg(repository().join("xtask/stage.sh"));
    stage
        .args(["--for", "plain", "--prefix", prefix, "--binaries"])
        .arg(binaries);
    succeed(stage.arg("--destdir").arg(&destdir));
    (sandbox, destdir)
}

#[test]
fn what_is_staged_is_the_manifest_under_another_prefix_too() {
    for shell in [&["dash"][..], &["busybox", "sh"]] {
        let (_sandbox, destdir) = stage(shell, "/opt/vsrun");
        for (path, mode) in expected("plain", "/opt/vsrun") {
            let relative = path.strip_prefix("/").expect("absolute");
            let found = fs::metadata(destdir.join(relative)).expect("it is staged");
            let wanted = if mode == "dir" { "0755" } else { &mode };
            let seen = format!("{:04o}", found.permissions().mode() & 0o7777);
            assert_eq!(
                (found.is_dir(), seen.as_str()),
                (mode == "dir", wanted),
                "{path:?}"
            );
        }
    }
}

#[test]
fn units_and_samples_name_the_prefix_they_are_installed_under() {
    let (_sandbox, destdir) = stage(&["sh"], "/opt/vsrun");
    let mut grep = Command::new("grep");
    grep.args(["-rnE", "/usr/(sbin|share)/(doc/)?vsrun"])
        .arg(destdir.join("opt/vsrun/lib"));
    let left = grep.output().expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    let unit = destdir.join("opt/vsrun/lib/systemd/system/vsrun@.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    assert!(unit.contains("ExecStart=/opt/vsrun/sbin/vsrun "), "{unit}");
}
