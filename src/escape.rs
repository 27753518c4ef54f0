//! Bytes that others chose, shown as text that cannot forge a line. Pure.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;

/// Shows bytes as text in which no control character, nothing invisible and no invalid UTF-8 is
/// left, so that a name cannot forge a line of its own.
pub fn escaped(bytes: &(impl AsRef<OsStr> + ?Sized)) -> Escaped<'_> {
    Escaped(bytes.as_ref().as_bytes())
}

/// The result of [`escaped`].
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\'' | '"' => f.write_char(c)?,
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_invalid_bytes_are_escaped() {
        let name = OsStr::from_bytes(b"a\nb\x1b[0m\xff\xc3\xa9 '\\");
        assert_eq!(escaped(name).to_string(), "a\\nb\\u{1b}[0m\\xffé '\\\\");
    }
}
