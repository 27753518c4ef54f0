//! The manual page, README, `--help` and the documents' tables of tests, compared with the options'
//! definition and the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vsrun::variables::ALL as VARIABLES;

use crate::prelude::*;

/// The statuses that vsrun gives a meaning of its own.
const STATUSES: [&str; 5] = ["0", "125", "126", "127", "128"];

/// An option as its documentation spells it.
struct Documented {
    short: Option<String>,
    long: String,
    values: Vec<String>,
    in_short_help: bool,
}

impl Documented {
    /// Its letter, if it has one, and its word.
    fn spellings(&self) -> Vec<&str> {
        self.short
            .iter()
            .chain([&self.long])
            .map(String::as_str)
            .collect()
    }
}

fn options() -> Vec<Documented> {
    let definition = vsrun::cli::definition();
    let documented = definition.get_arguments().map(|option| {
        // clap gives a switch, too, a name for its value.
        let takes_values = option.get_action().takes_values();
        let names = option
            .get_value_names()
            .filter(|_| takes_values)
            .unwrap_or_default();
        Documented {
            short: option.get_short().map(|letter| format!("-{letter}")),
            long: format!("--{}", option.get_long().expect("an option has a word")),
            values: names.iter().map(ToString::to_string).collect(),
            in_short_help: !option.is_hide_short_help_set(),
        }
    });
    let documented: Vec<Documented> = documented.collect();
    assert!(
        documented.len() >= 10,
        "the definition has lost its options"
    );
    documented
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The page without its markup: `\-` and fonts undone.
fn plain_page() -> String {
    let mut page = read("man/vsrun.8");
    for font in ["\\fB", "\\fI", "\\fR"] {
        page = page.replace(font, "");
    }
    page.replace("\\-", "-").replace("\\(aq", "'")
}

/// The lines of a section of the page, its heading left out.
fn section(page: &str, heading: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("\n.SH {heading}\n"))
        .expect("the section exists");
    rest.split("\n.SH ").next().unwrap_or_default().to_owned()
}

fn vsrun(argument: &str) -> String {
    let output = Command::new(VSRUN)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .expect("vsrun runs");
    assert_eq!(output.status.code(), Some(0), "{argument}: {output:?}");
    assert!(output.stderr.is_empty(), "{argument}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn words(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || "-_:[]".contains(c);
    text.split(|c| !is_part(c)).collect()
}

fn assert_silent(output: &Output) {
    let printed = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(
        output.status.success() && printed.is_empty(),
        "{}",
        String::from_utf8_lossy(&printed)
    );
}

#[test]
fn the_page_describes_every_option_with_its_values() {
    let options_section = section(&plain_page(), "OPTIONS");
    for option in options() {
        let mut header = option.spellings().join(", ");
        for value in &option.values {
            header = header + " " + value;
        }
        let found = options_section.lines().any(|line| line == header);
        assert!(found, "no '{header}' in OPTIONS");
    }
}

#[test]
fn the_page_describes_every_variable_of_the_handler() {
    let page = section(&plain_page(), "TERMINATION HANDLER");
    for variable in VARIABLES {
        let header = format!(".TP\n.B {variable}\n");
        assert!(page.contains(&header), "no entry for {variable}");
    }
}

#[test]
fn the_page_describes_every_exit_status() {
    let page = section(&plain_page(), "EXIT STATUS");
    for status in STATUSES {
        assert!(words(&page).contains(&status), "no {status}");
    }
}

#[test]
fn the_page_mentions_no_option_and_no_variable_that_does_not_exist() {
    let options = options();
    let page = plain_page();
    for word in words(&page) {
        if word.starts_with("--") && word.len() > 2 {
            assert!(
                options.iter().any(|option| option.long == word),
                "{word} is no option"
            );
        }
        if word.starts_with("VSRUN_") && word != "VSRUN_" {
            assert!(VARIABLES.contains(&word), "{word} is no variable");
        }
    }
}

#[test]
fn the_readme_has_a_row_for_every_option() {
    let readme = read("README.md");
    for option in options() {
        let values: Vec<String> = option
            .values
            .iter()
            .map(|value| format!("`{value}`"))
            .collect();
        let row = format!(
            "| `{}` | {}",
            option.spellings().join("`, `"),
            values.join(" ")
        );
        assert!(
            readme.lines().any(|line| line.starts_with(row.trim_end())),
            "no row '{row}'"
        );
    }
}

#[test]
fn the_readme_has_a_row_for_every_variable_and_exit_status() {
    let readme = read("README.md");
    let first_cells: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .collect();
    for fact in VARIABLES.iter().chain(&STATUSES) {
        let is_named = first_cells
            .iter()
            .any(|cell| cell.contains(&format!("`{fact}`")));
        assert!(is_named, "no row for {fact}");
    }
}

#[test]
fn the_long_help_names_every_option_with_its_values() {
    let help = vsrun("--help");
    for option in options() {
        let mut header = option.spellings().join(", ");
        for value in &option.values {
            header = format!("{header} <{value}>");
        }
        let found = help.lines().any(|line| line.trim() == header);
        assert!(found, "no '{header}' in\n{help}");
    }
}

#[test]
fn the_short_help_names_every_option_but_the_hidden_on_one_screen() {
    let short = vsrun("-h");
    for option in options() {
        let is_named = words(&short).contains(&option.long.as_str());
        assert_eq!(
            is_named, option.in_short_help,
            "{} in\n{short}",
            option.long
        );
    }
    assert!(short.lines().count() <= 24, "{short}");
}

#[test]
fn the_completions_of_every_shell_know_every_option() {
    for file in [
        "completions/vsrun.bash",
        "completions/_vsrun",
        "completions/vsrun.fish",
    ] {
        let script = read(file);
        for option in options() {
            for spelling in option.spellings() {
                let is_known = words(&script).contains(&spelling)
                    // fish names letters and words without their hyphens.
                    || script.contains(&format!(" {}", fish_flag(spelling)));
                assert!(is_known, "no {spelling} in {file}");
            }
        }
    }
}

/// An option as fish's `complete` takes it.
fn fish_flag(spelling: &str) -> String {
    match spelling.strip_prefix("--") {
        Some(word) => format!("-l {word} "),
        None => format!("-s {} ", &spelling[1..]),
    }
}

#[test]
fn the_version_is_one_line() {
    let expected = format!("vsrun {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(vsrun("-V"), expected);
    assert_eq!(vsrun("--version"), expected);
}

#[test]
fn the_newest_release_in_the_changelog_is_this_version() {
    let changelog = read("CHANGELOG.md");
    let newest = changelog
        .lines()
        .find(|line| line.starts_with("## [") && line.contains("] - "));
    let expected = format!("## [{}] - ", env!("CARGO_PKG_VERSION"));
    assert!(
        newest.is_some_and(|line| line.starts_with(&expected)),
        "{newest:?}"
    );
}

#[test]
fn mandoc_finds_nothing_to_improve_in_the_page() {
    needs!("mandoc");
    let mut mandoc = Command::new("mandoc");
    mandoc
        .args(["-T", "lint", "-W", "all"])
        .arg(path("man/vsrun.8"));
    assert_silent(&mandoc.output().expect("mandoc runs"));
}

#[test]
fn man_renders_the_page_on_80_columns_without_a_warning() {
    needs!("man");
    let mut man = Command::new("man");
    man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
        .arg(path("man/vsrun.8"));
    man.envs([
        ("LC_ALL", "C.UTF-8"),
        ("MANROFFSEQ", ""),
        ("MANWIDTH", "80"),
    ]);
    let output = man.stdin(Stdio::null()).output().expect("man runs");
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
}

#[test]
fn the_page_can_be_found_by_its_name() {
    needs!("lexgrog");
    let output = Command::new("lexgrog")
        .arg(path("man/vsrun.8"))
        .output()
        .expect("lexgrog runs");
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && found.contains("vsrun - "),
        "{found}"
    );
}

/// The documents with tables of tests, as far as they exist.
const PROVEN: [&str; 3] = ["SECURITY.md", "docs/advisories.md", "docs/faults.md"];

/// Every `subject::function` that is set as code.
fn tests_named_in(text: &str) -> BTreeSet<String> {
    let is_name = |part: &str| {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !part.is_empty() && part.chars().all(is_part)
    };
    let code = text.split('`').skip(1).step_by(2);
    let is_test = |code: &&str| {
        code.split_once("::")
            .is_some_and(|(file, test)| is_name(file) && is_name(test))
    };
    code.filter(is_test).map(str::to_owned).collect()
}

/// Every test function as `subject::function`: the subject is the file, or for `mod.rs` and a file
/// in a directory of `tests/integration` that directory.
fn tests_in(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory)
        .expect("a directory of sources")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            tests_in(&path, found);
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let is_part = directory
            .parent()
            .is_some_and(|parent| parent.ends_with("integration"));
        let named = if is_part || path.ends_with("mod.rs") {
            directory
        } else {
            &path
        };
        let file = named.file_stem().expect("a name").to_string_lossy();
        let source = fs::read_to_string(&path).expect("a source");
        let mut lines = source.lines().map(str::trim);
        while lines.any(|line| line == "#[test]") {
            let function = lines.find_map(|line| line.strip_prefix("fn ")?.split('(').next());
            found.insert(format!("{file}::{}", function.expect("a function")));
        }
    }
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let mut existing = BTreeSet::new();
    tests_in(&path("tests"), &mut existing);
    tests_in(&path("src"), &mut existing);
    assert!(existing.contains("docs::every_test_that_a_document_names_is_there"));
    for document in PROVEN.iter().filter(|document| path(document).exists()) {
        let named = tests_named_in(&read(document));
        assert!(!named.is_empty(), "{document} names no test");
        let missing: Vec<_> = named.difference(&existing).collect();
        assert!(
            missing.is_empty(),
            "{document} names tests that are not there: {missing:#?}"
        );
    }
}

#[test]
fn every_row_of_a_document_of_proofs_names_a_test() {
    for document in PROVEN.iter().filter(|document| path(document).exists()) {
        let text = read(document);
        for row in rows(&text) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            // A short name and its test, or the whole story.
            assert!(matches!(cells.len(), 2 | 4), "{document}: {row}");
            let proof = cells[cells.len() - 1];
            assert!(
                !tests_named_in(proof).is_empty(),
                "{document} proves nothing by: {row}"
            );
        }
    }
}

/// The rows of a document's tables, their headings left out, and the tables of figures, which stand
/// between `<!-- NAME -->` and `<!-- /NAME -->`.
fn rows(text: &str) -> Vec<&str> {
    let is_head = |line: &&str| line.starts_with("| where |") || line.starts_with("| | ");
    let mut figures = false;
    let table_lines = text.lines().filter(|line| {
        figures = (figures || line.starts_with("<!-- ")) && !line.starts_with("<!-- /");
        !figures
    });
    table_lines
        .filter(|line| line.starts_with("| ") && !is_head(line))
        .collect()
}

#[test]
fn every_line_of_the_security_policy_has_its_row() {
    let policy = read("SECURITY.md");
    let lines = policy.lines().filter(|line| line.starts_with("- ")).count();
    assert_eq!(lines, rows(&policy).len());
}
