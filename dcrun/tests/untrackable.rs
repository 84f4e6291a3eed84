//! Memory that is tracked in another way than most, or cannot be: huge pages come back warm and cold, also where their pool
//! is empty by then; a ring that the kernel fills is refused when it is mapped.

mod place;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use place::Place;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// The machine has one pool.
static ALONE: Mutex<()> = Mutex::new(());

/// Huge pages for as long as this lives; none if this user may not have them.
struct Pool(String);

impl Pool {
    fn of(pages: usize) -> Option<Pool> {
        let old = fs::read_to_string(POOL).ok()?;
        fs::write(POOL, pages.to_string()).ok()?;
        let pool = Pool(old);
        let have: usize = fs::read_to_string(POOL).ok()?.trim().parse().ok()?;
        (have >= pages).then_some(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(POOL, self.0.trim());
    }
}

fn build(place: &Place) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/untrackable.c");
    let built = Command::new("gcc")
        .args(["-O1", "-o", "untrackable", source])
        .current_dir(&place.0)
        .status();
    assert!(built.unwrap().success());
}

fn start(place: &Place) -> Child {
    let file = |name| {
        let file = File::options()
            .append(true)
            .create(true)
            .open(place.0.join(name));
        file.unwrap()
    };
    place
        .dcrun(&["--name", "t", "./untrackable"])
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("said"))
        .spawn()
        .unwrap()
}

fn await_line(place: &Place, number: usize) {
    let begin = Instant::now();
    let head = format!("{number} ");
    while !read(place, "out")
        .lines()
        .any(|line| line.starts_with(&head))
    {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "no line {number}: {}",
            read(place, "said")
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.0.join(name)).unwrap_or_default()
}

/// Kills at some lines, all at the second; what was said.
fn play(name: &str, meanwhile: impl Fn()) -> String {
    let place = Place::new(name);
    build(&place);
    let native = Command::new(place.0.join("untrackable")).output().unwrap();
    assert!(native.status.success(), "natively: {native:?}");
    let mut dcrun = start(&place);
    await_line(&place, 5);
    assert!(place.kill_worker());
    await_line(&place, 12);
    let worker = place.worker();
    dcrun.kill().unwrap();
    dcrun.wait().unwrap();
    worker.map(place::kills);
    meanwhile();
    dcrun = start(&place);
    await_line(&place, 20);
    assert!(place.kill_worker());
    assert!(dcrun.wait().unwrap().success(), "{}", read(&place, "said"));
    let mut lines: Vec<String> = read(&place, "out").lines().map(str::to_owned).collect();
    // What went last into a file may come twice after the death of all.
    lines.dedup();
    let native: Vec<String> = String::from_utf8(native.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(lines, native, "{}", read(&place, "said"));
    read(&place, "said")
}

#[test]
fn huge_pages_come_back() {
    let _alone = ALONE.lock();
    let Some(_pool) = Pool::of(12) else {
        return println!("no huge pages to be had: not tried");
    };
    let said = play("huge", || {});
    assert!(!said.contains("used up"), "{said}");
    if !said.contains("none here") {
        assert!(said.contains("ring: No such device"), "{said}");
    }
}

#[test]
fn where_there_are_none_any_more_common_memory_serves() {
    let _alone = ALONE.lock();
    let Some(_pool) = Pool::of(12) else {
        return println!("no huge pages to be had: not tried");
    };
    let said = play("used-up", || fs::write(POOL, "0").unwrap());
    assert!(said.contains("huge pages are used up"), "{said}");
}
