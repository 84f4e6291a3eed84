//! dcrun alone, without a file beside it, is whole: it carries its runtime.

mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;
use serde_json::Value;

/// A copy in a directory of its own.
fn alone(place: &Place) -> PathBuf {
    let bin = place.0.join("bin");
    fs::create_dir(&bin).unwrap();
    let copy = bin.join("dcrun");
    fs::copy(env!("CARGO_BIN_EXE_dcrun"), &copy).unwrap();
    copy
}

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(place.0.join("bin/dcrun"));
    command
        .args(words)
        .env("DCRUN_STATE", place.0.join("state"))
        .env_remove("DCRUN_RUNTIME")
        .stdin(Stdio::null())
        .current_dir("/");
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn it_runs_from_any_directory_and_recovers() {
    let place = Place::new("installed");
    alone(&place);
    let program = "
import subprocess
for n in range(30):
    print(n, subprocess.run(['/bin/echo', str(n)], capture_output=True, text=True).stdout.strip(), flush=True)
";
    let mut begun = command(
        &place,
        &[
            "--name",
            "t",
            "--rio",
            "disk",
            "/usr/bin/python3",
            "-c",
            program,
        ],
    );
    let out = || {
        fs::File::options()
            .append(true)
            .create(true)
            .open(place.0.join("out"))
            .unwrap()
    };
    let mut child = begun.stdout(out()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while place.said().lines().count() < 8 {
        assert!(begun.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(2));
    }
    // Warm, then cold: each worker maps it anew, the last one what another dcrun has inside.
    place.kill_worker();
    sleep(Duration::from_millis(30));
    let _ = child.kill();
    let status = child.wait().unwrap();
    let resumed = command(&place, &["resume", "t"])
        .stdout(out())
        .output()
        .unwrap();
    let over = status.signal().is_none();
    assert!(resumed.status.success() || over, "{resumed:?}");
    let expected: String = (0..30).map(|n| format!("{n} {n}\n")).collect();
    assert_eq!(place.said(), expected);
}

#[test]
fn what_is_named_and_what_lies_beside_come_first() {
    let place = Place::new("installed-order");
    let copy = alone(&place);
    let runtime = |change: &dyn Fn(&mut Command)| {
        let mut doctor = command(&place, &["doctor", "--json"]);
        change(&mut doctor);
        let told = doctor.output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let checks = told["checks"].as_array().unwrap().clone();
        checks
            .iter()
            .find(|check| check["check"] == "runtime")
            .unwrap()["found"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(runtime(&|_| {}), "inside of dcrun");
    // What lies beside is taken, whatever it is: that it is none is said.
    let beside = copy.with_file_name("dc-runtime");
    fs::copy("/bin/true", &beside).unwrap();
    assert!(runtime(&|_| {}).contains("window"));
    let refused = command(&place, &["/bin/true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    let named = place.0.join("named");
    let name = |command: &mut Command| {
        command.env("DCRUN_RUNTIME", &named);
    };
    let missing = runtime(&name);
    assert!(
        missing.contains("DCRUN_RUNTIME") && missing.contains("named"),
        "{missing}"
    );
    fs::write(&named, "text").unwrap();
    fs::set_permissions(&named, PermissionsExt::from_mode(0o755)).unwrap();
    let mut run = command(&place, &["/bin/true"]);
    name(&mut run);
    let refused = run.output().unwrap();
    assert!(said(&refused).contains("ELF"), "{refused:?}");
}

/// As `dpkg -i` does it, into a root of its own.
#[test]
fn the_package_has_all_that_it_needs() {
    let place = Place::new("installed-package");
    let release = Path::new(env!("CARGO_BIN_EXE_dcrun")).parent().unwrap();
    if !release.ends_with("release") {
        println!("a package is made of what is built with --release");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/package-deb");
    let packed = Command::new(script)
        .arg(&place.0)
        .env("CARGO_TARGET_DIR", release.parent().unwrap())
        .env("BUILT", "1")
        .output()
        .unwrap();
    assert!(packed.status.success(), "{packed:?}");
    let package = String::from_utf8(packed.stdout).unwrap();
    let root = place.0.join("root");
    let about = root.join("var/lib/dpkg");
    for directory in ["info", "updates", "triggers"] {
        fs::create_dir_all(about.join(directory)).unwrap();
    }
    for file in ["status", "available"] {
        fs::write(about.join(file), "").unwrap();
    }
    let mut install = match nix::unistd::geteuid().is_root() {
        true => {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg(format!("--root={}", root.display()));
            dpkg.args(["--force-depends", "-i", package.trim()]);
            dpkg
        }
        false => {
            let mut unpack = Command::new("dpkg-deb");
            unpack.args(["-x", package.trim()]).arg(&root);
            unpack
        }
    };
    let installed = install.stdin(Stdio::null()).output().unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let unit = fs::read_to_string(root.join("usr/lib/systemd/user/dcrun.service")).unwrap();
    assert!(
        unit.contains("ExecStart=-\"/usr/bin/dcrun\" resume --all\n"),
        "{unit}"
    );
    for document in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "copyright"] {
        assert!(
            root.join("usr/share/doc/dcrun").join(document).exists(),
            "{document}"
        );
    }
    let ran = Command::new(root.join("usr/bin/dcrun"))
        .args(["/bin/sh", "-c", "echo ran; exit 3"])
        .env("DCRUN_STATE", place.0.join("state"))
        .stdin(Stdio::null())
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(
        (ran.status.code(), &*ran.stdout),
        (Some(3), &b"ran\n"[..]),
        "{ran:?}"
    );
}
