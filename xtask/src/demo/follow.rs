//! Reads a log file as it grows, and the new file after a rotation.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Reads a file from its start, then the next one under the same name.
pub struct Follower {
    path: PathBuf,
    open: Option<File>,
    /// The start of a line whose end has not been written yet.
    rest: String,
}

impl Follower {
    /// Follows a file that need not exist yet.
    pub fn new(path: PathBuf) -> Follower {
        Follower {
            path,
            open: None,
            rest: String::new(),
        }
    }

    /// The file's name.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// The whole lines that were written since the last call.
    pub fn new_lines(&mut self) -> Vec<String> {
        // Checked before reading, because nothing is written to the old file after a rotation.
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

    /// Whether the open file is no longer the one under its name.
    fn is_rotated(&self) -> bool {
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let Ok(named) = self.path.metadata().map(inode) else {
            return false;
        };
        let open = self
            .open
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map(inode);
        open != Some(named)
    }

    fn read(&mut self) -> String {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.open {
            // If it fails, the demo runs into its time limit.
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
