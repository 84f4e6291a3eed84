//! A program in a root directory of its own, without /proc: as natively, and there again after each death.

mod place;

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use place::Place;

/// Files that are written, renamed and removed, children, pipes, directories; and what the root directory holds.
const SCRIPT: &str = r#"
cd /tmp
i=0
while [ $i -lt 40 ]; do
  i=$((i+1))
  echo "line $i" >> out
  cat out | while read -r line; do last=$line; echo "$last" > last; done
  echo "said $i $(cat last)"
  (echo sub $i > sub; exit 3); echo $?
  [ $i = 20 ] && cd /work
  : > /work/name-$i
  sleep 0.03
done
pwd
echo /* /work/*
"#;

fn jail(place: &Place) {
    let jail = place.0.join("jail");
    for folder in ["bin", "tmp", "work", "lib/x86_64-linux-gnu", "lib64"] {
        fs::create_dir_all(jail.join(folder)).unwrap();
    }
    for (from, to) in [
        ("/usr/bin/dash", "bin/sh"),
        ("/usr/bin/cat", "bin/cat"),
        ("/usr/bin/sleep", "bin/sleep"),
        ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
        (
            "/lib/x86_64-linux-gnu/libc.so.6",
            "lib/x86_64-linux-gnu/libc.so.6",
        ),
    ] {
        fs::copy(from, jail.join(to)).unwrap();
    }
    fs::write(jail.join("script"), SCRIPT).unwrap();
}

const LINE: [&str; 4] = ["/usr/sbin/chroot", "jail", "/bin/sh", "/script"];

/// What it says, and what it leaves in a file.
fn native() -> (String, String) {
    let place = Place::new("chroot-native");
    jail(&place);
    let mut native = Command::new(LINE[0]);
    let native = native
        .args(&LINE[1..])
        .current_dir(&place.0)
        .output()
        .unwrap();
    assert!(native.status.success(), "{native:?}");
    (String::from_utf8(native.stdout).unwrap(), written(&place))
}

fn written(place: &Place) -> String {
    let read = |name: &str| fs::read_to_string(place.0.join("jail").join(name)).unwrap();
    read("tmp/out") + &read("work/out") + &read("work/sub")
}

fn appended(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(path).unwrap()
}

#[test]
fn it_is_there_again_after_each_death() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let native = native();
    for (name, at_least) in [
        ("chroot-unkilled", 0),
        ("chroot-warm", 6),
        ("chroot-cold", 3),
    ] {
        let place = Place::new(name);
        jail(&place);
        let out = place.0.join("out");
        let begin = |head: &[&str]| {
            let mut run = place.dcrun(head);
            run.stdin(Stdio::null())
                .stdout(appended(&out))
                .spawn()
                .unwrap()
        };
        let mut run = begin(&[&["--fresh", "--name", "t"], &LINE[..]].concat());
        let (start, mut kills) = (Instant::now(), 0);
        while name != "chroot-unkilled" && start.elapsed() < Duration::from_secs(20) {
            sleep(Duration::from_millis(if name == "chroot-warm" {
                120
            } else {
                400
            }));
            if run.try_wait().unwrap().is_some() {
                break;
            }
            if name == "chroot-warm" {
                kills += u32::from(place.kill_worker());
                continue;
            }
            let keeper = Pid::from_raw(run.id() as i32);
            if nix::sys::signal::kill(keeper, Signal::SIGKILL).is_ok() {
                run.wait().unwrap();
                kills += 1;
                run = begin(&["resume", "t"]);
            }
        }
        assert!(run.wait().unwrap().success(), "{name}");
        assert!(kills >= at_least, "{name}: {kills} kills");
        assert_eq!((place.said(), written(&place)), native, "{name}");
    }
}
