//! Directories that somebody else may own: everything is done relative to a
//! descriptor, no link is followed unless only root or the caller could have
//! put it there, and nothing is created over what stands there already.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, close, fchown, linkat, unlinkat};

use super::walk::{Made, Place, make, remove_made, walk};

/// Who a new file or directory is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

/// A directory, held by a descriptor.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// Opens an existing directory by an absolute path. A symbolic link that anybody but root and
    /// the caller may have put there is ELOOP.
    pub fn open(path: &Path) -> Result<Directory, Errno> {
        walk(path, |_, _, _| Err(Errno::ENOENT)).map(Directory)
    }

    /// Opens a directory likewise, and makes what is missing of it: the directory itself with
    /// mode 0750 for `owner`, its parents with mode 0755 for the caller. What was made comes with
    /// it; when it cannot be opened, nothing of that is left.
    pub fn open_or_make(
        path: &Path,
        owner: Option<Owner>,
    ) -> Result<(Directory, Vec<Made>), Errno> {
        let mut made = Vec::new();
        let opened = walk(path, |parent, name, place| {
            let (owner, mode) = match place {
                Place::Last => (owner, 0o750),
                Place::Inner => (None, 0o755),
            };
            let (directory, new) = make(parent, name, owner, mode)?;
            made.push(new);
            Ok(directory)
        });
        match opened {
            Ok(directory) => Ok((Directory(directory), made)),
            Err(reason) => {
                remove_made(&made);
                Err(reason)
            }
        }
    }

    /// What stands under a name, links as links; none where nothing does.
    pub fn entry(&self, name: &OsStr) -> Result<Option<FileStat>, Errno> {
        match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(entry) => Ok(Some(entry)),
            Err(Errno::ENOENT) => Ok(None),
            Err(reason) => Err(reason),
        }
    }

    /// Creates a file for writing at its end; EEXIST if anything stands under the name.
    pub fn create(
        &self,
        name: &OsStr,
        owner: Option<Owner>,
        mode: u32,
    ) -> Result<(OwnedFd, FileStat), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
        let file =
            self.open_file(name, flags, Mode::from_bits_truncate(first_mode(owner, mode)))?;
        match hand_over(&file, owner, mode) {
            Ok(about) => Ok((file, about)),
            Err(reason) => {
                // The error is the one to tell; a file that stays is empty.
                let _ = self.remove(name);
                Err(reason)
            }
        }
    }

    /// Opens what stands under a name, never through a link.
    pub fn open_file(&self, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        openat(&self.0, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode)
    }

    /// Renames within the directory, replacing what stands under the new name.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        renameat(&self.0, from, &self.0, to)
    }

    /// Renames within the directory; EEXIST if anything stands under the new name.
    pub fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        match renameat2(&self.0, from, &self.0, to, RenameFlags::RENAME_NOREPLACE) {
            // Not every file system can; a second link never replaces anything either.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                linkat(&self.0, from, &self.0, to, AtFlags::empty())?;
                self.remove(from)
            }
            outcome => outcome,
        }
    }

    /// Exchanges what stands under two names; ENOENT if nothing stands under one of them. Not every
    /// file system can.
    pub fn exchange(&self, one: &OsStr, other: &OsStr) -> Result<(), Errno> {
        renameat2(&self.0, one, &self.0, other, RenameFlags::RENAME_EXCHANGE)
    }

    /// Removes a name that is not a directory's.
    pub fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Shows every name in the directory, in one pass.
    pub fn for_each_name(&self, visit: impl FnMut(&[u8])) -> Result<(), Errno> {
        for_each_name(&self.0, visit)
    }

    /// Whether another directory is the same one.
    pub fn is(&self, other: &Directory) -> bool {
        let (own, other) = (fstat(self), fstat(other));
        own.is_ok_and(|own| other.is_ok_and(|other| is_same(&own, &other)))
    }

    /// Whether the directory has been removed from the file system.
    pub fn is_gone(&self) -> bool {
        fstat(&self.0).is_ok_and(|about| about.st_nlink == 0)
    }

    /// Makes the directory the caller's working directory.
    pub fn enter(&self) -> Result<(), Errno> {
        nix::unistd::fchdir(&self.0)
    }
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

/// Makes something under a name that nothing else has: what is there already may be somebody
/// else's, or left by a vsrun of the same id that was killed.
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

/// Until its owner is set, what is to be given away is nobody else's.
pub(super) fn first_mode(owner: Option<Owner>, mode: u32) -> u32 {
    if owner.is_some() { mode & 0o700 } else { mode }
}

/// Sets owner and mode, the latter whatever a default access list (acl(5)) or a first mode made of
/// it.
pub(super) fn hand_over(
    made: &OwnedFd,
    owner: Option<Owner>,
    mode: u32,
) -> Result<FileStat, Errno> {
    if let Some(Owner { uid, gid }) = owner {
        fchown(made, Some(uid), Some(gid))?;
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
        // It has given up the descriptor, and fdopendir(3) has not taken it.
        let _ = close(number);
    })?;
    for entry in listing.iter() {
        visit(entry?.file_name().to_bytes());
    }
    Ok(())
}

/// Opens a directory once more.
pub(super) fn reopen(directory: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(directory, ".", flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
