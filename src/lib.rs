//! vsrun: start a server process properly and keep it running.
//! docs/architecture.md is the plan of the house.

pub mod cli;
pub mod launch;
pub mod logs;
pub mod manager;
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
