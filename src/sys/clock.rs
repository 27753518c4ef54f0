//! The clock that uptimes are measured with.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was started, suspended time included (CLOCK_BOOTTIME, see
/// clock_gettime(2)).
pub fn since_boot() -> Duration {
    // The call cannot fail for a clock that every Linux since 2.6.39 has.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
