//! The zsh frame's blanks: one specification for `_arguments` an option.

use super::{KEEP, Kind, Opt, Value, quoted};

/// The whole script.
pub fn script(options: &[Opt]) -> String {
    let specifications: Vec<String> = options.iter().map(specification).collect();
    include_str!("_vsrun.in").replace("@OPTIONS@", &specifications.join("\n"))
}

fn specification(option: &Opt) -> String {
    let spellings = match &spellings(option)[..] {
        [only] => only.clone(),
        several => format!("{{{}}}", several.join(",")),
    };
    let values: String = option.values.iter().map(value).collect();
    let text = format!(
        "[{}]{values}",
        option.summary.replace('[', "\\[").replace(']', "\\]")
    );
    format!(
        "        '({})'{spellings}{} \\",
        option.excludes.join(" "),
        quoted(&text, "'\\''")
    )
}

/// `+` lets a value follow in the same word or the next, `=` likewise for a long option. The first
/// of two values is a word of its own.
fn spellings(option: &Opt) -> Vec<String> {
    let (plus, equals) = if option.values.len() == 1 {
        ("+", "=")
    } else {
        ("", "")
    };
    let short = option.short.map(|letter| format!("-{letter}{plus}"));
    short
        .into_iter()
        .chain([format!("--{}{equals}", option.long)])
        .collect()
}

fn value(value: &Value) -> String {
    let action = match value.kind {
        Kind::User => "_vsrun_users".to_owned(),
        Kind::File => "_files".to_owned(),
        Kind::Directory => "_files -/".to_owned(),
        Kind::Keep => format!("({KEEP})"),
        Kind::Free => " ".to_owned(),
    };
    format!(":{}:{action}", value.name.replace(':', "\\:"))
}
