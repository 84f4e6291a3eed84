//! Records of changes that no file storm shows (file_storm.rs has the others): each is left out
//! of a rollback, and that must come to light.

mod place;

use place::Place;

/// Says when a file was changed last, before it changes it.
const TIME: &str = r#"
import os
os.close(os.open("f", os.O_CREAT | os.O_WRONLY)); os.utime("f", (5, 5))
os.getrandom(4); print("ready", flush=True)
seen = int(os.stat("f").st_mtime)
os.write(os.open("f", os.O_WRONLY | os.O_APPEND), b"x")
os.getrandom(4); print("right" if seen == 5 else "wrong", flush=True)
"#;

/// Raises a semaphore of System V.
const SEMAPHORE: &str = r#"
import ctypes, os
class Step(ctypes.Structure): _fields_ = [("n", ctypes.c_ushort), ("by", ctypes.c_short), ("flags", ctypes.c_short)]
c = ctypes.CDLL(None)
s = c.semget(0, 1, 0o600)
os.getrandom(4); print("ready", flush=True)
c.semop(s, ctypes.byref(Step(0, 1, 0)), 1)
seen = c.semctl(s, 0, 12)
os.getrandom(4); print("right" if seen == 1 else "wrong", flush=True)
c.semctl(s, 0, 0)
"#;

/// What the program says when it dies right before its commit number `nth` is published.
fn said(name: &str, program: &str, nth: u32, plant: Option<&str>) -> String {
    let place = Place::new(&format!("{name}-{nth}-{}", plant.is_some()));
    let mut command = place.python(&[], program);
    command.env("DCRUN_FAULT", format!("before-publish:{nth}"));
    if let Some(plant) = plant {
        command.env("DCRUN_PLANT", plant);
    }
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn is_caught(name: &str, program: &str, plant: &str) {
    let mut caught = 0;
    for nth in 1..=8 {
        assert_eq!(said(name, program, nth, None), "ready\nright\n", "{nth}");
        let planted = said(name, program, nth, Some(plant));
        caught += u32::from(planted != "ready\nright\n");
    }
    assert!(caught > 0, "{plant} was not noticed");
}

#[test]
fn the_time_of_a_file_that_is_not_put_back_is_caught() {
    is_caught("time", TIME, "skip-undo-of-size");
}

#[test]
fn a_change_of_system_v_that_is_not_undone_is_caught() {
    is_caught("semaphore", SEMAPHORE, "skip-undo-of-system-v");
}
