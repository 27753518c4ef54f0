//! The way to a directory that another user may own: one step at a time, each
//! from the descriptor of the one before. A missing directory is made under a
//! temporary name first. No path of more than one step reaches the kernel but by
//! openat2(2) with RESOLVE_NO_SYMLINKS.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat, openat2, readlink,
    readlinkat, renameat, renameat2,
};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::entry::{Owner, first_mode, for_each_name, hand_over, kind, reopen, try_names};

/// How many symbolic links a path may lead through, as in the kernel (see path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A directory that was made on the way, so that it can be taken away again.
#[derive(Debug)]
pub struct CreatedDir {
    parent: OwnedFd,
    name: OsString,
}

/// Which step of a path leads to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One on the way.
    Inner,
    /// The last one.
    Last,
}

/// A symbolic link that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLink {
    /// The link.
    pub path: PathBuf,
    /// Why it is not followed.
    pub why: &'static str,
}

/// Goes an absolute path step by step, and where one is missing has it made by `missing`. A
/// symbolic link that others than root and the caller may have put there is ELOOP.
pub fn walk(
    path: &Path,
    missing: impl FnMut(BorrowedFd<'_>, &OsStr, Step) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    walk_noting(path, missing, &mut None)
}

/// The symbolic link for which [`walk`] refuses a path, if there is one. For messages.
pub fn refused_link(path: &Path) -> Option<RefusedLink> {
    let mut refused = None;
    let _ = walk_noting(path, |_, _, _| Err(Errno::ENOENT), &mut refused);
    refused
}

fn walk_noting(
    path: &Path,
    mut missing: impl FnMut(BorrowedFd<'_>, &OsStr, Step) -> Result<OwnedFd, Errno>,
    refused: &mut Option<RefusedLink>,
) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // All there and no link on the way: one call tells, where the kernel has it (Linux 5.6).
    let direct = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    if let Ok(directory) = openat2(AT_FDCWD, path, direct) {
        return Ok(directory);
    }
    let mut steps: VecDeque<OsString> = steps_of(path);
    let mut here = open("/", flags, Mode::empty())?;
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        let place = if steps.is_empty() {
            Step::Last
        } else {
            Step::Inner
        };
        here = match openat(&here, step.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => match missing(here.as_fd(), &step, place) {
                // Another process has made it meanwhile: look again, as after a link.
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
                } else if links > LINKS_MAX {
                    return Err(Errno::ELOOP);
                } else if let Some(why) = distrust(&fstat(&here)?, &entry) {
                    *refused = Some(RefusedLink {
                        path: path_of(&here).join(&step),
                        why,
                    });
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
    Ok(here)
}

/// The steps of a path; an absolute one begins with "/", which leads to the root from anywhere.
fn steps_of(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|step| *step != Component::CurDir);
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

/// The path of an open directory; empty without `/proc`.
fn path_of(directory: &OwnedFd) -> PathBuf {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    readlink(link.as_str())
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// Why a link is not followed: others than root and the caller could have put it into its
/// directory.
fn distrust(directory: &FileStat, link: &FileStat) -> Option<&'static str> {
    let ours = |uid| uid == 0 || uid == geteuid().as_raw();
    // Where others may write they may also have moved a link there, sticky or not.
    if directory.st_mode & (libc::S_IWGRP | libc::S_IWOTH) != 0 {
        Some("others may write to its directory")
    } else if !ours(directory.st_uid) {
        Some("its directory belongs to another user")
    } else if !ours(link.st_uid) {
        Some("it belongs to another user")
    } else {
        None
    }
}

/// Makes a directory, under a temporary name until it is complete. EEXIST if another process has
/// made one in the meantime.
pub fn make(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    owner: Option<Owner>,
    mode: u32,
) -> Result<(OwnedFd, CreatedDir), Errno> {
    // Before anything is made: to take it away again must not need a descriptor.
    let mut new = CreatedDir {
        parent: reopen(parent, OFlag::O_PATH)?,
        name: OsString::new(),
    };
    try_names(|beside| {
        new.name = beside.to_owned();
        mkdirat(
            parent,
            beside,
            Mode::from_bits_truncate(first_mode(owner, mode)),
        )
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
            remove_created(&[new]);
            Err(reason)
        }
    }
}

/// Removes directories that were made one in the other, as far as they are still empty.
pub fn remove_created(made: &[CreatedDir]) {
    for CreatedDir { parent, name } in made.iter().rev() {
        // One that is no longer empty is in use.
        let _ = unlinkat(parent, name.as_os_str(), UnlinkatFlags::RemoveDir);
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
    hand_over(
        &directory,
        owner.map(|owner| owner.uid),
        owner.map(|owner| owner.gid),
        mode,
    )?;
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
