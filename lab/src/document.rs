//! Replaces the text between `<!-- NAME -->` and `<!-- /NAME -->` in a document.

use std::fs;
use std::path::Path;

use xtask::steps::Failure;

/// Replaces the text between the marks of this name.
pub fn put(file: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = file.display();
    let old = fs::read_to_string(file).map_err(|error| format!("cannot read {path}: {error}"))?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = old.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or(format!("{path} has no marks <!-- {name} -->"))?;
    let new = format!("{before}{begin}{}\n{end}{after}", text.trim_end());
    fs::write(file, new).map_err(|error| format!("cannot write {path}: {error}").into())
}
