//! What vsrun does, seen from outside: one module for each subject.

mod prelude;

mod background;
mod chroot;
mod command_line;
mod completions;
mod cores;
mod daemons;
mod docs;
mod exit_status;
mod handler;
mod identity;
mod init;
mod logs;
mod manager;
mod memory;
mod pidfiles;
mod security;
mod start;
mod syslog;
