//! What a program has given up, set, or locked stays so over random deaths: it looks itself in every
//! round, and an intruder tries all the time to get its locks. (`scripts/soak-outside` kills 200 times.)

mod place;
mod storm;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;
use storm::{Death, Outsider, Storm, kills, wait_for};

const BOTH: [Death; 2] = [Death::Warm, Death::Cold];
/// Between two kills, at most.
const PAUSE: Duration = Duration::from_millis(40);

/// Whoever runs this may not be able to give anything up.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not played: nobody but root has rights to give up");
    }
    root
}

/// What nobody but root may read, and where nobody else may make anything.
fn with_secret(place: &Place) {
    let [secret, roots] = ["secret", "roots"].map(|name| place.0.join(name));
    fs::write(&secret, "secret").unwrap();
    fs::create_dir(&roots).unwrap();
    for (path, mode) in [(&place.0, 0o755), (&secret, 0o600), (&roots, 0o755)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

fn prepared(what: &str, name: &str) -> Storm {
    let storm = Storm::new(name, "held-rights.py", &[what]);
    with_secret(&storm.place);
    for name in ["flock", "posix", "ofd", "lease", "part"] {
        fs::write(storm.place.0.join(name), [b'.'; 100]).unwrap();
    }
    storm
}

/// What the program said is wrong, each once.
fn wrongs(storm: &Storm) -> Vec<String> {
    let said = storm.said();
    let mut wrongs: Vec<String> = said
        .lines()
        .filter(|line| line.contains("WRONG") || line.contains("Error"))
        .map(str::to_owned)
        .collect();
    wrongs.sort();
    wrongs.dedup();
    wrongs
}

fn stays_so(what: &str, pause: Duration) {
    let mut storm = prepared(what, &format!("held-{what}"));
    storm.start();
    for _ in 0..kills(14) {
        let death = BOTH[storm.chance.below(2) as usize];
        if let Err(told) = storm.kill(death, pause) {
            panic!("{what}: {told}, said {:?}", wrongs(&storm));
        }
    }
    storm.finish().unwrap();
    let (wrongs, said) = (wrongs(&storm), storm.said());
    let rounds = said
        .lines()
        .filter(|line| line.starts_with("round"))
        .count();
    println!(
        "{what}: {}; {rounds} rounds: {} regained",
        storm.told(),
        wrongs.len()
    );
    assert!(wrongs.is_empty(), "seed {}: {wrongs:?}", storm.seed);
    assert!(said.ends_with("over\n") && rounds as u64 > (storm.warm + storm.cold) / 4);
    let made = fs::read_dir(storm.place.0.join("roots")).unwrap().count();
    assert_eq!(made, 0);
}

#[test]
fn rights_that_were_given_up() {
    if is_root() {
        // (Its processes have to be made again in each round.)
        stays_so("dropped", 8 * PAUSE);
    }
}

#[test]
fn limits_and_ways_to_be_scheduled() {
    stays_so("limits", PAUSE);
}

#[test]
fn calls_that_filters_forbid() {
    stays_so("filtered", 2 * PAUSE);
}

#[test]
fn ids_that_all_threads_change() {
    stays_so("told-all", PAUSE);
}

#[test]
fn ids_that_all_threads_change_in_a_tree() {
    stays_so("told-all-in-tree", 8 * PAUSE);
}

/// The same look at a program that has given nothing up.
#[test]
fn who_has_rights_is_seen() {
    if !is_root() {
        return;
    }
    let mut storm = prepared("kept", "held-kept");
    storm.start();
    storm.kill(Death::Warm, PAUSE).unwrap();
    storm.finish().unwrap();
    let wrongs = wrongs(&storm);
    assert!(wrongs.len() >= 4, "{wrongs:?}");
}

/// What the intruder says.
fn of_intruder(storm: &Storm) -> String {
    fs::read_to_string(storm.place.0.join("intruder")).unwrap()
}

fn let_in(storm: &Storm) -> usize {
    of_intruder(storm).matches("IN ").count()
}

fn tries(storm: &Storm) -> u64 {
    let said = of_intruder(storm);
    let tried = said.lines().filter_map(|line| line.strip_prefix("tried "));
    tried.filter_map(|n| n.parse().ok()).max().unwrap_or(0)
}

/// Lets an intruder try from now on.
fn with_intruder(storm: &Storm) -> Outsider {
    let intruder = Outsider::start(&storm.place, "intruder.py", &[], "intruder");
    wait_for(&storm.place.0.join("intruder"), "tried");
    intruder
}

/// (A lease lasts for 45 s against somebody who wants it broken, natively too.)
#[test]
fn nobody_is_let_in_while_the_program_is_dead() {
    let mut storm = prepared("locks", "held-locks");
    let count = kills(14);
    let begun = Instant::now();
    storm.start();
    let intruder = with_intruder(&storm);
    for _ in 0..count {
        storm.kill(Death::Warm, PAUSE).unwrap();
        if begun.elapsed() > Duration::from_secs(35) {
            println!("a lease lasts no longer");
            break;
        }
    }
    let (let_in, tries) = (let_in(&storm), tries(&storm));
    println!(
        "locks: {}; {tries} tries of each kind, {let_in} let in",
        storm.told()
    );
    assert_eq!(let_in, 0, "seed {}: {}", storm.seed, of_intruder(&storm));
    assert!(tries > storm.warm, "it tried {tries} times only");
    assert!(
        storm.warm * 10 >= count * 9,
        "{} deaths of {count}",
        storm.warm
    );
    fs::write(storm.place.0.join("over"), "").unwrap();
    intruder.ended().unwrap();
    storm.finish().unwrap();
    assert_eq!(wrongs(&storm), Vec::<String>::new());
}

/// After a death of all somebody else may have them until the run goes on; then it has them again.
/// An intruder sees what is free while nobody is there.
#[test]
fn locks_are_held_again_when_all_had_died() {
    let mut storm = prepared("locks", "held-locks-cold");
    storm.start();
    let mut seen_free = 0;
    for _ in 0..kills(14) {
        storm.kill(Death::Cold, PAUSE).unwrap();
        let round = storm.said().lines().count();
        let end = Instant::now() + Duration::from_secs(20);
        while storm.said().lines().count() <= round + 1 {
            assert!(
                Instant::now() < end,
                "it does not go on: {}",
                storm.errors()
            );
            sleep(Duration::from_millis(1));
        }
        // (A lease that somebody has asked for is not taken again, so each asks once.)
        let intruder = with_intruder(&storm);
        sleep(storm.chance.pause(Duration::from_millis(20)));
        fs::write(storm.place.0.join("over"), "").unwrap();
        intruder.ended().unwrap();
        fs::remove_file(storm.place.0.join("over")).unwrap();
        assert_eq!(
            let_in(&storm),
            0,
            "seed {}: {}",
            storm.seed,
            of_intruder(&storm)
        );
        seen_free += 1;
    }
    storm.finish().unwrap();
    println!("locks: {}; held again {seen_free} times", storm.told());
    assert_eq!(wrongs(&storm), Vec::<String>::new());
    let intruder = with_intruder(&storm);
    sleep(Duration::from_millis(20));
    fs::write(storm.place.0.join("over"), "").unwrap();
    intruder.ended().unwrap();
    let said = of_intruder(&storm);
    for kind in ["flock", "posix", "ofd", "part", "lease"] {
        assert!(
            said.contains(&format!("IN {kind} ")),
            "nobody has it now: {said}"
        );
    }
}
