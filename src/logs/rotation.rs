//! Names of log files, current and old. Pure.

/// One of the two logs in a log directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// The server's output.
    Server,
    /// What vsrun and the handler say.
    Vsrun,
}

impl Log {
    /// The name of the file that is written to.
    pub fn name(self) -> &'static str {
        match self {
            Log::Server => "logfile",
            Log::Vsrun => "vsrun.log",
        }
    }

    /// The name of an old file.
    pub fn old_name(self, number: u64) -> String {
        format!("{}.{number}", self.name())
    }
}

/// Reads the name of an old log file. Only a number as [`Log::old_name`] writes it counts;
/// whatever else is in the directory is not ours.
pub fn parse(name: &[u8]) -> Option<(Log, u64)> {
    let name = std::str::from_utf8(name).ok()?;
    let (base, digits) = name.rsplit_once('.')?;
    let log = [Log::Server, Log::Vsrun].into_iter().find(|log| log.name() == base)?;
    let number: u64 = digits.parse().ok()?;
    (log.old_name(number) == name).then_some((log, number))
}

/// The number for the next old file: one more than the highest there is, and where there is no
/// higher the lowest that is not among `taken`, which rise.
pub fn next_number(highest: u64, taken: impl Iterator<Item = u64>) -> u64 {
    highest.checked_add(1).unwrap_or_else(|| {
        taken.fold(1, |free, number| if number == free { free + 1 } else { free })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn old_names_are_read() {
        assert_eq!(parse(b"logfile.7"), Some((Log::Server, 7)));
        assert_eq!(parse(b"vsrun.log.12"), Some((Log::Vsrun, 12)));
        assert_eq!(parse(b"logfile.18446744073709551615"), Some((Log::Server, u64::MAX)));
    }

    #[test]
    fn every_other_name_is_somebody_elses() {
        for name in [
            "logfile",
            "logfile.",
            "logfile.-1",
            "logfile.01",
            "logfile.+1",
            "logfile.1.gz",
            "logfile.18446744073709551616",
            "logfile. 1",
            "xlogfile.1",
            "vsrun.log",
            "vsrun.log.x",
            "logfile.1 ",
            "vsrun.1",
            ".logfile.1",
            "LOGFILE.1",
        ] {
            assert_eq!(parse(name.as_bytes()), None, "{name}");
        }
        assert_eq!(parse(b"logfile.\xff"), None);
    }

    #[test]
    fn the_next_number_is_one_more_than_the_highest() {
        assert_eq!(next_number(0, [].into_iter()), 1);
        assert_eq!(next_number(3, [1, 3].into_iter()), 4);
        assert_eq!(next_number(u64::MAX, [1, 2, u64::MAX].into_iter()), 3);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64) {
            for log in [Log::Server, Log::Vsrun] {
                prop_assert_eq!(parse(log.old_name(number).as_bytes()), Some((log, number)));
            }
        }

        #[test]
        fn the_next_number_is_free(mut numbers: Vec<u64>, top: bool) {
            numbers.extend(top.then_some(u64::MAX));
            numbers.sort_unstable();
            let highest = numbers.last().copied().unwrap_or(0);
            prop_assert!(!numbers.contains(&next_number(highest, numbers.iter().copied())));
        }

        #[test]
        fn any_name_is_read_or_left_alone(name: Vec<u8>) {
            if let Some((log, number)) = parse(&name) {
                prop_assert_eq!(log.old_name(number).into_bytes(), name);
            }
        }
    }
}
