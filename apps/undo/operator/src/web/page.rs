//! The pages as HTML, with the timeline as a picture in SVG.

use serde_json::Value;
use undo::when;

use super::plain;
use crate::show;

/// What the main page shows.
pub struct Looked {
    pub status: Value,
    pub histogram: Value,
    pub verbs: Value,
    pub said: String,
    pub token: String,
    pub user: String,
    pub subject: String,
    pub kind: String,
}

pub fn main(looked: &Looked) -> String {
    let phase = plain(&looked.status["phase"]);
    let busy = looked.status["progress"]["doing"]
        .as_str()
        .is_some_and(|d| !d.is_empty());
    let refresh = if busy {
        "<meta http-equiv=refresh content=1>"
    } else {
        ""
    };
    let mut body = format!("<h1>The service is {}</h1>", escape(&phase));
    if !looked.said.is_empty() {
        body += &format!("<pre class=said>{}</pre>", escape(&looked.said));
    }
    body += &format!("<pre>{}</pre>", escape(&show::status(&looked.status)));
    body += &picture(&looked.histogram, &looked.status);
    body += &commands(&phase, busy, &looked.token);
    body += &paradoxes(&looked.status);
    body += &verbs(looked, phase == "repairing");
    body += &format!(
        "<form method=post action=/logout>{}<button>Log out</button></form>",
        hidden(&looked.token)
    );
    document("Operator Undo", refresh, &body)
}

fn commands(phase: &str, busy: bool, token: &str) -> String {
    let button = |action: &str, label: &str| {
        format!(
            "<form method=post action=/act>{}<input type=hidden name=do value={action}><button>{label}</button></form>",
            hidden(token)
        )
    };
    let rewind = format!(
        "<form method=post action=/act>{}<input type=hidden name=do value=rewind>\
         <label>Rewind to <input name=to required placeholder='LSN, -10m, 2026-11-29T12:30:00Z'></label> \
         <label>only <input name=only placeholder='everybody'></label><button>Rewind</button></form>",
        hidden(token)
    );
    let buttons = match (phase, busy) {
        ("running", false) => {
            rewind
                + &button("snapshot", "Take a snapshot")
                + &button("undo", "Undo the last cycle")
                + &button("commit", "Declare cycles final")
        }
        ("repairing", false) => {
            button("rehearse", "List the paradoxes to come")
                + &button("replay", "Replay")
                + &button("cancel", "Cancel the cycle")
        }
        ("running", true) => String::new(),
        ("replaying", false) => {
            button("replay", "Replay again") + &button("cancel", "Cancel the cycle")
        }
        _ => button("cancel", "Cancel the cycle"),
    };
    format!("<div class=row>{buttons}</div>")
}

/// The verbs over time as bars, with snapshots below and the point of the rewind as a line.
fn picture(histogram: &Value, status: &Value) -> String {
    let counts: Vec<u64> = histogram["counts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let (first, now) = (
        histogram["first_us"].as_u64().unwrap_or(0),
        histogram["now_us"].as_u64().unwrap_or(1),
    );
    let width = 960.0;
    let at =
        |us: u64| (us.saturating_sub(first)) as f64 / (now - first.min(now)).max(1) as f64 * width;
    let step = width / counts.len().max(1) as f64;
    let mut svg = format!(
        "<svg viewBox='0 0 {width} 130' role=img><title>Verbs from {} to {}</title>",
        when::show(first),
        when::show(now)
    );
    for (n, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (*count as f64 / most as f64 * 90.0).max(1.0);
        svg += &format!(
            "<rect class=bar x='{:.1}' y='{:.1}' width='{:.1}' height='{height:.1}'><title>{count} verbs</title></rect>",
            n as f64 * step,
            95.0 - height,
            (step - 1.0).max(1.0)
        );
    }
    for snapshot in histogram["snapshots"].as_array().into_iter().flatten() {
        let x = at(snapshot["time_us"].as_u64().unwrap_or(0));
        svg += &format!(
            "<path class=snapshot d='M{x:.1} 98l4 8h-8z'><title>snapshot {} at LSN {}</title></path>",
            escape(&plain(&snapshot["name"])),
            snapshot["place"]["lsn"]
        );
    }
    let cycles = status["undoable"].as_array().into_iter().flatten();
    for cycle in cycles
        .chain(std::iter::once(&status["cycle"]))
        .filter(|c| !c.is_null())
    {
        let began = cycle["began_us"].as_u64().unwrap_or(0);
        svg += &format!(
            "<line class=cycle x1='{x:.1}' x2='{x:.1}' y1=0 y2=95><title>cycle {} back to LSN {}</title></line>",
            cycle["epoch"],
            cycle["target"],
            x = at(began)
        );
    }
    let clock = |us: u64| when::show(us)[..19].replace('T', " ");
    svg += &format!(
        "<text x=0 y=125>{}</text><text x={width} y=125 text-anchor=end>{} UTC</text></svg>",
        clock(first),
        clock(now)
    );
    svg
}

fn paradoxes(status: &Value) -> String {
    let last = status["undoable"]
        .as_array()
        .and_then(|cycles| cycles.last());
    let Some(list) = last
        .and_then(|c| c["summary"]["paradoxes"].as_array())
        .filter(|l| !l.is_empty())
    else {
        return String::new();
    };
    let rows: String = list
        .iter()
        .map(|p| {
            row(&[
                &p["lsn"],
                &p["user"],
                &p["verb"],
                &p["what"],
                &p["compensation"],
            ])
        })
        .collect();
    format!(
        "<h2>Paradoxes of the last cycle</h2><table><tr><th>LSN<th>user<th>verb<th>what differs<th>what was done</tr>{rows}</table>"
    )
}

fn verbs(looked: &Looked, may_edit: bool) -> String {
    let mut rows = String::new();
    for verb in looked.verbs.as_array().into_iter().flatten().rev() {
        let cells = row(&[
            &verb["lsn"],
            &verb["time"],
            &verb["state"],
            &verb["user"],
            &verb["line"],
        ]);
        let drop = match may_edit {
            true => format!(
                "<td><form method=post action=/act>{}<input type=hidden name=do value=drop>\
                 <input type=hidden name=to value={}><button>Drop</button></form></tr>",
                hidden(&looked.token),
                verb["lsn"]
            ),
            false => "</tr>".into(),
        };
        rows += &cells.replace("</tr>", &drop);
    }
    format!(
        "<h2>Timeline</h2><form class=row><label>user <input name=user value='{}'></label>\
         <label>subject <input name=subject value='{}'></label><label>verb <input name=kind value='{}'></label>\
         <button>Search</button></form><table><tr><th>LSN<th>time<th>state<th>user<th>verb</tr>{rows}</table>",
        escape(&looked.user),
        escape(&looked.subject),
        escape(&looked.kind)
    )
}

fn row(cells: &[&Value]) -> String {
    let cells: String = cells
        .iter()
        .map(|cell| format!("<td>{}", escape(&plain(cell))))
        .collect();
    format!("<tr>{cells}</tr>")
}

/// What a command came to, in words.
pub fn outcome(action: &str, value: &Value) -> String {
    match action {
        "rewind" => show::rewound(value),
        "replay" | "undo" => show::replayed(value),
        "rehearse" => show::rehearsed(value),
        "drop" => {
            "The verb is out of history; `undo edit back LSN` takes that back before the replay."
                .into()
        }
        _ => format!("{action}: done."),
    }
}

pub fn login(said: &str) -> String {
    let body = format!(
        "<h1>Operator Undo</h1><p>{}</p><form method=post action=/login>\
         <label>Password <input type=password name=password autofocus required></label><button>Log in</button></form>",
        escape(said)
    );
    document("Log in", "", &body)
}

pub fn trouble(error: &str) -> String {
    document(
        "Operator Undo",
        "",
        &format!(
            "<h1>The undo manager does not answer</h1><p>{}</p>",
            escape(error)
        ),
    )
}

fn hidden(token: &str) -> String {
    format!("<input type=hidden name=token value='{}'>", escape(token))
}

fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            '\'' => "&#39;".into(),
            c if c.is_control() && c != '\n' => "\u{fffd}".into(),
            c => c.to_string(),
        })
        .collect()
}

fn document(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>{head}\
         <title>{title}</title><style>\
         body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222}}\
         pre{{white-space:pre-wrap;background:#f4f4f4;padding:.6rem}}.said{{background:#fff3d0}}\
         table{{border-collapse:collapse;width:100%;font-size:13px}}td,th{{text-align:left;padding:.15rem .5rem;border-bottom:1px solid #ddd;overflow-wrap:anywhere}}\
         .row{{display:flex;flex-wrap:wrap;gap:.6rem;margin:.6rem 0}}svg{{width:100%;background:#fafafa}}\
         .bar{{fill:#3572b0}}.snapshot{{fill:#5a8f3c}}.cycle{{stroke:#c0392b;stroke-width:2}}text{{font-size:11px;fill:#555}}\
         </style>{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_never_markup() {
        let evil = "<script>'\"&\u{1b}";
        let verb = serde_json::json!([{ "lsn": 1, "time": "t", "state": "done", "user": evil, "line": evil }]);
        let looked = Looked {
            status: serde_json::json!({ "phase": "repairing", "progress": { "doing": "" } }),
            histogram: serde_json::json!({ "counts": [1, 0, 3], "first_us": 1, "now_us": 9, "snapshots": [{ "name": evil }] }),
            verbs: verb,
            said: evil.into(),
            token: "t".into(),
            user: evil.into(),
            subject: evil.into(),
            kind: evil.into(),
        };
        let html = main(&looked);
        assert!(
            !html.contains("<script") && !html.contains('\u{1b}'),
            "{html}"
        );
        assert_eq!(html.matches("class=bar").count(), 2);
        assert!(html.contains("value=replay") && !html.contains("value=rewind"));
    }
}
