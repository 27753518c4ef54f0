//! Waiting for a condition with a deadline.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long [`wait_for`] waits: generous, because machines that run tests are noisy.
const PATIENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The result of one look at what is waited for.
pub trait Look {
    /// The thing waited for.
    type Found;

    /// Returns the thing waited for, or a description of what was seen instead.
    fn result(self) -> Result<Self::Found, String>;
}

impl Look for bool {
    type Found = ();

    fn result(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("false".to_owned())
        }
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Look for Result<T, E> {
    type Found = T;

    fn result(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Looks until `look` finds something and returns that.
///
/// `look` returns a `bool`, an `Option<T>`, or a `Result<T, E>` whose error is what was seen
/// instead. After 20 s it panics with `description` and the last thing seen.
#[track_caller]
pub fn wait_for<S: Look>(description: &str, look: impl FnMut() -> S) -> S::Found {
    wait_for_within(PATIENCE, description, look)
}

/// Is [`wait_for`] with another deadline.
#[track_caller]
pub fn wait_for_within<S: Look>(
    patience: Duration,
    description: &str,
    look: impl FnMut() -> S,
) -> S::Found {
    match look_until(patience, look) {
        Ok(found) => found,
        Err(seen) => panic!("waited {patience:?} for {description}; last seen: {seen}"),
    }
}

/// Checks over and over for `duration` that `holds` is true, and panics as soon as it is not.
///
/// For what must not happen, where there is no later event to wait for.
#[track_caller]
pub fn holds_for(description: &str, duration: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < duration {
        assert!(
            holds(),
            "after {:?} it was no longer so: {description}",
            start.elapsed()
        );
        thread::sleep(LONGEST_PAUSE);
    }
}

/// Looks until something is found or `patience` is over; then returns what was seen last.
pub(crate) fn look_until<S: Look>(
    patience: Duration,
    mut look: impl FnMut() -> S,
) -> Result<S::Found, String> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        // The clock is read before the look, so that a slow machine gets one look past the
        // deadline.
        let last = Instant::now() >= deadline;
        match look().result() {
            Ok(found) => return Ok(found),
            Err(seen) if last => return Err(seen),
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_returned_after_as_many_looks_as_it_takes() {
        let mut looks = 0;
        let found = wait_for("the third look", || {
            looks += 1;
            (looks == 3).then_some("found")
        });
        assert_eq!((found, looks), ("found", 3));
    }

    #[test]
    #[should_panic(expected = "for the impossible; last seen: \"a wall\"")]
    fn the_deadline_tells_what_was_waited_for_and_what_was_seen() {
        let look = || Err::<(), _>("a wall");
        wait_for_within(Duration::from_millis(5), "the impossible", look);
    }

    #[test]
    #[should_panic(expected = "no longer so: three looks")]
    fn a_condition_that_ends_too_early_is_noticed() {
        let mut looks = 0;
        holds_for("three looks", Duration::from_secs(20), || {
            looks += 1;
            looks < 3
        });
    }
}
