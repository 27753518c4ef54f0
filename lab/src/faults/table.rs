//! The results as a table in Markdown.

use std::collections::BTreeSet;

use crate::document;
use xtask::steps::{Failure, root};

/// The results of one scenario.
#[derive(Debug, Default, Clone)]
pub struct Row {
    pub name: String,
    pub calls: usize,
    pub names: BTreeSet<String>,
    pub errors: BTreeSet<String>,
    pub done: usize,
    pub refused: usize,
    pub gave_up: usize,
    pub killed: usize,
    pub not_removed: usize,
    pub not_reached: usize,
    pub violations: usize,
}

impl Row {
    fn runs(&self) -> usize {
        let good = self.done + self.refused + self.gave_up + self.killed + self.not_removed;
        good + self.not_reached + self.violations
    }

    fn line(&self) -> String {
        let figures = [
            self.calls,
            self.names.len(),
            self.errors.len(),
            self.runs(),
            self.done,
            self.refused,
            self.gave_up,
            self.killed,
            self.not_removed,
            self.not_reached,
            self.violations,
        ];
        let figures: Vec<String> = figures.iter().map(ToString::to_string).collect();
        format!("| {} | {} |\n", self.name, figures.join(" | "))
    }
}

/// The table, with a line of totals.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "| scenario | calls | distinct | errors | runs | done | refused | gave up \
                    | killed, restarted | not removed | not reached | violations |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let mut total = Row { name: "total".to_owned(), ..Row::default() };
    for row in rows {
        text += &row.line();
        total.calls += row.calls;
        total.names.extend(row.names.iter().cloned());
        total.errors.extend(row.errors.iter().cloned());
        total.done += row.done;
        total.refused += row.refused;
        total.gave_up += row.gave_up;
        total.killed += row.killed;
        total.not_removed += row.not_removed;
        total.not_reached += row.not_reached;
        total.violations += row.violations;
    }
    text + &total.line()
}

/// Writes the table into docs/faults.md.
pub fn write(table: &str) -> Result<(), Failure> {
    document::put(&root().join("docs/faults.md"), "matrix", table)
}
