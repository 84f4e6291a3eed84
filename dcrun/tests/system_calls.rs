//! libdc/SYSTEM-CALLS.md and libdc/LIMITS.md are made from the runtime's table of system calls, from what the files of
//! its kernel objects declare (`survives:`), and from what it says when a program meets a limit.
//!
//! `UPDATE=1 cargo test -p dcrun --test system_calls` writes them anew.

#[path = "../build/rows.rs"]
mod rows;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use rows::{name_of_error, rows};

const TABLE: &str = include_str!("../../libdc/runtime/src/table.rs");
const SHAPES: &str = include_str!("../../libdc/runtime/src/log/shapes.rs");

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

fn page() -> String {
    let rows = rows(TABLE);
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
            row.treatment(),
            if row.class == 'N' { "chance" } else { "fixed" },
            yes(is_logged(&row.name)),
            yes(row.restarts),
            row.note.replace('|', "\\|"),
        );
    }
    let count = |what: &str| rows.iter().filter(|row| row.how.starts_with(what)).count();
    let (refused, around, lost) = (count("Refuse"), count("Around"), count("Lost"));
    let _ = writeln!(
        page,
        "\n{} calls: {} kept or passed on, {refused} refused, {around} the machine's own, {lost} not kept, which is said. \
         What that means for programs: [LIMITS.md](LIMITS.md).",
        rows.len(),
        rows.len() - refused - around - lost,
    );
    page
}

/// The files of the runtime, by their paths below its folder.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libdc/runtime/src");
    let (mut folders, mut files) = (vec![root.clone()], Vec::<PathBuf>::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.into_iter().map(read).collect()
}

/// What the head of a file declares of its kind of object: its title, and how it survives.
fn declared(text: &str) -> Option<(String, String)> {
    let mut head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let title = head
        .next()?
        .split(['.', ':', ';'])
        .next()?
        .trim()
        .to_owned();
    let mut head = head.skip_while(|line| !line.trim_start().starts_with("survives:"));
    let mut survives = head
        .next()?
        .trim()
        .strip_prefix("survives:")?
        .trim()
        .to_owned();
    for more in head.take_while(|line| line.starts_with("     ")) {
        survives = format!("{survives} {}", more.trim());
    }
    Some((title, survives))
}

/// The texts of `say!("..")`, as they stand in the source.
fn said(text: &str) -> Vec<String> {
    let one = |after: &str| {
        let begin = after.find('"')?;
        let mut chars = after[begin + 1..].chars();
        let mut said = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next()? {
                    '\n' => chars = chars.as_str().trim_start().chars(),
                    c => said.push(c),
                },
                _ => said.push(c),
            }
        }
        Some(said)
    };
    text.split("say!(").skip(1).filter_map(one).collect()
}

fn limits() -> String {
    let (rows, sources) = (rows(TABLE), sources());
    let mut page = String::from(
        "# Limits\n\n\
         What a program cannot do under dcrun, and what of it does not come back. Made from the declarations of the \
         runtime by `UPDATE=1 cargo test -p dcrun --test system_calls`; [SYSTEM-CALLS.md](SYSTEM-CALLS.md) has every call.\n\n\
         ## Calls that are refused\n\n\
         The program gets the error that an older or a stricter kernel would give, and dcrun says so once.\n\n\
         | call | error | why |\n|---|---|---|\n",
    );
    for row in &rows {
        if let Some(words) = row.words("Refuse") {
            let [error, why] = &words[..] else {
                panic!("{}", row.name)
            };
            let why = if why.is_empty() { &row.note } else { why };
            let _ = writeln!(page, "| {} | {} | {why} |", row.name, name_of_error(error));
        }
    }
    page.push_str(
        "\n## Calls whose effect on the process is not kept\n\n\
         They are made, with a commit before and behind them, and dcrun says so once.\n\n| call | why |\n|---|---|\n",
    );
    for row in &rows {
        if let Some(why) = row.words("Lost") {
            let _ = writeln!(page, "| {} | {} |", row.name, why.join(", "));
        }
    }
    let machine = rows.iter().filter(|row| row.how == "Around");
    let machine: Vec<&str> = machine.map(|row| row.name.as_str()).collect();
    let _ = write!(
        page,
        "\n## Calls that change the machine\n\n\
         {}.\n\nWhat they change is nobody's state to roll back. There is a commit before and behind each; a program that is \
         killed while it makes one makes it again.\n\n\
         ## What each kind of object does at a death\n\n\
         *Warm*: the program died, `dcrun` lives. *Cold*: all died.\n\n| kind | comes back | declared in |\n|---|---|---|\n",
        machine.join(", "),
    );
    for (name, text) in &sources {
        if let Some((title, survives)) = declared(text) {
            let _ = writeln!(page, "| {title} | {survives} | `{name}` |");
        }
    }
    page.push_str(
        "\n## What dcrun says\n\n\
         Each on standard error, once, when a program meets it. Words in braces stand for what it is about.\n\n",
    );
    for (name, text) in &sources {
        // (Texts that only put a reason from the table into words are above.)
        for text in said(text)
            .iter()
            .filter(|_| !["dispatch.rs", "table.rs"].contains(&&**name))
        {
            let _ = writeln!(page, "- {text}");
        }
    }
    page
}

fn is_as_written(name: &str, page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../libdc")
        .join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "libdc/{name} is not what the runtime says; UPDATE=1 cargo test -p dcrun --test system_calls"
    );
}

#[test]
fn the_pages_say_what_the_runtime_says() {
    is_as_written("SYSTEM-CALLS.md", &page());
    is_as_written("LIMITS.md", &limits());
}

#[test]
fn no_call_is_unknown() {
    for row in rows(TABLE) {
        assert_ne!(
            row.how, "Unknown",
            "{} is in no row: read its page of the manual",
            row.name
        );
    }
}

#[test]
fn the_table_is_read_as_it_is_meant() {
    let rows = rows(TABLE);
    assert!(rows.len() > 300, "{}", rows.len());
    let read = &rows[0];
    assert_eq!((read.number, &*read.name, read.restarts), (0, "read", true));
    assert!(is_logged("read") && is_logged("clock_gettime") && !is_logged("fork"));
}
