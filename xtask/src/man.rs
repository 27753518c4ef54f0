//! `cargo xtask man`: the manual page is written by hand in man/vsrun.8.in; only
//! its OPTIONS, version and date are put in here.

use std::fs;

use vsrun::cli::options::{OPTIONS, Opt};

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
        .replace("@OPTIONS@\n", &OPTIONS.iter().map(entry).collect::<String>()))
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

/// One option in man(7): its summary is the first sentence of its text, and what stands between
/// backquotes is set in bold. Lines are kept short enough for `mandoc -T lint`.
fn entry(option: &Opt) -> String {
    let bold = |text: &str| format!("\\fB{}\\fR", escaped(text));
    let values = option.values.iter().map(|value| format!(" \\fI{}\\fR", escaped(value)));
    let (short, long) = (format!("-{}", option.short), format!("--{}", option.long));
    let header = format!("{}, {}{}", bold(&short), bold(&long), values.collect::<String>());
    let paragraphs = [option.summary, option.text].into_iter().filter(|text| !text.is_empty());
    let sentences = paragraphs.map(|text| filled(&whole_sentence(&escaped(text))));
    format!(".TP\n{header}\n{}", sentences.collect::<String>())
}

/// Text in which hyphens and apostrophes stay what they are.
fn escaped(text: &str) -> String {
    text.replace('-', "\\-").replace('\'', "\\(aq")
}

fn whole_sentence(paragraph: &str) -> String {
    let stop = if paragraph.ends_with('.') { "" } else { "." };
    bold_between_backquotes(paragraph) + stop
}

fn bold_between_backquotes(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(n, part)| if n % 2 == 1 { format!("\\fB{part}\\fR") } else { part.into() })
        .collect()
}

fn filled(text: &str) -> String {
    let mut filled = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column + word.len() > 78 {
            filled.push('\n');
            column = 0;
        } else if column > 0 {
            filled.push(' ');
        }
        // A line that begins like a request would be taken for one.
        let guard = if column == 0 && word.starts_with(['.', '\'']) { "\\&" } else { "" };
        filled += guard;
        filled += word;
        column += word.len() + 1;
    }
    filled + "\n"
}

#[cfg(test)]
mod tests {
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
        let syslog = OPTIONS.iter().find(|option| option.long == "syslog").expect("an option");
        let made = entry(syslog);
        assert!(made.starts_with(".TP\n\\fB\\-s\\fR, \\fB\\-\\-syslog\\fR \\fIPREFIX\\fR\n"));
        assert!(made.contains("\nSend all output to syslog under this prefix.\n"), "{made}");
        assert!(made.contains("\\fBlogger \\-t PREFIX\\fR"), "{made}");
    }

    #[test]
    fn a_line_never_begins_like_a_request() {
        let line = "x".repeat(78);
        assert_eq!(filled(&format!("{line} .TH 'e")), format!("{line}\n\\&.TH 'e\n"));
    }
}
