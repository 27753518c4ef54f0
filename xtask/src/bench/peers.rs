//! What vsrun is measured beside: fetched from Debian and unpacked, never
//! installed, so that no service starts; and the C floor, compiled here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{Failure, cargo_target, find, root};

const PACKAGES: &[&str] = &[
    "daemon",
    "daemonize",
    "daemontools",
    "dumb-init",
    "execline",
    "libeinfo1",
    "libexecline2.9",
    "libexecline3",
    "librc1",
    "libs6-2.11",
    "libs6-2.13",
    "libskarnet2.13",
    "libskarnet2.14",
    "openrc",
    "runit",
    "s6",
    "tini",
];

/// Where everything is.
pub struct Peers {
    unpacked: PathBuf,
    /// The floor, which is a server too if it is called `run`.
    pub floor: PathBuf,
    /// A handler that does nothing, so that vsrun's own work is measured.
    pub handler: PathBuf,
}

impl Peers {
    /// Fetches what can be had and compiles the floor.
    pub fn provide() -> Result<Peers, Failure> {
        let home = cargo_target().join("bench");
        let (debs, unpacked) = (home.join("debs"), home.join("peers"));
        for directory in [&debs, &unpacked] {
            fs::create_dir_all(directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        }
        for package in PACKAGES {
            let done = unpacked.join(format!(".{package}"));
            if !done.exists() && unpack(package, &debs, &unpacked) {
                // Without the mark it is fetched again, that is all.
                let _ = fs::write(done, "");
            }
        }
        let (floor, handler) = (home.join("floor"), home.join("handler"));
        let sources = root().join("xtask/src/bench");
        let mut cc = Command::new("cc");
        crate::steps::run(cc.args(["-O2", "-o"]).arg(&floor).arg(sources.join("floor.c")))?;
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-o"]).arg(&handler).arg(sources.join("handler.c"));
        crate::steps::run(&mut cc)?;
        Ok(Peers { unpacked, floor, handler })
    }

    /// A program by its name: of a peer, or of the system.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let places = ["usr/bin", "bin", "usr/sbin", "sbin"].map(|place| self.unpacked.join(place));
        let own = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
        own.or_else(|| find(name))
    }

    /// Where the peers' libraries are.
    pub fn libraries(&self) -> String {
        let places = ["usr/lib", "lib"].into_iter().flat_map(|place| {
            let inside = fs::read_dir(self.unpacked.join(place)).into_iter().flatten().flatten();
            [self.unpacked.join(place)].into_iter().chain(inside.map(|entry| entry.path()))
        });
        let shown = places.map(|place| place.display().to_string());
        shown.collect::<Vec<_>>().join(":")
    }
}

/// Whether the package could be had.
fn unpack(package: &str, debs: &Path, unpacked: &Path) -> bool {
    let script = "apt-get download \"$1\" && dpkg-deb -x \"$1\"_*.deb \"$2\"";
    let mut sh = Command::new("sh");
    sh.args(["-c", script, "unpack", package]).arg(unpacked).current_dir(debs);
    let done = sh.stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}
