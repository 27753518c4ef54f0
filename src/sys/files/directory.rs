//! Directories that another user may own: everything is done relative to a
//! descriptor, no link is followed unless only root or the caller could have
//! put it there, and nothing is created over an existing file.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{Gid, UnlinkatFlags, linkat, unlinkat};

use super::entry::{Owner, first_mode, for_each_name, hand_over, is_same, reopen};
use super::walk::{CreatedDir, Step, make, remove_created, walk};

/// A directory, held by a descriptor.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// Opens an existing directory by an absolute path. A symbolic link that others than root and
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
    ) -> Result<(Directory, Vec<CreatedDir>), Errno> {
        let mut made = Vec::new();
        let opened = walk(path, |parent, name, place| {
            let (owner, mode) = match place {
                Step::Last => (owner, 0o750),
                Step::Inner => (None, 0o755),
            };
            let (directory, new) = make(parent, name, owner, mode)?;
            made.push(new);
            Ok(directory)
        });
        match opened {
            Ok(directory) => Ok((Directory(directory), made)),
            Err(reason) => {
                remove_created(&made);
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

    /// Creates a file for writing at its end; EEXIST if anything stands under the name. In a
    /// set-group-id directory the file has the directory's group (see inode(7)), also with an owner.
    pub fn create(
        &self,
        name: &OsStr,
        owner: Option<Owner>,
        mode: u32,
    ) -> Result<(OwnedFd, FileStat), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
        let group = self.group_for(owner)?;
        let file = self.open_file(
            name,
            flags,
            Mode::from_bits_truncate(first_mode(owner, mode)),
        )?;
        match hand_over(&file, owner.map(|owner| owner.uid), group, mode) {
            Ok(about) => Ok((file, about)),
            Err(reason) => {
                // The first error is reported; a file that stays is empty.
                let _ = self.remove(name);
                Err(reason)
            }
        }
    }

    /// The group that a new file must be given; none where it has the right one by itself.
    fn group_for(&self, owner: Option<Owner>) -> Result<Option<Gid>, Errno> {
        let Some(owner) = owner else { return Ok(None) };
        let gives_its_own = fstat(&self.0)?.st_mode & libc::S_ISGID != 0;
        Ok(if gives_its_own { None } else { Some(owner.gid) })
    }

    /// Opens what stands under a name, never through a link.
    pub fn open_file(&self, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        openat(
            &self.0,
            name,
            flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            mode,
        )
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
                self.remove(from).inspect_err(|_| {
                    // The first error is reported.
                    let _ = self.remove(to);
                })
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

    /// Opens the directory again if its absolute path leads to another one by now, because this one
    /// was removed or moved, or something is mounted on it; true if so. ENOENT or ESTALE if the path
    /// leads nowhere. If it cannot be opened for another reason, such as a link that must not be
    /// followed, this directory stays in use.
    ///
    /// The link count is no sign: on overlayfs a removed directory keeps it.
    pub fn follow(&mut self, path: &Path) -> Result<bool, Errno> {
        let found = match Directory::open(path) {
            Ok(found) => found,
            Err(reason @ (Errno::ENOENT | Errno::ESTALE)) => return Err(reason),
            Err(_) => return Ok(false),
        };
        // This one may be stale (ESTALE), and is another one then.
        let is_this = |about: &FileStat| fstat(&self.0).is_ok_and(|own| is_same(&own, about));
        let is_other = fstat(&found).is_ok_and(|about| !is_this(&about));
        if is_other {
            *self = found;
        }
        Ok(is_other)
    }

    /// Takes a shared lock on the directory, which ends with this descriptor and with the process;
    /// EWOULDBLOCK if another process has one (see flock(2)). Another descriptor takes the place of
    /// this one, which cannot be locked if it is an O_PATH one (see open(2)).
    pub fn lock_shared(&mut self) -> Result<(), Errno> {
        let readable = reopen(self.as_fd(), OFlag::O_RDONLY)?;
        let alone = flock(&readable, libc::LOCK_EX | libc::LOCK_NB);
        // Shared, so that the lock can be seen as long as any of several processes lives.
        flock(&readable, libc::LOCK_SH | libc::LOCK_NB)?;
        self.0 = readable;
        alone
    }

    /// Makes the directory the caller's working directory.
    pub fn enter(&self) -> Result<(), Errno> {
        nix::unistd::fchdir(&self.0)
    }
}

/// Locks an open file, or changes its lock; for the operations see flock(2).
fn flock(file: &OwnedFd, operation: libc::c_int) -> Result<(), Errno> {
    // SAFETY: flock(2) takes two integers and touches no memory.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}
