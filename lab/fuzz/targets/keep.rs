//! Keep durations, and their cutoff at a point in time. The input is the text, NUL, and the bytes of
//! the time.
#![no_main]

use chrono::{DateTime, FixedOffset};
use libfuzzer_sys::fuzz_target;
use vsrun::values::keep::Keep;

fuzz_target!(|data: &[u8]| {
    let (text, moment) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let keep = text.parse::<Keep>();
    assert_eq!(keep.is_ok(), is_keep(text), "{text:?}");
    let (Ok(keep), Some(now)) = (keep, moment_of(moment)) else {
        return;
    };
    let cutoff = keep.cutoff(now);
    assert!(
        cutoff.is_none_or(|cutoff| cutoff <= now),
        "{text:?} before {now}"
    );
    // A number of two digits reaches back a century at most.
    if text.len() <= 3 && now.timestamp() > 0 {
        assert!(cutoff.is_some(), "{text:?} before {now}");
    }
});

/// Whether a text is a number of 32 bits above 0 and optionally a unit, checked digit by digit.
fn is_keep(text: &str) -> bool {
    let digits = text.strip_suffix(['h', 'd', 'w', 'm']).unwrap_or(text);
    let value = digits.chars().try_fold(0_u32, |value, c| {
        value.checked_mul(10)?.checked_add(c.to_digit(10)?)
    });
    value.is_some_and(|value| value > 0)
}

/// Eight bytes of seconds since 1970 and four of an offset to the east, all little endian.
fn moment_of(bytes: &[u8]) -> Option<DateTime<FixedOffset>> {
    let mut whole = [0; 12];
    let known = bytes.len().min(whole.len());
    whole[..known].copy_from_slice(&bytes[..known]);
    let (seconds, east) = whole.split_at(8);
    let seconds = i64::from_le_bytes(seconds.try_into().ok()?);
    let east = i32::from_le_bytes(east.try_into().ok()?);
    let offset = FixedOffset::east_opt(east)?;
    Some(DateTime::from_timestamp(seconds, 0)?.with_timezone(&offset))
}
