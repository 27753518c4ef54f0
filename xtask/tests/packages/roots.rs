//! Other systems: root directories made once by mmdebstrap(1), and used through
//! an overlay in memory that ends with the process that uses it. Mounts,
//! processes and changes are in namespaces of their own, so nothing is left
//! even by a test that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use testkit::{require_program, require_root};

use crate::built::{output, succeed, target};

/// Returns whether roots can be made and used here.
#[track_caller]
pub fn can_have_roots() -> bool {
    require_root()
        && ["mmdebstrap", "unshare", "apt-get"]
            .into_iter()
            .all(require_program)
}

const SYSTEMD: &str = "systemd,systemd-sysv,dbus,rsyslog,procps,bsd-mailx,dma,systemd-coredump,curl,\
                       busybox-static,zstd";

/// A system that is installed in a directory, or packed in a file, and stays as it is.
///
/// The fields but the first are arguments of mmdebstrap(1).
pub struct Root {
    name: &'static str,
    release: &'static str,
    variant: &'static str,
    packages: &'static str,
}

impl Root {
    /// With systemd, and what the package's own tests take.
    pub const SYSTEM: Root = Root {
        name: "system",
        release: "bookworm",
        variant: "minbase",
        packages: "autopkgtest,dbus,dpkg-dev,man-db,procps,systemd,systemd-sysv",
    };

    /// With a compiler and what builds Debian packages.
    pub const BUILDER: Root = Root {
        name: "builder",
        release: "trixie",
        variant: "buildd",
        packages: "cargo,rustc,debhelper,lintian",
    };

    /// With apt, in an archive.
    pub const ARCHIVE: Root = Root {
        name: "apt.tar.gz",
        release: "bookworm",
        variant: "apt",
        packages: "",
    };

    /// With the init systems that `tests/init/boot` boots.
    const BOOTED: [Root; 4] = [
        Root::booted("systemd-bookworm", "bookworm", SYSTEMD),
        Root::booted("systemd-trixie", "trixie", SYSTEMD),
        Root::booted(
            "sysvinit",
            "bookworm",
            "sysvinit-core,sysv-rc,initscripts,insserv,procps,rsyslog,bsd-mailx,dma,startpar,\
             orphan-sysvinit-scripts,busybox-static",
        ),
        Root::booted(
            "openrc",
            "bookworm",
            "sysvinit-core,openrc,procps,rsyslog,initscripts,bsd-mailx,dma,\
             orphan-sysvinit-scripts,busybox-static",
        ),
    ];

    const fn booted(name: &'static str, release: &'static str, packages: &'static str) -> Root {
        Root {
            name,
            release,
            variant: "minbase",
            packages,
        }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        roots().join(self.name)
    }

    /// Runs a script of sh(1) as root in a copy of the system without a network; `shared` is its
    /// /shared.
    fn run(&self, shared: &Path, script: &str) -> Output {
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--net",
            "--fork",
            "--kill-child",
        ]);
        unshare.args(["sh", "-euc", include_str!("inside.sh"), "inside"]);
        unshare
            .arg(self.path())
            .arg(shared)
            .arg(script)
            .stdin(Stdio::null());
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

    /// Makes it in the directory unless an earlier run has made it of the same packages.
    fn make(&self, directory: &Path) {
        let Root {
            name,
            release,
            variant,
            packages,
        } = self;
        let (root, recipe) = (
            directory.join(name),
            directory.join(format!("{name}.recipe")),
        );
        let wanted = format!("{release} {variant} {packages}\n");
        if root.exists() && fs::read_to_string(&recipe).is_ok_and(|found| found == wanted) {
            return;
        }
        let unfinished = directory.join(format!("unfinished-{name}"));
        for old in [&root, &unfinished] {
            succeed(
                Command::new("rm")
                    .args(["-rf", "--one-file-system"])
                    .arg(old),
            );
        }
        // In a namespace: a run that is killed leaves nothing mounted.
        let mut mmdebstrap = Command::new("unshare");
        mmdebstrap
            .args(["--mount", "mmdebstrap", "--quiet"])
            .arg(format!("--variant={variant}"));
        if !packages.is_empty() {
            mmdebstrap.arg(format!("--include={packages}"));
        }
        succeed(mmdebstrap.arg(release).arg(&unfinished).arg(mirror()));
        fs::write(recipe, wanted).expect("a file");
        fs::rename(unfinished, &root).expect("a new name");
    }
}

/// Where apt gets this machine's release from.
pub fn mirror() -> String {
    let format = ["--format", "$(REPO_URI)", "Created-By: Packages"];
    let uris = output(Command::new("apt-get").arg("indextargets").args(format));
    uris.lines().next().expect("apt has a source").to_owned()
}

/// The directory of all roots.
///
/// The first call makes those that are missing. So no test, and no machine that a test boots, waits
/// for a root within its time limit.
pub fn roots() -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    let directory = target("roots");
    MADE.get_or_init(|| {
        fs::create_dir_all(&directory).expect("a directory");
        let others = [Root::SYSTEM, Root::BUILDER, Root::ARCHIVE];
        others
            .iter()
            .chain(&Root::BOOTED)
            .for_each(|root| root.make(&directory));
    });
    directory
}
