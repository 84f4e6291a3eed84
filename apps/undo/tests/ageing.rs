//! Ageing of snapshots: what must stay stays, what need not goes.

use proptest::prelude::*;
use undo::snapshots::{Granularity, Snapshot, aged};
use undo::timeline::{Place, View};

fn snapshot(n: usize, minutes: u64, held: bool) -> Snapshot {
    Snapshot {
        name: format!("s{n}"),
        time_us: minutes * 60_000_000,
        place: Place {
            lsn: n as u64,
            inserted: 0,
        },
        view: View::new(),
        held,
        partial: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_granularity_keeps_its_number_and_no_more(
        gaps in prop::collection::vec((1u64..200, prop::bool::weighted(0.05)), 1..300),
        fine in 1usize..20,
        coarse in 1usize..10,
    ) {
        let granularities = [
            Granularity { every_s: 600, keep: fine },
            Granularity { every_s: 86_400, keep: coarse },
        ];
        let mut minutes = 0;
        let mut kept: Vec<Snapshot> = Vec::new();
        let mut everything: Vec<Snapshot> = Vec::new();
        for (n, (gap, held)) in gaps.into_iter().enumerate() {
            minutes += gap;
            let new = snapshot(n, minutes, held);
            everything.push(new.clone());
            kept.push(new);
            let gone = aged(&kept, &granularities);
            kept.retain(|s| !gone.contains(&s.name));
        }
        let has = |s: &Snapshot| kept.contains(s);
        prop_assert!(has(&everything[0]) && has(everything.last().unwrap()));
        prop_assert!(everything.iter().filter(|s| s.held).all(has));
        // The most recent past is covered as closely as the finest granularity says.
        let mut periods: Vec<u64> = everything.iter().map(|s| s.time_us / 600_000_000).collect();
        periods.dedup();
        for period in periods.iter().rev().take(fine) {
            prop_assert!(kept.iter().any(|s| s.time_us / 600_000_000 == *period), "{period}");
        }
        let held = everything.iter().filter(|s| s.held).count();
        prop_assert!(kept.len() <= fine + coarse + 2 + held, "{}", kept.len());
    }
}
