//! The memory of this process.

/// Gives freed memory back to the system (malloc_trim(3)). Does nothing where the C library is not
/// glibc.
pub fn return_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim changes only memory that is free.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
