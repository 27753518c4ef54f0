//! Pidfiles and the manager's lock: what they hold, what they replace and
//! refuse, and what is left of them (spec 1.4).

mod common;
mod content;
mod lives;
mod managers;
mod paths;
mod races;
mod refusals;
