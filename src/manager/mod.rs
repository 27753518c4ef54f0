//! Staying resident: a server is watched, and restarted when it dies. The
//! decisions are the machine's; here they are carried out.

mod event_loop;
mod handler;
pub mod machine;
pub mod policy;
pub mod report;
mod server;

pub use event_loop::run;
