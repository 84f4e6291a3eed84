//! bc, which prints line by line, and sc, which paints a sheet.

use crate::session::{Program, Session, Stream};

pub fn bc() -> Session {
    let mut session = Session::new(
        "bc",
        "bc with functions and long numbers",
        Program::Installed("/usr/bin/bc"),
    )
    .args(["-q", "-l"])
    .env("BC_LINE_LENGTH", "70")
    .stream(Stream::Exact);
    // With readline there is no prompt to see, but bracketed paste is switched on for each line.
    const PROMPT: &str = r"\x1b\[\?2004h";
    session = session.expect(PROMPT);
    for line in [
        "define f(n) { if (n < 2) return (1); return (n * f(n - 1)); }",
        "define g(a, b) { auto t; while (b) { t = a % b; a = b; b = t; }; return (a); }",
        "scale = 40",
    ] {
        session = session.line(line, PROMPT);
    }
    for n in 1..=60 {
        session = session
            .line(format!("f({})", n * 2), PROMPT)
            .line(format!("s = s + sqrt({n}) * e({n} / 7); s"), PROMPT)
            .line(
                format!("a[{n}] = 4 * a({n} / 60); a[{n}] - a[{}]", n / 2),
                PROMPT,
            );
    }
    session.strike().send("quit\r")
}

pub fn sc() -> Session {
    let mut session = Session::new(
        "sc",
        "the sc sheet: cells, ranges, recalculation",
        Program::Installed("/usr/bin/sc"),
    )
    .args(["sheet.sc"])
    .file("sheet.sc", || b"let A0 = 1\nlet B0 = 2\n".to_vec())
    .screen(r"1\.00");
    for row in 1..=30 {
        session = session
            .send(format!("gA{row}\n"))
            .send(format!("=A{}+{row}\n", row - 1))
            .send(format!("gB{row}\n=B{}*A{row}%{}\n", row - 1, 1009 + row))
            .send(format!("gC{row}\n<row {row}\n"))
            .screen(format!("^ *{row} .*row {row}\\b"));
        if row % 10 == 0 {
            session = session
                .send("gD0\n=@sum(A0:A30)\n")
                .screen(r"^D0 .*@sum\(A0:A30\)");
        }
    }
    session
        .send("gD1\n=@avg(B0:B30)\n")
        .screen(r"^D1 .*@avg\(B0:B30\)")
        .send("\x0c")
        .snapshot("sheet")
        .strike()
        .send("Psaved.sc\n")
        .screen("saved.sc")
        .send("gA5\n=1000\n")
        .screen(r"^A5 .*1000")
        .snapshot("changed")
        .send("Wprinted.txt\n")
        .send("gA7\n")
        .screen("^A7 ")
        .send("q")
        .screen("(?i)save|modified|changes")
        .send("n")
}
