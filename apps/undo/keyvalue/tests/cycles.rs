//! Rewind, repair and replay, one property a test.

mod house;

use std::time::{Duration, Instant};

use house::{Folder, House};
use keyvalue::{Act, Shown, Verb};
use undo::manager::Search;
use undo::{Phase, Refused};

const PATIENCE: Duration = Duration::from_secs(10);

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < end,
            "this has not come true in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_repaired_bug_is_as_if_it_had_never_been() {
    let house = House::new();
    house.put("ann", "a", "1");
    let before = house.last();
    // The bug: what is put is lost, without a word.
    *house.files().fault.write().unwrap() =
        Some(|verb| matches!(verb.act, Act::Put(_)).then_some(Act::Get));
    house.put("ann", "a", "2");
    house.must("ann", "b", Act::Append("x".into()));
    house.put("ben", "c", "3");
    assert_eq!(house.get("ann", "a").as_deref(), Some("1"));

    house.manager.rewind(before, None).unwrap();
    *house.files().fault.write().unwrap() = None;
    let summary = house.manager.replay().unwrap();

    assert_eq!(house.get("ann", "a").as_deref(), Some("2"));
    assert_eq!(house.get("ann", "b").as_deref(), Some("x"));
    assert_eq!(house.get("ben", "c").as_deref(), Some("3"));
    // ann has seen the wrong value of a, and is told; nobody else is told anything.
    assert_eq!(summary.paradoxes.len(), 1, "{summary:?}");
    assert_eq!(house.told("ann").len(), 1);
    assert!(house.told("ben").is_empty());
}

#[test]
fn a_rewind_goes_to_the_exact_verb_from_any_snapshot() {
    let house = House::new();
    let mut states = vec![(house.last(), house.state())];
    for n in 0..12 {
        house.put("ann", &format!("k{}", n % 5), &n.to_string());
        if n % 4 == 1 {
            house.manager.snapshot().unwrap();
        }
        states.push((house.last(), house.state()));
    }
    for (lsn, state) in states.into_iter().rev() {
        house.manager.rewind(lsn, None).unwrap();
        assert_eq!(house.state(), state, "at {lsn}");
        house.manager.cancel().unwrap();
    }
}

#[test]
fn a_service_that_must_be_repaired_is_not_trusted_with_the_way_to_the_point() {
    let house = House::new();
    house.files().set_users(Some(&["ann"])).unwrap();
    house.manager.snapshot().unwrap();
    let snapshot = house.last();
    house.post("ann", "in", 1, 600_000);
    assert!(house.manager.drain(PATIENCE));
    let before = house.last();
    // From here on it bounces everything. (The fault is in the program, not in its state.)
    *house.files().fault.write().unwrap() =
        Some(|verb| matches!(verb.act, Act::Post { .. }).then_some(Act::Delete));
    house.post("ann", "in", 2, 600_000);
    assert!(house.manager.drain(PATIENCE));
    let cycle = house.manager.rewind(before, None).unwrap();
    assert_eq!(cycle.target, snapshot, "the first post fails now as well");
    assert!(cycle.note.is_some());
    *house.files().fault.write().unwrap() = None;
    let summary = house.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    assert_eq!(house.get("ann", "in").as_deref(), Some("\nline 1\nline 2"));
}

#[test]
fn cancel_brings_back_the_present_from_every_phase() {
    let house = House::new();
    house.put("ann", "a", "1");
    let before = house.last();
    house.put("ann", "a", "2");
    let present = house.state();

    house.manager.rewind(before, None).unwrap();
    std::fs::write(house.manager.live_folder().join("ruined"), "by the repair").unwrap();
    house.manager.drop_verb(before + 1).unwrap();
    house.manager.cancel().unwrap();
    assert_eq!(house.state(), present);
    // The edit went with the cycle.
    house.manager.rewind(before, None).unwrap();
    house.manager.replay().unwrap();
    assert_eq!(house.state(), present);
    assert!(house.manager.cancel().is_err());
}

#[test]
fn dropped_changed_and_inserted_verbs_make_another_history() {
    let house = House::new();
    let start = house.last();
    house.put("ann", "virus", "v");
    house.put("ann", "a", "1");
    house.put("ann", "b", "2");
    house.manager.rewind(start, None).unwrap();
    house.manager.drop_verb(start + 1).unwrap();
    let other = serde_json::to_value(Verb::new("ann", "a", Act::Put("one".into()))).unwrap();
    house.manager.change_verb(start + 2, other).unwrap();
    let new = serde_json::to_value(Verb::new("ann", "b", Act::Append("more".into()))).unwrap();
    let inserted = house.manager.insert_verb(start + 3, new.clone()).unwrap();
    let taken_back = house.manager.insert_verb(start + 3, new).unwrap();
    house.manager.unedit(taken_back).unwrap();
    assert!(
        house.manager.drop_verb(start).is_err(),
        "it lies before the point of the rewind"
    );
    assert!(house.manager.drop_verb(9999).is_err());
    let summary = house.manager.replay().unwrap();
    assert!(
        summary.paradoxes.is_empty(),
        "nobody has looked: {summary:?}"
    );
    assert_eq!(house.get("ann", "virus"), None);
    assert_eq!(house.get("ann", "a").as_deref(), Some("one"));
    assert_eq!(house.get("ann", "b").as_deref(), Some("2\nmore"));
    // A second replay of the new history finds the same, without any edit of its own.
    let state = house.state();
    house.manager.rewind(start, None).unwrap();
    let summary = house.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    assert_eq!(house.state(), state);
    assert!(inserted > start);
}

#[test]
fn a_verb_that_rests_on_an_inconsistency_is_squashed() {
    let house = House::new();
    let start = house.last();
    house.put("ann", "a", "first");
    house.put("ann", "a", "worthless");
    house.get("ann", "a");
    house.must("ann", "a", Act::Delete);
    house.put("ben", "a", "kept");
    house.must("ben", "a", Act::Delete);

    house.manager.rewind(start, None).unwrap();
    house.manager.drop_verb(start + 2).unwrap();
    let rehearsed = house.manager.rehearse().unwrap();
    assert_eq!(house.manager.state().phase, Phase::Repairing);
    assert!(
        house.state().is_empty(),
        "a rehearsal leaves nothing behind"
    );
    let summary = house.manager.replay().unwrap();
    assert_eq!(rehearsed.paradoxes, summary.paradoxes);
    assert_eq!(
        (summary.squashed, summary.paradoxes.len()),
        (1, 2),
        "{summary:?}"
    );
    // ann deleted what she had seen; she has not seen this.
    assert_eq!(house.get("ann", "a").as_deref(), Some("first"));
    assert_eq!(house.get("ben", "a"), None);
    assert_eq!(house.told("ann").len(), 2);
    assert!(house.told("ben").is_empty());
}

#[test]
fn during_a_cycle_one_may_read_and_post_and_nothing_is_lost() {
    let house = House::new();
    house.put("ann", "a", "1");
    let before = house.last();
    house.put("ann", "a", "2");
    house.manager.rewind(before, None).unwrap();

    assert_eq!(house.get("ann", "a").as_deref(), Some("1"));
    let refused = house.act("ann", "a", Act::Put("3".into()));
    assert!(
        matches!(refused, Err(Refused::Cycle(Phase::Repairing))),
        "{refused:?}"
    );
    house.post("ann", "in", 7, 60_000);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(house.get("ann", "in"), None, "it is deferred");
    assert!(house.manager.snapshot().is_err());
    assert!(house.manager.rewind(before, None).is_err());

    house.manager.replay().unwrap();
    until("the post is there", || {
        house.get("ann", "in").as_deref() == Some("\nline 7")
    });
    assert_eq!(house.get("ann", "a").as_deref(), Some("2"));
}

#[test]
fn what_bounced_by_mistake_is_delivered_and_what_was_told_is_not() {
    let house = House::new();
    house.files().set_users(Some(&["ben"])).unwrap();
    let before = house.last();
    house.manager.snapshot().unwrap();
    // One with a long window, one whose failure is told before the repair.
    house.post("ann", "in", 1, 600_000);
    house.post("ann", "in", 2, 1);
    house.post("ben", "in", 3, 600_000);
    let returned = house.manager.service().returned.clone();
    until("the second is returned", || returned.exists());

    house.manager.rewind(before, None).unwrap();
    house.files().set_users(None).unwrap();
    let summary = house.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    assert_eq!(house.get("ann", "in").as_deref(), Some("\nline 1"));
    assert_eq!(house.get("ben", "in").as_deref(), Some("\nline 3"));
    until("nothing is left to try", || {
        house.manager.state().arrivals_failed == 0
    });
    assert_eq!(
        std::fs::read_to_string(returned).unwrap().lines().count(),
        1
    );
}

#[test]
fn a_failed_post_is_tried_again_without_any_undo() {
    let house = House::new();
    house.files().set_users(Some(&[])).unwrap();
    house.post("ann", "in", 1, 600_000);
    assert!(house.manager.drain(PATIENCE));
    assert_eq!(house.manager.state().arrivals_failed, 1);
    // A snapshot between the failure and the success must not lose it in a rewind.
    house.manager.snapshot().unwrap();
    let before = house.last();
    house.files().set_users(None).unwrap();
    until("it is there", || house.get("ann", "in").is_some());
    let state = house.state();
    house.manager.rewind(before, None).unwrap();
    house.files().set_users(None).unwrap();
    assert!(
        house.state().is_empty(),
        "the post came later: {:?}",
        house.state()
    );
    house.manager.replay().unwrap();
    assert_eq!(house.state(), state);
    // And from before the first attempt.
    house.manager.rewind(0, None).unwrap();
    house.manager.replay().unwrap();
    assert_eq!(house.state(), state);
}

#[test]
fn an_undo_can_be_undone_and_that_too() {
    let house = House::new();
    let start = house.last();
    house.put("ann", "a", "1");
    house.put("ann", "b", "2");
    let original = house.state();
    house.manager.rewind(start, None).unwrap();
    house.manager.drop_verb(start + 1).unwrap();
    house.manager.replay().unwrap();
    let without = house.state();
    assert_ne!(original, without);
    house.put("ann", "c", "3");

    let with_c = |mut state: std::collections::BTreeMap<_, _>| {
        state.insert("u-ann/c".into(), "3\n".to_owned());
        state
    };
    house.manager.undo_cycle().unwrap();
    assert_eq!(house.state(), with_c(original.clone()));
    house.manager.undo_cycle().unwrap();
    assert_eq!(house.state(), with_c(without.clone()));
    house.manager.undo_cycle().unwrap();
    assert_eq!(house.state(), with_c(original.clone()));
    // History itself is the original one again.
    house.manager.rewind(start, None).unwrap();
    house.manager.replay().unwrap();
    assert_eq!(house.state(), with_c(original));
    assert_eq!(house.manager.commit().unwrap(), 2);
    assert!(house.manager.undo_cycle().is_err());
}

#[test]
fn a_later_rewind_keeps_the_repair_of_an_earlier_one() {
    let house = House::new();
    house.put("ann", "a", "1");
    let early = house.last();
    house.put("ann", "a", "2");
    house.put("ann", "a", "3");
    let late = house.last();
    house.put("ann", "b", "4");
    house.manager.rewind(early, None).unwrap();
    std::fs::write(house.manager.live_folder().join("repair"), "made by hand").unwrap();
    house.manager.replay().unwrap();
    let state = house.state();
    assert!(state.contains_key(std::path::Path::new("repair")));
    house.manager.rewind(late, None).unwrap();
    assert!(house.state().contains_key(std::path::Path::new("repair")));
    house.manager.replay().unwrap();
    assert_eq!(house.state(), state);
}

#[test]
fn a_scope_is_rewound_alone() {
    let house = House::new();
    house.put("ann", "a", "1");
    house.put("ben", "b", "1");
    let before = house.last();
    house.put("ann", "a", "2");
    house.put("ben", "b", "2");
    std::fs::remove_dir_all(house.manager.live_folder().join("u-ann")).unwrap();
    let ben = std::fs::metadata(house.manager.live_folder().join("u-ben/b")).unwrap();
    house.manager.rewind(before, Some("ann".into())).unwrap();
    let value = |path| house.state().get(std::path::Path::new(path)).cloned();
    assert_eq!(value("u-ann/a").as_deref(), Some("1\n"));
    assert_eq!(value("u-ben/b").as_deref(), Some("2\n"));
    let summary = house.manager.replay().unwrap();
    assert_eq!(house.get("ann", "a").as_deref(), Some("2"));
    let after = std::fs::metadata(house.manager.live_folder().join("u-ben/b")).unwrap();
    assert_eq!(
        ben.modified().unwrap(),
        after.modified().unwrap(),
        "nobody has touched it"
    );
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    // The snapshots of that cycle show ann of then and ben of today: no rewind may begin at one.
    house.manager.rewind(before, None).unwrap();
    assert_eq!(house.state()[std::path::Path::new("u-ben/b")], "1\n");
    house.manager.replay().unwrap();
    assert_eq!(house.get("ben", "b").as_deref(), Some("2"));
}

#[test]
fn a_failed_synchronous_verb_is_not_history() {
    let house = House::new();
    let outcome = house.act("ann", "nothing", Act::Delete).unwrap();
    assert!(!outcome.is_done());
    assert!(house.manager.list(&Search::default()).unwrap().is_empty());
    assert!(house.manager.timeline().gaps().is_empty());
}

#[test]
fn the_timeline_is_searched_by_user_key_and_kind() {
    let house = House::new();
    for (user, key) in [("ann", "a"), ("ann", "b"), ("ben", "a")] {
        house.put(user, key, "1");
        house.get(user, key);
    }
    let count = |search: Search| house.manager.list(&search).unwrap().len();
    assert_eq!(count(Search::default()), 6);
    assert_eq!(
        count(Search {
            user: "ANN".into(),
            ..Search::default()
        }),
        4
    );
    assert_eq!(
        count(Search {
            kind: "get".into(),
            folder: "a".into(),
            ..Search::default()
        }),
        2
    );
    assert_eq!(
        count(Search {
            from: Some(3),
            to: Some(4),
            ..Search::default()
        }),
        2
    );
    let newest = house
        .manager
        .list(&Search {
            limit: 1,
            ..Search::default()
        })
        .unwrap();
    assert_eq!((newest[0].lsn, newest[0].about.kind.as_str()), (6, "get"));
}

/// Verbs of several users at once, drawn from a seed.
fn storm(house: &House, users: usize, verbs: usize, seed: u64) {
    std::thread::scope(|scope| {
        for user in 0..users {
            scope.spawn(move || {
                let mut random = seed ^ ((user as u64 + 1) << 32);
                let name = format!("u{}", user % 4);
                for n in 0..verbs {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let dice = random >> 33;
                    let key = format!("k{}", dice % 5);
                    let act = match dice / 5 % 8 {
                        0 | 1 => Act::Put(format!("{user}-{n}")),
                        2 | 3 => Act::Append(format!("{user}-{n}")),
                        4 => Act::Delete,
                        5 => Act::List,
                        6 => Act::Get,
                        _ => {
                            house.post(&name, &key, (user * verbs + n) as u64, 60_000);
                            continue;
                        }
                    };
                    house.act(&name, &key, act).unwrap();
                }
            });
        }
    });
    assert!(house.manager.drain(PATIENCE));
}

fn replay_without_a_repair(kind: &str) {
    let Some(folder) = Folder::for_storage(kind) else {
        // It is said, because a test that is skipped has shown nothing.
        println!("skipped: {kind} cannot be mounted here");
        return;
    };
    let house = House::on(kind, folder, |settings| settings.checkpoint_verbs = 100);
    for seed in 0..3 {
        storm(&house, 8, 50, seed);
        if seed == 1 {
            house.manager.snapshot().unwrap();
        }
    }
    let (state, lsn) = (house.state(), house.last());
    assert!(house.manager.timeline().gaps().is_empty());
    for target in [0, lsn / 3, lsn * 9 / 10, lsn] {
        house.manager.rewind(target, None).unwrap();
        let summary = house.manager.replay().unwrap();
        assert!(
            summary.paradoxes.is_empty(),
            "{kind}, from {target}: {summary:?}"
        );
        assert_eq!(house.state(), state, "{kind}, from {target}");
    }
    house.manager.rewind(lsn / 2, None).unwrap();
    house.manager.cancel().unwrap();
    assert_eq!(house.state(), state);
}

#[test]
fn replay_without_a_repair_on_copies() {
    replay_without_a_repair("copies");
}

#[test]
fn replay_without_a_repair_on_btrfs() {
    replay_without_a_repair("btrfs");
}

#[test]
fn replay_without_a_repair_on_overlay() {
    replay_without_a_repair("overlay");
}

#[test]
fn the_checks_are_not_vacuous() {
    // The same storm with a service that loses one put on replay: it must be found.
    let house = House::new();
    house.put("ann", "a", "1");
    house.get("ann", "a");
    let state = house.state();
    house.manager.rewind(0, None).unwrap();
    *house.files().fault.write().unwrap() =
        Some(|verb| matches!(verb.act, Act::Put(_)).then_some(Act::Get));
    let summary = house.manager.replay().unwrap();
    assert_eq!(summary.paradoxes.len(), 1);
    assert_ne!(house.state(), state);
    assert_eq!(house.must("ann", "a", Act::Get), Shown::Value(None));
}

#[test]
fn a_service_that_is_down_stops_the_replay_and_loses_nothing() {
    let house = House::new();
    house.put("ann", "a", "1");
    house.get("ann", "a");
    let state = house.state();
    house.manager.rewind(0, None).unwrap();
    let live = house.manager.live_folder().to_owned();
    let aside = live.with_extension("aside");
    std::fs::rename(&live, &aside).unwrap();
    assert!(house.manager.replay().is_err());
    assert_eq!(house.manager.state().phase, Phase::Repairing);
    std::fs::rename(&aside, &live).unwrap();
    assert!(house.manager.replay().unwrap().paradoxes.is_empty());
    assert_eq!(house.state(), state);
}
