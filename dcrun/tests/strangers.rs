//! Programs that only the kernel can start (set-uid, of another machine, not to be read) run beside the run: as
//! natively, once, whatever dies.

mod place;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

const NOBODY: u32 = 65534;

/// A place that others may enter, with a shell and a `cat` of somebody else's. (An ordinary user cannot give files away.)
fn place(name: &str) -> Option<Place> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let place = Place::new(name);
    for (of, program) in [("dash", "other-sh"), ("cat", "other-cat")] {
        let copy = place.0.join(program);
        fs::copy(format!("/usr/bin/{of}"), &copy).unwrap();
        chown(&copy, Some(NOBODY), None).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
    }
    let copy = place.0.join("only-run");
    fs::copy("/usr/bin/id", &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o111)).unwrap();
    fs::write(place.0.join("i386"), of_i386()).unwrap();
    fs::set_permissions(place.0.join("i386"), Permissions::from_mode(0o755)).unwrap();
    fs::write(place.0.join("log"), "").unwrap();
    fs::set_permissions(place.0.join("log"), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&place.0, Permissions::from_mode(0o755)).unwrap();
    Some(place)
}

/// Writes `i386` and a line's end, and exits with 42.
fn of_i386() -> Vec<u8> {
    const BASE: u32 = 0x804_8000;
    const HEADS: u32 = 52 + 32;
    let text = b"i386\n";
    let mut code = vec![0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9];
    code.extend((BASE + HEADS + 34).to_le_bytes());
    code.extend([0xba, 5, 0, 0, 0, 0xcd, 0x80]);
    code.extend([0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80]);
    assert_eq!(code.len(), 34);
    code.extend(text);
    let len = HEADS + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, BASE + HEADS, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, len, len, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(code);
    file
}

/// All that a shell does with programs, and what it says of it.
const SCRIPT: &str = r#"
./i386; echo $?
./other-sh -p -c 'id -u -n; exit 3'; echo $?
setpriv --reuid 1000 --regid 1000 --clear-groups ./only-run -u; echo $?
echo through | ./other-cat | cat; echo "${PIPESTATUS[@]}"
got=$(echo in | ./other-cat); echo "got $got"
./other-sh -p -c 'sleep 0.2; exit 4' & wait $!; echo $?
./other-sh -p -c 'exec sleep 60' & sleep 0.2; kill $!; wait $! 2>/dev/null; echo $?
./other-sh -p -c 'exec sleep 60' & sleep 0.2; kill -9 $!; wait $! 2>/dev/null; echo $?
./other-sh -p -c 'kill -ABRT $$' 2>/dev/null; echo $?
trap '' TERM; ./other-sh -p -c 'kill -TERM $$; echo ignores'; echo $?
ulimit -n 50; ./other-sh -p -c 'ulimit -n'
exec 7< i386; ./other-sh -p -c 'test -e /proc/self/fd/7 && ls /proc/self/fd | sort -n | tail -1'
printf '#!./other-cat\nscript\n' > script; chmod 755 script; ./script | tail -1
cd /; umask 077; "$OLDPWD/other-sh" -p -c 'pwd; umask'
cd - > /dev/null; (exec ./i386); echo $?; exec ./i386
"#;

#[test]
fn they_run_as_natively() {
    let Some(place) = place("strangers") else {
        return;
    };
    let shell = ["/bin/bash", "-c", SCRIPT];
    let mut native = Command::new(shell[0]);
    native.args(&shell[1..]).current_dir(&place.0);
    let mut hosted = place.dcrun(&["--fresh", "--name", "t"]);
    hosted.args(shell);
    let [native, hosted] = [native, hosted].map(|mut command| {
        let command = command.stdin(Stdio::null()).stderr(Stdio::null());
        let out = command.output().unwrap();
        (String::from_utf8(out.stdout).unwrap(), out.status.code())
    });
    assert_eq!(native.1, Some(42), "{}", native.0);
    assert_eq!(hosted, native);
}

const LONG: &str = r#"
./other-sh -p -c 'echo begins >> log; sleep 2; echo ends >> log; exit 5'
echo "status $?"
"#;

#[test]
fn they_outlive_the_death_of_the_run() {
    let Some(place) = place("strangers-warm") else {
        return;
    };
    let out = File::create(place.0.join("out")).unwrap();
    let mut run = place.dcrun(&["--fresh", "--name", "t", "/bin/bash", "-c", LONG]);
    let mut run = run.stdin(Stdio::null()).stdout(out).spawn().unwrap();
    let mut kills = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1700) {
        sleep(Duration::from_millis(120));
        kills += u32::from(place.kill_worker());
    }
    assert!(kills >= 8, "{kills} kills");
    assert!(run.wait().unwrap().success());
    assert_eq!(place.said(), "status 5\n");
    assert_eq!(
        fs::read_to_string(place.0.join("log")).unwrap(),
        "begins\nends\n"
    );
    assert!(place.stats()["recoveries"].as_u64().unwrap() >= 8);
}

#[test]
fn after_the_death_of_all_they_count_as_killed() {
    let Some(place) = place("strangers-cold") else {
        return;
    };
    let line = ["--name", "t", "/bin/bash", "-c", LONG];
    let out = File::create(place.0.join("out")).unwrap();
    let mut run = place.dcrun(&line);
    let mut run = run.stdin(Stdio::null()).stdout(out).spawn().unwrap();
    let log = place.0.join("log");
    let end = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(&log).unwrap().is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(10));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let resumed = place.dcrun(&line).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(said.contains("ran beside the run"), "{said}");
    assert_eq!(
        String::from_utf8(resumed.stdout).unwrap(),
        "status 137\n",
        "{said}"
    );
    sleep(Duration::from_millis(2200));
    assert_eq!(
        fs::read_to_string(log).unwrap(),
        "begins\nends\n",
        "it lives on, and began once"
    );
}

/// At a terminal: ^C, ^Z and fg.
const TYPIST: &str = r#"
import os, pty, select, signal, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["PS1"] = "$ "
    # (Who runs in the background ignores what comes from a terminal, and so would these.)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP): signal.signal(number, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
def until(word, count=1):
    global said
    end = time.time() + 20
    while said.count(word) < count:
        if not select.select([fd], [], [], end - time.time())[0]: print("missing", word, said); sys.exit(1)
        said += os.read(fd, 1000)
def types(text):
    global said
    said = b""
    os.write(fd, text)
until(b"$ ")
types(b"./other-sh -p -c 'echo be''gun; exec sleep 50'\n"); until(b"begun"); time.sleep(.3)
types(b"\x03"); until(b"$ ")
types(b"echo was $?\n"); until(b"was 130")
types(b"./other-sh -p -c 'echo be''gun; exec sleep 1'\n"); until(b"begun"); time.sleep(.3)
types(b"\x1a"); until(b"Stopped")
types(b"fg; echo then $?\n"); until(b"then 0")
types(b"echo text | ./other-cat; exit 9\n"); until(b"text\r\n")
print(os.waitpid(pid, 0)[1] >> 8)
"#;

#[test]
fn the_terminal_stops_and_ends_them() {
    let Some(place) = place("strangers-terminal") else {
        return;
    };
    let typed = |shell: &[&str]| {
        let mut typist = Command::new("/usr/bin/python3");
        let typist = typist
            .args(["-c", TYPIST])
            .args(shell)
            .current_dir(&place.0);
        let out = typist
            .env("DCRUN_STATE", place.0.join("state"))
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let shell = ["/bin/bash", "--norc", "-i"];
    assert_eq!(typed(&shell), "9\n", "natively");
    let hosted = [env!("CARGO_BIN_EXE_dcrun"), "--fresh", "--name", "t"];
    assert_eq!(typed(&[&hosted[..], &shell].concat()), "9\n", "hosted");
}
