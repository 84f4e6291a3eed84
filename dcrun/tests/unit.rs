//! The unit that `dcrun service` makes: what it does at a shutdown and at the next start, and whose files it leaves alone.

mod place;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::Place;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const TOLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/told.py");

fn service(place: &Place, words: &[&str]) -> Output {
    let mut command = place.dcrun(&["service"]);
    command
        .args(words)
        .env("XDG_CONFIG_HOME", place.0.join("config"))
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn written(place: &Place) -> PathBuf {
    place.0.join("config/systemd/user/dcrun.service")
}

/// Plays a line of the unit as systemd would; its environment is that of the unit alone.
fn play(place: &Place, line: &str) -> Output {
    let shown = service(place, &["show"]).stdout;
    let unit = String::from_utf8(shown).unwrap();
    let value = |key: &str| {
        let line = unit.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        line.trim_start_matches(['=', '-']).to_owned()
    };
    let mut command = Command::new("/usr/bin/env");
    command.args(["-i", "/bin/sh", "-c"]);
    command.arg(format!(
        "export {}; exec {}",
        value("Environment"),
        value(line)
    ));
    command.current_dir("/").stdin(Stdio::null());
    command.output().unwrap()
}

fn begin(place: &Place, name: &str, way: &str) -> Child {
    let mut command = place.dcrun(&["--name", name, "--rio", "disk", "--on-term", "suspend"]);
    command.args(["/usr/bin/python3", TOLD, way, "100"]);
    let out = File::create(place.0.join(format!("out-{name}"))).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lines(place: &Place, name: &str) -> Vec<String> {
    let text = fs::read_to_string(place.0.join(format!("out-{name}"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn listed(place: &Place) -> Vec<Value> {
    let listed = place.dcrun(&["ps", "--json"]).output().unwrap().stdout;
    let runs: Value = serde_json::from_slice(&listed).unwrap();
    runs.as_array().unwrap().clone()
}

fn await_all(place: &Place, state: &str) {
    let begun = Instant::now();
    let is_so =
        |run: &Value| run["state"] == state && run["keeper_pid"].is_null() == (state != "running");
    while !listed(place).iter().all(is_so) {
        assert!(begun.elapsed() < PATIENCE, "{state}: {:?}", listed(place));
        sleep(Duration::from_millis(5));
    }
}

fn await_lines(place: &Place, more: usize) {
    let begun = Instant::now();
    let before = NAMES.map(|(name, _)| lines(place, name).len());
    while NAMES
        .iter()
        .zip(before)
        .any(|((name, _), n)| lines(place, name).len() < n + more)
    {
        assert!(begun.elapsed() < PATIENCE, "{:?}", listed(place));
        sleep(Duration::from_millis(5));
    }
}

const NAMES: [(&str, &str); 3] = [("a", "handler"), ("b", "tree"), ("c", "default")];

/// The first time the unit is asked, before the rest of the shutdown; then SIGTERM comes to all at once; then a crash.
#[test]
fn runs_go_on_after_what_a_restart_does() {
    let place = Place::new("unit");
    let children = NAMES.map(|(name, way)| begin(&place, name, way));
    await_lines(&place, 5);
    for nth in 0..3 {
        let pids: Vec<i32> = listed(&place)
            .iter()
            .flat_map(|run| {
                let workers = run["processes"].as_array().unwrap().iter();
                let workers = workers.filter_map(|p| p["pid"].as_i64());
                workers
                    .chain(run["keeper_pid"].as_i64())
                    .collect::<Vec<_>>()
            })
            .map(|pid| pid as i32)
            .collect();
        let send = |signal| {
            for &pid in &pids {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        };
        if nth == 0 {
            let stopped = play(&place, "ExecStop");
            assert!(stopped.status.success(), "{stopped:?}");
        }
        if nth < 2 {
            send(Signal::SIGTERM);
            await_all(&place, "suspended");
        }
        send(Signal::SIGKILL);
        let begun = Instant::now();
        while listed(&place)
            .iter()
            .any(|run| run["keeper_pid"].is_number())
        {
            assert!(begun.elapsed() < PATIENCE);
            sleep(Duration::from_millis(5));
        }
        let started = play(&place, "ExecStart");
        assert!(started.status.success(), "{started:?}");
        await_lines(&place, 5);
    }
    await_all(&place, "done");
    for (name, _) in NAMES {
        let lines = lines(&place, name);
        let numbers: Vec<&str> = lines
            .iter()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        let expected: Vec<String> = (0..100)
            .map(|n| n.to_string())
            .chain(["end".to_owned()])
            .collect();
        assert_eq!(numbers, expected, "{name}");
    }
    for mut child in children {
        child.wait().unwrap();
    }
}

#[test]
fn systemd_takes_it() {
    let place = Place::new("unit-verified");
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        println!("no systemd-analyze: nothing to see");
        return;
    }
    // A name that means much to systemd, as it would mean to a shell.
    let state = place.0.join("st%h $x \"q\" \\");
    let mut install = place.dcrun(&["service", "install"]);
    install
        .env("XDG_CONFIG_HOME", place.0.join("config"))
        .env("DCRUN_STATE", &state);
    assert!(install.status().unwrap().success());
    let verified = Command::new(analyze)
        .args(["verify", "--user", "--man=no"])
        .arg(written(&place))
        .env("XDG_RUNTIME_DIR", &place.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(
        verified.status.success() && !said.contains("dcrun.service"),
        "{verified:?}"
    );
}

#[test]
fn nothing_of_others_is_overwritten_or_removed() {
    let place = Place::new("unit-installed");
    let unit = written(&place);
    assert_eq!(
        service(&place, &["uninstall"]).status.code(),
        Some(125),
        "there is none"
    );
    let installed = service(&place, &["install"]);
    assert!(installed.status.success(), "{installed:?}");
    assert!(said(&installed).contains("enable --now"), "{installed:?}");
    let shown = service(&place, &["show"]).stdout;
    assert_eq!(fs::read(&unit).unwrap(), shown);
    let again = service(&place, &["install"]);
    assert!(
        again.status.success() && said(&again).contains("already"),
        "{again:?}"
    );
    // Of another state directory.
    let mut other = place.dcrun(&["service", "install"]);
    other.env("XDG_CONFIG_HOME", place.0.join("config"));
    other.env("DCRUN_STATE", "/elsewhere");
    let output = other.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert_eq!(fs::read(&unit).unwrap(), shown);
    assert!(service(&place, &["uninstall"]).status.success());
    assert!(!unit.exists());
    // Somebody else's.
    fs::write(&unit, "[Unit]\nmine\n").unwrap();
    for words in [&["install"] as &[&str], &["uninstall"]] {
        let output = service(&place, words);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert_eq!(fs::read(&unit).unwrap(), b"[Unit]\nmine\n");
    }
    assert!(service(&place, &["install", "--force"]).status.success());
    assert_eq!(fs::read(&unit).unwrap(), shown);
    // A link leads elsewhere.
    let precious = place.0.join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::remove_file(&unit).unwrap();
    symlink(&precious, &unit).unwrap();
    for words in [
        &["install"] as &[&str],
        &["install", "--force"],
        &["uninstall"],
    ] {
        assert_eq!(service(&place, words).status.code(), Some(125), "{words:?}");
    }
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    let left = fs::read_dir(unit.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing unfinished is left");
}
