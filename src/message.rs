//! vsrun's own lines: one `write(2)` each, of a fixed size, with control
//! characters escaped. Decides nothing and never blocks on a full pipe.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use chrono::Local;

use crate::sys::fds;

/// How much of a line is written; the rest is cut. One write(2) of this size to a pipe is atomic
/// (PIPE_BUF, see pipe(7)).
const LINE_MAX: usize = 4096;

/// Shows bytes as text in which no control character and no invalid UTF-8 is left, so that a
/// name cannot forge a line of its own.
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
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `vsrun: `, for a terminal and for syslog.
    Plain,
    /// The local time and vsrun's process id, for `vsrun.log`.
    Stamped,
}

/// vsrun's own lines on standard error, whatever that has become.
#[derive(Debug)]
pub struct Messages {
    style: Style,
    lost: u32,
}

impl Messages {
    /// Lines in this style.
    pub fn new(style: Style) -> Messages {
        Messages { style, lost: 0 }
    }

    /// Changes the style of the lines to come.
    pub fn set_style(&mut self, style: Style) {
        self.style = style;
    }

    /// Writes one line. A line that cannot be written now (full disk, full pipe, closed stream) is
    /// counted, and the next one that can be says how many were lost.
    pub fn say(&mut self, text: fmt::Arguments<'_>) {
        let to = fds::standard_error();
        let lost = format_args!("{} of these messages could not be written", self.lost);
        if self.lost > 0 && write_line(to, self.style, lost) {
            self.lost = 0;
        }
        if !write_line(to, self.style, text) {
            self.lost = self.lost.saturating_add(1);
        }
    }
}

/// Writes one line if that need not wait. False if it is lost.
pub fn write_line(to: BorrowedFd<'_>, style: Style, text: fmt::Arguments<'_>) -> bool {
    fds::can_write(to) && Line::new(style, text).send(to)
}

/// Writes one plain line to standard error, for errors that end vsrun: the only line that waits
/// for a slow reader.
pub fn complain(text: fmt::Arguments<'_>) {
    // Where standard error cannot be written, nobody is there to be told.
    let _ = Line::new(Style::Plain, text).send(fds::standard_error());
}

struct Line {
    bytes: [u8; LINE_MAX],
    length: usize,
}

impl Line {
    fn new(style: Style, text: fmt::Arguments<'_>) -> Line {
        let mut line = Line { bytes: [0; LINE_MAX], length: 0 };
        // A line that is too long is cut, which is all that can go wrong here.
        let _ = match style {
            Style::Plain => write!(line, "vsrun: {text}"),
            Style::Stamped => {
                let now = Local::now().format("%Y-%m-%dT%H:%M:%S%.3f%:z");
                write!(line, "{now} vsrun[{}]: {text}", std::process::id())
            }
        };
        line
    }

    fn send(mut self, to: BorrowedFd<'_>) -> bool {
        self.bytes[self.length] = b'\n';
        let line = &self.bytes[..=self.length];
        nix::unistd::write(to, line).is_ok_and(|written| written == line.len())
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_MAX - 1 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_invalid_bytes_are_escaped() {
        let name = OsStr::from_bytes(b"a\nb\x1b[0m\xff\xc3\xa9");
        assert_eq!(escaped(name).to_string(), "a\\nb\\u{1b}[0m\\xffé");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let line = Line::new(Style::Plain, format_args!("{}", "x".repeat(LINE_MAX * 2)));
        assert_eq!(line.length, LINE_MAX - 1);
    }
}
