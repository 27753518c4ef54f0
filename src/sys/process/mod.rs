//! Starting programs, and how their processes end.

mod child;
mod exec;
pub mod exec_strings;
pub mod failure;
pub mod fork;
pub mod spawn;
pub mod spec;
pub mod wait;
