//! The timeline on disk: cut anywhere, damaged anywhere, edited, and opened again.

use proptest::prelude::*;
use undo::Status;
use undo::timeline::{Body, Head, Place, Timeline, View};

fn begin(timeline: &Timeline, verb: &[u8]) -> u64 {
    let lsn = timeline.number();
    let body = Body {
        verb: verb.to_vec(),
        tag: Vec::new(),
    };
    timeline
        .append(
            &Head::Began {
                lsn,
                time_us: lsn * 10,
            },
            &body,
        )
        .unwrap();
    lsn
}

fn end(timeline: &Timeline, lsn: u64, tag: &[u8]) {
    let body = Body {
        verb: Vec::new(),
        tag: tag.to_vec(),
    };
    timeline.append(&Head::Ended { lsn }, &body).unwrap();
}

/// LSN, verb, and outcome with its tag.
type Shown = (u64, Vec<u8>, Option<(Status, Vec<u8>)>);

fn all(timeline: &Timeline, view: &View) -> Vec<Shown> {
    let (from, to) = (
        Place {
            lsn: 0,
            inserted: 0,
        },
        Place {
            lsn: u64::MAX,
            inserted: u64::MAX,
        },
    );
    timeline
        .order(from, to, view)
        .into_iter()
        .map(|lsn| {
            let recorded = timeline.read(lsn, view).unwrap().unwrap();
            (lsn, recorded.verb, recorded.outcome)
        })
        .collect()
}

#[test]
fn a_log_cut_at_any_byte_opens_with_the_records_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    {
        let timeline = Timeline::open(folder.path()).unwrap();
        for n in 0..6u8 {
            // The last ones are long enough to be compressed.
            let lsn = begin(&timeline, &vec![n; 30 + 200 * n as usize]);
            end(&timeline, lsn, b"tag");
            ends.push(timeline.size_bytes());
        }
        timeline.sync_all().unwrap();
    }
    let bytes = std::fs::read(folder.path().join("00000000.log")).unwrap();
    for cut in 0..=bytes.len() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("00000000.log"), &bytes[..cut]).unwrap();
        let timeline = Timeline::open(folder.path()).unwrap();
        let whole = ends.iter().filter(|&&e| e <= cut as u64).count();
        assert_eq!(all(&timeline, &View::new()).len(), whole, "cut at {cut}");
        // And it can be gone on with.
        let lsn = begin(&timeline, b"next");
        end(&timeline, lsn, b"");
        drop(timeline);
        let timeline = Timeline::open(folder.path()).unwrap();
        assert_eq!(all(&timeline, &View::new()).len(), whole + 1);
    }
}

#[test]
fn a_changed_byte_is_never_taken_for_a_verb() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("00000000.log");
    let last;
    {
        let timeline = Timeline::open(folder.path()).unwrap();
        for n in 0..4u8 {
            let lsn = begin(&timeline, &[n; 300]);
            end(&timeline, lsn, b"tag");
        }
        last = begin(&timeline, b"last");
    }
    let bytes = std::fs::read(&file).unwrap();
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&file, &damaged).unwrap();
        match Timeline::open(folder.path()) {
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("00000000.log"), "{error}");
                assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing is changed");
            }
            // Only the last record may be taken for one that was cut short.
            Ok(timeline) => {
                assert!(timeline.last() < last, "byte {at}");
                assert_eq!(all(&timeline, &View::new()).len(), 4);
            }
        }
    }
    assert!(refused > bytes.len() / 2);
}

#[test]
fn a_missing_segment_is_not_overlooked() {
    let folder = tempfile::tempdir().unwrap();
    drop(Timeline::open(folder.path()).unwrap());
    let name = |n: u32| folder.path().join(format!("{n:08}.log"));
    std::fs::copy(name(0), name(2)).unwrap();
    assert!(Timeline::open(folder.path()).is_err());
}

#[test]
fn synced_groups_from_many_threads_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    {
        let timeline = Timeline::open(folder.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let lsn = begin(&timeline, b"verb");
                        let until = timeline
                            .append(&Head::Ended { lsn }, &Body::default())
                            .unwrap();
                        timeline.sync(until).unwrap();
                    }
                });
            }
        });
    }
    let timeline = Timeline::open(folder.path()).unwrap();
    assert_eq!(all(&timeline, &View::new()).len(), 160);
    assert!(timeline.gaps().is_empty());
}

/// What an operator or a replay may do to history.
#[derive(Debug, Clone)]
enum Step {
    Verb,
    Drop(u64),
    Change(u64),
    Insert(u64),
    Unedit(u64),
    Revise(u64),
    Squash(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let lsn = 1u64..12;
    prop_oneof![
        3 => Just(Step::Verb),
        1 => lsn.clone().prop_map(Step::Drop),
        1 => lsn.clone().prop_map(Step::Change),
        1 => lsn.clone().prop_map(Step::Insert),
        1 => lsn.clone().prop_map(Step::Unedit),
        1 => lsn.clone().prop_map(Step::Revise),
        1 => lsn.prop_map(Step::Squash),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// What two epochs do shows under the views that have them, and under no other; and a timeline
    /// that was opened again says the same.
    #[test]
    fn epochs_show_only_in_views_that_have_them(steps in prop::collection::vec((1u32..3, step()), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(folder.path()).unwrap();
        let body = |text: String| Body { verb: text.clone().into_bytes(), tag: text.into_bytes() };
        let only_first = View::from([1]);
        let mut plain = Vec::new();
        for (n, (epoch, step)) in steps.into_iter().enumerate() {
            let before = all(&timeline, &only_first);
            let last = timeline.last();
            let known = |lsn: u64| (lsn <= last && lsn > 0).then_some(lsn);
            match step {
                Step::Verb => {
                    let lsn = begin(&timeline, format!("v{n}").as_bytes());
                    end(&timeline, lsn, b"t");
                    plain.push(lsn);
                    continue;
                }
                Step::Drop(lsn) => known(lsn).map(|lsn| timeline.append(&Head::Dropped { epoch, lsn }, &Body::default())),
                Step::Change(lsn) => known(lsn).map(|lsn| timeline.append(&Head::Changed { epoch, lsn }, &body(format!("c{n}")))),
                Step::Insert(after) => known(after).map(|after| {
                    let lsn = timeline.number();
                    timeline.append(&Head::Inserted { epoch, lsn, after, time_us: 5 }, &body(format!("i{n}")))
                }),
                Step::Unedit(lsn) => known(lsn).map(|lsn| timeline.append(&Head::Unedited { epoch, lsn }, &Body::default())),
                Step::Revise(lsn) => known(lsn).map(|lsn| timeline.append(&Head::Revised { epoch, lsn, status: Status::Done }, &body(format!("r{n}")))),
                Step::Squash(lsn) => known(lsn).map(|lsn| timeline.append(&Head::Squashed { epoch, lsn, cancelled: n % 2 == 0 }, &body(format!("s{n}")))),
                Step::Restart => Some(timeline.append(&Head::Replaying { epoch }, &Body::default())),
            }.transpose().unwrap();
            if epoch == 2 {
                prop_assert_eq!(before, all(&timeline, &only_first), "epoch 2 shows under 1");
            }
        }
        let base: Vec<u64> = all(&timeline, &View::new()).iter().map(|(lsn, ..)| *lsn).collect();
        prop_assert_eq!(&base, &plain);
        let views = [View::new(), View::from([1]), View::from([2]), View::from([1, 2])];
        let shown: Vec<_> = views.iter().map(|view| all(&timeline, view)).collect();
        drop(timeline);
        let timeline = Timeline::open(folder.path()).unwrap();
        for (view, shown) in views.iter().zip(shown) {
            prop_assert_eq!(all(&timeline, view), shown);
        }
    }
}
