//! `USER[:GROUP]`: whose server it is, before anything is looked up.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A user and perhaps a group, each a name or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The whole value as typed, for messages.
    pub typed: OsString,
    /// What stands before the first colon.
    pub user: OsString,
    /// What stands behind it.
    pub group: Option<OsString>,
}

impl From<OsString> for UserSpec {
    fn from(typed: OsString) -> UserSpec {
        let bytes = typed.as_bytes();
        let (user, group) = match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        };
        UserSpec {
            user: OsStr::from_bytes(user).to_owned(),
            group: group.map(|group| OsStr::from_bytes(group).to_owned()),
            typed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_parts_user_and_group() {
        for (typed, user, group) in [
            ("www", "www", None),
            ("www:adm", "www", Some("adm")),
            ("www:", "www", Some("")),
            (":adm", "", Some("adm")),
            ("a:b:c", "a", Some("b:c")),
            ("", "", None),
        ] {
            let spec = UserSpec::from(OsString::from(typed));
            assert_eq!(spec.user, user);
            assert_eq!(spec.group, group.map(OsString::from));
            assert_eq!(spec.typed, typed);
        }
    }
}
