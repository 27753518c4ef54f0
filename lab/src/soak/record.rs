//! What a soak has shown: the samples, the judgement and the table.

use std::fmt::Write as _;
use std::time::Duration;

use super::fleet::Look;

/// A manager's memory may grow by so much, in KiB: stack and heap reach pages late that they always
/// needed.
const GROWTH: u64 = 32;

/// That of most managers, or of the mean one, by so much.
const MEAN_GROWTH: u64 = 16;

/// One look at all managers.
pub struct Point {
    /// Since the start, in seconds.
    pub at: f64,
    /// Descriptors of each manager, sorted.
    pub descriptors: Vec<usize>,
    /// Private dirty memory of each manager in KiB, sorted.
    pub dirty: Vec<u64>,
    /// Proportional share of memory of all, in KiB.
    pub proportional: u64,
    pub zombies: usize,
    pub files: usize,
}

/// Everything that was seen.
#[derive(Default)]
pub struct Record {
    pub points: Vec<Point>,
    pub violations: Vec<String>,
    pub restarts: usize,
    pub acts: usize,
}

impl Record {
    /// Adds a look.
    pub fn add(&mut self, at: Duration, look: Look) {
        let mut descriptors: Vec<_> = look.holdings.iter().map(|it| it.descriptors).collect();
        let mut dirty: Vec<_> = look.holdings.iter().map(|it| it.private_dirty).collect();
        descriptors.sort_unstable();
        dirty.sort_unstable();
        let proportional = look.holdings.iter().map(|it| it.proportional).sum();
        let (zombies, files) = (look.zombies, look.files);
        let at = at.as_secs_f64();
        self.points.push(Point { at, descriptors, dirty, proportional, zombies, files });
        self.violations.extend(look.violations);
    }

    /// The points after the first tenth: by then every manager has restarted.
    fn settled(&self) -> &[Point] {
        &self.points[(self.points.len() / 10).min(self.points.len().saturating_sub(1))..]
    }

    /// Everything that was wrong, what did not stay flat included.
    pub fn judged(&self) -> Vec<String> {
        let mut wrong = self.violations.clone();
        let settled = self.settled();
        let (Some(first), Some(last)) = (settled.first(), settled.last()) else {
            wrong.push("nothing was sampled".to_owned());
            return wrong;
        };
        if median(&last.descriptors) > median(&first.descriptors) {
            wrong.push("descriptors have grown".to_owned());
        }
        // Starting a child takes two for a moment.
        if max(&last.descriptors) > max(&first.descriptors) + 2 {
            wrong.push("the descriptors of a manager have grown".to_owned());
        }
        if max(&last.dirty) > max(&first.dirty) + GROWTH {
            wrong.push("the memory of a manager has grown".to_owned());
        }
        if median(&last.dirty) > median(&first.dirty) + MEAN_GROWTH {
            wrong.push("the memory of most managers has grown".to_owned());
        }
        let managers = last.dirty.len().max(1) as u64;
        if last.proportional > first.proportional + MEAN_GROWTH * managers {
            wrong.push("the managers' share of memory has grown".to_owned());
        }
        // All were aged at each look: what there is has come since.
        if last.files > first.files + last.dirty.len() {
            wrong.push("old logs have piled up".to_owned());
        }
        wrong
    }

    /// The table, in Markdown.
    pub fn table(&self, managers: usize) -> String {
        let settled = self.settled();
        let (Some(first), Some(last)) = (settled.first(), settled.last()) else {
            return String::from("nothing was sampled\n");
        };
        let minutes = last.at / 60.0;
        let most = |of: fn(&Point) -> usize| settled.iter().map(of).max().unwrap_or(0);
        let mut table = format!(
            "{managers} managers, {minutes:.1} minutes, {} acts upon them, {} restarts, \
             {} violations.\n\n",
            self.acts,
            self.restarts,
            self.judged().len()
        );
        let mut row = |name: &str, begin: String, end: String| {
            // Writing to memory does not fail.
            let _ = writeln!(table, "| {name} | {begin} | {end} |");
        };
        row("of each manager", "after the first tenth".into(), "at the end".into());
        row("---", "---".into(), "---".into());
        let spread = |of: &[usize]| format!("{} / {} / {}", min(of), median(of), max(of));
        let kib = |of: &[u64]| format!("{} / {} / {}", min(of), median(of), max(of));
        let descriptors = "descriptors (least / median / most)";
        row(descriptors, spread(&first.descriptors), spread(&last.descriptors));
        row("private dirty memory in KiB (likewise)", kib(&first.dirty), kib(&last.dirty));
        let share = |point: &Point| (point.proportional / managers.max(1) as u64).to_string();
        row("proportional share of memory in KiB (mean)", share(first), share(last));
        let rotated = |point: &Point| point.files.to_string();
        row("old logs of all", rotated(first), rotated(last));
        let _ = writeln!(
            table,
            "\nAt no moment more than {} zombies and {} old logs in all.",
            most(|point| point.zombies),
            most(|point| point.files)
        );
        table
    }
}

fn min<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.first().copied().unwrap_or_default()
}

fn max<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.last().copied().unwrap_or_default()
}

fn median<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: f64, descriptors: usize, dirty: u64, files: usize) -> Point {
        let (descriptors, dirty) = (vec![descriptors; 3], vec![dirty; 3]);
        Point { at, descriptors, proportional: 3 * dirty[0], dirty, zombies: 0, files }
    }

    fn judged(last: Point) -> Vec<String> {
        Record { points: vec![point(0.0, 10, 128, 5), last], ..Record::default() }.judged()
    }

    #[test]
    fn what_stays_flat_is_no_violation() {
        assert_eq!(judged(point(9.0, 10, 136, 8)), Vec::<String>::new());
    }

    #[test]
    fn all_that_grows_is_a_violation() {
        assert_eq!(judged(point(9.0, 11, 128, 5)), ["descriptors have grown"]);
        assert_eq!(judged(point(9.0, 10, 128, 9)), ["old logs have piled up"]);
        let memory = judged(point(9.0, 10, 145, 5));
        assert_eq!(memory.len(), 2, "{memory:?}");
        assert_eq!(judged(point(9.0, 10, 161, 5)).len(), 3);
    }
}
