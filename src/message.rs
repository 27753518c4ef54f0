//! vsrun's own lines: one `write(2)` each, of at most a page, with control
//! characters escaped. Decides nothing.

use std::fmt::{self, Display, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use chrono::SecondsFormat;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::dup3;

use crate::sys::clock;
use crate::sys::files::fds;

/// How much of a line is written; the rest is cut. One write(2) of this size to a pipe is atomic
/// (PIPE_BUF, see pipe(7)).
const LINE_MAX: usize = 4096;

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `vsrun: `, for a terminal and for syslog.
    Plain,
    /// The local time and vsrun's process id, for `vsrun.log`.
    Stamped,
}

/// Where the lines of a process that stays go. None of them waits for a reader.
#[derive(Debug)]
pub struct Messages {
    to: OwnedFd,
    style: Style,
    /// How many could not be written.
    lost: u32,
    /// Whether the last one was cut by a disk that got full.
    cut: bool,
    line: Line,
}

impl Messages {
    /// Lines in this style to what `to` leads to.
    pub fn new(to: BorrowedFd<'_>, style: Style) -> Result<Messages, Errno> {
        let to = fds::open_nonblocking(to).map_err(fds::errno)?;
        Ok(Messages {
            to,
            style,
            lost: 0,
            cut: false,
            line: Line::new(),
        })
    }

    /// Sends the lines to come elsewhere, to what never waits for a reader. Needs no new
    /// descriptor.
    pub fn redirect(&mut self, to: BorrowedFd<'_>) {
        // dup3(2) onto an open descriptor needs no resource.
        let _ = dup3(to, &mut self.to, OFlag::O_CLOEXEC);
    }

    /// Writes one line. A line that cannot be written now (full disk, full pipe, closed stream) is
    /// counted, and the next one that can be says how many were lost.
    pub fn say(&mut self, text: &dyn Display) {
        if self.lost > 0 {
            let lost = self.lost;
            if self.write(&format_args!(
                "{lost} of these messages could not be written"
            )) {
                self.lost = 0;
            }
        }
        if !self.write(text) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn write(&mut self, text: &dyn Display) -> bool {
        let line = self
            .line
            .of(if self.cut { "\n" } else { "" }, self.style, text);
        let written = fds::write_now(self.to.as_fd(), line);
        if written > 0 {
            self.cut = written < line.len();
        }
        written > 0 && !self.cut
    }
}

/// Writes one plain line to standard error, for errors that end vsrun: the only line that waits
/// for a slow reader.
pub fn print_error(text: &dyn Display) {
    let mut line = Line::new();
    fds::write_blocking(fds::standard_error(), line.of("", Style::Plain, text));
}

/// A line and its end, in memory that is kept for the next one.
#[derive(Debug)]
struct Line(Vec<u8>);

impl Line {
    fn new() -> Line {
        Line(Vec::with_capacity(LINE_MAX))
    }

    fn of(&mut self, start: &str, style: Style, text: &dyn Display) -> &[u8] {
        self.0.clear();
        // A line that is too long is cut, which is all that can go wrong here.
        let _ = match style {
            Style::Plain => write!(self, "{start}vsrun: {text}"),
            Style::Stamped => {
                let now = clock::now().to_rfc3339_opts(SecondsFormat::Millis, false);
                write!(self, "{start}{now} vsrun[{}]: {text}", std::process::id())
            }
        };
        self.0.push(b'\n');
        &self.0
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_MAX - 1 - self.0.len();
        // No character is cut in two.
        let taken = (0..=text.len().min(room))
            .rfind(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        self.0.extend_from_slice(&text.as_bytes()[..taken]);
        if taken < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut line = Line::new();
        let line = line.of("", Style::Plain, &"x".repeat(LINE_MAX * 2));
        assert_eq!(line.len(), LINE_MAX);
        assert!(line.ends_with(b"x\n"));
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        for start in ["", "x", "xx"] {
            let mut line = Line::new();
            let line = line.of(start, Style::Plain, &"\u{20ac}".repeat(LINE_MAX));
            assert!(std::str::from_utf8(line).is_ok(), "after {start:?}");
        }
    }
}
