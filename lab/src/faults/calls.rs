//! The names of this architecture's system calls, and the plausible errors of each.

use nix::errno::Errno;
use nix::libc;

/// Numbers and names. fork(2), vfork(2) and clone(2) have one name.
macro_rules! names {
    ($($number:ident $name:literal)*) => { &[$((libc::$number, $name)),*] };
}

const NAMES: &[(libc::c_long, &str)] = names! {
    SYS_access "access" SYS_arch_prctl "arch_prctl" SYS_brk "brk" SYS_capget "capget"
    SYS_capset "capset" SYS_chdir "chdir" SYS_chmod "chmod" SYS_chown "chown"
    SYS_chroot "chroot" SYS_clock_gettime "clock_gettime"
    SYS_clock_nanosleep "clock_nanosleep" SYS_clone "fork" SYS_clone3 "fork"
    SYS_close "close" SYS_close_range "close_range" SYS_connect "connect" SYS_dup "dup"
    SYS_dup2 "dup2" SYS_dup3 "dup3" SYS_execve "execve" SYS_execveat "execveat"
    SYS_exit "exit" SYS_exit_group "exit_group" SYS_faccessat "faccessat"
    SYS_faccessat2 "faccessat2" SYS_fchdir "fchdir" SYS_fchmod "fchmod"
    SYS_fchmodat "fchmodat" SYS_fchown "fchown" SYS_fchownat "fchownat" SYS_fork "fork"
    SYS_flock "flock" SYS_fstat "fstat" SYS_fstatfs "fstatfs" SYS_fsync "fsync" SYS_ftruncate "ftruncate"
    SYS_getcwd "getcwd" SYS_getdents64 "getdents64" SYS_getegid "getegid"
    SYS_geteuid "geteuid" SYS_getgid "getgid" SYS_getgroups "getgroups" SYS_getpid "getpid"
    SYS_getpgid "getpgid" SYS_getpgrp "getpgrp" SYS_getppid "getppid"
    SYS_getrandom "getrandom" SYS_getresgid "getresgid" SYS_getresuid "getresuid"
    SYS_getsid "getsid" SYS_getsockopt "getsockopt" SYS_gettid "gettid" SYS_getuid "getuid"
    SYS_ioctl "ioctl" SYS_keyctl "keyctl" SYS_kill "kill" SYS_linkat "linkat" SYS_lseek "lseek" SYS_lstat "lstat"
    SYS_madvise "madvise" SYS_mkdir "mkdir" SYS_mkdirat "mkdirat" SYS_mmap "mmap"
    SYS_mprotect "mprotect" SYS_mremap "mremap" SYS_munmap "munmap"
    SYS_newfstatat "newfstatat" SYS_open "open" SYS_openat "openat" SYS_openat2 "openat2"
    SYS_pidfd_open "pidfd_open" SYS_pipe "pipe" SYS_pipe2 "pipe2" SYS_poll "poll"
    SYS_ppoll "ppoll" SYS_prctl "prctl" SYS_pread64 "pread64" SYS_prlimit64 "prlimit64"
    SYS_read "read" SYS_readlink "readlink" SYS_readlinkat "readlinkat"
    SYS_recvfrom "recvfrom" SYS_recvmsg "recvmsg" SYS_rename "rename"
    SYS_renameat "renameat" SYS_renameat2 "renameat2" SYS_restart_syscall "restart_syscall"
    SYS_rmdir "rmdir" SYS_rseq "rseq" SYS_rt_sigaction "rt_sigaction"
    SYS_rt_sigprocmask "rt_sigprocmask" SYS_rt_sigreturn "rt_sigreturn"
    SYS_sched_getaffinity "sched_getaffinity" SYS_sched_yield "sched_yield"
    SYS_sendmsg "sendmsg" SYS_sendto "sendto" SYS_set_robust_list "set_robust_list"
    SYS_set_tid_address "set_tid_address" SYS_setgid "setgid" SYS_setgroups "setgroups"
    SYS_setresgid "setresgid" SYS_setresuid "setresuid" SYS_setsid "setsid"
    SYS_setsockopt "setsockopt" SYS_setuid "setuid" SYS_shutdown "shutdown"
    SYS_sigaltstack "sigaltstack" SYS_signalfd4 "signalfd4" SYS_socket "socket"
    SYS_socketpair "socketpair" SYS_stat "stat" SYS_statfs "statfs" SYS_statx "statx"
    SYS_symlinkat "symlinkat" SYS_sysinfo "sysinfo" SYS_tgkill "tgkill" SYS_umask "umask"
    SYS_uname "uname" SYS_unlink "unlink" SYS_unlinkat "unlinkat" SYS_utimensat "utimensat"
    SYS_vfork "fork" SYS_wait4 "wait4" SYS_waitid "waitid" SYS_write "write"
    SYS_writev "writev"
};

/// The commands of fcntl(2) have different errors.
const FCNTL: &[(libc::c_int, &str)] = &[
    (libc::F_DUPFD, "fcntl:DUPFD"),
    (libc::F_DUPFD_CLOEXEC, "fcntl:DUPFD"),
    (libc::F_SETLK, "fcntl:SETLK"),
    (libc::F_GETLK, "fcntl:GETLK"),
    (libc::F_SETPIPE_SZ, "fcntl:SETPIPE_SZ"),
];

/// The name of a call, from its number and its second argument.
pub fn name(number: u64, second: u64) -> String {
    let number = number as libc::c_long;
    if number == libc::SYS_fcntl {
        let known = FCNTL.iter().find(|(command, _)| *command as u64 == second);
        return known.map_or("fcntl", |(_, name)| name).to_owned();
    }
    if number == libc::SYS_futex {
        const PRIVATE: u64 = libc::FUTEX_PRIVATE_FLAG as u64;
        let waits = second & !PRIVATE != libc::FUTEX_WAKE as u64;
        return if waits { "futex:wait" } else { "futex:wake" }.to_owned();
    }
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("call-{number}"), |(_, name)| (*name).to_owned())
}

/// The errors in the call's manual page that a lack of resources, an interrupt or a prohibition
/// causes; not those that only a wrong argument causes (EBADF, EFAULT, EINVAL). Empty for a call that
/// does not fail with right arguments.
pub fn errors(call: &str) -> &'static [Errno] {
    use Errno::*;
    match call {
        "open" | "openat" | "openat2" => &[
            EACCES, EDQUOT, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS,
        ],
        "read" | "pread64" => &[EINTR, EIO],
        "write" | "writev" => &[EDQUOT, EINTR, EIO, ENOSPC, EPIPE],
        // vsrun has both ends open.
        "read:pipe" | "write:pipe" => &[EINTR],
        "close" => &[EINTR, EIO],
        "access" | "faccessat" | "faccessat2" | "fstat" | "lstat" | "newfstatat" | "stat"
        | "statx" | "readlink" | "readlinkat" => &[EACCES, EIO, ENOMEM],
        "mkdir" | "mkdirat" => &[EACCES, EDQUOT, EEXIST, ENOMEM, ENOSPC, EPERM, EROFS],
        "rename" | "renameat" | "linkat" | "symlinkat" => {
            &[EACCES, EDQUOT, EIO, ENOMEM, ENOSPC, EPERM, EROFS]
        }
        "renameat2" => &[
            EACCES, EDQUOT, EEXIST, EINVAL, EIO, ENOMEM, ENOSPC, EPERM, EROFS,
        ],
        "unlink" | "unlinkat" | "rmdir" => &[EACCES, EBUSY, EIO, ENOMEM, EPERM, EROFS],
        "chmod" | "chown" | "fchmod" | "fchmodat" | "fchown" | "fchownat" => {
            &[EIO, ENOMEM, EPERM, EROFS]
        }
        "ftruncate" | "fsync" => &[EINTR, EIO, ENOSPC],
        "fcntl:DUPFD" | "dup" => &[EMFILE],
        "dup2" | "dup3" => &[EBUSY, EINTR],
        "flock" => &[EAGAIN, EINTR, ENOLCK],
        "fcntl:SETLK" => &[EACCES, EAGAIN, EINTR, ENOLCK],
        "fcntl:GETLK" => &[ENOLCK],
        "fcntl:SETPIPE_SZ" => &[EBUSY, ENOMEM, EPERM],
        "pipe" | "pipe2" => &[EMFILE, ENFILE, ENOMEM],
        "socket" | "socketpair" => &[EACCES, EMFILE, ENFILE, ENOBUFS, ENOMEM],
        "connect" => &[EACCES, EAGAIN, ECONNREFUSED, EINTR],
        "sendto" | "sendmsg" => &[EINTR, ENOBUFS, ENOMEM],
        "recvfrom" | "recvmsg" => &[EINTR, ENOMEM],
        "poll" | "ppoll" => &[EINTR, ENOMEM],
        "signalfd4" => &[EMFILE, ENFILE, ENODEV, ENOMEM],
        "pidfd_open" => &[EMFILE, ENFILE, ENOMEM],
        "close_range" => &[EMFILE, ENOMEM],
        "wait4" | "waitid" | "clock_nanosleep" | "futex:wait" => &[EINTR],
        "fork" => &[EAGAIN, ENOMEM],
        "execve" | "execveat" => &[
            EACCES, EAGAIN, EIO, EMFILE, ENFILE, ENOENT, ENOMEM, EPERM, ETXTBSY,
        ],
        "setgroups" => &[ENOMEM, EPERM],
        "setresuid" | "setuid" => &[EAGAIN, EPERM],
        "setresgid" | "setgid" | "setsid" | "capset" | "capget" | "prctl" => &[EPERM],
        "kill" => &[EPERM, ESRCH],
        "keyctl" => &[EDQUOT, ENOMEM, ENOSYS, EPERM],
        "chroot" => &[EACCES, EIO, ENOMEM, EPERM],
        "chdir" | "fchdir" => &[EACCES, EIO, ENOMEM],
        "getcwd" => &[EACCES, ENOENT, ENOMEM],
        "getdents64" => &[EIO, ENOENT],
        "getrandom" => &[EAGAIN, EINTR, ENOSYS],
        "brk" | "mmap" | "mprotect" | "mremap" | "munmap" => &[ENOMEM],
        "madvise" => &[EAGAIN, ENOMEM],
        "statfs" | "fstatfs" => &[EINTR, EIO, ENOMEM],
        "ioctl" => &[EINTR, ENOTTY],
        _ => &[],
    }
}
