//! Files, directories and descriptors. Every path may be hostile.

pub mod directory;
pub mod entry;
pub mod fds;
pub mod lock;
pub mod walk;
