//! The kernel's side: every fork, exec, signal and change of identity, and all
//! unsafe code but the name of main. Knows nothing of servers and managers.
#![allow(unsafe_code)]

pub mod child;
pub mod clock;
pub mod directory;
pub mod entry;
pub mod exec_strings;
pub mod failure;
pub mod fds;
pub mod fork;
pub mod groups;
pub mod identity;
pub mod lock;
pub mod memory;
pub mod program;
pub mod signals;
pub mod spawn;
pub mod wait;
pub mod walk;
