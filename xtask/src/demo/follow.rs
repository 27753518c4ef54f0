//! Reads a log file as it grows, through its rotations.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A file that is read from its beginning, and its successor under the same name after it.
pub struct Follower {
    path: PathBuf,
    open: Option<File>,
    /// The beginning of a line whose end has not been written yet.
    rest: String,
}

impl Follower {
    /// Follows this path, which need not exist yet.
    pub fn new(path: PathBuf) -> Follower {
        Follower { path, open: None, rest: String::new() }
    }

    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The whole lines that were written since the last call.
    pub fn new_lines(&mut self) -> Vec<String> {
        // Looked at before reading: what the old file holds by then is all it will ever hold.
        let is_rotated = self.is_rotated();
        let mut text = std::mem::take(&mut self.rest);
        text += &self.read();
        if is_rotated {
            self.open = File::open(&self.path).ok();
            text += &self.read();
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.rest = text.split_off(whole);
        text.lines().map(str::to_owned).collect()
    }

    /// Whether another file stands under the name than the one that is open.
    fn is_rotated(&self) -> bool {
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let Ok(named) = self.path.metadata().map(inode) else {
            return false;
        };
        let open = self.open.as_ref().and_then(|file| file.metadata().ok()).map(inode);
        open != Some(named)
    }

    fn read(&mut self) -> String {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.open {
            // A file that cannot be read shows nothing, and the demo's deadline tells.
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
