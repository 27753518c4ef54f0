//! Services on machines that are booted under each init system, with the package
//! installed there. The tests themselves are shell, in `tests/init/boot`.

use std::path::Path;
use std::process::Command;

use testkit::{require_program, run_shell_tests};

use crate::built::{can_build_debs, deb};
use crate::roots::{can_have_roots, roots};

#[test]
fn services_are_driven_and_come_back_after_a_reboot_under_three_init_systems() {
    if !can_build_debs() || !can_have_roots() || !require_program("systemd-nspawn") {
        return;
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository");
    let script = repository.join("tests/init/run-boot");
    let mut tests = Command::new("sh");
    run_shell_tests(tests.arg(script).arg(roots()).arg(deb()));
}
