//! The result of one benchmark: tables, goals, charts, and what to know beside.
//!
//! A report is made once and shown three times: as text for who waits, as JSON
//! for scripts, and as Markdown by [`crate::readme`], which reads the JSON.

use serde_json::{Value, json};

use crate::chart::Chart;

pub struct Report {
    /// Also the name of the JSON file.
    pub name: &'static str,
    pub title: &'static str,
    pub tables: Vec<Table>,
    pub goals: Vec<Goal>,
    pub charts: Vec<Chart>,
    pub pictures: Vec<Picture>,
    pub notes: Vec<String>,
}

/// A drawing that is no chart.
pub struct Picture {
    /// Name of the file, without `.svg`.
    pub file: String,
    pub title: String,
    pub svg: String,
}

pub struct Table {
    pub title: String,
    /// Each with its unit.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
pub enum Cell {
    Text(String),
    /// A figure, and how many of its decimals mean something.
    Figure(f64, usize),
}

/// What targets.md asks for, beside what was measured.
pub struct Goal {
    pub what: String,
    pub unit: &'static str,
    pub at_most: f64,
    /// NaN: could not be measured.
    pub measured: f64,
}

impl Report {
    pub fn new(name: &'static str, title: &'static str) -> Report {
        Report {
            name,
            title,
            tables: Vec::new(),
            goals: Vec::new(),
            charts: Vec::new(),
            pictures: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn goal(&mut self, what: impl Into<String>, at_most: f64, unit: &'static str, got: f64) {
        self.goals.push(Goal {
            what: what.into(),
            unit,
            at_most,
            measured: got,
        });
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n{}\n", self.title, "=".repeat(self.title.len()));
        for table in &self.tables {
            text += &format!("\n{}\n{}", table.title, table.text());
        }
        if !self.goals.is_empty() {
            text += &format!("\nGoals\n{}", self.goal_table().text());
        }
        for note in &self.notes {
            text += &format!("\nNote: {note}\n");
        }
        text
    }

    pub fn to_json(&self, surroundings: &Value, quick: bool) -> Value {
        json!({
            "benchmark": self.name,
            "title": self.title,
            "quick": quick,
            "surroundings": surroundings,
            "tables": self.tables.iter().map(Table::to_json).collect::<Vec<_>>(),
            "goals": self.goals.iter().map(Goal::to_json).collect::<Vec<_>>(),
            "charts": self.drawings().map(|(file, title, _)| {
                json!({"file": format!("{file}.svg"), "title": title})
            }).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// File (without `.svg`), title and text of all that is drawn.
    pub fn drawings(&self) -> impl Iterator<Item = (&str, &str, String)> {
        let charts = self.charts.iter();
        let pictures = self.pictures.iter();
        charts
            .map(|chart| (&*chart.file, &*chart.title, chart.svg()))
            .chain(pictures.map(|it| (&*it.file, &*it.title, it.svg.clone())))
    }

    fn goal_table(&self) -> Table {
        let mut table = Table::new("Goals", &["what", "target", "measured", "verdict"]);
        for goal in &self.goals {
            let amount = |value| format!("{} {}", significant(value), goal.unit);
            table.row([
                Cell::text(&goal.what),
                Cell::text(format!("<= {} {}", goal.at_most, goal.unit)),
                Cell::text(amount(goal.measured)),
                Cell::text(goal.verdict()),
            ]);
        }
        table
    }
}

impl Goal {
    pub fn verdict(&self) -> &'static str {
        if self.measured.is_nan() {
            "not measured"
        } else if self.measured <= self.at_most {
            "reached"
        } else {
            "not reached"
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "unit": self.unit,
            "at_most": self.at_most,
            "measured": self.measured,
            "verdict": self.verdict(),
        })
    }
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Table {
        Table {
            title: title.into(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    /// The first column to the left, figures to the right.
    fn text(&self) -> String {
        let shown: Vec<Vec<String>> = std::iter::once(self.columns.clone())
            .chain(
                self.rows
                    .iter()
                    .map(|row| row.iter().map(Cell::shown).collect()),
            )
            .collect();
        let width = |column: usize| {
            let lengths = shown.iter().map(|row| row[column].chars().count());
            lengths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in shown {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &match column {
                    0 => format!("  {cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    fn to_json(&self) -> Value {
        let cells = |row: &Vec<Cell>| row.iter().map(Cell::to_json).collect::<Vec<_>>();
        json!({
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows.iter().map(cells).collect::<Vec<_>>(),
        })
    }
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    pub fn whole(value: impl TryInto<u64>) -> Cell {
        match value.try_into() {
            Ok(value) => Cell::Figure(value as f64, 0),
            Err(_) => Cell::text("-"),
        }
    }

    fn shown(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Figure(value, decimals) => figure(*value, *decimals),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::Figure(value, decimals) => {
                let scale = 10f64.powi(*decimals as i32);
                json!((value * scale).round() / scale)
            }
        }
    }
}

/// A figure as people read it; what could not be measured is a dash.
pub fn figure(value: f64, decimals: usize) -> String {
    if value.is_finite() {
        format!("{value:.decimals$}")
    } else {
        "-".to_owned()
    }
}

/// As many decimals as three digits need.
pub fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        _ => 4,
    };
    figure(value, decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_says_reached_not_reached_or_not_measured() {
        let mut report = Report::new("x", "X");
        report.goal("a", 5.0, "us", 4.0);
        report.goal("b", 5.0, "us", 6.0);
        report.goal("c", 5.0, "us", f64::NAN);
        let verdicts: Vec<_> = report.goals.iter().map(Goal::verdict).collect();
        assert_eq!(verdicts, ["reached", "not reached", "not measured"]);
        assert!(report.text().contains("<= 5 us"), "{}", report.text());
    }
}
