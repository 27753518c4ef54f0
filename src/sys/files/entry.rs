//! Entries of directories: what they are, how new ones get their owner and
//! mode, and names that nothing else has.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, close, fchown};

/// Who a new file or directory is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

/// Whether two entries are one file.
pub fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Whether an entry is a regular file.
pub fn is_regular(entry: &FileStat) -> bool {
    kind(entry) == SFlag::S_IFREG
}

/// What kind of file an entry is.
pub fn kind(entry: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(entry.st_mode & libc::S_IFMT)
}

/// Makes something under a name that nothing else has. An existing file may belong to another
/// program, or be left by a killed vsrun of the same id.
pub fn try_names<T>(mut make: impl FnMut(&OsStr) -> Result<T, Errno>) -> Result<T, Errno> {
    let mut attempt = 0;
    loop {
        let name = OsString::from(format!(".vsrun-{}-{attempt}", std::process::id()));
        match make(&name) {
            Err(Errno::EEXIST) if attempt < 100 => attempt += 1,
            made => return made,
        }
    }
}

/// The mode for a new file until its owner is set: no other user may open it before that.
pub(super) fn first_mode(owner: Option<Owner>, mode: u32) -> u32 {
    if owner.is_some() { mode & 0o700 } else { mode }
}

/// Sets owner, group and mode, the last whatever a default access list (acl(5)) or a first mode made
/// of it.
pub(super) fn hand_over(
    made: &OwnedFd,
    uid: Option<Uid>,
    gid: Option<Gid>,
    mode: u32,
) -> Result<FileStat, Errno> {
    if uid.is_some() || gid.is_some() {
        fchown(made, uid, gid)?;
    }
    let about = fstat(made)?;
    if about.st_mode & 0o7777 == mode {
        return Ok(about);
    }
    fchmod(made, Mode::from_bits_truncate(mode))?;
    fstat(made)
}

/// Shows every name in a directory, in one pass.
pub(super) fn for_each_name(
    directory: &OwnedFd,
    mut visit: impl FnMut(&[u8]),
) -> Result<(), Errno> {
    let listed = reopen(directory.as_fd(), OFlag::O_RDONLY)?;
    let number = listed.as_raw_fd();
    let mut listing = Dir::from_fd(listed).inspect_err(|_| {
        // nix has released the descriptor without closing it, and fdopendir(3) failed.
        let _ = close(number);
    })?;
    for entry in listing.iter() {
        visit(entry?.file_name().to_bytes());
    }
    Ok(())
}

/// Opens a directory once more.
pub(super) fn reopen(directory: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        ".",
        flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}
