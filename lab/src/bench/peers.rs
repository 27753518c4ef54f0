//! The programs that vsrun is compared with. They are downloaded from Debian and unpacked, not
//! installed, so that no service starts. The floor is compiled from C.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xtask::steps::{Failure, cargo_target, find, root, run as step};

const PACKAGES: &[&str] = &[
    "daemon",
    "daemonize",
    "daemontools",
    "dpkg",
    "dumb-init",
    "execline",
    "libeinfo1",
    "libexecline2.9",
    "libexecline3",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "librc1",
    "libs6-2.11",
    "libs6-2.13",
    "libskarnet2.13",
    "libskarnet2.14",
    "openrc",
    "python3-minimal",
    "python3-pkg-resources",
    "python3.11-minimal",
    "python3.13-minimal",
    "runit",
    "s6",
    "supervisor",
    "tini",
    "util-linux",
];

/// The directories and files of all programs.
pub struct Peers {
    unpacked: PathBuf,
    debs: PathBuf,
    /// The floor. Under the name `run` it is a server.
    pub floor: PathBuf,
    /// A handler that does nothing, so that only vsrun's work is measured.
    pub handler: PathBuf,
    /// The directories of the programs' libraries.
    libraries: String,
    /// The directories of the programs, then the caller's PATH.
    path: OsString,
}

impl Peers {
    /// The directory that stays from one run to the next.
    pub fn home() -> PathBuf {
        cargo_target().join("bench")
    }

    /// Downloads the packages that are available and compiles the floor.
    pub fn provide() -> Result<(), Failure> {
        let home = Peers::home();
        let (debs, unpacked) = (home.join("debs"), home.join("peers"));
        for directory in [&debs, &unpacked] {
            fs::create_dir_all(directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        }
        for package in PACKAGES {
            let done = unpacked.join(format!(".{package}"));
            if !done.exists() && unpack(package, &debs, &unpacked) {
                // Without this file it is downloaded again.
                let _ = fs::write(done, "");
            }
        }
        let sources = root().join("lab/src/bench");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-o"])
            .arg(home.join("floor"))
            .arg(sources.join("floor.c"));
        step(&mut cc)?;
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-o"])
            .arg(home.join("handler"))
            .arg(sources.join("handler.c"));
        step(&mut cc)
    }

    /// Finds what `provide` left.
    pub fn provided() -> Peers {
        let home = Peers::home();
        let unpacked = home.join("peers");
        let libraries = ["usr/lib", "lib"].into_iter().flat_map(|name| {
            let inside = fs::read_dir(unpacked.join(name))
                .into_iter()
                .flatten()
                .flatten();
            [unpacked.join(name)]
                .into_iter()
                .chain(inside.map(|entry| entry.path()))
        });
        let libraries = libraries
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>();
        let own = DIRECTORIES.map(|directory| unpacked.join(directory));
        let caller = std::env::var_os("PATH").unwrap_or_default();
        let path = own.into_iter().chain(std::env::split_paths(&caller));
        Peers {
            libraries: libraries.join(":"),
            path: std::env::join_paths(path).unwrap_or(caller.clone()),
            debs: home.join("debs"),
            floor: home.join("floor"),
            handler: home.join("handler"),
            unpacked,
        }
    }

    /// The vsrun that is measured.
    pub fn vsrun(&self) -> PathBuf {
        Peers::home().join("vsrun")
    }

    /// A program by its name: vsrun, one that was unpacked, or one on PATH.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        match name {
            "vsrun" => return Some(self.vsrun()),
            "floor" => return Some(self.floor.clone()),
            _ => {}
        }
        let own = DIRECTORIES.map(|directory| self.unpacked.join(directory).join(name));
        own.into_iter()
            .find(|path| path.is_file())
            .or_else(|| find(name))
    }

    /// The file of a Debian package that was downloaded, or built by `cargo xtask deb`.
    pub fn package(&self, name: &str) -> Option<PathBuf> {
        let built = cargo_target().join("deb");
        let entries = [&self.debs, &built]
            .into_iter()
            .filter_map(|path| fs::read_dir(path).ok());
        let mut files = entries.flatten().flatten().map(|entry| entry.path());
        files.find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
        })
    }

    /// A command for a program that was unpacked. LD_LIBRARY_PATH is set only where it is needed,
    /// because the search takes time.
    pub fn command(&self, name: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if name.starts_with("s6-") || name == "supervise-daemon" {
            command
                .env("LD_LIBRARY_PATH", &self.libraries)
                .env("PATH", &self.path);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// The directories of programs in a package.
const DIRECTORIES: [&str; 4] = ["usr/bin", "bin", "usr/sbin", "sbin"];

/// Downloads and unpacks a package. Returns whether that succeeded.
fn unpack(package: &str, debs: &Path, unpacked: &Path) -> bool {
    let script = "apt-get download \"$1\" && dpkg-deb -x \"$1\"_*.deb \"$2\"";
    let mut sh = Command::new("sh");
    sh.args(["-c", script, "unpack", package])
        .arg(unpacked)
        .current_dir(debs);
    let done = sh.stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}
