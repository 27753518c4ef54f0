//! Strings as execve(2) takes them.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};

/// Strings that end in NUL, with the array of pointers that execve(2) wants. The memory is kept
/// when strings are taken away, so that refilling it to the same size allocates nothing.
#[derive(Debug, Default)]
pub struct ExecStrings {
    /// Strings that come first and are not copied.
    inherited: Vec<&'static CStr>,
    bytes: Vec<u8>,
    starts: Vec<usize>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into the bytes beside them, which stay where they are when this is
// moved and to which no other value points, and to strings that nothing changes.
unsafe impl Send for ExecStrings {}

/// The arguments of main in C.
///
/// # Safety
///
/// `argv` leads to `argc` pointers, each to a string that ends in NUL.
pub unsafe fn from_c(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let string = |place: usize| {
        // SAFETY: the place is below `argc`.
        let argument = unsafe { argv.add(place) };
        // SAFETY: as above.
        let argument = unsafe { argument.read() };
        // SAFETY: the string ends in NUL.
        OsStr::from_bytes(unsafe { CStr::from_ptr(argument) }.to_bytes()).to_owned()
    };
    (0..usize::try_from(argc).unwrap_or(0))
        .map(string)
        .collect()
}

/// The strings of the caller's environment, `NAME=value` for the most part.
pub fn inherited() -> impl Iterator<Item = &'static CStr> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library sets it before main, and nothing changes it.
    let mut rest = unsafe { environ };
    std::iter::from_fn(move || {
        // SAFETY: the array ends in a null pointer (environ(7)), and behind that nothing is read.
        let string = NonNull::new(unsafe { rest.read() }.cast_mut())?;
        // SAFETY: this was not its end.
        rest = unsafe { rest.add(1) };
        // SAFETY: it ends in NUL, and stays where the kernel laid it out: vsrun sets no variable.
        Some(unsafe { CStr::from_ptr(string.as_ptr()) })
    })
}

impl ExecStrings {
    /// The strings in their order. None may hold a NUL; those from the kernel never do.
    pub fn new<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> ExecStrings {
        let mut array = ExecStrings::default();
        strings
            .into_iter()
            .for_each(|string| array.push(&[string.as_ref().as_bytes()]));
        array.seal();
        array
    }

    /// An environment: these strings as they are, and `NAME=value` for each of the variables.
    pub fn environment<'a>(
        inherited: Vec<&'static CStr>,
        variables: impl Iterator<Item = (&'a str, &'a OsStr)>,
    ) -> ExecStrings {
        let mut strings = ExecStrings {
            inherited,
            ..ExecStrings::default()
        };
        variables
            .for_each(|(name, value)| strings.push(&[name.as_bytes(), b"=", value.as_bytes()]));
        strings.seal();
        strings
    }

    /// The number of strings that are not inherited.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Keeps those of the inherited strings for which `is_kept` returns true.
    pub fn retain_inherited(&mut self, is_kept: impl Fn(&CStr) -> bool) {
        self.inherited.retain(|string| is_kept(string));
        self.seal();
    }

    /// Keeps the first `kept` of them and lets `fill` write the ones behind them.
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
        parts
            .iter()
            .for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.push(0);
    }

    fn seal(&mut self) {
        self.pointers.clear();
        self.pointers
            .extend(self.inherited.iter().map(|string| string.as_ptr()));
        self.pointers.extend(
            self.starts
                .iter()
                .map(|start| self.bytes[*start..].as_ptr().cast()),
        );
        self.pointers.push(ptr::null());
    }

    pub(super) fn pointers(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Where [`ExecStrings::replace_tail`] lets new strings be written.
#[derive(Debug)]
pub struct Tail<'a>(&'a mut ExecStrings);

impl Tail<'_> {
    /// Adds `NAME=value` with a value of any bytes but NUL.
    pub fn set_bytes(&mut self, name: &str, value: &OsStr) {
        self.0.push(&[name.as_bytes(), b"=", value.as_bytes()]);
    }

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
        let mut strings = ExecStrings::new(["A=1", "B=2"]);
        strings.replace_tail(2, |tail| tail.set("C", 345));
        let (room, first) = (strings.bytes.capacity(), strings.bytes.clone());
        strings.replace_tail(2, |tail| tail.set("C", 345));
        assert_eq!((strings.bytes.capacity(), &strings.bytes), (room, &first));
        assert_eq!(strings.bytes, b"A=1\0B=2\0C=345\0");
        assert_eq!(strings.pointers.len(), 4);
    }
}
