//! Tests written in shell, run by one of ours.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Runs a script that prints `ok`, `FAIL` and `SKIP` lines, and passes them on. Panics if one
/// failed, or in CI was skipped.
pub fn run_shell_tests(tests: &mut Command) {
    let name = format!("{:?}", tests.get_args().next().unwrap_or_default());
    let mut tests = tests.stdout(Stdio::piped()).spawn().expect("a shell");
    let mut bad = Vec::new();
    for line in BufReader::new(tests.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        // Past the test runner's capture: it takes minutes, and a skip must be seen.
        let _ = writeln!(std::io::stderr(), "{line}");
        let skipped = line.starts_with("SKIP") && std::env::var_os("CI").is_some();
        if skipped || line.starts_with("FAIL") {
            bad.push(line);
        }
    }
    let status = tests.wait().expect("an end");
    assert!(
        status.success() && bad.is_empty(),
        "{name}: {status}: {bad:#?}"
    );
}
