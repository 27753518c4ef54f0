//! The one place where privilege is dropped.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid, getgroups, setgroups};

use super::process::failure::{Refusal, Stage, at, checked};

// The C library's wrappers change every thread; the kernel's calls change the one that is about
// to exec. Where ids were once 16 bits wide, the calls have a second name.
#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use libc::{
    SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
};

/// Who a process is to be: ids that were resolved once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// The supplementary groups; none where the caller is the user already, with these groups.
    pub groups: Option<Vec<Gid>>,
}

/// Whether this process may change to any user: it has CAP_SETUID and CAP_SETGID (see
/// capabilities(7)).
pub fn is_privileged() -> bool {
    const CAP_SETGID_AND_SETUID: u32 = 1 << 6 | 1 << 7;
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut held = NO_CAPABILITIES;
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw const header, held.as_mut_ptr()) };
    let [effective, ..] = held;
    read == 0 && effective & CAP_SETGID_AND_SETUID == CAP_SETGID_AND_SETUID
}

/// Whether this process may not even set the groups that it has: a user namespace can deny
/// setgroups(2) to all in it (user_namespaces(7)). `/proc/self/setgroups` says so too, but a process
/// that has opened a file there takes longer to end.
pub fn groups_are_fixed() -> bool {
    getgroups().and_then(|groups| setgroups(&groups)) == Err(Errno::EPERM)
}

/// Version 3 of the header and data of capset(2).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const NO_CAPABILITIES: [u32; 6] = [0; 6];

/// "Leave as it is", for the ids of setresuid(2) and setresgid(2).
const SAME: libc::c_long = -1;

/// Becomes `identity` for good, in the calling thread: groups, then group, then user, each for
/// the real, effective and saved id; then proves that root's cannot be regained.
/// Async-signal-safe.
pub(super) fn change_to(identity: &Identity) -> Result<(), Refusal> {
    let (uid, gid) = (identity.uid.as_raw(), identity.gid.as_raw());
    if let Some(groups) = &identity.groups {
        leave_keyring()?;
        let (count, groups) = (groups.len(), groups.as_ptr());
        // SAFETY: the array has `count` ids (`Gid` is a transparent wrapper of gid_t) and outlives
        // the call.
        checked(Stage::Groups, unsafe {
            libc::syscall(SETGROUPS, count, groups)
        })?;
    }
    // SAFETY: no memory is passed.
    checked(Stage::Group, unsafe {
        libc::syscall(SETRESGID, gid, gid, gid)
    })?;
    // SAFETY: no memory is passed.
    checked(Stage::User, unsafe {
        libc::syscall(SETRESUID, uid, uid, uid)
    })?;
    if identity.uid.is_root() {
        return Ok(());
    }
    // A caller's securebits may have kept capabilities, and inheritable ones always stay.
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let (header, none) = (&raw const header, NO_CAPABILITIES.as_ptr());
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    checked(Stage::Capabilities, unsafe {
        libc::syscall(libc::SYS_capset, header, none)
    })?;
    check_dropped(uid, gid)
}

/// Replaces the caller's session keyring by a new one: a process that has inherited one may read its
/// keys even after a change of user (see keyrings(7)).
fn leave_keyring() -> Result<(), Refusal> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: a keyring without a name needs no memory.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) };
    match checked(Stage::Keyring, joined) {
        // A kernel without keys has none to be read; a container that forbids the call forbids
        // reading them.
        Err(Refusal {
            reason: Errno::ENOSYS | Errno::EPERM | Errno::EACCES,
            ..
        }) => Ok(()),
        left => left,
    }
}

fn check_dropped(uid: libc::uid_t, gid: libc::gid_t) -> Result<(), Refusal> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the three ids outlive the call.
    unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) };
    let groups_gone = [real, effective, saved] == [gid; 3];
    // SAFETY: the three ids outlive the call.
    unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) };
    let users_gone = [real, effective, saved] == [uid; 3];
    // SAFETY: no memory is passed.
    let regained = unsafe { libc::syscall(SETRESUID, SAME, 0, SAME) };
    if groups_gone && users_gone && regained == -1 {
        Ok(())
    } else {
        Err(at(Stage::Proof)(Errno::EPERM))
    }
}
