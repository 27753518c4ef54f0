//! A temporary directory with programs that every user may execute.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::mkdtemp;
use xtask::steps::Failure;

/// The directory. It is removed when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(purpose: &str) -> Result<Scratch, Failure> {
        let template = std::env::temp_dir().join(format!("vsrun-{purpose}-XXXXXX"));
        let cannot = |error| format!("cannot make '{}': {error}", template.display());
        let scratch = Scratch(mkdtemp(&template).map_err(|error| cannot(error.into()))?);
        make_executable(&scratch.0).map_err(cannot)?;
        Ok(scratch)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: cannot remove '{}': {error}", self.0.display());
        }
    }
}

/// Writes a program.
pub fn write_program(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    make_executable(path)
}

/// Lets every user execute a program, or enter a directory.
fn make_executable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
