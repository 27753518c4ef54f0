//! What a child is to be, complete before it exists.

use std::ffi::{CString, OsString};
use std::os::fd::BorrowedFd;

use nix::sys::stat::Mode;

use super::exec_strings::ExecStrings;
use crate::sys::identity::Identity;

/// Which session a child belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The caller's, with its terminal.
    Inherited,
    /// One of its own, without a terminal (see setsid(2)).
    Own,
}

/// Whose child a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parentage {
    /// The caller's, to be reaped by it.
    Ours,
    /// An orphan from the start.
    Orphan,
}

/// Everything that a child is to be, settled before it exists.
#[derive(Debug)]
pub struct ChildSpec {
    /// What it executes.
    pub program: Program,
    /// Its session.
    pub session: Session,
    /// Its parent.
    pub parentage: Parentage,
    /// Its root directory, where it is not the caller's.
    pub root: Option<CString>,
    /// Its working directory, inside that root, where it is not the caller's.
    pub work_dir: Option<CString>,
    /// Its user and groups, where they are not the caller's.
    pub identity: Option<Identity>,
    /// Its umask.
    pub umask: Mode,
}

/// The descriptors that a child starts from. All must be above 2.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors<'a> {
    /// Standard input.
    pub input: BorrowedFd<'a>,
    /// Standard output and error, where they are not the caller's.
    pub output: Option<BorrowedFd<'a>>,
    /// The working directory, where its path is not in the spec. One that lies outside the root
    /// is not entered.
    pub work_dir: Option<BorrowedFd<'a>>,
}

/// Where a child works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorksIn {
    /// In the directory that was planned.
    Planned,
    /// In its root directory, since it cannot reach the planned one.
    Root,
}

/// A program with its arguments and environment.
#[derive(Debug)]
pub struct Program {
    /// What it is to its starter, as in "command".
    pub role: &'static str,
    /// What it was called.
    pub name: OsString,
    /// The paths to try in turn, as execvp(3) does.
    pub candidates: Vec<CString>,
    /// The arguments, the name first.
    pub arguments: ExecStrings,
    /// The environment.
    pub environment: ExecStrings,
}
