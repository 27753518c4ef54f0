//! execve(2), and the search for what to execute. Async-signal-safe.

use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::libc;

use super::failure::{Refusal, Stage, at};
use super::spec::Program;

/// Executes the program in place of this one. Returns only with a refusal.
pub(super) fn execute(program: &Program) -> Refusal {
    let (arguments, environment) = (program.arguments.pointers(), program.environment.pointers());
    let reason = try_each(program, |path| {
        // SAFETY: path and arrays end as execve(2) wants and outlive the call.
        Errno::result(unsafe { libc::execve(path, arguments, environment) }).map(drop)
    });
    match (reason.err().unwrap_or(Errno::ENOENT), may_execute(program)) {
        (Errno::ENOENT, Ok(())) => at(Stage::Interpret)(Errno::ENOENT),
        (Errno::EACCES, Err(Errno::EISDIR)) => at(Stage::Execute)(Errno::EISDIR),
        (reason, _) => at(Stage::Execute)(reason),
    }
}

/// Whether the program is there and may be executed by this process.
pub(super) fn may_execute(program: &Program) -> Result<(), Errno> {
    try_each(program, |path| {
        let kind = kind_of(path)?;
        match kind {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EACCES),
        }
        // SAFETY: the path outlives the call.
        Errno::result(unsafe { libc::access(path, libc::X_OK) }).map(drop)
    })
}

/// The kind of the file at a path (see S_IFMT in inode(7)).
fn kind_of(path: *const libc::c_char) -> Result<libc::mode_t, Errno> {
    let mut about = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path and the buffer outlive the call.
    Errno::result(unsafe { libc::stat(path, about.as_mut_ptr()) })?;
    // SAFETY: stat succeeded and filled the buffer.
    Ok(unsafe { about.assume_init() }.st_mode & libc::S_IFMT)
}

fn is_hidden(path: *const libc::c_char) -> bool {
    kind_of(path) == Err(Errno::EACCES)
}

/// Tries the candidates in turn, as shells do: one that is not there, or in a directory that may not
/// be searched, is passed over, and one that may not be executed is remembered.
fn try_each(
    program: &Program,
    attempt: impl Fn(*const libc::c_char) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut reason = Errno::ENOENT;
    for path in program.candidates.iter().map(|path| path.as_ptr()) {
        match attempt(path) {
            Ok(()) => return Ok(()),
            // In a directory that this process may not search there may be anything, or nothing.
            Err(Errno::EACCES) if is_hidden(path) && program.candidates.len() > 1 => {}
            Err(refused @ (Errno::EACCES | Errno::EISDIR)) => reason = refused,
            Err(
                Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT,
            ) if program.candidates.len() > 1 => {}
            Err(other) => return Err(other),
        }
    }
    Err(reason)
}
