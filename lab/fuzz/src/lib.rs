//! Shared by the fuzz targets: splitting an input into words, and checks of the text that vsrun
//! writes.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Once;

/// The words of an input, which cannot hold the separator.
pub fn words(data: &[u8], separator: u8) -> Vec<OsString> {
    if data.is_empty() {
        return Vec::new();
    }
    let words = data.split(|byte| *byte == separator);
    words
        .map(|word| OsString::from_vec(word.to_owned()))
        .collect()
}

/// Checks that a text contains no control character, no invisible one, and none that changes the
/// direction of writing.
pub fn assert_visible(text: &str) {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    assert!(!text.contains(hidden), "{text:?}");
}

/// Checks that a text shows a value completely: no other value has the same text.
pub fn assert_shown(text: &str, value: &OsStr) {
    assert_visible(text);
    assert!(
        text.len() <= value.len() * 6,
        "{text:?} for {} bytes",
        value.len()
    );
    assert_eq!(unescape(text), value.as_bytes(), "{text:?}");
}

/// Reads what `vsrun::escape::escaped` wrote.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match (c, c == '\\') {
            (_, false) => c,
            _ => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('0') => '\0',
                Some('\\') => '\\',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).expect("a byte"));
                    continue;
                }
                Some('u') => {
                    let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    let code = u32::from_str_radix(&digits, 16).expect("a number");
                    char::from_u32(code).expect("a character")
                }
                other => panic!("escape {other:?} in {text:?}"),
            },
        };
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes
}

/// Looks up users and groups only in this machine's files, so that random names are not sent to a
/// server.
pub fn look_up_in_files_only() {
    static ONCE: Once = Once::new();
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, service: *const c_char) -> c_int;
    }
    ONCE.call_once(|| {
        for database in [c"passwd", c"group", c"initgroups"] {
            // SAFETY: both are strings that outlive everything, and no other thread runs yet.
            let set = unsafe { __nss_configure_lookup(database.as_ptr(), FILES.as_ptr()) };
            assert_eq!(set, 0, "{database:?}");
        }
    });
}

const FILES: &CStr = c"files";
