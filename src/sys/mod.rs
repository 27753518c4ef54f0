//! The kernel's side: every fork, exec, signal and change of identity, and all
//! unsafe code but the name of main. Knows nothing of servers and managers.
#![allow(unsafe_code)]

pub mod files;
pub mod process;

pub mod clock;
pub mod groups;
pub mod identity;
pub mod memory;
pub mod signals;
