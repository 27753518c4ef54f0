//! What the value of an option means. Pure: text in, value or reason out.

pub mod keep;
pub mod user_spec;
