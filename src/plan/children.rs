//! The processes of a plan, each as a [`ChildSpec`].

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{c_string, candidates};
use super::identity::User;
use super::{Destination, Plan, WorkDir};
use crate::error::{EXECUTE, Error};
use crate::sys::process::exec_strings::ExecStrings;
use crate::sys::process::failure::{End, Refusal, Stage};
use crate::sys::process::spec::Program;
use crate::sys::process::spec::{ChildSpec, Parentage, Session};

impl Plan {
    /// The server. Without `-w` it works in the log directory, if there is one.
    pub fn server(&self) -> ChildSpec {
        let base = match &self.root {
            Some(_) => Some(Path::new("/")),
            None => self.start_dir.as_deref(),
        };
        let session = if self.manager.is_some() {
            Session::Own
        } else {
            Session::Inherited
        };
        let work_dir = match self.work_dir() {
            WorkDir::Named(dir) => Some(c_string(dir)),
            WorkDir::Logs(_) | WorkDir::Root(_) | WorkDir::Caller(_) => None,
        };
        ChildSpec {
            session,
            root: self.root.clone().map(c_string),
            work_dir,
            ..self.child(Program {
                role: "command",
                name: self.command[0].clone(),
                candidates: candidates(&self.command[0], &self.search, base),
                arguments: ExecStrings::new(&self.command),
                environment: self.environment([].into_iter()),
            })
        }
    }

    /// The directory in which vsrun was started, if the server is to work there. A manager works
    /// elsewhere, so it goes back there for each start.
    pub fn caller_dir(&self) -> Option<&Path> {
        match self.work_dir() {
            WorkDir::Caller(dir) => dir,
            WorkDir::Named(_) | WorkDir::Logs(_) | WorkDir::Root(_) => None,
        }
    }

    /// Where the server is to work, as it is seen from outside its root.
    pub fn server_dir(&self) -> Option<PathBuf> {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        match self.work_dir() {
            WorkDir::Named(dir) => Some(root.join(dir.strip_prefix("/").unwrap_or(dir))),
            WorkDir::Logs(dir) if dir.starts_with(root) => Some(dir.to_owned()),
            WorkDir::Logs(_) => Some(root.to_owned()),
            WorkDir::Root(root) => Some(root.to_owned()),
            WorkDir::Caller(dir) => dir.map(Path::to_owned),
        }
    }

    /// The termination handler, with the variables that are the same at every death.
    pub fn handler<'a>(
        &'a self,
        handler: &Path,
        constants: impl Iterator<Item = (&'a str, &'a OsStr)>,
    ) -> ChildSpec {
        self.child(Program {
            role: "handler",
            name: handler.into(),
            candidates: vec![c_string(handler)],
            arguments: ExecStrings::new([handler]),
            environment: self.environment(constants),
        })
    }

    /// The logger that takes output, if there is to be one: a child of the manager, and an orphan
    /// where there is no manager.
    pub fn logger(&self) -> Option<ChildSpec> {
        let Destination::Syslog(prefix) = &self.output else {
            return None;
        };
        let parentage = match self.manager {
            Some(_) => Parentage::Ours,
            None => Parentage::Orphan,
        };
        Some(ChildSpec {
            parentage,
            work_dir: Some(c_string("/")),
            ..self.child(Program {
                role: "command",
                name: "logger".into(),
                candidates: candidates(
                    OsStr::new("logger"),
                    &self.search,
                    self.start_dir.as_deref(),
                ),
                arguments: ExecStrings::new([
                    OsStr::new("logger"),
                    OsStr::new("-t"),
                    prefix.as_os_str(),
                ]),
                environment: self.environment([].into_iter()),
            })
        })
    }

    /// The error for a child that did not execute its program.
    pub fn error(&self, spec: &ChildSpec, end: End) -> Error {
        let (what, name) = (spec.program.role, || spec.program.name.clone());
        let Refusal { stage, reason } = match end {
            End::Refused(refusal) => refusal,
            End::Exited(exit) => {
                return Error::Died {
                    what,
                    object: name(),
                    exit,
                };
            }
        };
        let path = |path: &Option<CString>| {
            OsStr::from_bytes(path.as_deref().unwrap_or_default().to_bytes()).to_owned()
        };
        let not_executed = |doing| {
            let root = spec.root.as_ref().map(|_| path(&spec.root).into());
            Error::CannotExecute {
                doing,
                what,
                object: name(),
                root,
                reason,
            }
        };
        let object = match stage {
            Stage::HeldUp => {
                return Error::HeldUp {
                    what,
                    object: name(),
                };
            }
            Stage::Execute => return not_executed(EXECUTE),
            Stage::Interpret => return not_executed("find the interpreter of"),
            Stage::Root => path(&spec.root),
            Stage::WorkDir => match (&spec.work_dir, self.work_dir()) {
                (None, WorkDir::Logs(dir) | WorkDir::Caller(Some(dir))) => dir.into(),
                _ => path(&spec.work_dir),
            },
            Stage::Keyring
            | Stage::Groups
            | Stage::Group
            | Stage::User
            | Stage::Capabilities
            | Stage::Proof => self
                .user
                .as_ref()
                .map(|user| user.name.clone())
                .unwrap_or_default(),
            Stage::Channel | Stage::Fork | Stage::Session | Stage::Streams => OsString::new(),
        };
        Error::Cannot {
            doing: stage.doing(),
            object,
            reason,
        }
    }

    /// The caller's environment, the user's own variables, and more.
    fn environment<'a>(&'a self, more: impl Iterator<Item = (&'a str, &'a OsStr)>) -> ExecStrings {
        let own = self.user.iter().flat_map(User::environment);
        ExecStrings::environment(self.inherited.clone(), own.chain(more))
    }

    /// A child of the user's, in a session of its own, where vsrun itself is.
    fn child(&self, program: Program) -> ChildSpec {
        ChildSpec {
            program,
            session: Session::Own,
            parentage: Parentage::Ours,
            root: None,
            work_dir: None,
            identity: self.user.as_ref().map(|user| user.identity.clone()),
            umask: self.umask,
        }
    }
}
