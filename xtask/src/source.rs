//! What a package is built from: the repository's files and the crates, as two
//! archives that come out the same wherever and whenever they are made.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::man::release_date;
use crate::steps::{Failure, cargo, root, run as step};

/// The release that is packaged.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The two archives.
pub struct Archives {
    /// The repository without debian/, below `vsrun-VERSION/`.
    pub source: PathBuf,
    /// All crates of Cargo.lock, below `vendor/`.
    pub vendor: PathBuf,
}

impl Archives {
    /// Makes both in the directory, under the names given.
    pub fn make(directory: &Path, source: &str, vendor: &str) -> Result<Archives, Failure> {
        let archives = Archives {
            source: directory.join(source),
            vendor: directory.join(vendor),
        };
        let ours = format!("flags=r;s,^,vsrun-{VERSION}/,");
        archive(&archives.source, root(), &["--transform", &ours], &files()?)?;

        let crates = directory.join("vendor");
        // Cargo tells on standard output what a configuration would need; the packages know that.
        step(
            cargo("vendor --quiet --locked --versioned-dirs")
                .arg(&crates)
                .stdout(Stdio::null()),
        )?;
        empty_foreign(&crates)?;
        archive(&archives.vendor, directory, &[], &["vendor".into()])?;
        fs::remove_dir_all(&crates)
            .map_err(|error| format!("cannot remove '{}': {error}", crates.display()))?;
        Ok(archives)
    }

    /// Unpacks both into the directory and returns the root of what a package is built in.
    pub fn unpack(&self, directory: &Path) -> Result<PathBuf, Failure> {
        let tree = directory.join(format!("vsrun-{VERSION}"));
        for (archive, place) in [(&self.source, directory), (&self.vendor, tree.as_path())] {
            let mut tar = Command::new("tar");
            step(tar.arg("-xf").arg(archive).arg("-C").arg(place))?;
        }
        Ok(tree)
    }
}

/// The day of the newest release, in seconds since 1970: the age of everything in a package.
pub fn epoch() -> Result<String, Failure> {
    let noon = format!("{} 12:00 UTC", release_date()?);
    let date = Command::new("date").args(["-d", &noon, "+%s"]).output();
    let date = date.map_err(|error| format!("cannot run date: {error}"))?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

/// The directories to search for programs, the running toolchain's first: a packaging tool that
/// changes HOME would make rustup lose the way to it.
pub fn path_with_toolchain() -> Result<std::ffi::OsString, Failure> {
    let asked = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = asked.map_err(|error| format!("cannot run rustc: {error}"))?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(Path::new(&sysroot).join("bin"));
    std::env::join_paths(directories.chain(std::env::split_paths(&path)))
        .map_err(|error| format!("cannot put the toolchain on PATH: {error}").into())
}

/// What Linux runs on; for the crates, these differ in nothing else than the ones that are missing.
const TARGETS: [&str; 6] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "i686-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
    "riscv64gc-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
];

/// Leaves of the crates that are for other systems only what cargo reads of every crate in
/// Cargo.lock: some of them hold compiled files, which have no place in a source package.
fn empty_foreign(crates: &Path) -> Result<(), Failure> {
    let used = used_crates()?;
    let cannot = |error: std::io::Error| format!("cannot clear '{}': {error}", crates.display());
    for entry in fs::read_dir(crates).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !used.contains(&name) {
            empty_crate(&entry.path()).map_err(cannot)?;
        }
    }
    Ok(())
}

/// The crates that a build for one of the targets compiles, as `NAME-VERSION`.
fn used_crates() -> Result<HashSet<String>, Failure> {
    let mut tree = cargo("tree --workspace --locked --prefix none --no-dedupe --format {p}");
    for target in TARGETS {
        tree.args(["--target", target]);
    }
    let listed = tree.stderr(Stdio::inherit()).output();
    let listed = listed.map_err(|error| format!("cannot run cargo tree: {error}"))?;
    if !listed.status.success() {
        return Err(Failure::Step("cargo tree".to_owned(), listed.status));
    }
    let text = String::from_utf8_lossy(&listed.stdout);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some(format!("{name}-{version}"))
    });
    Ok(lines.collect())
}

fn empty_crate(directory: &Path) -> std::io::Result<()> {
    let manifest = fs::read(directory.join("Cargo.toml"))?;
    let sums = fs::read_to_string(directory.join(".cargo-checksum.json"))?;
    // The sum of the whole crate, which Cargo.lock has as well, stays; those of its files go.
    let whole = sums
        .rsplit_once("\"package\":")
        .map_or("null}", |(_, whole)| whole);
    fs::remove_dir_all(directory)?;
    fs::create_dir_all(directory.join("src"))?;
    fs::write(directory.join("src/lib.rs"), "")?;
    fs::write(directory.join("Cargo.toml"), manifest)?;
    let sums = format!("{{\"files\":{{}},\"package\":{whole}");
    fs::write(directory.join(".cargo-checksum.json"), sums)
}

/// What git knows or would take, as it lies there, so that an uncommitted change is in as well.
fn files() -> Result<Vec<PathBuf>, Failure> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = git.current_dir(root()).stdin(Stdio::null()).output();
    let listed = listed.map_err(|error| format!("cannot run git: {error}"))?;
    if !listed.status.success() {
        let told = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(format!("cannot list the repository's files: {told}").into());
    }
    let text = String::from_utf8_lossy(&listed.stdout);
    let mut files: Vec<PathBuf> = text
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|file| !file.starts_with("debian") && root().join(file).exists())
        // No build needs them: a workspace of its own with inputs at random, and pictures.
        .filter(|file| !file.starts_with("lab/fuzz") && file.extension() != Some("svg".as_ref()))
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn archive(file: &Path, base: &Path, options: &[&str], names: &[PathBuf]) -> Result<(), Failure> {
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--format=gnu",
        "--sort=name",
        "--owner=0",
        "--group=0",
    ])
    .args([
        "--numeric-owner",
        "--mode=u+rwX,go+rX,go-w",
        "--null",
        "--verbatim-files-from",
    ])
    .arg("--use-compress-program=xz -T1")
    .arg(format!("--mtime=@{}", epoch()?))
    .args(options)
    .arg("-f")
    .arg(file)
    .arg("-C")
    .arg(base)
    // tar heeds what comes before it, and takes the names from its input.
    .arg("--files-from=-")
    .stdin(Stdio::piped());
    println!("xtask: packing {}", file.display());
    let cannot = |error: std::io::Error| format!("cannot pack '{}': {error}", file.display());
    let mut running = tar.spawn().map_err(cannot)?;
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [name.as_os_str().as_encoded_bytes(), b"\0"].concat())
        .collect();
    // Closed when it is dropped; tar reads the whole list first.
    let told = running.stdin.take().map(|mut input| input.write_all(&list));
    let status = running.wait().map_err(cannot)?;
    if !status.success() {
        return Err(Failure::Step(format!("tar -cf {}", file.display()), status));
    }
    Ok(told.transpose().map(|_| ()).map_err(cannot)?)
}
