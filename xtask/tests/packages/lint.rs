//! What the distributions' checkers say.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::require_program;

use crate::built::{
    can_build_debs, can_build_rpms, debs, debs_log, output, rpms, succeed, the_file,
};
use crate::manifest::repository;
use crate::roots::{Root, can_have_roots};

/// Every tag that lintian has is a failure, but for one: it takes machine code for misspelt words,
/// others with each compiler, so that an override would be wrong or unused half of the time.
const LINTIAN: &str = "lintian --allow-root --info --display-info --display-experimental \
    --pedantic --fail-on=error,warning,info,pedantic,experimental \
    --suppress-tags spelling-error-in-binary";

#[test]
fn lintian_of_this_system_finds_nothing() {
    if !can_build_debs() || !require_program("lintian") {
        return;
    }
    let mut lintian = Command::new("sh");
    // An older lintian knows an older policy.
    let line = format!("{LINTIAN},newer-standards-version \"$1\"");
    lintian
        .args(["-c", &line, "lintian"])
        .arg(the_file(debs(), "vsrun_", ".changes"));
    assert_eq!(output(&mut lintian), "");
}

#[test]
fn the_build_passes_hardening_flags_on() {
    if !can_build_debs() || !require_program("blhc") {
        return;
    }
    let mut blhc = Command::new("blhc");
    // Cargo shows a compiler's command in a line of its own.
    blhc.args(["--all", "--ignore-line", ".*Compiling .*"]);
    debs();
    output(blhc.arg(debs_log()));
}

#[test]
fn rpmlint_finds_nothing() {
    if !can_build_rpms() || !require_program("rpmlint") {
        return;
    }
    let (config, spec) = ("rpm/rpmlint.toml", "rpm/vsrun.spec");
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("-c").arg(repository().join(config));
    let told = output(rpmlint.arg(rpms()).arg(repository().join(spec)));
    assert!(told.contains(" 0 errors, 0 warnings"), "{told}");
}

#[test]
fn the_spec_can_be_read_on_distributions_that_have_their_own_macros() {
    if !can_build_rpms() {
        return;
    }
    for distribution in ["fedora 43", "rhel 10", "suse_version 1600"] {
        let mut rpmspec = Command::new("rpmspec");
        rpmspec.args(["--parse", "--define", distribution]);
        let parsed = output(rpmspec.arg(repository().join("rpm/vsrun.spec")));
        assert!(
            !parsed.contains("%debug_package"),
            "{distribution}:\n{parsed}"
        );
    }
}

#[test]
fn scripts_of_the_packaging_are_clean() {
    if !require_program("shellcheck") {
        return;
    }
    let scripts = [
        "debian/tests/smoke",
        "debian/tests/systemd",
        "xtask/stage.sh",
    ];
    let scripts = scripts.map(|script| repository().join(script));
    succeed(Command::new("shellcheck").args(scripts));
}

#[test]
fn mandoc_and_man_find_nothing_in_the_page_on_handlers() {
    if !["mandoc", "man", "lexgrog"]
        .into_iter()
        .all(require_program)
    {
        return;
    }
    let page = repository().join("man/vsrun-handlers.7");
    let mandoc = output(
        Command::new("mandoc")
            .args(["-T", "lint", "-W", "all"])
            .arg(&page),
    );
    assert_eq!(mandoc, "");
    let mut man = Command::new("man");
    man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
        .arg(&page);
    man.envs([
        ("LC_ALL", "C.UTF-8"),
        ("MANROFFSEQ", ""),
        ("MANWIDTH", "80"),
        ("MANPAGER", "cat"),
    ]);
    let rendered = succeed(&mut man);
    assert_eq!(String::from_utf8_lossy(&rendered.stderr), "");
    let rendered = String::from_utf8_lossy(&rendered.stdout);
    // A letter, backspace and the letter again is a bold one.
    let width = |line: &str| line.chars().count() - 2 * line.matches('\u{8}').count();
    let long = rendered.lines().find(|line| width(line) > 80);
    assert_eq!(long, None);
    let name = output(Command::new("lexgrog").arg(&page));
    assert!(name.contains("vsrun-handlers - "), "{name}");
}

#[test]
fn the_page_on_handlers_names_every_handler_and_every_variable() {
    let read = |file: &Path| fs::read_to_string(repository().join(file)).expect("it can be read");
    let page = read(Path::new("man/vsrun-handlers.7")).replace("\\-", "-");
    for entry in crate::manifest::entries() {
        let handler = entry.path.strip_prefix("share/vsrun/handlers/");
        if let Some(handler) = handler.filter(|_| entry.mode == "0755") {
            assert!(
                page.contains(&format!("\n.B {handler}\n")),
                "no entry for {handler}"
            );
        }
    }
    let manual = read(Path::new("man/vsrun.8"));
    let variables = manual
        .lines()
        .filter_map(|line| line.strip_prefix(".B VSRUN_"));
    for variable in variables.filter(|variable| !variable.is_empty()) {
        let row = format!("\nVSRUN_{variable}\t");
        assert!(page.contains(&row), "no row for VSRUN_{variable}");
    }
}

/// Builds the packages of the Debian source package on Debian 13, whose compiler is the oldest
/// that is supported, and has Debian 13's lintian look at them and at the source package.
#[test]
fn debian_13_builds_them_from_source_without_a_network_and_its_lintian_finds_nothing() {
    if !can_build_debs() || !can_have_roots() {
        return;
    }
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let script = format!(
        "rustc --version | grep -qF 'rustc {oldest}.'
        mkdir /build; cd /build; cp /shared/*.dsc /shared/*.tar.xz .
        dpkg-source --extract *.dsc tree >log; cd tree
        dpkg-checkbuilddeps
        export DEB_BUILD_OPTIONS='nocheck terse'
        dpkg-buildpackage -us -uc >>../log 2>&1 || {{ tail -n 50 ../log; exit 1; }}
        cd ..; {LINTIAN} *.changes"
    );
    assert_eq!(Root::BUILDER.succeed(debs(), &script), "");
}
