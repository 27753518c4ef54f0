//! The results of a soak: samples, violations, and a table.

use std::fmt::Write as _;
use std::time::Duration;

use super::fleet::Sample;

/// The growth in KiB that one manager's memory may have: some pages of stack and heap are reached
/// late.
const GROWTH: u64 = 32;

/// The growth in KiB that the median and the mean may have.
const MEAN_GROWTH: u64 = 16;

/// All managers at one moment.
pub struct Point {
    /// Seconds since the start.
    pub at: f64,
    /// Descriptors of each manager, sorted.
    pub descriptors: Vec<usize>,
    /// Private dirty memory of each manager in KiB, sorted.
    pub dirty: Vec<u64>,
    /// The sum of their proportional memory in KiB.
    pub proportional: u64,
    pub zombies: usize,
    pub old_logs: usize,
}

#[derive(Default)]
pub struct Record {
    pub points: Vec<Point>,
    pub violations: Vec<String>,
    pub restarts: usize,
    pub signals: usize,
}

impl Record {
    /// Adds a sample.
    pub fn add(&mut self, since_start: Duration, sample: Sample) {
        let Sample {
            mut descriptors,
            memory,
            zombies,
            old_logs,
            violations,
        } = sample;
        let mut dirty: Vec<u64> = memory.iter().map(|memory| memory.private_dirty).collect();
        descriptors.sort_unstable();
        dirty.sort_unstable();
        let proportional = memory.iter().map(|memory| memory.proportional).sum();
        let at = since_start.as_secs_f64();
        self.points.push(Point {
            at,
            descriptors,
            dirty,
            proportional,
            zombies,
            old_logs,
        });
        self.violations.extend(violations);
    }

    /// The points after the first tenth, when every manager has restarted its server.
    fn compared(&self) -> &[Point] {
        &self.points[(self.points.len() / 10).min(self.points.len().saturating_sub(1))..]
    }

    /// All violations, with those of growth.
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.violations.clone();
        let compared = self.compared();
        let (Some(first), Some(last)) = (compared.first(), compared.last()) else {
            violations.push("nothing was sampled".to_owned());
            return violations;
        };
        if median(&last.descriptors) > median(&first.descriptors) {
            violations.push("descriptors have grown".to_owned());
        }
        // The start of a child needs two for a moment.
        if max(&last.descriptors) > max(&first.descriptors) + 2 {
            violations.push("the descriptors of a manager have grown".to_owned());
        }
        if max(&last.dirty) > max(&first.dirty) + GROWTH {
            violations.push("the memory of a manager has grown".to_owned());
        }
        if median(&last.dirty) > median(&first.dirty) + MEAN_GROWTH {
            violations.push("the memory of most managers has grown".to_owned());
        }
        let managers = last.dirty.len().max(1) as u64;
        if last.proportional > first.proportional + MEAN_GROWTH * managers {
            violations.push("the managers' share of memory has grown".to_owned());
        }
        // Each sample makes all of them expire, so that only newer ones may exist.
        if last.old_logs > first.old_logs + last.dirty.len() {
            violations.push("old logs have not been deleted".to_owned());
        }
        violations
    }

    /// The table, in Markdown.
    pub fn table(&self, managers: usize) -> String {
        let compared = self.compared();
        let (Some(first), Some(last)) = (compared.first(), compared.last()) else {
            return String::from("nothing was sampled\n");
        };
        let minutes = last.at / 60.0;
        let most = |of: fn(&Point) -> usize| compared.iter().map(of).max().unwrap_or(0);
        let mut table = format!(
            "{managers} managers, {minutes:.1} minutes, {} signals, {} restarts, {} violations.\n\n",
            self.signals,
            self.restarts,
            self.violations().len()
        );
        let mut row = |name: &str, first: String, last: String| {
            // Writing to a String does not fail.
            let _ = writeln!(table, "| {name} | {first} | {last} |");
        };
        row(
            "of each manager",
            "after the first tenth".into(),
            "at the end".into(),
        );
        row("---", "---".into(), "---".into());
        let count = |of: &[usize]| format!("{} / {} / {}", min(of), median(of), max(of));
        let kib = |of: &[u64]| format!("{} / {} / {}", min(of), median(of), max(of));
        let descriptors = "descriptors (least / median / most)";
        row(
            descriptors,
            count(&first.descriptors),
            count(&last.descriptors),
        );
        row(
            "private dirty memory in KiB (the same)",
            kib(&first.dirty),
            kib(&last.dirty),
        );
        let share = |point: &Point| (point.proportional / managers.max(1) as u64).to_string();
        row(
            "proportional share of memory in KiB (mean)",
            share(first),
            share(last),
        );
        row(
            "old logs of all",
            first.old_logs.to_string(),
            last.old_logs.to_string(),
        );
        let _ = writeln!(
            table,
            "\nAt no moment more than {} zombies and {} old logs in all.",
            most(|point| point.zombies),
            most(|point| point.old_logs)
        );
        table
    }
}

fn min<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.first().copied().unwrap_or_default()
}

/// The largest value, or the default.
pub fn max<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.last().copied().unwrap_or_default()
}

/// The median, or the default.
pub fn median<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: f64, descriptors: usize, dirty: u64, old_logs: usize) -> Point {
        let (descriptors, dirty) = (vec![descriptors; 3], vec![dirty; 3]);
        Point {
            at,
            descriptors,
            proportional: 3 * dirty[0],
            dirty,
            zombies: 0,
            old_logs,
        }
    }

    fn violations(last: Point) -> Vec<String> {
        Record {
            points: vec![point(0.0, 10, 128, 5), last],
            ..Record::default()
        }
        .violations()
    }

    #[test]
    fn little_growth_is_no_violation() {
        assert_eq!(violations(point(9.0, 10, 136, 8)), Vec::<String>::new());
    }

    #[test]
    fn more_growth_is_a_violation() {
        assert_eq!(
            violations(point(9.0, 11, 128, 5)),
            ["descriptors have grown"]
        );
        assert_eq!(
            violations(point(9.0, 10, 128, 9)),
            ["old logs have not been deleted"]
        );
        let memory = violations(point(9.0, 10, 145, 5));
        assert_eq!(memory.len(), 2, "{memory:?}");
        assert_eq!(violations(point(9.0, 10, 161, 5)).len(), 3);
    }
}
