//! vsrun: start a server process properly and keep it running.
//! See docs/architecture.md for the modules and the rules between them.

pub mod cli;
pub mod launch;
pub mod manager;
pub mod output;
pub mod pidfile;
pub mod plan;
pub mod sys;
pub mod values;

pub mod backoff;
pub mod death;
pub mod error;
pub mod escape;
pub mod limits;
pub mod message;
pub mod snapshot;
pub mod variables;
