//! `--logdir`: the log directory, its two files, their rotation and expiry; in a directory that
//! belongs to the server's user, who may be hostile.

mod common;
mod directory;
mod expiry;
mod full_disk;
mod hostile_names;
mod hostile_paths;
mod many;
mod output;
mod rotation;
mod together;
