//! Record locks (fcntl(2)) of the test process, which vsrun sees as another process's.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int};

/// Locks a whole file, `kind` being `F_RDLCK` or `F_WRLCK`. The lock is gone when this process
/// closes any descriptor of the file.
pub fn lock(file: &File, kind: c_int) -> Result<(), Errno> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&whole)).map(drop)
}
