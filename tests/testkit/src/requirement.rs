//! What a test needs of the machine: it is skipped loudly where that is missing, and fails in CI.

use std::env;
use std::thread;

use nix::unistd::geteuid;

/// Returns whether the test runs as root; otherwise prints `SKIP <test>: needs root`.
///
/// With `CI=true` in the environment a skip is a failure.
#[must_use = "a test that needs root returns early without it"]
#[track_caller]
pub fn require_root() -> bool {
    geteuid().is_root() || skip("root")
}

/// Returns whether `program` is on `PATH`; otherwise prints `SKIP <test>: needs <program>`.
///
/// With `CI=true` in the environment a skip is a failure.
#[must_use = "a test that needs a program returns early without it"]
#[track_caller]
pub fn require_program(program: &str) -> bool {
    // The servers' directories are missing from an ordinary user's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.any(|directory| directory.join(program).is_file()) || skip(program)
}

/// Returns from a test, as [`require_root`] and [`require_program`] say, where the machine lacks
/// one of these: `needs!(root)`, `needs!("python3")`, `needs!(root, "strace")`.
#[macro_export]
macro_rules! needs {
    (root $(, $program:expr)*) => {
        if !$crate::require_root() $(|| !$crate::require_program($program))* {
            return;
        }
    };
    ($($program:expr),+) => {
        if $(!$crate::require_program($program))||+ {
            return;
        }
    };
}

#[track_caller]
fn skip(need: &str) -> bool {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI must not skip: needs {need}"
    );
    eprintln!("SKIP {test}: needs {need}");
    false
}
