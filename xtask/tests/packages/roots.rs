//! Other systems: root directories made once by mmdebstrap(1), and used through
//! an overlay in memory that ends with the process that uses it. Mounts,
//! processes and changes are in namespaces of their own, so nothing is left
//! even by a test that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use testkit::{require_program, require_root};

use crate::built::{output, succeed, target};

/// Returns whether roots can be made and used here.
#[track_caller]
pub fn can_have_roots() -> bool {
    require_root() && ["mmdebstrap", "unshare", "apt-get"].into_iter().all(require_program)
}

/// A system that is installed in a directory or packed in a file, and stays as it is.
pub struct Root(PathBuf);

impl Root {
    /// A directory with a release of Debian: `variant` and `packages` as mmdebstrap has them.
    pub fn directory(release: &str, variant: &str, packages: &str) -> Root {
        Root(made(&format!("{release}-{variant}"), release, variant, packages))
    }

    /// The same in an archive.
    pub fn archive(release: &str, variant: &str) -> PathBuf {
        made(&format!("{release}-{variant}.tar.gz"), release, variant, "")
    }

    /// The directory, to read.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a script of sh(1) as root in a copy of the system without a network; `shared` is its
    /// /shared.
    fn run(&self, shared: &Path, script: &str) -> Output {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]);
        unshare.args(["sh", "-euc", include_str!("inside.sh"), "inside"]);
        unshare.arg(&self.0).arg(shared).arg(script).stdin(Stdio::null());
        unshare.output().expect("unshare runs")
    }

    /// Runs a script that must succeed, and returns what it prints.
    #[track_caller]
    pub fn succeed(&self, shared: &Path, script: &str) -> String {
        let output = self.run(shared, script);
        let (out, err) = (&output.stdout, &output.stderr);
        let [out, err] = [out, err].map(|told| String::from_utf8_lossy(told).into_owned());
        assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
        out
    }
}

/// Where apt gets this machine's release from.
pub fn mirror() -> String {
    let format = ["--format", "$(REPO_URI)", "Created-By: Packages"];
    let uris = output(Command::new("apt-get").arg("indextargets").args(format));
    uris.lines().next().expect("apt has a source").to_owned()
}

/// The root of this name, from an earlier run if it was made of the same packages.
fn made(name: &str, release: &str, variant: &str, packages: &str) -> PathBuf {
    // One at a time: two of them would only be in each other's way.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let roots = target("roots");
    fs::create_dir_all(&roots).expect("a directory");
    let (root, recipe) = (roots.join(name), roots.join(format!("{name}.recipe")));
    if root.exists() && fs::read_to_string(&recipe).is_ok_and(|found| found == packages) {
        return root;
    }
    let unfinished = roots.join(format!("unfinished-{name}"));
    for old in [&root, &unfinished] {
        succeed(Command::new("rm").args(["-rf", "--one-file-system"]).arg(old));
    }
    // In a namespace: a run that is killed leaves nothing mounted.
    let mut mmdebstrap = Command::new("unshare");
    mmdebstrap.args(["--mount", "mmdebstrap", "--quiet"]).arg(format!("--variant={variant}"));
    if !packages.is_empty() {
        mmdebstrap.arg(format!("--include={packages}"));
    }
    succeed(mmdebstrap.arg(release).arg(&unfinished).arg(mirror()));
    fs::write(recipe, packages).expect("a file");
    fs::rename(unfinished, &root).expect("a new name");
    root
}
