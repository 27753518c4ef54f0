//! `cargo xtask man`: the manual page is written by hand in man/vsrun.8.in; only
//! its OPTIONS, version and date are put in here.

use std::fs;

use clap::builder::Resettable;

use crate::generated::{self, Mode};
use crate::steps::{Failure, root};

const TEMPLATE: &str = "man/vsrun.8.in";
const PAGE: &str = "man/vsrun.8";

/// Makes or checks the page.
pub fn run(mode: Mode) -> Result<(), Failure> {
    Ok(generated::settle(PAGE, &page()?, mode, "man")?)
}

/// The day of the newest release, as CHANGELOG.md has it.
pub fn release_date() -> Result<String, String> {
    newest_date(&read("CHANGELOG.md")?)
}

fn page() -> Result<String, String> {
    let template = read(TEMPLATE)?;
    let body: String = template
        .lines()
        .filter(|line| !line.starts_with(".\\\" template:"))
        .map(|line| format!("{line}\n"))
        .collect();
    Ok(body
        .replace("@DATE@", &release_date()?)
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@OPTIONS@\n", &options(vsrun::cli::definition())?))
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(root().join(file)).map_err(|error| format!("cannot read '{file}': {error}"))
}

/// The date of the newest release, so that a page made again tomorrow is the same.
fn newest_date(changelog: &str) -> Result<String, String> {
    changelog
        .lines()
        .filter(|line| line.starts_with("## ["))
        .find_map(|line| line.split_once("] - "))
        .map(|(_, date)| date.trim().to_owned())
        .ok_or_else(|| "CHANGELOG.md has no line '## [VERSION] - DATE'".to_owned())
}

/// The options as clap_mangen sets them, with these changes: one list without headings, no angle
/// brackets around values, no empty lines, and what stands between backquotes is bold.
fn options(definition: clap::Command) -> Result<String, String> {
    let definition = definition.mut_args(|option| {
        let help = option.get_long_help().or(option.get_help());
        let sentences = whole_sentences(&help.map(ToString::to_string).unwrap_or_default());
        option.long_help(sentences).help_heading(Resettable::Reset)
    });
    let mut page = Vec::new();
    clap_mangen::Man::new(definition)
        .render_options_section(&mut page)
        .map_err(|error| format!("cannot render the options: {error}"))?;
    let page = String::from_utf8(page).map_err(|_| "the options are no text")?;
    // Before the first entry there are the heading and a macro, which the template has no need of.
    let (_, entries) = page.split_once("\n.TP\n").ok_or("there are no options")?;
    let entries = entries
        .replace("\\*(Aq", "\\(aq")
        .replace("\\fI \\fR", " ")
        .replace("\\fI<", "\\fI")
        .replace(">\\fR", "\\fR");
    Ok(format!(".TP\n{}", bold_between_backquotes(&entries)))
}

/// The summary as a sentence, and the rest without the empty line between them.
fn whole_sentences(help: &str) -> String {
    match help.split_once("\n\n") {
        Some((summary, rest)) => format!("{summary}.\n{}", rest.replace("\n\n", "\n")),
        None => format!("{help}."),
    }
}

fn bold_between_backquotes(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(n, part)| {
            if n % 2 == 1 {
                format!("\\fB{part}\\fR")
            } else {
                part.into()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    #[test]
    fn the_committed_page_is_up_to_date() {
        if let Err(failure) = run(Mode::Check) {
            panic!("{failure}");
        }
    }

    #[test]
    fn the_date_is_that_of_the_newest_release() {
        let log = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-02\n\n## [0.1.0] - 2026-11-22\n";
        assert_eq!(newest_date(log), Ok("2027-01-02".to_owned()));
        assert!(newest_date("# Changelog\n").is_err());
    }

    #[test]
    fn an_entry_is_one_paragraph_of_whole_sentences() {
        let copy = Arg::new("copy")
            .short('c')
            .long("copy")
            .num_args(2)
            .help_heading("Files");
        let copy = copy.value_names(["FROM", "TO-DIR"]).help("Copy it");
        let copy = copy.long_help("Copy it\n\nIt's what `cp -a` does.");
        let made = options(Command::new("x").disable_help_flag(true).arg(copy));
        let expected = ".TP\n\\fB\\-c\\fR, \\fB\\-\\-copy\\fR \\fIFROM\\fR \\fITO\\-DIR\\fR\n\
                        Copy it.\nIt\\(aqs what \\fBcp \\-a\\fR does.\n";
        assert_eq!(made.expect("entries"), expected);
    }
}
