//! vsrun's own lines: one `write(2)` each, of at most a page, with control
//! characters escaped. Decides nothing.

use std::ffi::OsStr;
use std::fmt::{self, Display, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use chrono::Local;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::dup3;

use crate::sys::fds;

/// How much of a line is written; the rest is cut. One write(2) of this size to a pipe is atomic
/// (PIPE_BUF, see pipe(7)).
const LINE_MAX: usize = 4096;

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

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `vsrun: `, for a terminal and for syslog.
    Plain,
    /// The local time and vsrun's process id, for `vsrun.log`.
    Stamped,
}

/// Where a manager's lines go. None of them waits for a reader.
#[derive(Debug)]
pub struct Messages {
    to: OwnedFd,
    style: Style,
    /// How many could not be written.
    lost: u32,
    /// Whether the last one was cut by a disk that got full.
    cut: bool,
}

impl Messages {
    /// Lines in this style to what `to` leads to.
    pub fn new(to: BorrowedFd<'_>, style: Style) -> Result<Messages, Errno> {
        let to = fds::impatient(to).map_err(fds::errno)?;
        Ok(Messages { to, style, lost: 0, cut: false })
    }

    /// Sends the lines to come elsewhere, if that can be had.
    pub fn redirect(&mut self, to: BorrowedFd<'_>, style: Style) {
        if let Ok(to) = fds::impatient(to) {
            *self = Messages { to, style, ..*self };
        }
    }

    /// Lets go of what the lines went to, for good. Needs no new descriptor.
    pub fn hang_up(&mut self, null: BorrowedFd<'_>) {
        // dup3(2) onto an open descriptor needs nothing that could be lacking.
        let _ = dup3(null, &mut self.to, OFlag::O_CLOEXEC);
    }

    /// Writes one line. A line that cannot be written now (full disk, full pipe, closed stream) is
    /// counted, and the next one that can be says how many were lost.
    pub fn say(&mut self, text: &dyn Display) {
        if self.lost > 0 {
            let lost = self.lost;
            if self.write(&format_args!("{lost} of these messages could not be written")) {
                self.lost = 0;
            }
        }
        if !self.write(text) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn write(&mut self, text: &dyn Display) -> bool {
        let line = Line::new(if self.cut { "\n" } else { "" }, self.style, text);
        let written = fds::write_now(self.to.as_fd(), line.bytes());
        if written > 0 {
            self.cut = written < line.bytes().len();
        }
        written > 0 && !self.cut
    }
}

/// Writes one plain line to standard error, for errors that end vsrun: the only line that waits
/// for a slow reader.
pub fn complain(text: &dyn Display) {
    // Where standard error cannot be written, nobody is there to be told.
    let _ = nix::unistd::write(fds::standard_error(), Line::new("", Style::Plain, text).bytes());
}

/// A line and its end.
struct Line {
    bytes: [u8; LINE_MAX],
    length: usize,
}

impl Line {
    fn new(start: &str, style: Style, text: &dyn Display) -> Line {
        let mut line = Line { bytes: [0; LINE_MAX], length: 0 };
        // A line that is too long is cut, which is all that can go wrong here.
        let _ = match style {
            Style::Plain => write!(line, "{start}vsrun: {text}"),
            Style::Stamped => {
                let now = Local::now().format("%Y-%m-%dT%H:%M:%S%.3f%:z");
                write!(line, "{start}{now} vsrun[{}]: {text}", std::process::id())
            }
        };
        line.bytes[line.length] = b'\n';
        line
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..=self.length]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_MAX - 1 - self.length;
        // No character is cut in two.
        let taken =
            (0..=text.len().min(room)).rfind(|end| text.is_char_boundary(*end)).unwrap_or(0);
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
        let name = OsStr::from_bytes(b"a\nb\x1b[0m\xff\xc3\xa9 '\\");
        assert_eq!(escaped(name).to_string(), "a\\nb\\u{1b}[0m\\xffé '\\\\");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let line = Line::new("", Style::Plain, &"x".repeat(LINE_MAX * 2));
        assert_eq!(line.bytes().len(), LINE_MAX);
        assert!(line.bytes().ends_with(b"x\n"));
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        for start in ["", "x", "xx"] {
            let line = Line::new(start, Style::Plain, &"\u{20ac}".repeat(LINE_MAX));
            assert!(std::str::from_utf8(line.bytes()).is_ok(), "after {start:?}");
        }
    }
}
