//! libdc/SYSTEM-CALLS.md is made from the runtime's table of system calls, and says what that says.
//!
//! `UPDATE=1 cargo test -p dcrun --test system_calls` writes it anew.

use std::fmt::Write;
use std::path::Path;

const TABLE: &str = include_str!("../../libdc/runtime/src/table.rs");
const SHAPES: &str = include_str!("../../libdc/runtime/src/log/shapes.rs");

struct Row {
    number: u32,
    name: String,
    how: String,
    class: char,
    restarts: bool,
    note: String,
}

/// The rows, one a line: `r(NUMBER, "NAME", HOW, CLASS, RESTARTS, "NOTE"),`.
fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let inside = line.trim().strip_prefix("r(")?.strip_suffix("),")?;
        let parts = split(inside);
        let [number, name, how, class, restarts, note] = &parts[..] else {
            panic!("a row of {} parts: {line}", parts.len());
        };
        Some(Row {
            number: number.parse().unwrap(),
            name: name.trim_matches('"').to_owned(),
            how: how.clone(),
            class: class.chars().next().unwrap(),
            restarts: restarts == "true",
            note: note.trim_matches('"').to_owned(),
        })
    };
    let mut rows: Vec<Row> = TABLE.lines().filter_map(row).collect();
    rows.sort_by_key(|row| row.number);
    rows
}

/// At the commas outside of quotes and parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        match c {
            ',' if depth == 0 && !quoted => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(c),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

/// Whether the log knows the shape of the call's result.
fn is_logged(name: &str) -> bool {
    let constant = format!("nr::{}", name.to_uppercase());
    let whole = |at: usize| {
        let next = SHAPES[at + constant.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    SHAPES
        .match_indices(&constant)
        .any(|(at, _)| whole(at) && SHAPES[at..].find("=>") < SHAPES[at..].find(';'))
}

fn treatment(how: &str) -> String {
    let within = |how: &str| {
        let inside = how.split_once('(').map_or("", |(_, inside)| inside);
        split(inside.strip_suffix(')').unwrap_or(inside))
    };
    match how {
        "Pass" => "to the kernel".to_owned(),
        "Wait" => "to the kernel; may wait".to_owned(),
        "Unknown" => "committed around on both sides, with a warning".to_owned(),
        _ if how.starts_with("Refuse") => {
            let why = within(how);
            let error = match why[0].as_str() {
                "1" => "EPERM",
                "12" => "ENOMEM",
                "16" => "EBUSY",
                "22" => "EINVAL",
                "38" => "ENOSYS",
                "95" => "EOPNOTSUPP",
                other => panic!("no name for error {other}"),
            };
            match why[1].trim_matches('"') {
                "" => format!("refused ({error})"),
                reason => format!("refused ({error}): {reason}"),
            }
        }
        _ => {
            let inside = within(how).join(", ");
            // A closure is called by what it calls.
            let called = inside.rsplit('|').next().unwrap_or_default().trim();
            format!("`{}`", called.split('(').next().unwrap_or_default())
        }
    }
}

fn page() -> String {
    let rows = rows();
    let mut page = String::from(
        "# System calls\n\n\
         One row for each call of x86-64, made from `libdc/runtime/src/table.rs` by \
         `UPDATE=1 cargo test -p dcrun --test system_calls`.\n\n\
         *Treatment*: the function of the runtime that answers it, or what else happens. \
         *Result*: **fixed** if re-execution gives the same one (or the function says otherwise), else \
         **chance**: a non-deterministic event. *Logged*: the -LOG protocols can keep the result and give it back. \
         *Again*: made again after a handler with SA_RESTART. A number without a row is committed around, loudly.\n\n\
         | nr | call | treatment | result | logged | again | note |\n|---:|---|---|---|---|---|---|\n",
    );
    for row in &rows {
        let yes = |fact| if fact { "yes" } else { "" };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.number,
            row.name,
            treatment(&row.how),
            if row.class == 'N' { "chance" } else { "fixed" },
            yes(is_logged(&row.name)),
            yes(row.restarts),
            row.note.replace('|', "\\|"),
        );
    }
    let count = |what: fn(&Row) -> bool| rows.iter().filter(|row| what(row)).count();
    let _ = writeln!(
        page,
        "\n{} calls: {} kept or passed on, {} refused, {} unknown.",
        rows.len(),
        count(|row| row.how != "Unknown" && !row.how.starts_with("Refuse")),
        count(|row| row.how.starts_with("Refuse")),
        count(|row| row.how == "Unknown"),
    );
    page
}

#[test]
fn the_page_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libdc/SYSTEM-CALLS.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "libdc/SYSTEM-CALLS.md is not what the table says; UPDATE=1 cargo test -p dcrun --test system_calls"
    );
}

#[test]
fn the_table_is_read_as_it_is_meant() {
    let rows = rows();
    assert!(rows.len() > 300, "{}", rows.len());
    let read = &rows[0];
    assert_eq!((read.number, &*read.name, read.restarts), (0, "read", true));
    assert!(is_logged("read") && is_logged("clock_gettime") && !is_logged("fork"));
}
