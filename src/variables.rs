//! The variables that describe a death to the handler: the one list of their
//! names.

/// The server's command line.
pub const COMMAND: &str = "VSRUN_SERVER_COMMAND";
/// Whole seconds that it lived.
pub const UPTIME: &str = "VSRUN_SERVER_UPTIME";
/// 1 if it exited, else 0.
pub const EXITED: &str = "VSRUN_SERVER_EXITED";
/// Its exit status.
pub const EXITSTATUS: &str = "VSRUN_SERVER_EXITSTATUS";
/// The number of the signal that killed it.
pub const TERMSIG: &str = "VSRUN_SERVER_TERMSIG";
/// 1 if it dumped core, else 0.
pub const COREDUMP: &str = "VSRUN_SERVER_COREDUMP";
/// How it ended, in words.
pub const EXPLAIN: &str = "VSRUN_SERVER_EXPLAIN";
/// The process id it had.
pub const PID: &str = "VSRUN_SERVER_PID";
/// Its user.
pub const USER: &str = "VSRUN_SERVER_USER";
/// The directory it was started in.
pub const WORKDIR: &str = "VSRUN_SERVER_WORKDIR";
/// Its pidfile.
pub const PIDFILE: &str = "VSRUN_SERVER_PIDFILE";
/// How often it has been restarted.
pub const RESTARTS: &str = "VSRUN_SERVER_RESTARTS";
/// The manager's process id.
pub const MANAGER_PID: &str = "VSRUN_MANAGER_PID";
/// The log directory.
pub const LOGDIR: &str = "VSRUN_LOGDIR";
/// What the names of all of them begin with. Inherited variables with this prefix are removed.
pub const PREFIX: &str = "VSRUN_";

/// All names, in the order of the manual.
pub const ALL: [&str; 14] = [
    COMMAND,
    UPTIME,
    EXITED,
    EXITSTATUS,
    TERMSIG,
    COREDUMP,
    EXPLAIN,
    PID,
    USER,
    WORKDIR,
    PIDFILE,
    RESTARTS,
    MANAGER_PID,
    LOGDIR,
];
