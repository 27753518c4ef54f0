//! What is in the packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Sandbox, require_program};

use crate::built::{can_build_debs, can_build_rpms, deb, debs, output, rpm, succeed, the_file};
use crate::manifest::expected;

/// `drwxr-xr-x` as the manifest has it: `dir` or an octal number.
fn mode(symbols: &str) -> String {
    if symbols == "drwxr-xr-x" {
        return "dir".to_owned();
    }
    assert!(
        symbols.starts_with('-'),
        "neither a file nor a directory of mode 0755: {symbols}"
    );
    let bits = symbols[1..].chars().fold(0, |bits, symbol| match symbol {
        '-' => bits << 1,
        'r' | 'w' | 'x' => bits << 1 | 1,
        other => panic!("'{other}' in {symbols}"),
    });
    format!("0{bits:o}")
}

/// A path as it was before it was compressed.
fn uncompressed(path: &str) -> PathBuf {
    path.strip_suffix(".gz").unwrap_or(path).into()
}

fn assert_is_the_manifest(flavour: &str, mut found: BTreeMap<PathBuf, String>) {
    let wanted = expected(flavour, "/usr");
    // The directories that belong to the system, and those above ours.
    found.retain(|path, mode| mode != "dir" || wanted.contains_key(path));
    assert_eq!(found, wanted);
}

#[test]
fn the_deb_holds_what_the_manifest_lists() {
    if !can_build_debs() {
        return;
    }
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(deb()));
    let found = listed.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root/root", "{line}");
        let path = words[5].trim_start_matches('.').trim_end_matches('/');
        (uncompressed(path), mode(words[0]))
    });
    assert_is_the_manifest("deb", found.collect());
}

#[test]
fn the_rpm_holds_what_the_manifest_lists() {
    if !can_build_rpms() {
        return;
    }
    let format = "[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\\n]";
    let listed = output(Command::new("rpm").args(["-qp", "--qf", format]).arg(rpm()));
    let found = listed.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root:root", "{line}");
        // By these links rpm finds debug symbols.
        let is_ours = !words[2].starts_with("/usr/lib/.build-id");
        is_ours.then(|| (uncompressed(words[2]), mode(words[0])))
    });
    assert_is_the_manifest("rpm", found.collect());
}

#[test]
fn no_package_runs_a_script_when_it_is_installed() {
    if !can_build_debs() || !can_build_rpms() {
        return;
    }
    let sandbox = Sandbox::new("/bin/true");
    let control = sandbox.path("control");
    succeed(
        Command::new("dpkg-deb")
            .arg("--control")
            .arg(deb())
            .arg(&control),
    );
    let files = output(Command::new("ls").arg(&control));
    assert_eq!(
        files.split_whitespace().collect::<Vec<_>>(),
        ["control", "md5sums"]
    );
    let scripts = output(
        Command::new("rpm")
            .args(["-qp", "--scripts", "--triggers"])
            .arg(rpm()),
    );
    assert_eq!(scripts, "");
}

#[test]
fn the_program_is_hardened() {
    if !can_build_debs() || !require_program("readelf") {
        return;
    }
    let sandbox = Sandbox::new("/bin/true");
    let unpacked = sandbox.path("unpacked");
    succeed(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(deb())
            .arg(&unpacked),
    );
    let mut readelf = Command::new("readelf");
    let told = output(readelf.args(["-hldW"]).arg(unpacked.join("usr/sbin/vsrun")));
    let has = |words: &[&str]| {
        told.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(has(&["Type:", "DYN"]), "no PIE:\n{told}");
    assert!(has(&["GNU_RELRO"]), "no RELRO:\n{told}");
    assert!(has(&["NOW", "PIE"]), "symbols are bound late:\n{told}");
    assert!(has(&["GNU_STACK", " RW "]), "an executable stack:\n{told}");
}

#[test]
fn debug_symbols_are_in_a_package_of_their_own() {
    if !can_build_debs() {
        return;
    }
    let symbols = the_file(debs(), "vsrun-dbgsym_", "deb");
    let build_id = field(&symbols, "Build-Ids");
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(&symbols));
    let file = format!("{}/{}.debug", &build_id[..2], &build_id[2..]);
    assert!(listed.contains(&file), "no {file}:\n{listed}");
}

fn field(package: &Path, name: &str) -> String {
    let value = output(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg(name),
    );
    value.trim().to_owned()
}
