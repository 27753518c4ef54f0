//! Strings as execve(2) takes them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::libc::c_char;

/// Strings that end in NUL, with the array of pointers that execve(2) wants. The memory is kept
/// when strings are taken away, so that refilling it to the same size allocates nothing.
#[derive(Debug)]
pub struct Words {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into the bytes beside them, which stay where they are when this is
// moved, and nobody else has.
unsafe impl Send for Words {}

impl Words {
    /// The strings in their order. None may hold a NUL; those from the kernel never do.
    pub fn new<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> Words {
        Words::of(strings, |words, string| words.push(&[string.as_ref().as_bytes()]))
    }

    /// `NAME=value` for each of them, likewise.
    pub fn assignments<'a>(variables: impl Iterator<Item = (&'a OsStr, &'a OsStr)>) -> Words {
        Words::of(variables, |words, (name, value)| {
            words.push(&[name.as_bytes(), b"=", value.as_bytes()]);
        })
    }

    fn of<T>(items: impl IntoIterator<Item = T>, push: impl Fn(&mut Words, T)) -> Words {
        let mut words = Words { bytes: Vec::new(), starts: Vec::new(), pointers: Vec::new() };
        items.into_iter().for_each(|item| push(&mut words, item));
        words.seal();
        words
    }

    /// The number of strings.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Keeps the first `kept` strings and lets `fill` write the ones behind them.
    pub fn replace_tail(&mut self, kept: usize, fill: impl FnOnce(&mut Tail<'_>)) {
        if let Some(end) = self.starts.get(kept) {
            self.bytes.truncate(*end);
            self.starts.truncate(kept);
        }
        fill(&mut Tail(self));
        self.seal();
    }

    fn push(&mut self, parts: &[&[u8]]) {
        self.starts.push(self.bytes.len());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.push(0);
    }

    fn seal(&mut self) {
        self.pointers.clear();
        self.pointers.extend(self.starts.iter().map(|start| self.bytes[*start..].as_ptr().cast()));
        self.pointers.push(ptr::null());
    }

    pub(super) fn pointers(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Where [`Words::replace_tail`] lets new strings be written.
#[derive(Debug)]
pub struct Tail<'a>(&'a mut Words);

impl Tail<'_> {
    /// Adds `NAME=value`.
    pub fn set(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write as _;
        self.0.starts.push(self.0.bytes.len());
        // Writing to memory does not fail.
        let _ = write!(self.0.bytes, "{name}={value}");
        self.0.bytes.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_replaced_without_growing() {
        let mut words = Words::new(["A=1", "B=2"]);
        words.replace_tail(2, |tail| tail.set("C", 345));
        let (room, first) = (words.bytes.capacity(), words.bytes.clone());
        words.replace_tail(2, |tail| tail.set("C", 345));
        assert_eq!((words.bytes.capacity(), &words.bytes), (room, &first));
        assert_eq!(words.bytes, b"A=1\0B=2\0C=345\0");
        assert_eq!(words.pointers.len(), 4);
    }
}
