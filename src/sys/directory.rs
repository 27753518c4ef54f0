//! Directories that somebody else may own: everything is done relative to a
//! descriptor, no link is followed unless only root or the caller could have
//! put it there, and nothing is created over what stands there already.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat, openat2, readlinkat,
    renameat, renameat2,
};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, close, fchown, geteuid, linkat, symlinkat, unlinkat};

/// How many symbolic links a path may lead through, as in the kernel (see path_resolution(7)).
const LINKS_MAX: usize = 40;

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

/// A directory that was made on the way, so that it can be taken away again.
#[derive(Debug)]
pub struct Made {
    parent: OwnedFd,
    name: OsString,
}

/// Removes directories that were made one in the other, as far as they are still empty.
pub fn remove_made(made: &[Made]) {
    for Made { parent, name } in made.iter().rev() {
        // One that is no longer empty is somebody else's by now.
        let _ = unlinkat(parent, name.as_os_str(), UnlinkatFlags::RemoveDir);
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// Opens an existing directory by an absolute path. A symbolic link that anybody but root and
    /// the caller may have put there is ELOOP.
    pub fn open(path: &Path) -> Result<Directory, Errno> {
        walk(path, |_, _, _| Err(Errno::ENOENT))
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
            Ok(directory) => Ok((directory, made)),
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

    /// Where a link leads.
    pub fn target(&self, name: &OsStr) -> Result<OsString, Errno> {
        readlinkat(&self.0, name)
    }

    /// Makes a link; EEXIST if anything stands under the name.
    pub fn link(&self, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
        symlinkat(target, &self.0, name)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inner,
    Last,
}

fn walk(
    path: &Path,
    mut missing: impl FnMut(BorrowedFd<'_>, &OsStr, Place) -> Result<OwnedFd, Errno>,
) -> Result<Directory, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // All there and no link on the way: one call tells, where the kernel has it (Linux 5.6).
    let direct = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    if let Ok(directory) = openat2(AT_FDCWD, path, direct) {
        return Ok(Directory(directory));
    }
    let mut steps: VecDeque<OsString> = steps_of(path);
    let mut here = open("/", flags, Mode::empty())?;
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        let place = if steps.is_empty() { Place::Last } else { Place::Inner };
        here = match openat(&here, step.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => match missing(here.as_fd(), &step, place) {
                // Somebody else was faster: another look, as at a link.
                Err(Errno::EEXIST) if links < LINKS_MAX => {
                    links += 1;
                    steps.push_front(step);
                    continue;
                }
                made => made?,
            },
            Err(Errno::ENOTDIR) => {
                let entry = fstatat(&here, step.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                links += 1;
                if kind(&entry) != SFlag::S_IFLNK {
                    return Err(Errno::ENOTDIR);
                } else if links > LINKS_MAX || !is_trusted(&fstat(&here)?, &entry) {
                    return Err(Errno::ELOOP);
                }
                let target = readlinkat(&here, step.as_os_str())?;
                for step in steps_of(Path::new(&target)).into_iter().rev() {
                    steps.push_front(step);
                }
                continue;
            }
            opened => opened?,
        };
    }
    Ok(Directory(here))
}

/// The steps of a path; an absolute one begins with "/", which leads to the root from anywhere.
fn steps_of(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|step| *step != Component::CurDir);
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

/// A link is followed if only root and the caller could have put it into its directory.
fn is_trusted(directory: &FileStat, link: &FileStat) -> bool {
    let ours = |uid| uid == 0 || uid == geteuid().as_raw();
    // Where others may write they may also have moved a link there, sticky or not.
    let others_may_write = directory.st_mode & (libc::S_IWGRP | libc::S_IWOTH) != 0;
    ours(directory.st_uid) && ours(link.st_uid) && !others_may_write
}

/// Makes a directory, beside its place until it is complete. EEXIST if somebody else has made one
/// in the meantime.
fn make(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    owner: Option<Owner>,
    mode: u32,
) -> Result<(OwnedFd, Made), Errno> {
    // Before anything is made: to take it away again must not need a descriptor.
    let mut new = Made { parent: reopen(parent, OFlag::O_PATH)?, name: OsString::new() };
    try_names(|beside| {
        new.name = beside.to_owned();
        mkdirat(parent, beside, Mode::from_bits_truncate(first_mode(owner, mode)))
    })?;
    let complete = complete(parent, &new.name, owner, mode).and_then(|directory| {
        move_new(parent, &new.name, name)?;
        Ok(directory)
    });
    match complete {
        Ok(directory) => {
            new.name = name.to_owned();
            Ok((directory, new))
        }
        Err(reason) => {
            remove_made(&[new]);
            Err(reason)
        }
    }
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

/// Gives a directory that has just been made its owner and mode.
fn complete(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    owner: Option<Owner>,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    // The owner of the parent may have put another directory in its place.
    let about = fstat(&directory)?;
    let mut is_empty = true;
    for_each_name(&directory, |name| is_empty &= matches!(name, b"." | b".."))?;
    if about.st_uid != geteuid().as_raw() || !is_empty {
        return Err(Errno::EPERM);
    }
    hand_over(&directory, owner, mode)?;
    Ok(directory)
}

/// Gives a directory its name; EEXIST if anything but an empty directory has it.
fn move_new(parent: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
    let moved = match renameat2(parent, from, parent, to, RenameFlags::RENAME_NOREPLACE) {
        // Not every file system can; without that a directory replaces none that is not empty.
        Err(Errno::EINVAL | Errno::ENOSYS) => renameat(parent, from, parent, to),
        moved => moved,
    };
    moved.map_err(|reason| match reason {
        Errno::ENOTEMPTY | Errno::ENOTDIR => Errno::EEXIST,
        other => other,
    })
}

/// Until its owner is set, what is to be given away is nobody else's.
fn first_mode(owner: Option<Owner>, mode: u32) -> u32 {
    if owner.is_some() { mode & 0o700 } else { mode }
}

/// Sets owner and mode, the latter whatever a default access list (acl(5)) or a first mode made of
/// it.
fn hand_over(made: &OwnedFd, owner: Option<Owner>, mode: u32) -> Result<FileStat, Errno> {
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

fn for_each_name(directory: &OwnedFd, mut visit: impl FnMut(&[u8])) -> Result<(), Errno> {
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

fn reopen(directory: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(directory, ".", flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
