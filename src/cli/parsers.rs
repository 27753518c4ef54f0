//! From a typed word to a value, for clap. A word that is no such value is refused with the word in
//! the message.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::error::Error;
use crate::values::keep::Keep;
use crate::values::user_spec::UserSpec;

/// `USER[:GROUP]`.
pub fn user_spec() -> impl TypedValueParser<Value = UserSpec> {
    OsStringValueParser::new().map(UserSpec::from)
}

/// A path. `doing` is for the error, as in "use pidfile".
pub fn path(doing: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(move |typed| non_empty(doing, typed).map(PathBuf::from))
}

/// A prefix of lines in syslog.
pub fn prefix() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|typed| non_empty("use syslog prefix", typed))
}

/// The values of an option that takes two. clap applies one parser to both, so their types are
/// made here.
///
/// # Panics
///
/// Panics if there are not two; clap refuses any other number.
pub fn pair(values: Vec<OsString>) -> [OsString; 2] {
    values.try_into().expect("clap takes two values")
}

/// A word that is not empty.
pub fn non_empty(doing: &'static str, typed: OsString) -> Result<OsString, Error> {
    if typed.is_empty() {
        return Err(Error::refused(doing, typed, "it is empty"));
    }
    Ok(typed)
}

/// `KEEP`.
pub fn keep(typed: &OsStr) -> Result<Keep, Error> {
    let text = typed.to_str().unwrap_or_default();
    text.parse()
        .map_err(|reason| Error::refused("use keep duration", typed, reason))
}
