//! xtask/manifest as a test reads it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One line.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The distributions, as they stand there.
    pub flavours: String,
    /// Its permissions in octal, or `dir`.
    pub mode: String,
    /// The path below the prefix.
    pub path: String,
    /// The file of the repository.
    pub source: String,
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
}

/// All lines.
pub fn entries() -> Vec<Entry> {
    let text = fs::read_to_string(repository().join("xtask/manifest")).expect("the manifest");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries = lines.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [flavours, mode, path, source] = words[..] else {
            panic!("four words are wanted: {line}");
        };
        let owned = str::to_owned;
        Entry {
            flavours: owned(flavours),
            mode: owned(mode),
            path: owned(path),
            source: owned(source),
        }
    });
    entries.collect()
}

/// What a package of this kind holds below /usr: paths, and modes or `dir`.
pub fn expected(flavour: &str, prefix: &str) -> BTreeMap<PathBuf, String> {
    let ours = entries().into_iter().filter(|entry| {
        let mut flavours = entry.flavours.split(',');
        flavours.any(|named| named == "all" || named == flavour)
    });
    ours.map(|entry| (Path::new(prefix).join(entry.path), entry.mode))
        .collect()
}
