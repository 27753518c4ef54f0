//! Clocks: the time of day as it reads in this place, and time since the
//! machine was started.

use std::mem::MaybeUninit;
use std::ops::Add;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};
use nix::libc;
use nix::time::{ClockId, clock_gettime};

/// A moment of CLOCK_MONOTONIC (see clock_gettime(2)): the same for every process since the machine
/// was started, so that it can be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The present moment.
    pub fn now() -> Moment {
        Moment(read(ClockId::CLOCK_MONOTONIC))
    }

    /// The moment at so many nanoseconds of the clock.
    pub fn from_nanos(nanos: u64) -> Moment {
        Moment(Duration::from_nanos(nanos))
    }

    /// The nanoseconds of the clock at this moment.
    pub fn as_nanos(self) -> u128 {
        self.0.as_nanos()
    }

    /// How long it is from an earlier moment to this one; nothing if that is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// Time since the machine was started, suspended time included (CLOCK_BOOTTIME, see
/// clock_gettime(2)).
pub fn since_boot() -> Duration {
    read(ClockId::CLOCK_BOOTTIME)
}

fn read(clock: ClockId) -> Duration {
    // The call cannot fail for clocks that every Linux since 2.6.39 has.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// The time of day, with the offset that TZ or `/etc/localtime` gives it (see tzset(3)); UTC if
/// there is no valid zone. The C library reads the zone once.
pub fn now() -> DateTime<FixedOffset> {
    let now = Utc::now();
    let mut local = MaybeUninit::uninit();
    // SAFETY: both outlive the call, and nothing here changes the environment meanwhile.
    let is_known = !unsafe { libc::localtime_r(&now.timestamp(), local.as_mut_ptr()) }.is_null();
    let mut offset = 0;
    if is_known {
        // SAFETY: the call succeeded and filled the buffer.
        offset = unsafe { local.assume_init() }.tm_gmtoff;
    }
    let offset = i32::try_from(offset).ok().and_then(FixedOffset::east_opt);
    offset.map_or(now.fixed_offset(), |offset| now.with_timezone(&offset))
}
