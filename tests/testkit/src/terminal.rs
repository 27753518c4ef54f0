//! A pseudo terminal, to see what vsrun does with a controlling one.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};

/// The side of the terminal where a person would sit.
#[derive(Debug)]
pub(crate) struct Terminal {
    keyboard: File,
    slave: CString,
}

impl Terminal {
    pub(crate) fn open() -> io::Result<Terminal> {
        let master: PtyMaster = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = CString::new(ptsname_r(&master)?)?;
        Ok(Terminal {
            keyboard: File::from(OwnedFd::from(master)),
            slave,
        })
    }

    /// Returns the path that programs open.
    pub(crate) fn slave(&self) -> CString {
        self.slave.clone()
    }

    pub(crate) fn type_keys(&mut self, keys: &[u8]) -> io::Result<()> {
        self.keyboard.write_all(keys)
    }
}
