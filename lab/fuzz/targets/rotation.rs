//! Directory listings, names ended by a slash: which names are vsrun's, and the name of the next old
//! log.
#![no_main]

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use vsrun::output::rotation::{Log, next_number, parse};
use vsrun_fuzz::words;

fuzz_target!(|data: &[u8]| {
    let mut listing: HashSet<OsString> = words(data, b'/').into_iter().collect();
    for log in [Log::Server, Log::Vsrun] {
        // Rotate three times.
        for _ in 0..3 {
            let numbers = numbers(&listing, log);
            let highest = numbers.last().copied().unwrap_or(0);
            let next = next_number(highest, numbers.iter().copied());
            match numbers.last() {
                None => assert_eq!(next, 1),
                Some(&u64::MAX) => assert!((1..next).all(|lower| numbers.contains(&lower))),
                Some(highest) => assert_eq!(next, highest + 1),
            }
            let name = log.old_name(next);
            assert_eq!(parse(name.as_bytes()), Some((log, next)));
            assert!(listing.insert(name.into()), "{next} is taken");
        }
    }
});

/// The numbers of a log's old files, in ascending order.
fn numbers(listing: &HashSet<OsString>, log: Log) -> Vec<u64> {
    let numbers = listing.iter().filter_map(|name| {
        let (of, number) = parse(name.as_bytes())?;
        assert_eq!(of.old_name(number).as_str(), name, "this is another name");
        (of == log).then_some(number)
    });
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    numbers
}
