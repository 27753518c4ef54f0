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
    let log = [Log::Server, Log::Vsrun]
        .into_iter()
        .find(|log| log.name() == base)?;
    let number: u64 = digits.parse().ok()?;
    (log.old_name(number) == name).then_some((log, number))
}

/// The number for the next old file: one more than the highest there is, and where there is no
/// higher the lowest that is not among `taken`, which rise.
pub fn next_number(highest: u64, taken: impl Iterator<Item = u64>) -> u64 {
    highest.checked_add(1).unwrap_or_else(|| {
        taken.fold(
            1,
            |free, number| if number == free { free + 1 } else { free },
        )
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
        assert_eq!(
            parse(b"logfile.18446744073709551615"),
            Some((Log::Server, u64::MAX))
        );
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

    fn logs() -> impl Strategy<Value = Log> {
        prop::sample::select(&[Log::Server, Log::Vsrun][..])
    }

    /// Numbers close together, anywhere, and at the top.
    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![4 => 0..6_u64, 1 => any::<u64>(), 1 => u64::MAX - 3..=u64::MAX]
    }

    /// A name as a directory may hold it: ours, nearly ours, anything.
    fn names() -> impl Strategy<Value = Vec<u8>> {
        let ours = (logs(), numbers()).prop_map(|(log, number)| log.old_name(number).into());
        let nearly = (
            logs(),
            "[0-9]{1,21}|[0-9+ -]{0,3}|0{1,3}[0-9]|[0-9]\\.gz|[0-9]\n",
        )
            .prop_map(|(log, end)| format!("{}.{end}", log.name()).into());
        let foreign = prop::collection::vec(any::<u8>(), 0..12);
        prop_oneof![6 => ours, 2 => nearly, 1 => foreign]
    }

    fn listings() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(names(), 0..20)
    }

    /// The numbers of this log in a listing.
    fn found(listing: &[Vec<u8>], log: Log) -> Vec<u64> {
        let ours = listing.iter().filter_map(|name| parse(name));
        ours.filter(|(other, _)| *other == log)
            .map(|(_, number)| number)
            .collect()
    }

    /// The number for the next old file where there are these.
    fn next(mut numbers: Vec<u64>) -> u64 {
        numbers.sort_unstable();
        next_number(numbers.last().copied().unwrap_or(0), numbers.into_iter())
    }

    /// Whether a name is a log's, a full stop and a canonical u64, told without reading a number.
    fn is_canonical(name: &[u8]) -> bool {
        let digits = [&b"logfile."[..], b"vsrun.log."].iter().find_map(|log| {
            name.strip_prefix(*log)
                .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        });
        let top = b"18446744073709551615";
        digits.is_some_and(|digits| match digits {
            [] => false,
            [b'0', rest @ ..] => rest.is_empty(),
            _ => digits.len() < top.len() || digits.len() == top.len() && digits <= &top[..],
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64) {
            for log in [Log::Server, Log::Vsrun] {
                prop_assert_eq!(parse(log.old_name(number).as_bytes()), Some((log, number)));
            }
        }

        #[test]
        fn any_name_is_read_or_left_alone(name in names()) {
            if let Some((log, number)) = parse(&name) {
                prop_assert_eq!(log.old_name(number).into_bytes(), name);
            }
        }

        #[test]
        fn the_names_that_are_ours_are_the_canonical_ones(name in names()) {
            prop_assert_eq!(parse(&name).is_some(), is_canonical(&name));
        }

        #[test]
        fn the_next_name_does_not_exist(listing in listings(), log in logs()) {
            let free = next(found(&listing, log));
            prop_assert!(!listing.contains(&log.old_name(free).into_bytes()));
        }

        #[test]
        fn the_next_number_is_one_more_than_the_highest_or_the_lowest_free_one(
            listing in listings(),
            log in logs(),
        ) {
            let numbers = found(&listing, log);
            let next = next(numbers.clone());
            match numbers.iter().max() {
                None => prop_assert_eq!(next, 1),
                Some(&u64::MAX) => {
                    prop_assert!(!numbers.contains(&next));
                    prop_assert!(next > 0 && (1..next).all(|lower| numbers.contains(&lower)));
                }
                Some(highest) => prop_assert_eq!(next, highest + 1),
            }
        }

        #[test]
        fn rotation_after_rotation_takes_names_that_are_free(
            mut listing in listings(),
            log in logs(),
        ) {
            for _ in 0..6 {
                let next = log.old_name(next(found(&listing, log)));
                prop_assert!(!listing.contains(&next.clone().into_bytes()), "{} again", next);
                listing.push(next.into());
            }
        }
    }
}
