//! What `cargo xtask` and `lab` share.

pub mod steps;
