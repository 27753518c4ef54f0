//! The results as a table in Markdown.

use std::collections::BTreeSet;

use xtask::steps::{Failure, root};

use crate::document;

/// The outcomes as runs print them, in the order of the columns. The last one is a violation.
const OUTCOMES: [&str; 7] = [
    "done",
    "refused",
    "gave-up",
    "killed",
    "not-removed",
    "not-reached",
    "violation",
];
const VIOLATION: usize = OUTCOMES.len() - 1;

/// The results of one scenario.
#[derive(Debug, Default, Clone)]
pub struct Row {
    pub name: String,
    pub calls: usize,
    pub names: BTreeSet<String>,
    pub errors: BTreeSet<String>,
    pub counts: [usize; OUTCOMES.len()],
}

impl Row {
    /// Counts an outcome. Returns whether it is a violation, as every unknown one is.
    pub fn count(&mut self, outcome: &str) -> bool {
        let known = OUTCOMES.iter().position(|known| *known == outcome);
        let column = known.unwrap_or(VIOLATION);
        self.counts[column] += 1;
        column == VIOLATION
    }

    pub fn violations(&self) -> usize {
        self.counts[VIOLATION]
    }

    fn line(&self) -> String {
        let runs = self.counts.iter().sum();
        let figures = [self.calls, self.names.len(), self.errors.len(), runs];
        let cells = figures.iter().chain(&self.counts).map(ToString::to_string);
        format!(
            "| {} | {} |\n",
            self.name,
            cells.collect::<Vec<_>>().join(" | ")
        )
    }
}

/// The table, with a line of totals.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "| scenario | calls | distinct | errors | runs | done | refused | gave up \
                    | killed, restarted | not removed | not reached | violations |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let mut total = Row {
        name: "total".to_owned(),
        ..Row::default()
    };
    for row in rows {
        text += &row.line();
        total.calls += row.calls;
        total.names.extend(row.names.iter().cloned());
        total.errors.extend(row.errors.iter().cloned());
        total
            .counts
            .iter_mut()
            .zip(row.counts)
            .for_each(|(total, count)| *total += count);
    }
    text + &total.line()
}

/// Writes the table into docs/faults.md.
pub fn write(table: &str) -> Result<(), Failure> {
    document::put(&root().join("docs/faults.md"), "matrix", table)
}
