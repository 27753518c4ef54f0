//! Running other programs, each printed before it runs, and finding directories. Knows nothing of
//! what the programs do.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// Why a verb ended early.
#[derive(Debug)]
pub enum Failure {
    /// A program that the verb ran did not succeed.
    Step(String, ExitStatus),
    /// Any other failure, as a whole message.
    Message(String),
}

impl Failure {
    /// The exit status of this process: the failed program's, if it has one.
    pub fn status(&self) -> ExitCode {
        match self {
            Failure::Step(_, status) => {
                let code = status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(1);
                ExitCode::from(code)
            }
            Failure::Message(_) => ExitCode::FAILURE,
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Message(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Step(line, status) => write!(f, "{line}: {status}"),
            Failure::Message(text) => f.write_str(text),
        }
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
}

/// The directory of what cargo builds. It holds this program.
pub fn cargo_target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .unwrap_or_else(|| root().join("target"))
}

/// A command of the cargo that runs this program, in the root. Its words are separated by blanks.
pub fn cargo(line: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(line.split(' '))
        .current_dir(root())
        .stdin(Stdio::null());
    command
}

/// Runs a program to its end. It must succeed.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let line = shown(command);
    println!("xtask: {line}");
    let status = command
        .status()
        .map_err(|error| format!("cannot run {line}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Step(line, status))
    }
}

/// The path of a program on PATH, or in the directories that are only on root's PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Makes an empty directory at this path, and removes what was there.
pub fn empty(directory: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot remove the old '{}': {error}", directory.display()).into());
        }
        _ => {}
    }
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot create '{}': {error}", directory.display()).into())
}

/// A command as a line to read.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
