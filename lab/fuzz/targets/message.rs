//! Any text in vsrun's own lines: it is shown completely and cannot forge a line, wherever a long
//! line is cut.
#![no_main]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use vsrun::escape::escaped;
use vsrun::message::{Messages, Style};
use vsrun_fuzz::{assert_shown, assert_visible};

/// The longest line (PIPE_BUF, see pipe(7)).
const LINE_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    // The first byte is the length of the text before it, in units of 16.
    let (before, text) = data
        .split_first()
        .map_or((0, data), |(first, rest)| (*first, rest));
    let shown = escaped(OsStr::from_bytes(text)).to_string();
    assert_shown(&shown, OsStr::from_bytes(text));
    let text = format!("{}{shown}", "x".repeat(usize::from(before) * 16));
    let style = if before % 2 == 0 {
        Style::Plain
    } else {
        Style::Stamped
    };
    let line = written(style, &text);

    assert!(line.len() <= LINE_MAX);
    let line = line.strip_suffix(b"\n").expect("a line");
    // The line may be cut before a character of four bytes.
    let whole = line.len() < LINE_MAX - 4;
    let line = std::str::from_utf8(line).expect("text");
    assert_visible(line);
    let start = match style {
        Style::Plain => "vsrun: ".to_owned(),
        Style::Stamped => format!(" vsrun[{}]: ", std::process::id()),
    };
    let (stamp, message) = line.split_once(&start).expect("the start of a line");
    assert_eq!(
        stamp.len(),
        if style == Style::Plain { 0 } else { 29 },
        "{stamp}"
    );
    if whole {
        assert_eq!(message, text);
    }
});

/// The line that is written to a pipe.
fn written(style: Style, text: &str) -> Vec<u8> {
    static PIPE: OnceLock<(File, File)> = OnceLock::new();
    let (reader, writer) = PIPE.get_or_init(|| {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        (reader.into(), writer.into())
    });
    Messages::new(writer.as_fd(), style)
        .expect("messages to the pipe")
        .say(&text);
    let mut line = [0; 2 * LINE_MAX];
    let length = (&*reader).read(&mut line).expect("the pipe can be read");
    line[..length].to_owned()
}
