//! Records that are damaged, crafted, or merely odd: every command says so or does what it is for;
//! none removes, changes or ends anything else, and none dies over it.

mod hostile;
mod place;
mod stand_in;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dc_image::header::checksum;
use hostile::{damaged, numbers};
use place::Place;
use serde_json::{Value, json};
use stand_in::{State, finish};

const ALL: [&str; 7] = [
    "ps",
    "ps --json",
    "stats r",
    "stats r --json",
    "kill r",
    "resume r",
    "--rio disk --name r /bin/true commit fatal exit:5",
];

/// Neither killed nor panicked, and nothing but text to the terminal.
fn sound(output: &Output, what: &str) -> i32 {
    let status = output.status.code();
    let status = status.unwrap_or_else(|| panic!("{what}: {output:?}"));
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("panicked"), "{what}: {text}");
        let printable = |c: char| c == '\n' || !c.is_control();
        assert!(text.chars().all(printable), "{what}: {text:?}");
    }
    status
}

/// Puts the sum of a whole record over a changed one.
fn sealed(mut value: Value) -> String {
    value.as_object_mut().unwrap().remove("sum");
    let sum = format!("{:016x}", checksum(value.to_string().as_bytes()));
    value["sum"] = sum.into();
    value.to_string()
}

/// All files below, but for the lock, in which each command leaves its pid.
fn files(top: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if !path.ends_with("keeper.pid") {
            let small = about.is_file() && about.len() < 1 << 20;
            let bytes = if small {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.push((path, about.len(), bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn damaged_records_are_refused_by_every_command() {
    let state = State::new("damaged-records");
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let record = state.path.join("r/run.json");
    let whole = fs::read(&record).unwrap();
    let mut random = numbers(18);
    let mut played = 0;
    while played < 150 {
        let Some(bytes) = damaged(&whole, &mut random) else {
            continue;
        };
        played += 1;
        fs::write(&record, &bytes).unwrap();
        let before = files(&state.path);
        for words in ALL {
            let output = state.dcrun(words).output().unwrap();
            let what = format!("{words} with {}", String::from_utf8_lossy(&bytes));
            let status = sound(&output, &what);
            // `ps` lists what it can, and says the rest.
            assert_eq!(
                status,
                if words.starts_with("ps") { 0 } else { 125 },
                "{what}"
            );
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("run.json is damaged"), "{what}: {said}");
        }
        assert_eq!(before, files(&state.path), "nothing was changed");
    }
    // It is not lost: once it is mended, it goes on.
    fs::write(&record, &whole).unwrap();
    assert_eq!(finish(state.dcrun("resume r")).0, 5);
}

#[test]
fn damaged_final_counters_are_refused_by_every_command() {
    let state = State::new("damaged-done");
    assert_eq!(finish(state.script("", "commit exit:5")).0, 5);
    let done = state.path.join("r/done.json");
    let whole = fs::read(&done).unwrap();
    let mut random = numbers(81);
    let mut played = 0;
    while played < 150 {
        let Some(bytes) = damaged(&whole, &mut random) else {
            continue;
        };
        played += 1;
        fs::write(&done, &bytes).unwrap();
        let before = files(&state.path);
        for words in ALL {
            let output = state.dcrun(words).output().unwrap();
            let what = format!("{words} with {}", String::from_utf8_lossy(&bytes));
            let status = sound(&output, &what);
            assert_eq!(
                status,
                if words.starts_with("ps") { 0 } else { 125 },
                "{what}"
            );
            if !words.starts_with("kill") && !words.starts_with("--rio") {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(said.contains("done.json is damaged"), "{what}: {said}");
            }
        }
        assert_eq!(before, files(&state.path), "nothing was changed");
    }
    assert_eq!(finish(state.dcrun("rm r")).0, 0);
}

/// What a record may name is harmed by no command, `rm` and --fresh among them.
#[test]
fn what_a_crafted_record_names_is_left_alone() {
    let state = State::new("crafted");
    let base = state.path.with_extension("victims");
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(&base).unwrap();
    // As short as an image that is to be mended, as long as one, and as odd as can be.
    for (name, len) in [("text", 7), ("short", 16384), ("long", 900 << 20)] {
        let file = fs::File::create(base.join(name)).unwrap();
        file.set_len(len).unwrap();
    }
    fs::create_dir(base.join("directory")).unwrap();
    symlink(base.join("text"), base.join("link")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(base.join("fifo"))
            .status()
            .unwrap()
            .success()
    );
    // An image of another run, which has a directory.
    let other = state.dcrun(&format!(
        "--rio disk:{} --name other /bin/true commit fatal exit:4",
        base.join("image").display()
    ));
    assert_eq!(finish(other).0, 125);

    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let record = state.path.join("r/run.json");
    let whole: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let mut crafted: Vec<Value> = Vec::new();
    for name in [
        "text",
        "short",
        "long",
        "directory",
        "link",
        "fifo",
        "image",
        "absent",
    ] {
        let mut value = whole.clone();
        value["image"] = base.join(name).to_str().unwrap().into();
        crafted.push(value);
    }
    crafted.push({
        let mut value = whole.clone();
        value["image"] = "/dev/null".into();
        value
    });
    let victims = files(&base);
    for value in &crafted {
        fs::write(&record, sealed(value.clone())).unwrap();
        let image = &value["image"];
        for words in &ALL[..6] {
            let output = state.dcrun(words).output().unwrap();
            let status = sound(&output, &format!("{words} with {image}"));
            assert_eq!(
                status,
                if words.starts_with("ps") { 0 } else { 125 },
                "{image}"
            );
        }
        assert_eq!(victims, files(&base), "{image}");
        let fresh = state.dcrun("--fresh --rio disk --name r /bin/true commit fatal");
        assert_eq!(finish(fresh).0, 125);
        assert_eq!(victims, files(&base), "{image}");
        fs::write(&record, sealed(value.clone())).unwrap();
        let (status, _, said) = finish(state.dcrun("rm r"));
        assert_eq!(status, 0, "{said}");
        assert_eq!(victims, files(&base), "{image}");
        fs::create_dir_all(state.path.join("r")).unwrap();
        fs::set_permissions(state.path.join("r"), PermissionsExt::from_mode(0o700)).unwrap();
    }
    // The other one's image is whole.
    assert_eq!(finish(state.dcrun("resume other")).0, 4);
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let state = State::new("senseless");
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let record = state.path.join("r/run.json");
    let whole: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    for (field, value) in [
        ("name", json!("other")),
        ("name", json!("../r")),
        ("name", json!("")),
        ("command", json!([])),
        ("command", json!(["a\u{0}b"])),
        ("arguments", json!([])),
        ("arguments", json!([7])),
        ("arguments", json!([{ "hex": "abc" }])),
        ("arguments", json!([{ "hex": "xy" }])),
        ("arguments", json!([{ "hex": "00" }])),
        ("environment", json!({})),
        ("program", json!("relative")),
        ("directory", json!("")),
        ("image", json!("image")),
        ("image", json!(null)),
        ("protocol", json!("none")),
        ("rio", json!("ram")),
        ("interval_ms", json!(-1)),
        ("format", json!(99)),
    ] {
        let mut changed = whole.clone();
        changed[field] = value;
        fs::write(&record, sealed(changed)).unwrap();
        for words in ALL {
            let output = state.dcrun(words).output().unwrap();
            let status = sound(&output, field);
            assert_eq!(
                status,
                if words.starts_with("ps") { 0 } else { 125 },
                "{field}"
            );
        }
    }
    // What stands there need not be a file at all.
    let other = state.path.join("elsewhere");
    fs::write(&other, sealed(whole)).unwrap();
    let places: [fn(&Path, &Path); 4] = [
        |at, _| fs::create_dir(at).unwrap(),
        |at, other| symlink(other, at).unwrap(),
        |at, _| symlink("/dev/zero", at).unwrap(),
        |at, _| assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
    ];
    for make in places {
        let _ = fs::remove_file(&record);
        let _ = fs::remove_dir(&record);
        make(&record, &other);
        for words in ALL {
            let output = state.dcrun(words).output().unwrap();
            let status = sound(&output, words);
            assert_eq!(
                status,
                if words.starts_with("ps") { 0 } else { 125 },
                "{words}"
            );
        }
        assert_eq!(
            finish(state.dcrun("--fresh --rio disk --name r /bin/true exit:3")).0,
            if record.is_dir() { 125 } else { 3 }
        );
    }
}

#[test]
fn long_and_odd_command_lines_are_listed() {
    let state = State::new("long");
    let long = "x".repeat(65_536);
    let odd = "\u{1b}]0;title\u{7}\u{9b}31m\r\n\u{202e}\t\u{7f}";
    for (name, words) in [
        ("r", vec!["commit", "exit:0", &long]),
        ("odd", vec!["exit:0", odd]),
    ] {
        let mut command = state.dcrun(&format!("--rio disk --name {name} /bin/true"));
        assert_eq!(
            finish({
                command.args(words);
                command
            })
            .0,
            0
        );
    }
    for words in ["ps", "ps --json", "stats r", "stats odd --json"] {
        assert_eq!(sound(&state.dcrun(words).output().unwrap(), words), 0);
    }
    let (_, table, _) = finish(state.dcrun("ps"));
    assert!(
        table.contains(&long) && table.contains("\\u{1b}]0;title"),
        "{table}"
    );
    // JSON gives the command as it was.
    let runs = state.ps();
    let command = runs
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["name"] == "odd")
        .unwrap();
    assert_eq!(command["command"], format!("/bin/true exit:0 {odd}"));
    // And an error that quotes it is one line.
    let (status, _, said) = finish({
        let mut command = state.dcrun("--protocol");
        command.args(["a\nb\u{1b}[2J", "/bin/true"]);
        command
    });
    assert_eq!(status, 125);
    assert!(said.contains("a\\nb\\u{1b}[2J"), "{said}");
}

#[test]
fn images_of_ones_own_survive_what_happens_beside_them() {
    let state = State::new("beside");
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let image = state.path.join("r/image");
    let inode = fs::metadata(&image).unwrap().ino();
    for words in &ALL[..5] {
        state.dcrun(words).output().unwrap();
    }
    assert_eq!(fs::metadata(&image).unwrap().ino(), inode);
    assert_eq!(finish(state.dcrun("resume r")).0, 5);
}

/// A trace is a file like any other, and `check` reads whatever it is given.
#[test]
fn damaged_traces_are_judged_or_refused() {
    let place = Place::new("damaged-traces");
    let trace = place.0.join("trace");
    let program = "import os, time\nfor i in range(20): os.write(1, b'%d\\n' % time.time_ns())";
    let options = [
        "--trace",
        trace.to_str().unwrap(),
        "--protocol",
        "cbndvs-log",
    ];
    assert!(
        place
            .python(&options, program)
            .output()
            .unwrap()
            .status
            .success()
    );
    let whole = fs::read(&trace).unwrap();
    assert!(whole.len() > 1000);
    let check = || {
        place
            .dcrun(&["check", trace.to_str().unwrap()])
            .output()
            .unwrap()
    };
    assert_eq!(sound(&check(), "whole"), 0);
    let mut random = numbers(5);
    let mut counts = [0; 3];
    for _ in 0..300 {
        let mut bytes = whole.clone();
        let at = random(bytes.len());
        match random(5) {
            0 => bytes[at] = [b'\x1b', b'\n', b'9', 0xff, b' ', b'-'][random(6)],
            1 => bytes.truncate(at),
            2 => {
                bytes.drain(at..(at + random(200)).min(whole.len()));
            }
            3 => {
                bytes.splice(at..at, b"18446744073709551615".iter().copied());
            }
            _ => {
                let piece = whole[at..(at + random(400)).min(whole.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        fs::write(&trace, &bytes).unwrap();
        let what = String::from_utf8_lossy(&bytes).into_owned();
        match sound(&check(), &what) {
            0 => counts[0] += 1,
            1 => counts[1] += 1,
            125 => counts[2] += 1,
            other => panic!("status {other}: {what}"),
        }
    }
    // Consistent is a trace that is cut off, or changed in a word that means nothing to the judge.
    println!(
        "consistent {}, not {}, refused {}",
        counts[0], counts[1], counts[2]
    );
    assert!(counts[1] > 10 && counts[2] > 50, "{counts:?}");
    for odd in ["/dev/null", "/", "/no/such/file", "/proc/self/mem"] {
        let output = place.dcrun(&["check", odd]).output().unwrap();
        assert_eq!(sound(&output, odd), 125);
    }
}
