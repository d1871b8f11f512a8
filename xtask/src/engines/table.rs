//! The table that `cargo xtask engines test` ends with.

use std::fmt;
use std::time::Duration;

/// What became of a case on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Passed(Duration),
    Failed(Duration, String),
    Skipped(String),
    /// It is not meant for that engine; it counts as nothing.
    Absent,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Passed(time) => f.pad(&format!("ok {:.1} s", time.as_secs_f64())),
            Cell::Failed(time, _) => f.pad(&format!("FAILED {:.1} s", time.as_secs_f64())),
            Cell::Skipped(_) => f.pad("skipped"),
            Cell::Absent => f.pad("-"),
        }
    }
}

/// Rows and columns with their names.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
}

impl Results {
    /// How many passed, failed and were skipped.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for cell in self.rows.iter().flat_map(|(_, cells)| cells) {
            match cell {
                Cell::Passed(_) => counts[0] += 1,
                Cell::Failed(..) => counts[1] += 1,
                Cell::Skipped(_) => counts[2] += 1,
                Cell::Absent => {}
            }
        }
        counts
    }

    /// What is said of cells that did not pass, each once with the places that it is true of.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for (row, cells) in &self.rows {
            for (column, cell) in self.columns.iter().zip(cells) {
                let text = match cell {
                    Cell::Failed(_, reason) => format!("FAILED: {reason}"),
                    Cell::Skipped(reason) => format!("skipped: {reason}"),
                    Cell::Passed(_) | Cell::Absent => continue,
                };
                let place = format!("{row} on {column}");
                match reasons.iter_mut().find(|(known, _)| *known == text) {
                    Some((_, places)) => places.push(place),
                    None => reasons.push((text, vec![place])),
                }
            }
        }
        reasons.into_iter().map(|(text, places)| format!("{}: {text}", places.join(", "))).collect()
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first =
            self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max("case".len());
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(at));
                cells.map(|cell| cell.to_string().len()).chain([name.len()]).max().unwrap_or(0)
            })
            .collect();
        write!(f, "{:first$}", "case")?;
        for (name, width) in self.columns.iter().zip(&widths) {
            write!(f, "  {name:width$}")?;
        }
        for (name, cells) in &self.rows {
            write!(f, "\n{name:first$}")?;
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "  {cell:width$}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_a_case_and_says_why_once() {
        let seconds = Duration::from_millis(1240);
        let results = Results {
            columns: vec!["embedded".to_owned(), "spark".to_owned(), "prism".to_owned()],
            rows: vec![
                (
                    "times-five".to_owned(),
                    vec![Cell::Passed(seconds), Cell::Failed(seconds, "no".to_owned()), Cell::Absent],
                ),
                ("b".to_owned(), vec![Cell::Skipped("why".to_owned()); 3]),
            ],
        };
        let lines: Vec<String> = results.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(
            lines,
            [
                "case        embedded  spark         prism",
                "times-five  ok 1.2 s  FAILED 1.2 s  -",
                "b           skipped   skipped       skipped",
            ]
        );
        assert_eq!(results.counts(), [1, 1, 3]);
        assert_eq!(
            results.reasons(),
            ["times-five on spark: FAILED: no", "b on embedded, b on spark, b on prism: skipped: why"]
        );
    }
}
