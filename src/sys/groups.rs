//! The group database. By hand, because nix refuses an entry of more than 1 MiB: one group of very
//! many members would hide every group behind it.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Gid;

/// The size of the first buffer that is tried, in bytes.
const FIRST_SIZE: usize = 1024;

/// Looks up the id of a group by its name (see getgrnam_r(3)). An entry may be as large as memory
/// allows.
pub fn group_id(name: &CStr) -> Result<Option<Gid>, Errno> {
    let mut size = FIRST_SIZE;
    loop {
        let mut buffer: Vec<libc::c_char> = Vec::new();
        buffer.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        let (entry, strings) = (entry.as_mut_ptr(), buffer.as_mut_ptr());
        // SAFETY: all five outlive the call, and the buffer has `size` bytes.
        match unsafe { libc::getgrnam_r(name.as_ptr(), entry, strings, size, &raw mut found) } {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the call succeeded and filled the entry.
            0 => return Ok(Some(Gid::from_raw(unsafe { (*found).gr_gid }))),
            libc::EINTR => {}
            libc::ERANGE => size = size.checked_mul(2).ok_or(Errno::ENOMEM)?,
            reason => return Err(Errno::from_raw(reason)),
        }
    }
}
