//! `benches/results/README.md`, made from the JSON files beside it.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Doing, Outcome};
use crate::report::significant;

/// In the order of the text.
const NAMES: [&str; 11] = [
    "commit",
    "interval",
    "calls",
    "startup",
    "recovery",
    "replay",
    "rio-growth",
    "protocols",
    "typing",
    "tree",
    "peers",
];

pub fn write(directory: &Path) -> Outcome<()> {
    let mut results = Vec::new();
    for name in NAMES {
        let file = directory.join(format!("{name}.json"));
        let Ok(text) = std::fs::read(&file) else {
            continue;
        };
        let value: Value =
            serde_json::from_slice(&text).doing(|| format!("read {}", file.display()))?;
        results.push(value);
    }
    let file = directory.join("README.md");
    std::fs::write(&file, markdown(&results)).doing(|| format!("write {}", file.display()))
}

fn markdown(results: &[Value]) -> String {
    let mut text = String::from(
        "# Results\n\nWritten by `scripts/bench`; do not edit. Native and hosted runs alternate within one \
         benchmark; what is compared was measured in one run.\n\n",
    );
    if let Some(first) = results.first() {
        text += &machine(&first["surroundings"]);
    }
    text +=
        "## Goals\n\n| benchmark | what | target | measured | verdict |\n|---|---|---|---|---|\n";
    for result in results {
        for goal in list(&result["goals"]) {
            let unit = word(&goal["unit"]);
            let measured = goal["measured"].as_f64().unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "| {} | {} | <= {} {unit} | {} {unit} | {} |",
                word(&result["benchmark"]),
                word(&goal["what"]),
                goal["at_most"],
                significant(measured),
                word(&goal["verdict"])
            );
        }
    }
    for result in results {
        text += &section(result);
    }
    text
}

fn machine(surroundings: &Value) -> String {
    format!(
        "{} cores of {}, {} MB, Linux {}, huge pages: {}.\n\n",
        surroundings["cores"],
        word(&surroundings["processor"]),
        surroundings["memory_mb"],
        word(&surroundings["kernel"]),
        word(&surroundings["huge_pages"])
    )
}

fn section(result: &Value) -> String {
    let mut text = format!("\n## {}\n\n", word(&result["title"]));
    let _ = writeln!(
        text,
        "Load of the machine when it began: {}{}.",
        result["surroundings"]["load"],
        if result["quick"] == true {
            "; a quick run, to see that it works, not how fast it is"
        } else {
            ""
        }
    );
    for table in list(&result["tables"]) {
        let _ = writeln!(text, "\n{}\n", word(&table["title"]));
        let columns: Vec<String> = list(&table["columns"]).map(word).collect();
        text += &row(&columns);
        text += &row(&vec!["---".to_owned(); columns.len()]);
        for cells in list(&table["rows"]) {
            text += &row(&list(cells).map(word).collect::<Vec<_>>());
        }
    }
    for note in list(&result["notes"]) {
        let _ = writeln!(text, "\n{}", word(note));
    }
    for chart in list(&result["charts"]) {
        let _ = writeln!(
            text,
            "\n![{}]({})",
            word(&chart["title"]),
            word(&chart["file"])
        );
    }
    text
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('|', "\\|"),
        Value::Null => "-".to_owned(),
        other => {
            let text = other.to_string();
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_stand_first_and_tables_follow() {
        let text = markdown(&[json!({
            "benchmark": "commit", "title": "Commit", "quick": false,
            "surroundings": {"load": 0.1, "cores": 2},
            "tables": [{"title": "T", "columns": ["pages", "us"], "rows": [[1, 5.5], [2, null]]}],
            "goals": [{"what": "w", "unit": "us", "at_most": 5.0, "measured": 6.0,
                       "verdict": "not reached"}],
            "charts": [], "notes": [],
        })]);
        assert!(
            text.contains("| commit | w | <= 5.0 us | 6.00 us | not reached |"),
            "{text}"
        );
        assert!(text.contains("| 1 | 5.5 |\n| 2 | - |"), "{text}");
    }
}
