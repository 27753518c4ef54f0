//! Medians, quartiles and tables.

use std::fmt;

/// Measurements of one kind, sorted.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn add(&mut self, figure: f64) {
        let index = self.0.partition_point(|other| *other < figure);
        self.0.insert(index, figure);
    }

    pub fn median(&self) -> Option<f64> {
        self.0.get(self.0.len() / 2).copied()
    }
}

impl fmt::Display for Figures {
    /// The median and the quartiles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: usize| self.0.get(self.0.len() * part / 4).copied();
        match (at(2), at(1), at(3)) {
            (Some(median), Some(low), Some(high)) => {
                write!(f, "{median:.2} ({low:.2}-{high:.2})")
            }
            _ => f.write_str("not available"),
        }
    }
}

/// A table in Markdown.
pub struct Table {
    title: String,
    lines: Vec<String>,
    note: &'static str,
}

impl Table {
    pub fn new(title: &str, columns: &[&str]) -> Table {
        let head = format!("| {} |", columns.join(" | "));
        let line = format!("|{}", "---|".repeat(columns.len()));
        Table {
            title: title.to_owned(),
            lines: vec![head, line],
            note: "",
        }
    }

    /// Sets the text below the table.
    pub fn note(&mut self, note: &'static str) {
        self.note = note;
    }

    pub fn row(&mut self, cells: &[String]) {
        self.lines.push(format!("| {} |", cells.join(" | ")));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n\n{}\n", self.title, self.lines.join("\n"))?;
        if self.note.is_empty() {
            Ok(())
        } else {
            writeln!(f, "{}\n", self.note)
        }
    }
}
