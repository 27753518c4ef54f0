//! Everything that can end a start, the one line that says so, and its exit
//! status. The table of exit statuses is here and nowhere else.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::escape::escaped;
use crate::limits;
use crate::sys::files::walk::{RefusedLink, refused_link};
use crate::sys::process::wait::Exit;

/// vsrun itself failed, usage errors included.
pub const FAILED: u8 = 125;
/// The command exists and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command is not found.
pub const NOT_FOUND: u8 = 127;

/// The exit status for a command whose execve(2) was refused for this reason (POSIX, Shell
/// Command Language 2.8.2).
pub fn exec_status(reason: Errno) -> u8 {
    if matches!(reason, Errno::ENOENT | Errno::ENOTDIR) {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}

/// What could not be done for a program, in [`Error::CannotExecute`].
pub const EXECUTE: &str = "execute";

/// Why vsrun could not do what it was asked.
#[derive(Debug)]
pub enum Error {
    /// The command line cannot be used as it was typed.
    Usage(String),
    /// A value was understood, but names nothing that may be used: what it is, and why not.
    Refused {
        /// What could not be done, as in "use user".
        doing: &'static str,
        /// The value as typed.
        object: OsString,
        /// Why.
        reason: &'static str,
    },
    /// The system refused to do something with an object.
    Cannot {
        /// What could not be done, as in "open directory".
        doing: &'static str,
        /// The path or name it was to be done with; empty where there is none.
        object: OsString,
        /// The system's reason.
        reason: Errno,
    },
    /// A path leads through a symbolic link that is not followed.
    LinkRefused {
        /// What could not be done, as in "open log directory".
        doing: &'static str,
        /// The path.
        object: OsString,
        /// The link.
        link: RefusedLink,
    },
    /// The command, the handler or logger cannot be executed.
    CannotExecute {
        /// What could not be done for it, as in "execute".
        doing: &'static str,
        /// Which of them.
        what: &'static str,
        /// Its name or path as typed.
        object: OsString,
        /// The root directory that it was looked for in, where it is not the caller's.
        root: Option<PathBuf>,
        /// The system's reason.
        reason: Errno,
    },
    /// The process that was to become the command, the handler or logger did not get to its exec.
    HeldUp {
        /// Which of them.
        what: &'static str,
        /// Its name or path as typed.
        object: OsString,
    },
    /// The process that was to become the command, the handler or logger was ended before.
    Died {
        /// Which of them.
        what: &'static str,
        /// Its name or path as typed.
        object: OsString,
        /// How the process ended.
        exit: Exit,
    },
    /// Another live manager holds the lock; its id, where it can be seen.
    Managed(Option<Pid>),
    /// A pidfile that a live manager uses for itself.
    PidfileInUse {
        /// Its path.
        path: PathBuf,
        /// The manager's id, where it can be seen.
        holder: Option<Pid>,
        /// What the manager uses it as.
        used_as: &'static str,
    },
    /// The background process ended without reporting an outcome.
    NoOutcome,
}

impl Error {
    /// An error of the system with the object it befell.
    pub fn cannot(doing: &'static str, object: impl AsRef<OsStr>, reason: Errno) -> Error {
        Error::Cannot {
            doing,
            object: object.as_ref().to_owned(),
            reason,
        }
    }

    /// An error of the system with the path it befell, and the symbolic link that caused it.
    pub fn cannot_open(doing: &'static str, path: &Path, reason: Errno) -> Error {
        let link = if reason == Errno::ELOOP {
            refused_link(path)
        } else {
            None
        };
        match link {
            Some(link) => Error::LinkRefused {
                doing,
                object: path.into(),
                link,
            },
            None => Error::cannot(doing, path, reason),
        }
    }

    /// A value that may not be used, and why.
    pub fn refused(doing: &'static str, object: impl AsRef<OsStr>, reason: &'static str) -> Error {
        Error::Refused {
            doing,
            object: object.as_ref().to_owned(),
            reason,
        }
    }

    /// The exit status that goes with this error.
    pub fn status(&self) -> u8 {
        match self {
            Error::CannotExecute { reason, .. } => exec_status(*reason),
            Error::Usage(_)
            | Error::Refused { .. }
            | Error::Cannot { .. }
            | Error::LinkRefused { .. }
            | Error::HeldUp { .. }
            | Error::Died { .. }
            | Error::Managed(_)
            | Error::PidfileInUse { .. }
            | Error::NoOutcome => FAILED,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) => f.write_str(text),
            Error::Refused {
                doing,
                object,
                reason,
            } => {
                write!(f, "cannot {doing} '{}': {reason}", escaped(object))
            }
            Error::Cannot {
                doing,
                object,
                reason,
            } if object.is_empty() => {
                write!(f, "cannot {doing}: {}", strerror(*reason))
            }
            Error::Cannot {
                doing,
                object,
                reason,
            } => {
                write!(
                    f,
                    "cannot {doing} '{}': {}",
                    escaped(object),
                    strerror(*reason)
                )
            }
            Error::LinkRefused {
                doing,
                object,
                link,
            } => {
                let (object, path) = (escaped(object), escaped(&link.path));
                let why = link.why;
                write!(
                    f,
                    "cannot {doing} '{object}': symbolic link '{path}' is not followed: {why}"
                )
            }
            Error::CannotExecute {
                doing,
                what,
                object,
                ..
            } if object.is_empty() => {
                write!(f, "cannot {doing} {what} '': it is empty")
            }
            Error::CannotExecute {
                doing,
                what,
                object,
                root,
                reason,
            } => {
                write!(
                    f,
                    "cannot {doing} {what} '{}': {}",
                    escaped(object),
                    strerror(*reason)
                )?;
                if *reason == Errno::ENOENT {
                    show_search(f, doing, object, root.as_deref())
                } else {
                    Ok(())
                }
            }
            Error::HeldUp { what, object } => {
                let (object, limit) = (escaped(object), limits::START.as_secs());
                write!(
                    f,
                    "cannot execute {what} '{object}': no exec within {limit} s; "
                )?;
                f.write_str("its process is stopped, or waits for a file system")
            }
            Error::Died { what, object, exit } => {
                let (object, exit) = (escaped(object), exit.named());
                write!(
                    f,
                    "cannot execute {what} '{object}': its process {exit} first"
                )
            }
            Error::Managed(Some(pid)) => write!(f, "already managed by process {pid}"),
            Error::Managed(None) => f.write_str("already managed by another process"),
            Error::PidfileInUse {
                path,
                holder,
                used_as,
            } => {
                write!(f, "cannot write pidfile '{}': ", escaped(path))?;
                match holder {
                    Some(pid) => write!(f, "process {pid} uses it as its {used_as}"),
                    None => write!(f, "another process uses it as its {used_as}"),
                }
            }
            Error::NoOutcome => f.write_str("the background process died while it was starting"),
        }
    }
}

/// Adds where a program that does not exist was looked for.
fn show_search(
    f: &mut fmt::Formatter<'_>,
    doing: &str,
    program: &OsStr,
    root: Option<&Path>,
) -> fmt::Result {
    let program = program.as_bytes();
    // An interpreter is named by its path.
    let is_searched = doing == EXECUTE && !program.contains(&b'/');
    if is_searched {
        f.write_str(" on PATH")?;
    }
    if let Some(root) = root {
        write!(f, " inside the new root '{}'", escaped(root))?;
    }
    if doing == EXECUTE && program.iter().any(u8::is_ascii_whitespace) {
        f.write_str("; it is one word, and no shell is involved")?;
    }
    Ok(())
}

/// The system's words for a reason (see strerror(3)).
pub fn strerror(reason: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(reason as i32).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}
