//! Command lines as in `VSRUN_SERVER_COMMAND`, words ended by NUL: sh reads the same words.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use libfuzzer_sys::fuzz_target;
use shlex::bytes::Shlex;
use vsrun::escape::escaped;
use vsrun::plan::command::quoted;
use vsrun_fuzz::{assert_shown, words};

fuzz_target!(|data: &[u8]| {
    let typed = words(data, 0);
    let line = quoted(&typed);
    assert_shown(&escaped(&line).to_string(), &line);
    let mut reader = Shlex::new(line.as_bytes());
    let read: Vec<OsString> = reader.by_ref().map(OsString::from_vec).collect();
    assert!(!reader.had_error, "{line:?}");
    assert_eq!(read, typed, "{line:?}");
});
