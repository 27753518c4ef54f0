//! The packages, by the distributions' own tools: what is in them, what their
//! checkers say, and what installing, upgrading and removing them does.
//!
//! All of it needs root. What is built lies under target/packages, the roots of
//! other systems under target/roots, where the next run finds them.

mod built;
mod contents;
mod init_systems;
mod installation;
mod lint;
mod manifest;
mod rebuilding;
mod roots;
mod staging;
