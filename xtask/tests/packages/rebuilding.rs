//! The same sources make the same packages, wherever they are built.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::built::{build, can_build_debs, can_build_rpms, debs, output, rpms, target};

/// Other surroundings: a longer path, another time zone, language and umask.
fn build_elsewhere(verb: &str) -> PathBuf {
    let directory = target(&format!("packages/elsewhere/in-a-longer-path/{verb}"));
    build(verb, &directory, |xtask| {
        xtask.envs([
            ("TZ", "Pacific/Kiritimati"),
            ("LC_ALL", "C"),
            ("USER", "somebody"),
        ]);
    });
    directory
}

fn sums(directory: &Path, pattern: &str) -> String {
    let mut find = Command::new("find");
    find.current_dir(directory).args([".", "-name", pattern]);
    let script = "find . -name \"$1\" -type f | sort | xargs sha256sum";
    let mut sums = Command::new("sh");
    let sums = sums
        .current_dir(directory)
        .args(["-c", script, "sums", pattern]);
    output(sums)
}

fn assert_equal(one: &Path, other: &Path, pattern: &str) {
    let (ours, theirs) = (sums(one, pattern), sums(other, pattern));
    assert!(
        ours.lines().count() > 1,
        "no {pattern} in {}",
        one.display()
    );
    assert_eq!(
        ours,
        theirs,
        "compare {} with {} by diffoscope",
        one.display(),
        other.display()
    );
}

#[test]
fn debs_and_their_sources_come_out_the_same_in_another_directory() {
    if !can_build_debs() {
        return;
    }
    let other = build_elsewhere("deb");
    assert_equal(debs(), &other, "*.deb");
    assert_equal(debs(), &other, "*.tar.xz");
}

#[test]
fn rpms_come_out_the_same_in_another_directory() {
    if !can_build_rpms() {
        return;
    }
    let other = build_elsewhere("rpm");
    assert_equal(&rpms().join("RPMS"), &other.join("RPMS"), "*.rpm");
}
