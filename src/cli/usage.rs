//! Usage errors in one line. clap's own text has several, and a word may hold newlines, so the line
//! is made from the error's parts.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Error;
use crate::escape::escaped;

/// How vsrun is called.
pub const SYNOPSIS: &str = "vsrun [OPTIONS] -- COMMAND [ARG]...";
const PUT_MARK: &str = "put '--' before the server's command, as in";

/// No `--`.
pub fn missing_mark() -> Error {
    Error::Usage(format!("missing '--': {PUT_MARK} {SYNOPSIS}"))
}

/// Nothing behind `--`.
pub fn missing_command() -> Error {
    Error::Usage(format!(
        "missing command: put it behind '--', as in {SYNOPSIS}"
    ))
}

/// A long option's name behind one hyphen, which clap would read as a letter and its value.
pub fn one_hyphen(long: &str) -> Error {
    usage(&format!(
        "unexpected argument '-{long}' found: write '--{long}'"
    ))
}

/// What clap refused among these words.
pub fn refused(error: &clap::Error, words: &[OsString]) -> Error {
    let option = text(error, ContextKind::InvalidArg);
    let line = match error.kind() {
        ErrorKind::UnknownArgument => return unknown(error, &option, words),
        ErrorKind::ArgumentConflict => conflict(error, &option),
        ErrorKind::ValueValidation => match error.source() {
            Some(reason) => return Error::Usage(reason.to_string()),
            None => format!("the option '{option}' cannot take this value"),
        },
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues => {
            // The option is shown with the names of its values.
            let values = if option.matches('<').count() > 1 {
                "two values"
            } else {
                "value"
            };
            format!("the option '{option}' needs its {values}")
        }
        ErrorKind::TooManyValues => format!("the option '{option}' takes no value"),
        other => format!(
            "{}: '{option}'",
            other.as_str().unwrap_or("wrong arguments")
        ),
    };
    usage(&line)
}

fn usage(line: &str) -> Error {
    Error::Usage(format!("{line}; see vsrun --help"))
}

fn unknown(error: &clap::Error, shown: &str, words: &[OsString]) -> Error {
    // clap replaces bytes that are no text; the word as typed shows them.
    let typed = words
        .iter()
        .find(|word| escaped(&*word.to_string_lossy()).to_string() == shown);
    let shown = typed.map_or(shown.to_owned(), |word| escaped(word).to_string());
    if !shown.starts_with('-') || shown == "-" {
        return Error::Usage(format!(
            "unexpected argument '{shown}' found: {PUT_MARK} {SYNOPSIS}"
        ));
    }
    let suggested = text(error, ContextKind::SuggestedArg);
    if suggested.is_empty() {
        return usage(&format!("unexpected argument '{shown}' found"));
    }
    usage(&format!(
        "unexpected argument '{shown}' found (did you mean '{suggested}'?)"
    ))
}

fn conflict(error: &clap::Error, option: &str) -> String {
    let other = text(error, ContextKind::PriorArg);
    if other == option {
        return format!("the option '{option}' cannot be used multiple times");
    }
    format!("the option '{option}' cannot be used with '{other}'")
}

/// A part of an error, escaped; empty where the error has no such part.
fn text(error: &clap::Error, part: ContextKind) -> String {
    match error.get(part) {
        Some(ContextValue::String(text)) => escaped(text).to_string(),
        Some(ContextValue::Strings(texts)) => escaped(&texts.join("', '")).to_string(),
        _ => String::new(),
    }
}
