//! vsrun(8): start a server process properly and keep it running.
#![no_main]
// The one name outside `sys` that another language calls.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

/// What the C library calls. Rust's own runtime would first look for the stack's guard page, which
/// is a tenth of all instructions of a start, and allocate a stack for each thread's signals, which
/// is an abort where memory is short (docs/performance.md).
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C library passes the arguments that the kernel has laid out, which stay there.
    let arguments = unsafe { vsrun::sys::process::exec_strings::from_c(argc, argv) };
    vsrun::launch::main(arguments).into()
}
