//! Signals that processes of a run send to each other: as natively, however early they come and whoever may not send them.

mod place;

use std::process::{Command, Output, Stdio};

use place::Place;

/// Each child is signalled as soon as its parent knows it.
const AT_BIRTH: &str = "
import os, signal
for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGTERM, signal.SIGFPE):
    for _ in range(60):
        child = os.fork()
        if child == 0:
            while True: signal.pause()
        os.kill(child, number)
        ended, status = os.waitpid(child, 0)
        assert ended == child and os.WTERMSIG(status) == number, (number, status)
    print(number, flush=True)
";

/// A process without rights and others that are somebody else's: one to be killed, alone and by its group, asked for, and
/// one that has ended.
const WITHOUT_RIGHTS: &str = "
import os, signal, time
def sleeper(user, group):
    child = os.fork()
    if child == 0:
        if group: os.setpgid(0, 0)
        os.setuid(user)
        while True: signal.pause()
    time.sleep(0.1)
    return child
other, own, alone = sleeper(1001, True), sleeper(1002, True), sleeper(1001, False)
asker = os.fork()
if asker == 0:
    os.setuid(1002)
    def asks(name, deed):
        try: deed(); print(name, 'may', flush=True)
        except OSError as e: print(name, e.strerror, flush=True)
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        asks(f'other {number}', lambda: os.kill(other, number))
        asks(f'group {number}', lambda: os.killpg(other, number))
        asks(f'alone {number}', lambda: os.kill(alone, number))
    asks('own 0', lambda: os.killpg(own, 0))
    asks('own 9', lambda: os.killpg(own, signal.SIGKILL))
    os._exit(0)
os.waitpid(asker, 0)
print(os.waitpid(own, 0)[1])
for child in (other, alone):
    print(os.waitpid(child, os.WNOHANG)[0])
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1])
";

#[test]
fn a_child_gets_what_is_sent_at_its_birth() {
    let place = Place::new("kills-at-birth");
    let told = hosted(&place, AT_BIRTH);
    assert_eq!(said(&told), "11\n7\n15\n8\n", "{told:?}");
}

#[test]
fn who_may_not_send_a_signal_is_told_so() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new("kills-without-rights");
    let native = Command::new("/usr/bin/python3")
        .args(["-c", WITHOUT_RIGHTS])
        .output()
        .unwrap();
    assert!(
        said(&native).contains("other 9 Operation not permitted"),
        "{native:?}"
    );
    let told = hosted(&place, WITHOUT_RIGHTS);
    assert_eq!(said(&told), said(&native), "{told:?}");
}

fn hosted(place: &Place, program: &str) -> Output {
    let mut limited = Command::new("timeout");
    limited.args([
        "-k",
        "1",
        "60",
        env!("CARGO_BIN_EXE_dcrun"),
        "--fresh",
        "--name",
        "t",
    ]);
    limited.args(["/usr/bin/python3", "-c", program]);
    limited
        .current_dir(&place.0)
        .env("DCRUN_STATE", place.0.join("state"));
    limited.stdin(Stdio::null()).output().unwrap()
}

fn said(told: &Output) -> String {
    String::from_utf8(told.stdout.clone()).unwrap()
}
