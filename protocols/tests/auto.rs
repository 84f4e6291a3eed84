//! `auto` against the fixed protocols, on the event mixes of the thesis' applications and others.

use protocols::auto::{Advice, Auto, Costs, Demand};
use protocols::{Event, Machine, Protocol};

const READ: Event = Event::NonDeterministic { loggable: true };
const SIGNAL: Event = Event::NonDeterministic { loggable: false };
const MEMORY: Costs = Costs {
    commit_ns: 10_000,
    record_ns: 400,
    record_kib_ns: 200,
    flush_ns: 100,
};
const DISK: Costs = Costs {
    commit_ns: 12_000_000,
    record_ns: 300,
    record_kib_ns: 300,
    flush_ns: 4_000_000,
};

/// A log whose records cost more than a commit of the few pages that are dirty.
const DEAR_LOG: Costs = Costs {
    commit_ns: 5_000,
    record_ns: 3_000,
    record_kib_ns: 4_000,
    flush_ns: 2_000,
};

/// One event, and the bytes that logging it would take.
type Step = (Event, u64);

/// Repeats a phrase.
fn phrases(times: usize, phrase: &[Step]) -> Vec<Step> {
    phrase
        .iter()
        .copied()
        .cycle()
        .take(times * phrase.len())
        .collect()
}

/// A key, a redraw in several writes, now and then an alarm.
fn editor(keys: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for key in 0..keys {
        steps.push((READ, 1));
        if key % 50 == 0 {
            steps.push((SIGNAL, 0));
        }
        steps.extend([(Event::Visible, 0); 3]);
    }
    steps
}

fn workloads() -> Vec<(&'static str, Vec<Step>)> {
    let time_then_output = [(SIGNAL, 0), (SIGNAL, 0), (SIGNAL, 0), (Event::Visible, 0)];
    let output_only = [(Event::Visible, 0)];
    let busy_clock: Vec<Step> = [
        vec![(SIGNAL, 0); 200],
        vec![(READ, 16); 50],
        vec![(Event::Visible, 0); 2],
    ]
    .concat();
    let server = [
        (Event::Receive, 900),
        (READ, 8),
        (Event::Send, 0),
        (Event::Send, 0),
        (Event::Visible, 0),
    ];
    let big_reads = [
        (READ, 65_536),
        (READ, 65_536),
        (Event::Visible, 0),
        (Event::Visible, 0),
    ];
    vec![
        ("editor", editor(8000)),
        (
            "spreadsheet",
            phrases(4000, &[(READ, 4), (Event::Visible, 0), (Event::Visible, 0)]),
        ),
        ("compute, sparse output", phrases(3000, &output_only)),
        ("clock and output", phrases(4000, &time_then_output)),
        ("mostly signals", phrases(60, &busy_clock)),
        ("server", phrases(4000, &server)),
        ("large reads", phrases(4000, &big_reads)),
    ]
}

/// What a run costs under a fixed protocol.
fn fixed(protocol: Protocol, steps: &[Step], costs: &Costs) -> u64 {
    run(Machine::new(protocol), None, steps, costs).0
}

/// What it costs in all, and how often the protocol changed.
fn run(
    mut machine: Machine,
    mut auto: Option<&mut Auto>,
    steps: &[Step],
    costs: &Costs,
) -> (u64, u64) {
    let mut demand = Demand::default();
    let mut moves = 0;
    for &(event, bytes) in steps {
        let decision = machine.step(event);
        if decision.log {
            demand.records += 1;
            demand.logged_bytes += bytes;
        }
        if decision.flush {
            demand.flushes += 1;
            machine.step(Event::Flushed);
        }
        for asked in [decision.commit_before, decision.commit_after] {
            if asked {
                demand.commits += 1;
                machine.step(Event::Committed);
            }
        }
        let Some(auto) = auto.as_deref_mut() else {
            continue;
        };
        auto.watch(event, bytes, costs);
        let choice = match auto.advise(&machine, costs) {
            Advice::Stay => continue,
            Advice::Move(choice) => choice,
            Advice::CommitToMove(choice) => {
                demand.commits += 1;
                machine.step(Event::Committed);
                choice
            }
        };
        assert!(choice.instead_ns < choice.as_is_ns, "{choice}");
        assert!(machine.change_to(choice.to), "{choice}");
        auto.moved(choice.to, costs);
        moves += 1;
    }
    (demand.cost_ns(costs), moves)
}

#[test]
fn auto_comes_within_five_percent_of_the_best_fixed_protocol() {
    for (medium, costs) in [("memory", MEMORY), ("disk", DISK), ("dear log", DEAR_LOG)] {
        for (name, steps) in workloads() {
            let local = Protocol::ALL.into_iter().filter(|p| !p.is_two_phase());
            let all: Vec<(Protocol, u64)> = local.map(|p| (p, fixed(p, &steps, &costs))).collect();
            let best = all.iter().min_by_key(|(_, cost)| *cost).expect("five");
            let worst = all.iter().max_by_key(|(_, cost)| *cost).expect("five");
            // From the worst protocol there is, so that it has to find the way.
            let mut auto = Auto::new(worst.0);
            let (cost, moves) = run(Machine::new(worst.0), Some(&mut auto), &steps, &costs);
            let over = cost as f64 / best.1.max(1) as f64 - 1.0;
            eprintln!(
                "{medium:<9}{name:<23} best {:<11}{:>12} worst {:<11}{:>12} auto {cost:>12} \
                 {:+.2} %, {moves} moves",
                best.0,
                best.1,
                worst.0,
                worst.1,
                over * 100.0,
            );
            // A handful of commits is what learning costs, however little there is to be paid.
            let learning = 8 * costs.commit_ns;
            assert!(cost <= best.1 + best.1 / 20 + learning, "{medium}, {name}");
            assert!(cost < worst.1, "{medium}, {name}");
            assert!(moves <= 3, "{medium}, {name}: {moves} moves");
        }
    }
}

#[test]
fn auto_beats_every_fixed_protocol_when_the_program_changes_its_ways() {
    // It edits, then it loads, five times over: the log pays for keys and not for files.
    let mut steps = Vec::new();
    for _ in 0..5 {
        steps.extend(editor(1000));
        steps.extend(phrases(
            500,
            &[(READ, 65_536), (READ, 65_536), (Event::Visible, 0)],
        ));
    }
    let local = Protocol::ALL.into_iter().filter(|p| !p.is_two_phase());
    let best = local
        .map(|p| fixed(p, &steps, &MEMORY))
        .min()
        .expect("five");
    let mut auto = Auto::new(Protocol::Cpvs);
    let (cost, moves) = run(
        Machine::new(Protocol::Cpvs),
        Some(&mut auto),
        &steps,
        &MEMORY,
    );
    eprintln!("changing ways: the best fixed protocol {best}, auto {cost} with {moves} moves");
    assert!(cost * 10 < best * 6, "{cost} against {best}");
    assert_eq!((moves, auto.moves()), (10, 10));
}

/// A spreadsheet on disk: while a formula is typed each key is shown, which a log makes cheaper; when
/// it is entered much is shown, which a log has to flush each time. To go along with each phase
/// would cost a commit for each.
#[test]
fn auto_does_not_go_along_with_every_phase_of_every_turn() {
    let costs = Costs {
        commit_ns: 700_000,
        flush_ns: 300_000,
        ..DISK
    };
    let mut turn = Vec::new();
    for _ in 0..7 {
        turn.extend([(READ, 41), (Event::Visible, 0)]);
    }
    turn.push((READ, 41));
    turn.extend([(Event::Visible, 0); 25]);
    let steps = phrases(100, &turn);
    // What must be on record before more is shown costs a log a flush each time.
    let with_flushes = |protocol: Protocol| {
        let shown = steps.iter().filter(|(event, _)| *event == Event::Visible);
        let more = shown.count() as u64 * costs.flush_ns;
        match protocol.logs() {
            true => more,
            false => fixed(protocol, &steps, &costs),
        }
    };
    let best = with_flushes(Protocol::Cbndvs);
    assert!(best < with_flushes(Protocol::CbndvsLog));
    let mut auto = Auto::new(Protocol::Cbndvs);
    auto.set_output_is_flushed(true);
    let machine = Machine::new(Protocol::Cbndvs);
    let (cost, moves) = run(machine, Some(&mut auto), &steps, &costs);
    eprintln!("a phase for each: best {best}, auto {cost}, {moves} moves");
    assert!(moves <= 8, "{moves} moves");
}

/// A shadow that hears of results all at once knows what one does that has watched each of them.
#[test]
fn results_that_passed_by_count_as_if_each_had_been_watched() {
    // A commit is worth few records, so that credit comes and goes; three commits saved are told.
    let costs = Costs {
        commit_ns: 300,
        record_ns: 10,
        record_kib_ns: 0,
        flush_ns: 120,
    };
    let commits = Costs {
        commit_ns: 1,
        record_ns: 0,
        record_kib_ns: 0,
        flush_ns: 0,
    };
    let mut random = 1u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        (random >> 33) % n
    };
    let (mut passed, mut advised) = (0, 0);
    for protocol in Protocol::ALL {
        let (mut one_by_one, mut at_once) = (Auto::new(protocol), Auto::new(protocol));
        one_by_one.set_output_is_flushed(true);
        at_once.set_output_is_flushed(true);
        let mut machine = Machine::new(protocol);
        for _ in 0..20_000 {
            let results = below(6);
            if machine.flag() && results > 0 {
                (0..results).for_each(|_| one_by_one.watch(READ, 16, &costs));
                at_once.passed(results, 16 * results, &costs);
                passed += results;
            }
            let event = [READ, READ, SIGNAL, Event::Visible][below(4) as usize];
            for auto in [&mut one_by_one, &mut at_once] {
                auto.watch(event, 16, &costs);
            }
            let decision = machine.step(event);
            if decision.commits() || below(50) == 0 {
                machine.step(Event::Committed);
            }
            let advice = at_once.advise(&machine, &commits);
            assert_eq!(one_by_one.advise(&machine, &commits), advice);
            advised += u32::from(advice != Advice::Stay);
            // Whatever is advised, any protocol is to be left as well.
            let to = Protocol::ALL[below(7) as usize];
            if below(40) == 0 && machine.change_to(to) {
                one_by_one.moved(to, &commits);
                at_once.moved(to, &commits);
            }
        }
    }
    assert!(
        passed > 50_000 && advised > 500,
        "{passed} results, advised {advised} times"
    );
}

#[test]
fn the_choice_is_told_in_words() {
    let mut auto = Auto::new(Protocol::Cand);
    let mut machine = Machine::new(Protocol::Cand);
    let choice = loop {
        for (event, bytes) in [(READ, 12), (Event::Visible, 0)] {
            machine.step(event);
            machine.step(Event::Committed);
            auto.watch(event, bytes, &MEMORY);
        }
        if let Advice::Move(choice) = auto.advise(&machine, &MEMORY) {
            break choice;
        }
    };
    assert_eq!(
        choice.to_string(),
        "cbndvs-log instead of cand: in 6 events it takes 0 commits, 3 records of 36 bytes in \
         all, flushed 3 times (1507 ns) where cand takes 3 commits (30 us)"
    );
}

/// A log commits with what outlives a rollback: where much of it is made, none is worth keeping.
#[test]
fn what_outlives_a_rollback_counts_against_a_log() {
    let ends_as = |outlives: bool| {
        let mut auto = Auto::new(Protocol::Cbndvs);
        let mut machine = Machine::new(Protocol::Cbndvs);
        for _ in 0..100 {
            for event in [READ, Event::Visible] {
                auto.watch(event, 16, &DISK);
                let decision = machine.step(event);
                if decision.commits() {
                    machine.step(Event::Committed);
                }
                if outlives {
                    auto.outlived(&DISK);
                }
                if let Advice::Move(choice) | Advice::CommitToMove(choice) =
                    auto.advise(&machine, &DISK)
                {
                    return choice.to;
                }
            }
        }
        Protocol::Cbndvs
    };
    assert!(ends_as(false).logs());
    assert_eq!(ends_as(true), Protocol::Cbndvs);
}

/// A first guess that was too high must not make what was saved at it worth several commits.
#[test]
fn credit_is_worth_what_its_commits_cost_now() {
    let mut auto = Auto::new(Protocol::Cbndvs);
    let mut machine = Machine::new(Protocol::Cbndvs);
    let measured = Costs {
        commit_ns: DISK.commit_ns / 5,
        ..DISK
    };
    // CBNDVS commits for what was shown; CAND had done so before. Then neither has anything to do.
    for event in [SIGNAL, Event::Visible] {
        machine.step(event);
        auto.watch(event, 0, &DISK);
    }
    machine.step(Event::Committed);
    for _ in 0..10 {
        machine.step(Event::Visible);
        auto.watch(Event::Visible, 0, &measured);
        assert_eq!(auto.advise(&machine, &measured), Advice::Stay);
    }
}

/// Nor may what was saved at a price of then be set against a threshold of now.
#[test]
fn a_price_that_falls_makes_no_move() {
    let mut auto = Auto::new(Protocol::Cbndvs);
    let mut machine = Machine::new(Protocol::Cbndvs);
    for event in [READ, Event::Visible] {
        machine.step(event);
        auto.watch(event, 16, &DISK);
    }
    machine.step(Event::Committed);
    let fallen = Costs {
        commit_ns: DISK.commit_ns / 5,
        flush_ns: DISK.flush_ns / 5,
        ..DISK
    };
    assert_eq!(auto.advise(&machine, &fallen), Advice::Stay);
}
