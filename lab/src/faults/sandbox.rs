//! A directory for one run: the programs, what they write, and the directory where vsrun is started,
//! whose contents are compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, umask};
use xtask::steps::Failure;

use super::scenarios::Scenario;
use crate::scratch::{Scratch, write_program};

/// Each path below a directory, with its mode, owner, group and content.
pub type Tree = BTreeMap<PathBuf, String>;

/// Writes its own ids and capabilities, in one write.
const IDENTITY: &str = "#!/bin/sh
lines=
while read -r name value; do
    case $name in Uid:|Gid:|Groups:|Cap*) lines=\"$lines$name $value
\" ;; esac
done </proc/$$/status
printf %s \"$lines\" >SEEN/status.$$
";
const SERVER: &str = "echo $$ >>SEEN/servers
REST
";
const HANDLER: &str = "test ! -e WORK/server.pid || echo $$ >>SEEN/stale
echo \"$VSRUN_SERVER_PID $VSRUN_SERVER_EXPLAIN\" >>SEEN/handled
exit REST
";
const LOGGER: &str = "exec cat >>SEEN/logged
";

/// The directory. It is removed when this is dropped.
pub struct Sandbox(Scratch);

impl Sandbox {
    /// Makes the directory and what the scenario needs.
    pub fn new(scenario: &Scenario) -> Result<Sandbox, Failure> {
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        let sandbox = Sandbox(Scratch::new("faults")?);
        sandbox
            .fill(scenario)
            .map_err(|error| format!("cannot fill '{}': {error}", sandbox.0.path().display()))?;
        Ok(sandbox)
    }

    fn fill(&self, scenario: &Scenario) -> io::Result<()> {
        for name in ["bin", "seen", "work"] {
            fs::create_dir(self.0.path().join(name))?;
        }
        // Programs of every user write there.
        fs::set_permissions(self.seen(), fs::Permissions::from_mode(0o777))?;
        self.add_program("stays", SERVER, "exec sleep 300")?;
        self.add_program("ends", SERVER, "exit 7")?;
        self.add_program("agrees", HANDLER, "0")?;
        self.add_program("refuses", HANDLER, "1")?;
        self.add_program("logger", LOGGER, "")?;
        fs::write(self.bin().join("plain"), "no program\n")?;
        (scenario.prepare)(&self.work())
    }

    fn add_program(&self, name: &str, text: &str, rest: &str) -> io::Result<()> {
        let text = format!("{IDENTITY}{text}")
            .replace("SEEN", &self.seen().to_string_lossy())
            .replace("WORK", &self.work().to_string_lossy())
            .replace("REST", rest);
        write_program(&self.bin().join(name), &text)
    }

    /// The directory of the programs.
    pub fn bin(&self) -> PathBuf {
        self.0.path().join("bin")
    }

    /// The directory where vsrun is started.
    pub fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    /// The directory that the programs write to.
    fn seen(&self) -> PathBuf {
        self.0.path().join("seen")
    }

    /// Removes what the programs of an earlier start wrote.
    pub fn forget(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.seen())? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// A shell that will execute vsrun, with its output in files.
    pub fn shell(&self) -> io::Result<Command> {
        let mut shell = Command::new("/bin/sh");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", self.bin().display()));
        shell.current_dir(self.work());
        shell.stdout(fs::File::create(self.0.path().join("output"))?);
        // Several processes write to it, each at its end.
        let errors = self.0.path().join("errors");
        fs::write(&errors, "")?;
        shell.stderr(Stdio::from(fs::File::options().append(true).open(errors)?));
        Ok(shell)
    }

    /// What the programs wrote to a file. Empty if there is none.
    pub fn written(&self, name: &str) -> String {
        text(&self.seen().join(name))
    }

    /// The ids and capabilities that each process wrote, by its id.
    pub fn identities(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.seen()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let identities = names.filter_map(|name| {
            let pid = name.strip_prefix("status.")?.to_owned();
            // A process that was killed between its open and its write has an empty file.
            Some((pid, self.written(&name))).filter(|(_, lines)| !lines.is_empty())
        });
        identities.collect()
    }

    /// The standard error of vsrun.
    pub fn errors(&self) -> String {
        text(&self.0.path().join("errors"))
    }

    /// All lines of vsrun: on standard error, through logger, and in its own logs.
    pub fn messages(&self) -> String {
        let mut messages = self.errors() + &self.written("logged");
        for (path, content) in self.tree().unwrap_or_default() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("vsrun.log") {
                messages += &content;
            }
        }
        messages
    }

    /// Everything in the directory where vsrun is started.
    pub fn tree(&self) -> io::Result<Tree> {
        let (mut tree, work) = (Tree::new(), self.work());
        add_to(&mut tree, &work, &work)?;
        Ok(tree)
    }
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

fn add_to(tree: &mut Tree, directory: &Path, work: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let mut entry = format!(
            "{:o} {} {}\n",
            metadata.mode(),
            metadata.uid(),
            metadata.gid()
        );
        if metadata.is_file() {
            entry += &String::from_utf8_lossy(&fs::read(&path)?);
        } else if metadata.is_symlink() {
            entry += &fs::read_link(&path)?.to_string_lossy();
        }
        tree.insert(path.strip_prefix(work).unwrap_or(&path).to_owned(), entry);
        if metadata.is_dir() {
            add_to(tree, &path, work)?;
        }
    }
    Ok(())
}
