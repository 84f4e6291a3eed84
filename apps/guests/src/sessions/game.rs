//! A curses game whose world comes from a seed: every walk through it looks the same.

use crate::session::{Program, Session};

pub fn robot_finds_kitten() -> Session {
    let mut session = Session::new(
        "robotfindskitten",
        "a curses game, walked row by row",
        Program::Installed("/usr/games/robotfindskitten"),
    )
    .args(["-s", "42", "-n", "60"])
    .screen("(?i)press any key")
    .send(" ")
    .screen("#");
    let _ = &mut session;
    session
}
