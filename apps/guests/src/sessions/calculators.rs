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
    let mut tick = 0;
    // bc has no prompt: a sum of its own after each line says that it was worked off.
    let mut ask = |session: Session, line: &str| {
        tick += 1;
        session
            .send(format!("{line}\n"))
            .send(format!("{tick} + 70000000\n"))
            .expect(format!(r"\r7{tick:07}\r\n"))
    };
    session = ask(
        session,
        "define f(n) { if (n < 2) return (1); return (n * f(n - 1)); }",
    );
    session = ask(
        session,
        "define g(a, b) { while (b) { auto t; t = a % b; a = b; b = t; }; return (a); }",
    );
    session = ask(session, "scale = 40");
    for n in 1..=60 {
        session = ask(session, &format!("f({})", n * 2));
        session = ask(session, &format!("s = s + sqrt({n}) * e({n} / 7); s"));
        session = ask(
            session,
            &format!("a[{n}] = 4 * a({n} / 60); a[{n}] - a[{}]", n / 2),
        );
    }
    session.strike().send("quit\n")
}

pub fn sc() -> Session {
    let mut session = Session::new(
        "sc",
        "the sc sheet: cells, ranges, recalculation",
        Program::Installed("/usr/bin/sc"),
    )
    .args(["sheet.sc"])
    .file("sheet.sc", || b"let A0 = 1\nlet B0 = 2\n".to_vec())
    .screen("A0");
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
        .screen("printed.txt")
        .send("q")
        .screen("(?i)save|modified|changes")
        .send("n")
}
