//! `KEEP`: how long old log files are kept.

use std::str::FromStr;

use chrono::{DateTime, Days, FixedOffset, Months, TimeDelta};

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
    /// where the calendar does not reach back that far, so that nothing expires. The offset is
    /// that of `now`: an hour that the clocks skipped or repeated is an hour like any other.
    pub fn cutoff(self, now: DateTime<FixedOffset>) -> Option<DateTime<FixedOffset>> {
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
        let units = [
            ('h', Unit::Hours),
            ('d', Unit::Days),
            ('w', Unit::Weeks),
            ('m', Unit::Months),
        ];
        let split = units
            .into_iter()
            .find_map(|(end, unit)| Some((text.strip_suffix(end)?, unit)));
        let (digits, unit) = split.unwrap_or((text, Unit::Days));
        // u32::from_str alone would take a sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("it is not a whole number, alone (days) or followed by h, d, w or m");
        }
        let count = digits.parse().map_err(|_| "the number is too large")?;
        if count == 0 {
            return Err("it would delete every old log at once; write 1h to keep them for an hour");
        }
        Ok(Keep { count, unit })
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, FixedOffset, NaiveDate, NaiveTime, Utc};
    use proptest::prelude::*;

    use super::*;

    fn cutoff(keep: &str, now: &str) -> String {
        let now: DateTime<FixedOffset> = now.parse().expect("a date");
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
    }

    #[test]
    fn what_is_no_keep_duration_is_refused() {
        for text in [
            "", "d", "-1", "+1", "1 d", " 1", "1d ", "1y", "1.5d", "dd", "1dd", "0x1", "٣",
        ] {
            assert!(text.parse::<Keep>().is_err(), "{text:?} was taken");
        }
        for text in ["4294967296", "0", "00", "0h", "0d", "0w", "0m"] {
            assert!(text.parse::<Keep>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_duration_longer_than_the_calendar_never_expires_anything() {
        let keep: Keep = "4294967295m".parse().expect("a keep duration");
        assert_eq!(keep.cutoff(Utc::now().fixed_offset()), None);
    }

    /// Texts that are keep durations, or nearly are, and any others.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{1,3}[hdwm]?",
            "0{0,3}429496729[0-9][hdwm]?",
            "[0-9]{8,12}[hdwm]?",
            "[+-]?[0-9. ]{0,3}[hdwmHDWMys]{0,2}[ \n]?",
            "\\PC*",
            ".*",
        ]
    }

    /// The number and the unit of a text that is to be taken, told without the parser's means.
    fn meaning(text: &str) -> Option<(u128, char)> {
        let digits = text.trim_end_matches(['h', 'd', 'w', 'm']);
        let unit = match &text[digits.len()..] {
            "" => 'd',
            unit => unit.chars().next().filter(|_| unit.len() == 1)?,
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let significant = digits.trim_start_matches('0');
        let number = if significant.is_empty() {
            0
        } else {
            significant.parse().ok()?
        };
        let in_range = 1..=u128::from(u32::MAX);
        (is_number && in_range.contains(&number)).then_some((number, unit))
    }

    fn keeps() -> impl Strategy<Value = Keep> {
        let units = [Unit::Hours, Unit::Days, Unit::Weeks, Unit::Months];
        let counts = prop_oneof![3 => 1..50_u32, 2 => 1..10_000_u32, 1 => 1..=u32::MAX];
        (counts, prop::sample::select(units.to_vec()))
            .prop_map(|(count, unit)| Keep { count, unit })
    }

    /// Moments of all ages, most of them in this century, by clocks all over the world.
    fn moments() -> impl Strategy<Value = DateTime<FixedOffset>> {
        let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        let ever = first.timestamp()..=last.timestamp();
        let seconds = prop_oneof![4 => 946_684_800..4_102_444_800_i64, 1 => ever];
        (seconds, 0..1_000_000_000_u32, -86_399..=86_399).prop_map(|(second, nano, east)| {
            let offset = FixedOffset::east_opt(east).expect("an offset");
            DateTime::from_timestamp(second, nano)
                .expect("a date")
                .with_timezone(&offset)
        })
    }

    /// Months since the year 0, and what is left of them.
    fn calendar(moment: &DateTime<FixedOffset>) -> (i64, u32, NaiveTime) {
        let local = moment.naive_local();
        (
            i64::from(local.year()) * 12 + i64::from(local.month0()),
            local.day(),
            local.time(),
        )
    }

    proptest! {
        #[test]
        fn a_text_is_taken_if_it_is_a_number_and_a_unit_and_else_refused(text in texts()) {
            let keep = text.parse::<Keep>().ok();
            let taken = keep.map(|keep| {
                let unit = match keep.unit {
                    Unit::Hours => 'h',
                    Unit::Days => 'd',
                    Unit::Weeks => 'w',
                    Unit::Months => 'm',
                };
                (u128::from(keep.count), unit)
            });
            prop_assert_eq!(taken, meaning(&text));
        }

        #[test]
        fn hours_days_and_weeks_are_counted_exactly(keep in keeps(), now in moments()) {
            let hours: i64 = match keep.unit {
                Unit::Hours => 1,
                Unit::Days => 24,
                Unit::Weeks => 7 * 24,
                Unit::Months => return Ok(()),
            };
            let age = TimeDelta::hours(i64::from(keep.count) * hours);
            match keep.cutoff(now) {
                Some(cutoff) => prop_assert_eq!(now.signed_duration_since(cutoff), age),
                // A day is let off, for the calendars of other places.
                None => {
                    let first = DateTime::<Utc>::MIN_UTC + TimeDelta::days(1);
                    prop_assert!(now.signed_duration_since(first) < age);
                }
            }
        }

        #[test]
        fn months_are_the_calendars_and_end_on_their_last_day_at_the_latest(
            count in prop_oneof![0..50_u32, any::<u32>()],
            now in moments(),
        ) {
            let (month, day, time) = calendar(&now);
            let due = month - i64::from(count);
            match (Keep { count, unit: Unit::Months }).cutoff(now) {
                Some(cutoff) => {
                    let (cut_month, cut_day, cut_time) = calendar(&cutoff);
                    prop_assert_eq!((cut_month, cut_time), (due, time));
                    let next_day = cutoff.naive_local().checked_add_days(Days::new(1));
                    let is_last = next_day.is_none_or(|next| next.month0() != cutoff.month0());
                    prop_assert!(cut_day == day || cut_day < day && is_last, "{}", cutoff);
                }
                None => prop_assert!(due <= i64::from(NaiveDate::MIN.year()) * 12 + 12),
            }
        }

        #[test]
        fn who_keeps_longer_deletes_less(keep in keeps(), more: u32, now in moments()) {
            let longer = Keep { count: keep.count.saturating_add(more), ..keep };
            match (keep.cutoff(now), longer.cutoff(now)) {
                (Some(cutoff), Some(earlier)) => prop_assert!(earlier <= cutoff && cutoff <= now),
                (Some(_), None) => {}
                (None, earlier) => prop_assert_eq!(earlier, None),
            }
        }

        #[test]
        fn on_a_later_day_no_less_is_deleted(keep in keeps(), now in moments(), days in 0..4000_u64) {
            let later = now.checked_add_days(Days::new(days));
            let (cutoff, then) = (keep.cutoff(now), later.and_then(|later| keep.cutoff(later)));
            if let (Some(cutoff), Some(_)) = (cutoff, later) {
                prop_assert!(then.is_some_and(|then| then >= cutoff), "{} then {:?}", cutoff, then);
            }
        }
    }
}
