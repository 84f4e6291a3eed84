//! Answers of the manager in words.

use serde_json::Value;
use undo::when;

pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn text(value: &Value) -> String {
    // Subjects come from outside; a terminal must not obey them.
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn time(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), when::show)
}

pub fn status(state: &Value) -> String {
    let mut out = format!(
        "The service is {}. The timeline ends with LSN {}.\n\
         timeline {:.1} MB, {} snapshots ({}), {} verbs running, {} waiting, {} arrivals queued, {} failing\n",
        text(&state["phase"]),
        state["last_lsn"],
        state["timeline_bytes"].as_f64().unwrap_or(0.0) / 1e6,
        state["snapshots"],
        text(&state["storage"]),
        state["verbs_running"],
        state["verbs_waiting"],
        state["arrivals_queued"],
        state["arrivals_failed"],
    );
    let cycle = &state["cycle"];
    if !cycle.is_null() {
        out += &format!(
            "Cycle {} began {}, from LSN {} back to {}.\n",
            cycle["epoch"],
            time(&cycle["began_us"]),
            cycle["head"],
            cycle["target"]
        );
        if let Some(note) = cycle["note"].as_str() {
            out += &format!("{note}.\n");
        }
        if let Some(scope) = cycle["scope"].as_str() {
            out += &format!("It is limited to {scope}.\n");
        }
    }
    let progress = &state["progress"];
    if progress["doing"].as_str().is_some_and(|d| !d.is_empty()) {
        out += &format!("Under way: {}\n", bar(progress));
    }
    if let Some(failure) = progress["failure"].as_str() {
        out += &format!("The last command failed: {failure}\n");
    }
    for cycle in state["undoable"].as_array().into_iter().flatten() {
        out += &format!(
            "Can be undone: cycle {}, back to LSN {}, ended {}, {} verbs, {} paradoxes\n",
            cycle["epoch"],
            cycle["target"],
            time(&cycle["ended_us"]),
            cycle["summary"]["replayed"],
            cycle["summary"]["paradoxes"].as_array().map_or(0, Vec::len)
        );
    }
    out
}

/// One line: what is done, how far it is, and how long it will take.
pub fn bar(progress: &Value) -> String {
    let (done, total) = (
        progress["done"].as_u64().unwrap_or(0),
        progress["total"].as_u64().unwrap_or(0),
    );
    let mut line = text(&progress["doing"]);
    if let Some(filled) = (done * 30).checked_div(total) {
        let filled = filled.min(30) as usize;
        line += &format!(
            " [{}{}] {done}/{total}",
            "#".repeat(filled),
            ".".repeat(30 - filled)
        );
        if let Some(left) = progress["seconds_left"].as_f64() {
            line += &format!(", {left:.0} s left");
        }
    }
    match progress["paradoxes"].as_u64() {
        Some(n) if n > 0 => line + &format!(", {n} paradoxes"),
        _ => line,
    }
}

pub fn timeline(verbs: &Value) -> String {
    let mut out = String::new();
    for verb in verbs.as_array().into_iter().flatten() {
        let why = verb["why"]
            .as_str()
            .map(|w| format!(" ({w})"))
            .unwrap_or_default();
        out += &format!(
            "{:>8}  {}  {:<8} {:<20} {}{}\n",
            verb["lsn"].to_string(),
            text(&verb["time"]),
            text(&verb["state"]),
            text(&verb["user"]),
            text(&verb["line"]),
            why
        );
    }
    if out.is_empty() {
        "No verb matches.\n".into()
    } else {
        out
    }
}

pub fn snapshots(list: &Value) -> String {
    list.as_array()
        .into_iter()
        .flatten()
        .map(snapshot)
        .collect()
}

pub fn snapshot(snapshot: &Value) -> String {
    let held = if snapshot["held"] == true {
        "  held for undo"
    } else {
        ""
    };
    let place = &snapshot["place"]["lsn"];
    format!(
        "{:>8}  {}  {}{held}\n",
        place.to_string(),
        time(&snapshot["time_us"]),
        text(&snapshot["name"])
    )
}

pub fn rewound(cycle: &Value) -> String {
    let note = cycle["note"]
        .as_str()
        .map(|note| format!("Note: {note}.\n"))
        .unwrap_or_default();
    format!(
        "{note}The service is at LSN {} now (it was at {}). Repair it, then `undo replay`; or `undo cancel`.\n",
        cycle["target"], cycle["head"]
    )
}

pub fn replayed(summary: &Value) -> String {
    format!("The service is in the present again. {}", counted(summary))
}

pub fn rehearsed(summary: &Value) -> String {
    format!(
        "A replay would come to this; the state is as before. {}",
        counted(summary)
    )
}

fn counted(summary: &Value) -> String {
    let paradoxes = summary["paradoxes"].as_array().cloned().unwrap_or_default();
    let seconds = summary["seconds"].as_f64().unwrap_or(0.0);
    let replayed = summary["replayed"].as_f64().unwrap_or(0.0);
    let mut out = format!(
        "{replayed} verbs in {seconds:.2} s ({:.0} a second), {} paradoxes, {} verbs squashed.\n",
        replayed / seconds.max(1e-9),
        paradoxes.len(),
        summary["squashed"]
    );
    for p in paradoxes {
        out += &format!(
            "  LSN {} {}: {} -> {} [{}]\n",
            p["lsn"],
            text(&p["user"]),
            text(&p["what"]),
            text(&p["compensation"]),
            text(&p["verb"])
        );
    }
    out
}
