//! The clock on the wall, as it reads in this place.

use std::mem::MaybeUninit;

use chrono::{DateTime, FixedOffset, Utc};
use nix::libc;

/// The time of day, with the offset that TZ or `/etc/localtime` gives it (see tzset(3)); UTC where
/// that is none. The C library reads the zone once, and takes no file for one that is none.
pub fn now() -> DateTime<FixedOffset> {
    let now = Utc::now();
    let mut local = MaybeUninit::uninit();
    // SAFETY: both outlive the call, and nothing here changes the environment meanwhile.
    let is_known = !unsafe { libc::localtime_r(&now.timestamp(), local.as_mut_ptr()) }.is_null();
    // SAFETY: the call succeeded and filled the buffer.
    let offset = if is_known { unsafe { local.assume_init() }.tm_gmtoff } else { 0 };
    let offset = i32::try_from(offset).ok().and_then(FixedOffset::east_opt);
    offset.map_or(now.fixed_offset(), |offset| now.with_timezone(&offset))
}
