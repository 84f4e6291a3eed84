//! A curses game whose world comes from a seed: every walk through it looks the same.

use crate::chance::Chance;
use crate::session::{Program, Session};

pub fn robot_finds_kitten() -> Session {
    let mut session = Session::new(
        "robotfindskitten",
        "a curses game, a long walk",
        Program::Installed("/usr/games/robotfindskitten"),
    )
    .args(["-s", "42", "-n", "30", "-f", "things.nki"])
    .file("things.nki", || {
        b"A thing that is not kitten.\n".repeat(100)
    })
    .screen("(?i)press any key")
    .send(" ")
    .screen("^x.*#")
    .send("h".repeat(80))
    .send("k".repeat(24))
    .snapshot("corner");
    // A walk that comes back often: the second line tells what the robot bumps into.
    let mut chance = Chance::new(11);
    for _ in 0..16 {
        for _ in 0..8 {
            let way = ["h", "j", "k", "l", "y", "u", "b", "n"][chance.below(8) as usize];
            session = session.send(way.repeat(1 + chance.below(14) as usize));
        }
        session = session.snapshot("walk");
    }
    session.snapshot("end").strike().send("q")
}
