//! Every time limit and interval, in one place. Pure.

use std::time::Duration;

/// How long a start may take where nothing else bounds it. Until its exec a child of another user
/// may be stopped by that user (SIGSTOP).
pub const START: Duration = Duration::from_secs(10);
/// How long an orphan's start may take: less, so that what waits for it can end it and report that
/// in time.
pub const ORPHAN_START: Duration = Duration::from_secs(9);
/// How long the end of a process is waited for that has been killed, or is about to exit: a tracer
/// may keep it (see ptrace(2)), or the file system that it waits for (state D in proc_pid_stat(5)).
pub const REAP: Duration = Duration::from_secs(5);
/// How long a death that looks like a requested one waits for the request.
pub const REQUEST_WAIT: Duration = Duration::from_millis(100);
/// How often the end of a server is looked for that was asked to end: one that is traced may have
/// ended without notice (see ptrace(2)).
pub const STOP_CHECK: Duration = Duration::from_secs(2);
/// After so long the manager says that a server ignores SIGTERM.
pub const STOP_NOTICE: Duration = Duration::from_secs(10);
/// After so long a SIGTERM that could not be sent is sent again.
pub const STOP_AGAIN: Duration = Duration::from_secs(1);
/// After so long the manager says that a handler is still running.
pub const HANDLER_NOTICE: Duration = Duration::from_secs(60);
/// After so long a handler that was asked to end is killed.
pub const HANDLER_GRACE: Duration = Duration::from_secs(5);
/// How often the end of a handler is looked for that was killed.
pub const KILL_CHECK: Duration = Duration::from_secs(1);
/// How often old log files are looked for while a manager lives.
pub const LOG_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the end of a manager waits for logger.
pub const LAST_LINES: Duration = Duration::from_secs(5);
/// How long a failed start waits for other starts with the same pidfile.
pub const PIDFILE_WAIT: Duration = Duration::from_secs(5);
/// How long to wait before the outcome of another start is asked for again.
pub const PIDFILE_PAUSE: Duration = Duration::from_millis(10);
/// A process that has lived this long resets the restart delay.
pub const STABLE_LIFE: Duration = Duration::from_secs(10);
/// The longest delay between restarts.
pub const RESTART_DELAY: Duration = Duration::from_secs(30);
/// The longest delay between attempts while the system lacks something.
pub const ATTEMPT_DELAY: Duration = Duration::from_secs(5);
/// The shortest delay other than zero.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
