//! Where a command may be found, and how a command line is shown.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use shlex::bytes::Quoter;

/// How much of a command line is shown, in bytes: one string of an environment may have 128 KiB
/// (MAX_ARG_STRLEN, see execve(2)).
const QUOTED_MAX: usize = 100 * 1024;

/// The search path where there is none in the environment.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The paths at which a command is looked for, in turn: itself if it has a slash, else its name in
/// each directory of the search path. Relative ones are taken from `base`, and passed over where
/// that is gone.
pub fn candidates(command: &OsStr, search: &OsStr, base: Option<&Path>) -> Vec<CString> {
    let name = command.as_bytes();
    let in_search = || {
        search
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(OsStr::from_bytes)
    };
    let directories: Vec<&OsStr> = match name {
        [] => Vec::new(),
        _ if name.contains(&b'/') => vec![OsStr::new("")],
        _ => in_search().collect(),
    };
    let paths = directories
        .into_iter()
        .map(|directory| Path::new(directory).join(command));
    let placed = paths.filter_map(|path| match base {
        Some(base) => Some(base.join(path)),
        None => path.is_absolute().then_some(path),
    });
    placed.map(c_string).collect()
}

/// A string for a system call. What came from the command line or the environment holds no NUL.
pub fn c_string(text: impl Into<OsString>) -> CString {
    CString::new(text.into().into_vec()).unwrap_or_default()
}

/// A command line in one string, its words quoted as sh would read them where they need it.
pub fn quoted(words: &[OsString]) -> OsString {
    let quoter = Quoter::new().allow_nul(true);
    let quoted = quoter.join(words.iter().map(|word| word.as_bytes()));
    let mut line = quoted.unwrap_or_default();
    if line.len() > QUOTED_MAX {
        line.truncate(QUOTED_MAX);
        line.extend_from_slice(b"...");
    }
    OsString::from_vec(line)
}

/// A command line in one string of printable characters. A word with any others is quoted as in
/// `$'a\nb'`, which shells read back (POSIX.1-2024, Shell Command Language 2.2.4).
pub fn printable(words: &[OsString]) -> String {
    let mut line = String::new();
    for word in words {
        if line.len() > QUOTED_MAX {
            line.push_str(" ...");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        match word.to_str() {
            Some(text) if !text.chars().any(is_hidden) => {
                line.push_str(&quoted(std::slice::from_ref(word)).to_string_lossy());
            }
            _ => push_dollar_quoted(&mut line, word.as_bytes()),
        }
    }
    line
}

fn push_dollar_quoted(line: &mut String, word: &[u8]) {
    // Writing to memory does not fail.
    line.push_str("$'");
    for chunk in word.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => line.extend(['\\', c]),
                '\n' => line.push_str("\\n"),
                '\t' => line.push_str("\\t"),
                '\r' => line.push_str("\\r"),
                c if is_hidden(c) => push_hex(line, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => line.push(c),
            }
        }
        push_hex(line, chunk.invalid());
    }
    line.push('\'');
}

fn push_hex(line: &mut String, bytes: &[u8]) {
    bytes
        .iter()
        .for_each(|byte| line.push_str(&format!("\\x{byte:02x}")));
}

/// Whether a character cannot be seen, or changes how others are seen.
fn is_hidden(c: char) -> bool {
    !matches!(c, '\'' | '"' | '\\') && c.escape_debug().len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(command: &str, search: &str) -> Vec<String> {
        let paths = candidates(
            OsStr::new(command),
            OsStr::new(search),
            Some(Path::new("/start")),
        );
        paths
            .into_iter()
            .map(|path| path.into_string().expect("text"))
            .collect()
    }

    #[test]
    fn a_name_is_looked_for_in_each_directory_of_the_path() {
        assert_eq!(
            found("server", "/bin:/sbin"),
            ["/bin/server", "/sbin/server"]
        );
        assert_eq!(
            found("server", "lib::/bin"),
            ["/start/lib/server", "/start/server", "/bin/server"]
        );
    }

    #[test]
    fn a_command_with_a_slash_is_a_path() {
        assert_eq!(found("/opt/server", "/bin"), ["/opt/server"]);
        assert_eq!(found("bin/server", "/bin"), ["/start/bin/server"]);
        assert!(found("", "/bin").is_empty());
    }

    #[test]
    fn nothing_is_looked_for_relative_to_a_directory_that_is_gone() {
        let paths = |command: &str| candidates(OsStr::new(command), OsStr::new("lib:/bin"), None);
        assert_eq!(paths("server"), [c"/bin/server".to_owned()]);
        assert!(paths("bin/server").is_empty());
    }

    #[test]
    fn words_are_quoted_where_sh_needs_it() {
        let words = ["server", "-x", "two words", "", "it's", "$HOME"].map(OsString::from);
        assert_eq!(quoted(&words), r#"server -x 'two words' '' "it's" '$HOME'"#);
    }

    #[test]
    fn words_that_cannot_be_shown_are_quoted_with_a_dollar() {
        let words = [
            &b"a b"[..],
            b"it's\n\x1b[0m1",
            b"\xff\xc3\xa9\\",
            b"plain\\",
        ];
        let words = words.map(|word| OsString::from_vec(word.to_vec()));
        let expected = r#"'a b' $'it\'s\n\x1b[0m1' $'\xffé\\' "plain\\""#;
        assert_eq!(printable(&words), expected);
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let line = quoted(&["x".repeat(200 * 1024).into()]);
        assert_eq!(line.len(), QUOTED_MAX + 3);
        assert!(line.as_bytes().ends_with(b"x..."));
    }
}
