//! vsrun(8): start a server process properly and keep it running.
#![no_main]
// The one name outside `sys` that another language calls.
#![allow(unsafe_code)]

/// What the C library calls. Rust's own runtime would first look for the stack's guard page, which
/// is a tenth of all instructions of a start, and allocate a stack for each thread's signals, which
/// is an abort where memory is short (docs/performance.md).
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    vsrun::launch::main().into()
}
