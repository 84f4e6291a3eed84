//! The sessions themselves: what a person does with each program.
//!
//! Rules for a new one: it must look the same every time by itself (no clock, pid, path or address on the screen), wait
//! for what it expects after everything it types, and do enough for many kills to fall into it.

mod batch;
mod calculators;
mod databases;
mod editors;
mod game;
mod interpreters;
mod probes;
mod terminals;
mod trees;

use crate::session::Session;

/// Every session: the real programs first, then the probes of single kernel facts.
pub fn sessions() -> Vec<Session> {
    let mut all = vec![editors::nvi(), editors::vim()];
    all.extend([interpreters::python_repl(), interpreters::python_threads()]);
    all.extend([
        databases::sqlite_memory(),
        databases::sqlite_file(),
        databases::sqlite_wal(),
    ]);
    all.extend([
        calculators::bc(),
        calculators::sc(),
        game::robot_finds_kitten(),
    ]);
    all.extend([interpreters::lua(), interpreters::node()]);
    all.extend([batch::go(), batch::static_musl(), batch::static_glibc()]);
    all.extend([batch::xz(), batch::cc1()]);
    all.extend([
        trees::pipelines(),
        trees::jobs(),
        trees::fifos(),
        trees::make(),
    ]);
    all.extend([trees::git(), trees::python(), trees::python_shared()]);
    all.extend([terminals::script(), terminals::python(), terminals::vim()]);
    all.extend(probes::all());
    all
}

/// The session of this name.
pub fn session(name: &str) -> Option<Session> {
    sessions().into_iter().find(|session| session.name == name)
}
