//! sqlite3 in memory, and on a file that is killed inside an open transaction.

use crate::session::{Program, Session, Stream};

const PROMPT: &str = r"sqlite> ";

fn sqlite(name: &'static str, about: &'static str) -> Session {
    Session::new(name, about, Program::Installed("/usr/bin/sqlite3")).stream(Stream::Exact)
}

pub fn sqlite_memory() -> Session {
    let mut session = sqlite("sqlite-memory", "sqlite3 with a database in memory")
        .args(["-batch", "-interactive", ":memory:"])
        .expect(PROMPT)
        .line(
            "create table t(id integer primary key, name text, x real);",
            PROMPT,
        )
        .line("create index by_name on t(name);", PROMPT);
    for round in 1..=40 {
        let first = round * 200;
        session = session
            .line(
                format!(
                    "with recursive n(i) as (select {first} union all select i+1 from n where i<{}) \
                     insert into t select i, printf('name-%05d', i*7919%10007), i/7.0 from n;",
                    first + 199
                ),
                PROMPT,
            )
            .line("select count(*), sum(id), round(total(x),3), max(name) from t;", r"\|[^\n]*\n.*sqlite> ")
            .line(format!("update t set x = x * 2 where id % {} = 0;", round % 7 + 2), PROMPT)
            .line("select name, id from t order by name limit 3;", r"(name-.*\n.*){3}sqlite> ");
    }
    session
        .line("delete from t where id % 3 = 0;", PROMPT)
        .strike()
        .line(
            "select count(*) from t as a join t as b on a.id = b.id + 1;",
            r"\r\d+\r\n.*sqlite> ",
        )
        .line(".backup saved.db", PROMPT)
        .send(".exit\r")
}

pub fn sqlite_file() -> Session {
    on_a_file(
        "sqlite-file",
        "sqlite3 on a file, killed inside transactions",
        ("pragma cache_size = 20;", PROMPT),
    )
}

/// The index of the log lies in a file that is mapped and stored into.
pub fn sqlite_wal() -> Session {
    on_a_file(
        "sqlite-wal",
        "sqlite3 with a write-ahead log, killed inside transactions",
        ("pragma journal_mode = wal;", r"wal\r\n.*sqlite> "),
    )
}

fn on_a_file(name: &'static str, about: &'static str, begin: (&str, &str)) -> Session {
    let mut session = sqlite(name, about)
        .args(["-batch", "-interactive", "file.db"])
        .expect(PROMPT)
        .line(begin.0, begin.1)
        .line("create table t(id integer primary key, v text);", PROMPT);
    for round in 1..=20 {
        let first = round * 100;
        let end = if round % 4 == 0 {
            "rollback;"
        } else {
            "commit;"
        };
        session = session
            .line("begin;", PROMPT)
            .line(
                format!(
                    "with recursive n(i) as (select {first} union all select i+1 from n where i<{}) \
                     insert into t select i, hex(zeroblob(i % 300)) from n;",
                    first + 99
                ),
                PROMPT,
            )
            .strike()
            .line(format!("update t set v = v || '{round}' where id % 5 = {};", round % 5), PROMPT)
            .line(format!("delete from t where id % 17 = {};", round % 17), PROMPT)
            .strike()
            .line("select count(*), sum(length(v)) from t;", r"\d+\|\d+\r\n.*sqlite> ")
            .line(end, PROMPT)
            .line("select count(*), sum(length(v)) from t;", r"\d+\|\d+\r\n.*sqlite> ");
    }
    session
        .line(".output dump.sql", PROMPT)
        .line(".dump", PROMPT)
        .line(".output", PROMPT)
        .line("pragma integrity_check;", r"ok\r\n.*sqlite> ")
        .send(".exit\r")
}
