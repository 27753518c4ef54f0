//! How long to wait before something is tried again. Pure.

use std::time::Duration;

use crate::limits;

/// Delays that double up to a maximum, and are reset.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Between restarts: none, 0.1 s, 0.2 s, 0.4 s ... 30 s.
    pub fn of_restarts() -> Backoff {
        Backoff {
            first: Duration::ZERO,
            max: limits::RESTART_DELAY,
            next: Duration::ZERO,
        }
    }

    /// Between attempts while the system lacks something: 0.1 s, 0.2 s, 0.4 s ... 5 s.
    pub fn of_attempts() -> Backoff {
        Backoff {
            first: limits::FIRST_DELAY,
            max: limits::ATTEMPT_DELAY,
            next: limits::FIRST_DELAY,
        }
    }

    /// The delay before the next attempt. The one after it will be longer.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).clamp(limits::FIRST_DELAY, self.max);
        delay
    }

    /// The delay before the next attempt, which stays the next.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Goes on from a delay that [`Backoff::next`] gave.
    pub fn resume(&mut self, next: Duration) {
        self.next = next.min(self.max);
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(backoff: &mut Backoff, count: usize) -> Vec<u128> {
        (0..count).map(|_| backoff.delay().as_millis()).collect()
    }

    #[test]
    fn restarts_are_spaced_up_to_half_a_minute() {
        let mut backoff = Backoff::of_restarts();
        let spaced = [
            0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000,
        ];
        assert_eq!(delays(&mut backoff, 12), spaced);
        backoff.reset();
        assert_eq!(delays(&mut backoff, 2), [0, 100]);
    }

    #[test]
    fn attempts_are_spaced_up_to_five_seconds() {
        let spaced = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
        assert_eq!(delays(&mut Backoff::of_attempts(), 8), spaced);
    }
}
