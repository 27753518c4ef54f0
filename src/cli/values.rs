//! Values that options take. Pure: text in, value or reason out.

use std::str::FromStr;

use chrono::{DateTime, Days, Months, TimeDelta, TimeZone};

/// How long old log files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    count: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Hours,
    Days,
    Weeks,
    Months,
}

impl Keep {
    /// The moment before which a file has outlived this duration, by the calendar of `now`; none
    /// where the calendar does not reach back that far, so that nothing expires.
    pub fn cutoff<Tz: TimeZone>(self, now: DateTime<Tz>) -> Option<DateTime<Tz>> {
        let count = u64::from(self.count);
        match self.unit {
            Unit::Hours => now.checked_sub_signed(TimeDelta::hours(self.count.into())),
            Unit::Days => now.checked_sub_days(Days::new(count)),
            Unit::Weeks => now.checked_sub_days(Days::new(count * 7)),
            Unit::Months => now.checked_sub_months(Months::new(self.count)),
        }
    }
}

impl FromStr for Keep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Keep, &'static str> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'h') => (&text[..text.len() - 1], Unit::Hours),
            Some(b'd') => (&text[..text.len() - 1], Unit::Days),
            Some(b'w') => (&text[..text.len() - 1], Unit::Weeks),
            Some(b'm') => (&text[..text.len() - 1], Unit::Months),
            _ => (text, Unit::Days),
        };
        // u32::from_str alone would take a sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a keep duration is a whole number and one of h, d, w, m");
        }
        let count = digits.parse().map_err(|_| "the number is too large")?;
        Ok(Keep { count, unit })
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    fn cutoff(keep: &str, now: &str) -> String {
        let now: DateTime<Utc> = now.parse().expect("a date");
        let keep: Keep = keep.parse().expect("a keep duration");
        keep.cutoff(now).expect("a date").to_rfc3339()
    }

    #[test]
    fn hours_days_weeks_and_calendar_months_are_counted_back() {
        let now = "2026-03-31T12:00:00Z";
        assert_eq!(cutoff("12h", now), "2026-03-31T00:00:00+00:00");
        assert_eq!(cutoff("3d", now), "2026-03-28T12:00:00+00:00");
        assert_eq!(cutoff("3", now), "2026-03-28T12:00:00+00:00");
        assert_eq!(cutoff("2w", now), "2026-03-17T12:00:00+00:00");
        assert_eq!(cutoff("1m", now), "2026-02-28T12:00:00+00:00");
        assert_eq!(cutoff("0h", now), "2026-03-31T12:00:00+00:00");
    }

    #[test]
    fn what_is_no_keep_duration_is_refused() {
        for text in ["", "d", "-1", "+1", "1 d", " 1", "1d ", "1y", "1.5d", "dd", "1dd", "0x1", "٣"]
        {
            assert!(text.parse::<Keep>().is_err(), "{text:?} was taken");
        }
        assert!("4294967296".parse::<Keep>().is_err());
    }

    #[test]
    fn a_duration_longer_than_the_calendar_never_expires_anything() {
        let keep: Keep = "4294967295m".parse().expect("a keep duration");
        assert_eq!(keep.cutoff(Utc::now()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in ".*") {
            if let Ok(keep) = text.parse::<Keep>() {
                let now = Utc::now();
                prop_assert!(keep.cutoff(now).is_none_or(|then| then <= now));
            }
        }
    }
}
