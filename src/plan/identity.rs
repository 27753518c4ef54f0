//! Who the server runs as: names and numbers looked up once, before any
//! change of root, and kept for every restart.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{
    self, Gid, Uid, getegid, geteuid, getgrouplist, getgroups, getresgid, getresuid,
};

use super::command::c_string;
use crate::error::Error;
use crate::sys::files::entry::Owner;
use crate::sys::groups::group_id;
use crate::sys::identity::{Identity, groups_are_fixed, is_privileged};
use crate::values::user_spec::UserSpec;

/// The user of `-u`.
#[derive(Debug)]
pub struct User {
    /// The login name, or the number of a user without one.
    pub name: OsString,
    /// User and primary group.
    pub owner: Owner,
    /// What a process becomes.
    pub identity: Identity,
    home: PathBuf,
    shell: PathBuf,
}

impl User {
    /// Looks up `USER` or `USER:GROUP`. Names come before numbers. Refuses what is neither, and a
    /// user that this process may not change to.
    pub fn resolve(spec: &UserSpec) -> Result<User, Error> {
        let UserSpec {
            typed,
            user: name,
            group,
        } = spec;
        let group = group.as_deref().map(resolve_group).transpose()?;
        let refused = |why| Error::refused("use user", typed, why);

        let number = number(name);
        let entry = match by_name(name)? {
            Some(entry) => Some(entry),
            None => match number {
                Some(uid) => found(unistd::User::from_uid(Uid::from_raw(uid)))
                    .map_err(|reason| Error::cannot("look up user", name, reason))?,
                None => return Err(refused("no such user")),
            },
        };
        let user = match (entry, number, group) {
            (Some(entry), _, group) => User::known(entry, group)?,
            (None, Some(uid), Some(gid)) => User::unknown(Uid::from_raw(uid), gid),
            (None, Some(uid), None) if uid == geteuid().as_raw() => {
                User::unknown(geteuid(), getegid())
            }
            (None, _, _) => return Err(refused("no such user, and a bare number needs a group")),
        };
        user.permitted(typed)
    }

    /// The variables that are the user's.
    pub fn environment(&self) -> [(&str, &OsStr); 4] {
        let (home, shell) = (self.home.as_os_str(), self.shell.as_os_str());
        [
            ("HOME", home),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
            ("SHELL", shell),
        ]
    }

    fn known(entry: unistd::User, group: Option<Gid>) -> Result<User, Error> {
        let gid = group.unwrap_or(entry.gid);
        // A login name comes from a C string.
        let login = CString::new(entry.name.as_str()).unwrap_or_default();
        let groups = getgrouplist(&login, gid)
            .map_err(|reason| Error::cannot("look up groups of user", &entry.name, reason))?;
        let or_default = |path: PathBuf, default: &str| {
            if path.as_os_str().is_empty() {
                default.into()
            } else {
                path
            }
        };
        Ok(User {
            name: entry.name.into(),
            owner: Owner {
                uid: entry.uid,
                gid,
            },
            identity: Identity {
                uid: entry.uid,
                gid,
                groups: Some(groups),
            },
            home: or_default(entry.dir, "/"),
            shell: or_default(entry.shell, "/bin/sh"),
        })
    }

    fn unknown(uid: Uid, gid: Gid) -> User {
        User {
            name: uid.to_string().into(),
            owner: Owner { uid, gid },
            identity: Identity {
                uid,
                gid,
                groups: Some(vec![gid]),
            },
            home: "/".into(),
            shell: "/bin/sh".into(),
        }
    }

    /// The user, if this process may become it. A process that may not set its groups is the user
    /// already, with the user's groups and no others, or there is an error.
    fn permitted(mut self, typed: &OsStr) -> Result<User, Error> {
        if is_privileged() && !groups_are_fixed() {
            return Ok(self);
        }
        let Owner { uid, gid } = self.owner;
        // The real and the saved ids too: a server could take them on.
        let is_self = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [uid; 3])
            && getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [gid; 3]);
        if !is_self {
            return Err(Error::cannot("change to user", typed, Errno::EPERM));
        }
        let cannot =
            |reason| Error::cannot("read the groups of the caller for user", typed, reason);
        let present = getgroups().map_err(cannot)?;
        let wanted = self.identity.groups.take().unwrap_or_default();
        if as_set(&present, gid) != as_set(&wanted, gid) {
            return Err(Error::refused("use user", typed, FOREIGN_GROUPS));
        }
        Ok(self)
    }
}

const FOREIGN_GROUPS: &str = "the caller has other supplementary groups than the user, and may not \
                              change them (CAP_SETGID); run vsrun as root, or log in again";

/// Supplementary groups as the kernel uses them: in no order, the primary group among them.
fn as_set(groups: &[Gid], primary: Gid) -> BTreeSet<libc::gid_t> {
    groups
        .iter()
        .chain([&primary])
        .map(|gid| gid.as_raw())
        .collect()
}

fn by_name(name: &OsStr) -> Result<Option<unistd::User>, Error> {
    // The databases hold no names that are not text.
    let Some(text) = name.to_str() else {
        return Ok(None);
    };
    found(unistd::User::from_name(text))
        .map_err(|reason| Error::cannot("look up user", name, reason))
}

fn resolve_group(typed: &OsStr) -> Result<Gid, Error> {
    let named = found(group_id(&c_string(typed)))
        .map_err(|reason| Error::cannot("look up group", typed, reason))?;
    let gid = named.or_else(|| number(typed).map(Gid::from_raw));
    gid.ok_or_else(|| Error::refused("use group", typed, "no such group"))
}

/// Sorts "there is none" out of the reasons that getpwnam(3) gives.
fn found<T>(entry: Result<Option<T>, Errno>) -> Result<Option<T>, Errno> {
    match entry {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        outcome => outcome,
    }
}

/// A whole number as a person writes it. The highest id means "none" to the kernel and is refused.
fn number(text: &OsStr) -> Option<u32> {
    let text = text.to_str()?;
    let number: u32 = text.parse().ok()?;
    (number != u32::MAX && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_numbers() {
        assert_eq!(number(OsStr::new("0")), Some(0));
        assert_eq!(number(OsStr::new("65534")), Some(65534));
        for text in [
            "", " 0", "0 ", "0\n", "+0", "-1", "00", "0x0", "0day", "4foo", "1e3", "٣",
        ] {
            assert_eq!(number(OsStr::new(text)), None, "{text:?}");
        }
        assert_eq!(number(OsStr::new("4294967295")), None);
        assert_eq!(number(OsStr::new("99999999999")), None);
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for text in [
            "0day",
            "0x0",
            "4foo",
            "-1",
            "4294967295",
            "",
            ":0",
            "root:",
            " root",
            "root ",
        ] {
            assert!(
                User::resolve(&OsString::from(text).into()).is_err(),
                "{text:?} was taken"
            );
        }
    }
}
