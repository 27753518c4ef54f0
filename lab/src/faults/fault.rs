//! A fault: a call of a process, and what happens to it.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;

use super::calls::errors;

/// A call that vsrun makes: the n-th of its name in one process.
///
/// Processes are named by their descent: `1` is the one that was started, `1.2` is the second child
/// (or thread) of `1`, and so on. So a point is the same in the next run, and a fault at it reaches
/// no other process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub process: String,
    pub call: String,
    pub ordinal: u32,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The call fails with this error. Only close(2) is made all the same, as the kernel does.
    Error(Errno),
    /// The process is killed before the call.
    Kill,
}

/// A point and what happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub point: Point,
    pub kind: Kind,
}

impl Fault {
    /// Every fault that is tried at a point.
    pub fn all_at(point: &Point) -> impl Iterator<Item = Fault> + '_ {
        let errors = errors(&point.call).iter().copied().map(Kind::Error);
        errors.chain([Kind::Kill]).map(|kind| Fault {
            point: point.clone(),
            kind,
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.process, self.call, self.ordinal)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Error(error) => write!(f, "{}={error:?}", self.point),
            Kind::Kill => write!(f, "{}=KILL", self.point),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let mut words = text.split('/');
        let (process, call, ordinal) = (words.next(), words.next(), words.next());
        match (process, call, ordinal.map(str::parse), words.next()) {
            (Some(process), Some(call), Some(Ok(ordinal)), None) => Ok(Point {
                process: process.to_owned(),
                call: call.to_owned(),
                ordinal,
            }),
            _ => Err(format!(
                "'{text}' is not PROCESS/CALL/ORDINAL, as in 1.2/openat/3"
            )),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (point, kind) = text
            .split_once('=')
            .ok_or("no '=ERROR' or '=KILL' at its end")?;
        let point: Point = point.parse()?;
        let mut errors = errors(&point.call).iter();
        let kind = match errors.find(|error| format!("{error:?}") == kind) {
            Some(error) => Kind::Error(*error),
            None if kind == "KILL" => Kind::Kill,
            None => {
                return Err(format!(
                    "{kind} is not among the errors tried with {}",
                    point.call
                ));
            }
        };
        Ok(Fault { point, kind })
    }
}
