//! Figures in hand-written documents: what stands between `<!-- NAME -->` and
//! `<!-- /NAME -->` is replaced, everything else is left alone.

use std::fs;
use std::path::Path;

use xtask::steps::Failure;

/// Puts `text` in the place called `name`.
pub fn put(file: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let shown = file.display();
    let old = fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = old.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or(format!("{shown} has no place called {name}"))?;
    let new = format!("{before}{begin}{}\n{end}{after}", text.trim_end());
    fs::write(file, new).map_err(|error| format!("cannot write {shown}: {error}").into())
}
