//! What a user meets when something is in the way: each failure says what, why
//! and what to do, and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Place {
    dir: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("dcrun-trouble-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Place { dir }
    }

    fn dcrun(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
        command
            .args(args)
            .env("DCRUN_STATE", self.dir.join("state"))
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.dcrun(args).output().unwrap()
    }

    fn about(&self, name: &str) -> Option<Value> {
        let text = self.run(&["ps", "--json"]).stdout;
        let all: Value = serde_json::from_slice(&text).ok()?;
        all.as_array()?.iter().find(|r| r["name"] == name).cloned()
    }

    /// Runs `t` until it has made some commits, then kills all of it.
    fn run_until_killed(&self, line: &[&str], out: &Path, commits: u64) {
        let mut first = self
            .dcrun(line)
            .stdout(append(out))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.kill_all_after("t", commits);
        first.wait().unwrap();
    }

    /// Waits until a run has made some commits, then kills all of it.
    fn kill_all_after(&self, name: &str, commits: u64) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < until, "{name} made no {commits} commits");
            if let Some(run) = self.about(name)
                && run["commits"].as_u64() >= Some(commits)
            {
                for pid in ["keeper_pid", "worker_pid"] {
                    let pid = run[pid].as_i64().unwrap_or(0) as i32;
                    assert!(pid > 1);
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.run(&["rm", "t"]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const COUNT: &str =
    "import time\nfor i in range(60):\n    print(i, flush=True)\n    time.sleep(0.02)\n";

fn numbers() -> String {
    (0..60).map(|n| format!("{n}\n")).collect()
}

#[test]
fn a_program_may_execute_others() {
    let place = Place::new("exec");
    let script = place.dir.join("script");
    fs::write(
        &script,
        "#!/usr/bin/env -S sh -e\nexec /bin/echo \"$0\" \"$1\" two\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let out = place.run(&[
        "--fresh",
        "--name",
        "t",
        "/usr/bin/env",
        "-",
        "./script",
        "one",
    ]);
    assert_eq!(
        text(&out.stdout),
        "./script one two\n",
        "{}",
        text(&out.stderr)
    );
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn an_exec_survives_like_everything_else() {
    let place = Place::new("exec-kill");
    fs::write(place.dir.join("count.py"), COUNT).unwrap();
    let out = place.dir.join("out");
    let line = [
        "--name",
        "t",
        "/usr/bin/env",
        "A=b",
        "/usr/bin/python3",
        "count.py",
    ];
    place.run_until_killed(&line, &out, 20);
    let second = place.dcrun(&line).stdout(append(&out)).output().unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains("resuming t from commit"));
    let all = fs::read_to_string(&out).unwrap();
    let mut lines: Vec<&str> = all.lines().collect();
    // The last visible event may be repeated when everything died.
    lines.dedup();
    assert_eq!(lines, numbers().lines().collect::<Vec<_>>());
}

fn append(path: &Path) -> fs::File {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

#[test]
fn a_program_file_that_changed_is_not_resumed() {
    let place = Place::new("changed");
    let program = place.dir.join("sleeper");
    fs::copy("/usr/bin/python3", &program).unwrap();
    fs::write(place.dir.join("count.py"), COUNT).unwrap();
    let line = ["--name", "t", "./sleeper", "count.py"];
    place.run_until_killed(&line, &place.dir.join("out"), 5);
    let old = fs::read(&program).unwrap();
    let mut new = old.clone();
    new.extend_from_slice(b"another version");
    fs::write(&program, &new).unwrap();
    let out = place.run(&line);
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("changed since the last commit"),
        "{}",
        text(&out.stderr)
    );
    assert!(text(&out.stderr).contains("sleeper"));
    let run = place.about("t").expect("the run is still there");
    assert!(run["commits"].as_u64() >= Some(5));
}

#[test]
fn a_corrupt_image_is_refused_and_left_alone() {
    let place = Place::new("corrupt");
    let image = place.dir.join("image");
    let rio = format!("disk:{}", image.display());
    fs::write(place.dir.join("count.py"), COUNT).unwrap();
    let line = ["--rio", &rio, "--name", "t", "/usr/bin/python3", "count.py"];
    place.run_until_killed(&line, &place.dir.join("out"), 3);
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(&[0xff; 4], 8).unwrap(); // the version
    let out = place.run(&line);
    assert_eq!(out.status.code(), Some(125));
    let said = text(&out.stderr);
    assert!(
        said.contains("another version") || said.contains("corrupt"),
        "{said}"
    );
    assert!(said.contains("--fresh"), "{said}");
}

/// Needs a file system that can be filled: root only, else there is nothing to see.
#[test]
fn a_full_rio_stops_the_program_and_loses_nothing() {
    if !nix::unistd::geteuid().is_root() {
        println!("not root: no file system to fill");
        return;
    }
    let place = Place::new("full");
    let small = place.dir.join("small");
    fs::create_dir(&small).unwrap();
    let mount = |options: &str| {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&small)
            .status()
            .unwrap();
        assert!(status.success(), "mount -o {options}");
    };
    mount("size=24M");
    let rio = format!("tmpfs:{}", small.join("image").display());
    let program = "a = []\nfor i in range(30):\n    a.append(bytearray(b'x' * 2000000))\n    print(i, len(a), flush=True)\n    import time; time.sleep(0.01)\n";
    fs::write(place.dir.join("grow.py"), program).unwrap();
    let out = place.dir.join("out");
    let line = ["--rio", &rio, "--name", "t", "/usr/bin/python3", "grow.py"];
    let first = place.dcrun(&line).stdout(append(&out)).output().unwrap();
    assert_eq!(first.status.code(), Some(125));
    assert!(
        text(&first.stderr).contains("no room in Rio"),
        "{}",
        text(&first.stderr)
    );
    mount("remount,size=400M");
    let second = place
        .dcrun(&["resume", "t"])
        .stdout(append(&out))
        .output()
        .unwrap();
    let _ = place.run(&["rm", "t"]);
    let _ = Command::new("umount").arg(&small).status();
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    let expected: String = (0..30).map(|i| format!("{i} {}\n", i + 1)).collect();
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);
}
