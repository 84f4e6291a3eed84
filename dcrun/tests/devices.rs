//! Devices that were told something by ioctl(2): after a death of the worker they go on; after
//! a death of all the run is not resumed with a device that does not know it. And what an ioctl
//! does to a file is not undone, so it is committed around.

mod place;

use std::fs::{self, File};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

const TUN: &str = "
import fcntl, os, struct, time
f = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'dcruntest%d', 0x1001))
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
name = fcntl.ioctl(f, 0x800454d2, bytes(40))[:16].rstrip(b'\\0').decode()
print(name, flush=True)
";

fn start(place: &Place, program: &str) -> Child {
    let errors = File::create(place.0.join("err")).unwrap();
    place.begin(program, errors.into())
}

/// Nobody but root makes such an interface.
fn can_tell_a_tun() -> bool {
    let can = nix::unistd::geteuid().is_root() && fs::exists("/dev/net/tun").unwrap();
    if !can {
        println!("not played: no tun for this user");
    }
    can
}

#[test]
fn a_tun_goes_on_when_the_worker_dies() {
    if !can_tell_a_tun() {
        return;
    }
    let place = Place::new("tun-warm");
    let mut child = start(&place, TUN);
    assert!(place.kill_worker());
    sleep(Duration::from_millis(200));
    fs::write(place.0.join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(place.said().contains("\ndcruntest"), "{}", place.said());
}

#[test]
fn a_tun_is_not_opened_again_as_if_it_were_the_same() {
    if !can_tell_a_tun() {
        return;
    }
    let place = Place::new("tun-cold");
    let mut child = start(&place, TUN);
    let worker = place.worker().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    while place::kills(worker) {
        sleep(Duration::from_millis(10));
    }
    fs::write(place.0.join("go"), "").unwrap();
    let output = place.dcrun(&["resume", "t"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(
        told.contains("/dev/net/tun: what the program had told"),
        "{told}"
    );
}

/// What a file may not be any more (chattr(1)) would hinder its undo.
#[test]
fn flags_of_a_file_are_committed_around() {
    let place = Place::new("flags");
    let program = "
import fcntl, os, struct, time
f = os.open('made', os.O_RDWR | os.O_CREAT)
os.write(f, b'before')
had = struct.unpack('i', fcntl.ioctl(f, 0x80086601, bytes(8))[:4])[0]
fcntl.ioctl(f, 0x40086602, struct.pack('q', had | 0x40))
print('ready', flush=True)
for _ in range(15000000): pass
has = struct.unpack('i', fcntl.ioctl(f, 0x80086601, bytes(8))[:4])[0]
print(has == had | 0x40, os.pread(f, 10, 0), flush=True)
";
    let program = program.replace("print('ready', flush=True)", "open('told', 'w').close()");
    let out = File::create(place.0.join("out")).unwrap();
    let mut child = place.python(&[], &program).stdout(out).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !place.0.join("told").exists() {
        if let Some(status) = child.try_wait().unwrap() {
            println!("not played: {status}: this file system has no such flags");
            return;
        }
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(5));
    }
    let before = place.stats()["commits"].as_u64().unwrap();
    assert!(before >= 2, "around the ioctl: {before}");
    assert!(place.kill_worker());
    assert!(child.wait().unwrap().success());
    assert_eq!(place.said(), "True b'before'\n");
}
