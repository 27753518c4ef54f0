//! The formats of the files in `/proc/PID`, see proc(5).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::process::Process;
use crate::signals::SignalSet;

/// Fields of `/proc/PID/stat`, see proc(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub pid: i32,
    /// The file name of the program, cut at 15 bytes.
    pub name: OsString,
    /// `R`, `S`, `D`, `T`, `Z` ...
    pub state: char,
    /// Its parent.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// The device number of the controlling terminal; 0 without one.
    pub tty: i32,
    /// Processor time so far, user and system, in clock ticks.
    pub cpu_ticks: u64,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Stat {
    /// Parses the file's content; the name in it may itself hold blanks and parentheses.
    ///
    /// # Panics
    /// If it is no such content.
    pub fn parse(content: &[u8]) -> Stat {
        let open = content
            .iter()
            .position(|byte| *byte == b'(')
            .expect("stat has a '('");
        let close = content
            .iter()
            .rposition(|byte| *byte == b')')
            .expect("stat has a ')'");
        let text = |bytes| std::str::from_utf8(bytes).expect("stat is text around the name");
        let rest: Vec<&str> = text(&content[close + 1..]).split_whitespace().collect();
        // Field numbers are those of proc(5), where the state is field 3.
        let field = |number: usize| rest[number - 3];
        let signed = |number| field(number).parse().expect("a number in stat");
        let unsigned = |number| field(number).parse::<u64>().expect("a number in stat");
        Stat {
            pid: text(&content[..open])
                .trim()
                .parse()
                .expect("stat starts with the id"),
            name: OsString::from_vec(content[open + 1..close].to_vec()),
            state: field(3).chars().next().expect("a state in stat"),
            ppid: signed(4),
            pgid: signed(5),
            sid: signed(6),
            tty: signed(7),
            cpu_ticks: unsigned(14) + unsigned(15),
            started: unsigned(22),
        }
    }

    pub(crate) fn of(pid: i32) -> Option<Stat> {
        fs::read(format!("/proc/{pid}/stat"))
            .ok()
            .map(|content| Stat::parse(&content))
    }

    /// Returns those of all processes that can be seen.
    pub(crate) fn all() -> Vec<Stat> {
        let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Stat::of).collect()
    }

    pub(crate) fn process(&self) -> Process {
        Process::known(self.pid, self.started)
    }
}

/// Fields of `/proc/PID/status`, see proc(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The file mode creation mask.
    pub umask: u32,
    /// User ids.
    pub uids: Ids,
    /// Group ids.
    pub gids: Ids,
    /// Supplementary groups, sorted by the kernel.
    pub groups: Vec<u32>,
    /// Signals to the whole process that wait to be taken.
    pub pending: SignalSet,
    /// Blocked signals.
    pub blocked: SignalSet,
    /// Ignored signals.
    pub ignored: SignalSet,
    /// Signals that have a handler function.
    pub caught: SignalSet,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// Whether execve can no longer grant privileges.
    pub no_new_privs: bool,
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// How often it gave up the processor to wait for something: once for each wake-up.
    pub voluntary_switches: u64,
}

/// Real, effective and saved id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The real id.
    pub real: u32,
    /// The effective id.
    pub effective: u32,
    /// The saved set-id.
    pub saved: u32,
}

impl Ids {
    /// Returns three equal ids.
    pub fn all(id: u32) -> Ids {
        Ids {
            real: id,
            effective: id,
            saved: id,
        }
    }
}

/// The capability sets of a process, a bit for each capability; see capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// CapInh.
    pub inheritable: u64,
    /// CapPrm.
    pub permitted: u64,
    /// CapEff.
    pub effective: u64,
    /// CapBnd.
    pub bounding: u64,
    /// CapAmb.
    pub ambient: u64,
}

impl Status {
    /// Parses the file's content; a field that this kernel does not have is zero.
    pub fn parse(content: &str) -> Status {
        let fields: BTreeMap<&str, &str> = content
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        let field = |name| fields.get(name).map_or("", |value| value.trim());
        let words = |name| field(name).split_whitespace();
        let numbers = |name| {
            words(name)
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<u32>>()
        };
        let number = |name| {
            words(name)
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        let bits = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
        let ids = |name| match numbers(name)[..] {
            [real, effective, saved, ..] => Ids {
                real,
                effective,
                saved,
            },
            _ => Ids::default(),
        };
        Status {
            umask: u32::from_str_radix(field("Umask"), 8).unwrap_or(0),
            uids: ids("Uid"),
            gids: ids("Gid"),
            groups: numbers("Groups"),
            pending: SignalSet(bits("ShdPnd")),
            blocked: SignalSet(bits("SigBlk")),
            ignored: SignalSet(bits("SigIgn")),
            caught: SignalSet(bits("SigCgt")),
            capabilities: Capabilities {
                inheritable: bits("CapInh"),
                permitted: bits("CapPrm"),
                effective: bits("CapEff"),
                bounding: bits("CapBnd"),
                ambient: bits("CapAmb"),
            },
            no_new_privs: number("NoNewPrivs") == 1,
            rss_kib: number("VmRSS"),
            voluntary_switches: number("voluntary_ctxt_switches"),
        }
    }
}

/// Reads a directory of links whose names are numbers.
pub(crate) fn links_by_number(directory: &Path) -> BTreeMap<i32, PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return BTreeMap::new();
    };
    let link = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?))
    };
    entries.flatten().filter_map(link).collect()
}

/// Splits what the kernel separates by NUL bytes.
pub(crate) fn nul_separated(bytes: &[u8]) -> Vec<OsString> {
    let words = bytes.split_inclusive(|byte| *byte == 0);
    words
        .map(|word| OsStr::from_bytes(word.strip_suffix(&[0]).unwrap_or(word)).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let content = b"123 (a) R 1 (b\n\xff) S 7 8 9 34816 8 0 1 2 3 4 50 60 0 0 20 0 1 0 999 5\n";
        let stat = Stat::parse(content);
        assert_eq!(stat.name.as_bytes(), b"a) R 1 (b\n\xff");
        assert_eq!((stat.pid, stat.state, stat.ppid), (123, 'S', 7));
        assert_eq!((stat.pgid, stat.sid, stat.tty), (8, 9, 34816));
        assert_eq!((stat.cpu_ticks, stat.started), (110, 999));
    }

    #[test]
    fn status_fields_are_read() {
        let status = Status::parse(
            "Name:\tx\nUmask:\t0027\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\nGroups:\t4 27 \n\
             VmRSS:\t  1500 kB\nSigIgn:\t0000000000001000\nCapBnd:\t000001ffffffffff\n\
             NoNewPrivs:\t1\nvoluntary_ctxt_switches:\t42\n",
        );
        assert_eq!(status.umask, 0o27);
        assert_eq!(
            status.uids,
            Ids {
                real: 1,
                effective: 2,
                saved: 3
            }
        );
        assert_eq!((status.gids, status.groups), (Ids::all(5), vec![4, 27]));
        assert!(status.ignored.contains(13) && status.blocked.is_empty());
        assert_eq!(status.capabilities.bounding, 0x1ff_ffff_ffff);
        assert!(status.no_new_privs);
        assert_eq!((status.rss_kib, status.voluntary_switches), (1500, 42));
    }

    #[test]
    fn an_empty_word_between_nul_bytes_is_kept() {
        assert_eq!(nul_separated(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(nul_separated(b""), [] as [&str; 0]);
    }
}
