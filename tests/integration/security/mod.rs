//! What SECURITY.md says that is about several subjects at once; its table names the other tests.

mod hostile_directories;
mod processes;
