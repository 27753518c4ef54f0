//! A directory for one run: programs, what they tell, and the directory where
//! vsrun is started, whose contents are compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, umask};
use nix::unistd::mkdtemp;

use super::scenarios::Scenario;

/// Path, relative to the directory, and what is there.
pub type Tree = BTreeMap<PathBuf, String>;

/// Tells who it is, in one write.
const WHO: &str = "#!/bin/sh
told=
while read -r name value; do
    case $name in Uid:|Gid:|Groups:|Cap*) told=\"$told$name $value
\" ;; esac
done </proc/$$/status
printf %s \"$told\" >SEEN/status.$$
";
const SERVER: &str = "echo $$ >>SEEN/lives
REST
";
const HANDLER: &str = "test ! -e WORK/server.pid || echo $$ >>SEEN/stale
echo \"$VSRUN_SERVER_PID $VSRUN_SERVER_EXPLAIN\" >>SEEN/handled
exit REST
";
const LOGGER: &str = "exec cat >>SEEN/logged
";

/// The directory; it goes with this value.
pub struct Place {
    base: PathBuf,
}

impl Place {
    /// Makes the directory and what the scenario wants to find.
    pub fn make(scenario: &Scenario) -> io::Result<Place> {
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        let place = Place { base: mkdtemp(&std::env::temp_dir().join("vsrun-faults-XXXXXX"))? };
        // The server's user has to come in.
        fs::set_permissions(&place.base, fs::Permissions::from_mode(0o755))?;
        for directory in ["bin", "seen", "work"] {
            fs::create_dir(place.base.join(directory))?;
        }
        fs::set_permissions(place.base.join("seen"), fs::Permissions::from_mode(0o777))?;
        place.program("stays", SERVER, "exec sleep 300")?;
        place.program("ends", SERVER, "exit 7")?;
        place.program("agrees", HANDLER, "0")?;
        place.program("refuses", HANDLER, "1")?;
        place.program("logger", LOGGER, "")?;
        fs::write(place.bin().join("plain"), "no program\n")?;
        (scenario.prepare)(&place.work())?;
        Ok(place)
    }

    fn program(&self, name: &str, text: &str, rest: &str) -> io::Result<()> {
        let (seen, work) = (self.base.join("seen"), self.work());
        let text = format!("{WHO}{text}").replace("SEEN", &seen.to_string_lossy());
        let text = text.replace("WORK", &work.to_string_lossy()).replace("REST", rest);
        fs::write(self.bin().join(name), text)?;
        fs::set_permissions(self.bin().join(name), fs::Permissions::from_mode(0o755))
    }

    /// Where the programs are.
    pub fn bin(&self) -> PathBuf {
        self.base.join("bin")
    }

    /// Where vsrun is started.
    pub fn work(&self) -> PathBuf {
        self.base.join("work")
    }

    /// Forgets what was seen of an earlier start.
    pub fn renew(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.base.join("seen"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// A shell that will become vsrun, with its output in files.
    pub fn shell(&self) -> io::Result<Command> {
        let mut shell = Command::new("/bin/sh");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", self.bin().display()));
        shell.current_dir(self.work());
        shell.stdout(Stdio::from(fs::File::create(self.base.join("output"))?));
        // The next write goes to its end, whoever writes.
        let errors = self.base.join("errors");
        fs::write(&errors, "")?;
        shell.stderr(Stdio::from(fs::File::options().append(true).open(errors)?));
        Ok(shell)
    }

    /// A file that a program has written, empty if there is none.
    pub fn seen(&self, name: &str) -> String {
        let bytes = fs::read(self.base.join("seen").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the programs have told of themselves, by their ids.
    pub fn statuses(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.base.join("seen")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let told = names.filter_map(|name| {
            let pid = name.strip_prefix("status.")?.to_owned();
            // One that was ended between its open and its write has told nothing.
            Some((pid, self.seen(&name))).filter(|(_, told)| !told.is_empty())
        });
        told.collect()
    }

    /// What went to standard error.
    pub fn errors(&self) -> String {
        let bytes = fs::read(self.base.join("errors")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// vsrun's lines, wherever they went.
    pub fn messages(&self) -> String {
        let mut text = self.errors() + &self.seen("logged");
        for (path, about) in self.tree().unwrap_or_default() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("vsrun.log") {
                text += &about;
            }
        }
        text
    }

    /// Everything in the directory where vsrun is started.
    pub fn tree(&self) -> io::Result<Tree> {
        let (mut tree, work) = (Tree::new(), self.work());
        add(&work, &work, &mut tree)?;
        Ok(tree)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.base) {
            eprintln!("xtask: cannot remove '{}': {error}", self.base.display());
        }
    }
}

fn add(directory: &Path, work: &Path, tree: &mut Tree) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path)?;
        let mut text = format!("{:o} {} {}\n", about.mode(), about.uid(), about.gid());
        if about.is_file() {
            text += &String::from_utf8_lossy(&fs::read(&path)?);
        } else if about.is_symlink() {
            text += &fs::read_link(&path)?.to_string_lossy();
        }
        tree.insert(path.strip_prefix(work).unwrap_or(&path).to_owned(), text);
        if about.is_dir() {
            add(&path, work, tree)?;
        }
    }
    Ok(())
}
