//! What vsrun does, seen from outside: one module for each subject.

mod prelude;

mod advisories_files;
mod advisories_identity;
mod advisories_supervision;
mod background;
mod becoming;
mod chroot;
mod command_line;
mod completions;
mod cores;
mod daemons;
mod docs;
mod exit_status;
mod faults_logs;
mod faults_running;
mod faults_start;
mod faults_start_calls;
mod faults_start_files;
mod faults_stop;
mod handler;
mod identity;
mod init;
mod logs;
mod manager;
mod memory;
mod pidfiles;
mod security;
mod security_files;
mod syslog;
