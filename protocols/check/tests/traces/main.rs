//! Traces of random computations: those of the protocols are consistent, and whatever is done to
//! them afterwards is found and named.

mod computation;

use computation::{Computation, EVEN, Mix};
use protocols::Protocol;
use protocols::trace::Class;
use protocols_check::{Kind, Record, Report, Traces, Violation, check};
use std::io::{BufReader, Read};
use std::time::Duration;

fn judge(text: &str) -> Report {
    let text = format!("{text}\n");
    check(Traces::one(text.as_bytes())).expect("the trace is readable")
}

#[test]
fn a_line_that_was_never_finished_does_not_count() {
    let text = text_of(Protocol::Cbndvs, 2, EVEN, 200);
    for cut in 1..text.len() {
        let trace = Traces::one(&text.as_bytes()[..cut]);
        let report = check(trace).expect("the trace is readable");
        assert!(report.is_consistent(), "{report}");
        assert_eq!(report.torn == 0, text[..cut].ends_with('\n'), "{report}");
    }
}

fn text_of(protocol: Protocol, processes: usize, mix: Mix, events: u64) -> String {
    let mut text = String::new();
    Computation::new(protocol, processes, mix, events)
        .read_to_string(&mut text)
        .expect("a computation is readable");
    text
}

#[test]
fn every_protocol_upholds_the_commit_invariant() {
    for protocol in Protocol::ALL {
        for processes in [1, 2, 3, 8] {
            let trace = BufReader::new(Computation::new(protocol, processes, EVEN, 20_000));
            let report = check(Traces::one(trace)).expect("the trace is readable");
            assert!(
                report.is_consistent(),
                "{protocol}, {processes} processes: {report}"
            );
            assert!(
                report.events >= 20_000 && report.processes == processes,
                "{report}"
            );
            assert!(
                report.of(Class::Kill) > 10 && report.unverified == 0,
                "{report}"
            );
            assert_eq!(report.logged > 0, protocol.logs(), "{report}");
        }
    }
}

/// The lines of a trace without the line `at`, its process's later events counted one less.
fn without(lines: &[&str], at: usize) -> String {
    let parse = |line: &str| {
        let mut record = Record::new();
        record
            .parse(line, Default::default())
            .expect("a line")
            .then_some(record)
    };
    let gone = parse(lines[at]).expect("an event");
    let earlier = |process: u32, sequence: u64| {
        sequence - (process == gone.process && sequence >= gone.sequence) as u64
    };
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        if number == at {
            continue;
        }
        let Some(record) = parse(line) else { continue };
        use protocols::trace::Note;
        let clock: Vec<_> = record
            .clock
            .iter()
            .map(|(p, s)| (*p, earlier(*p, *s)))
            .collect();
        let note = match record.note {
            Note::From(p, s) => Note::From(p, earlier(p, s)),
            Note::To(s) => Note::To(earlier(record.process, s)),
            other => other,
        };
        let line = protocols::trace::Line {
            process: record.process,
            sequence: earlier(record.process, record.sequence),
            class: record.class,
            call: &record.call,
            fate: record.fate,
            clock: &clock,
            note,
        };
        let mut buffer = [0; 200];
        let len = line.write_to(&mut buffer).expect("the line fits");
        text.push_str(std::str::from_utf8(&buffer[..len]).expect("it is ASCII"));
    }
    text
}

const NO_KILLS: Mix = Mix {
    signals: 20,
    reads: 20,
    visible: 20,
    messages: 40,
    kills: 0,
    keys: 0,
    bugs: 0,
};

#[test]
fn a_commit_whose_line_is_deleted_is_missing() {
    for protocol in Protocol::ALL {
        let text = text_of(protocol, 3, NO_KILLS, 300);
        let lines: Vec<&str> = text.lines().collect();
        let commits = (0..lines.len()).filter(|at| lines[*at].contains(" commit "));
        let mut deleted = 0;
        for at in commits {
            let kept: Vec<&str> = lines
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != at)
                .map(|(_, l)| *l)
                .collect();
            let mut own = lines[at].split(' ');
            let process: u32 = own.next().and_then(|p| p.parse().ok()).expect("a process");
            let sequence: u64 = own.next().and_then(|s| s.parse().ok()).expect("a sequence");
            let report = judge(&kept.join("\n"));
            let goes_on = kept[at..]
                .iter()
                .any(|l| l.starts_with(&format!("{process} ")));
            match report.violations.first() {
                Some(Violation::Missing { before, first }) => {
                    assert_eq!((before.process, *first), (process, sequence));
                    deleted += 1;
                }
                // The last line of a process may be cut off without anybody noticing.
                None => assert!(!goes_on, "{protocol}: {}", lines[at]),
                Some(_) => panic!("{protocol}: {report}"),
            }
        }
        assert!(deleted > 20, "{protocol}: {deleted}");
    }
}

#[test]
fn a_commit_that_was_never_made_leaves_something_unsafe() {
    // The local protocols that commit for a reason only; what CPVS and the rounds commit to no
    // avail may well be left out.
    let expected = [
        (Protocol::Cbndvs, (36, 10, 6)),
        (Protocol::CbndvsLog, (29, 3, 2)),
    ];
    for (protocol, counts) in expected {
        let text = text_of(protocol, 3, NO_KILLS, 300);
        let lines: Vec<&str> = text.lines().collect();
        let (mut unsafe_, mut livelock, mut harmless) = (0, 0, 0);
        for at in (0..lines.len()).filter(|at| lines[*at].contains(" commit ")) {
            match judge(&without(&lines, at))
                .violations
                .first()
                .map(Violation::kind)
            {
                Some(Kind::Safety) => unsafe_ += 1,
                Some(Kind::Liveness) => livelock += 1,
                None => harmless += 1,
                Some(other) => panic!("{protocol}: {other:?} without {}", lines[at]),
            }
        }
        // Harmless: what was committed was then sent, and nobody has received it yet.
        assert_eq!((unsafe_, livelock, harmless), counts, "{protocol}");
    }
}

#[test]
fn lines_in_the_wrong_order_are_named() {
    let text = text_of(Protocol::Cbndvs, 2, NO_KILLS, 300);
    let mut lines: Vec<&str> = text.lines().collect();
    let at = (0..lines.len())
        .find(|at| {
            let next = lines.get(at + 1).copied().unwrap_or_default();
            lines[*at].starts_with("1 ")
                && lines[*at].contains(" commit ")
                && next.contains("visible")
        })
        .expect("a commit before a visible event");
    lines.swap(at, at + 1);
    let report = judge(&lines.join("\n"));
    let first = &report.violations[0];
    assert!(matches!(first, Violation::Reordered { .. }), "{report}");
    let places: Vec<u64> = first.places().iter().map(|p| p.line).collect();
    assert_eq!(places, [at as u64 + 1, at as u64 + 2]);
    // What the commit should have preserved is not preserved where it matters.
    assert!(report.first(Kind::Safety).is_some(), "{report}");
}

#[test]
fn a_wrong_clock_is_named_wherever_it_is() {
    let text = text_of(Protocol::Cbndvs, 3, EVEN, 300);
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    let mut wrong = 0;
    for at in 1..lines.len() {
        let clock = lines[at].split(' ').nth(5).expect("a clock").to_string();
        for entry in clock.split(',') {
            let (process, sequence) = entry.split_once(':').expect("an entry");
            let sequence: u64 = sequence.parse().expect("a number");
            for other in [sequence - 1, sequence + 1] {
                let bad = clock.replace(entry, &format!("{process}:{other}"));
                let mut lines = lines.clone();
                lines[at] = lines[at].replace(&format!(" {clock}"), &format!(" {bad}"));
                let report = judge(&lines.join("\n"));
                let first = report.violations.first();
                let Some(Violation::WrongClock {
                    event,
                    about,
                    says,
                    knows,
                }) = first
                else {
                    panic!("{}: {report}", lines[at]);
                };
                assert_eq!(event.place.line, at as u64 + 1);
                assert_eq!(
                    (about.to_string(), *says, *knows),
                    (process.into(), other, sequence)
                );
                wrong += 1;
            }
        }
    }
    assert!(wrong > 1000, "{wrong}");
}

#[test]
fn traces_of_each_process_give_the_verdict_of_one_trace() {
    for protocol in [Protocol::CbndvsLog, Protocol::Cbndv2pc] {
        let text = text_of(protocol, 4, EVEN, 4000);
        let of = |process: u32| {
            let own = |line: &&str| line.starts_with(&format!("{process} "));
            text.lines().filter(own).collect::<Vec<_>>().join("\n") + "\n"
        };
        let separate: Vec<String> = (1..=4).map(of).collect();
        let report = check(Traces::new(separate.iter().map(|t| t.as_bytes()))).expect("readable");
        assert!(report.is_consistent(), "{protocol}: {report}");
        let together = judge(&text);
        assert_eq!(report.classes, together.classes);

        if protocol.is_two_phase() {
            continue;
        }
        let cut = separate[2].replacen("commit checkpoint commit", "visible write -", 1);
        let traces = [&separate[0], &separate[1], &cut, &separate[3]].map(|t| t.as_bytes());
        let report = check(Traces::new(traces)).expect("readable");
        assert_eq!(
            report.violations[0].places().last().map(|p| p.trace),
            Some(3),
            "{report}"
        );
    }
}

/// The lose-work rule, counted on computations that crash by bugs of their own.
#[test]
fn only_a_protocol_that_defers_its_commits_can_lose_work() {
    let mix = Mix {
        keys: 30,
        bugs: 4,
        kills: 0,
        ..EVEN
    };
    let count = |protocol, tells_faults| {
        let mut computation = Computation::new(protocol, 2, mix, 30_000);
        computation.tells_faults = tells_faults;
        let report = check(Traces::one(BufReader::new(computation))).expect("readable");
        assert!(report.is_consistent(), "{protocol}: {report}");
        let lost = &report.lose_work;
        assert!(lost.crashes > 200 && lost.finals <= lost.crashes && lost.commits >= lost.finals);
        let percent = lost.finals * 100 / lost.crashes;
        eprintln!(
            "{protocol:<11} faults told: {tells_faults:<5} crashes {}, final {} ({percent} %), by \
             commits on the dangerous path {}",
            lost.crashes, lost.finals, lost.commits,
        );
        (percent, lost.commits as f64 / lost.finals as f64)
    };
    let untold = Protocol::ALL.map(|p| count(p, false));
    let told = Protocol::ALL.map(|p| count(p, true));
    let [cpvs, cand, cbndvs, cand_log, cbndvs_log, ..] = untold;
    // CAND commits right behind every event that might have gone otherwise.
    assert_eq!(cand.0, 100);
    assert!(
        untold.iter().filter(|c| c.0 < 75).count() == 6,
        "{untold:?}"
    );
    // What is logged is determined, and a log that need not wait is a longer dangerous path.
    assert!(cand_log.0 > cbndvs_log.0);
    // CPVS and CBNDVS begin to commit at the same event, the first that is seen; CPVS goes on.
    assert!(
        cpvs.0.abs_diff(cbndvs.0) <= 2 && cpvs.1 > 1.5 * cbndvs.1,
        "{untold:?}"
    );
    // A beginning that is known makes more commits dangerous, never fewer.
    assert!(
        told.iter()
            .zip(&untold)
            .all(|(told, untold)| told.0 >= untold.0)
    );
}

/// Ten million events, or as many as `CHECK_EVENTS` says; `--release --nocapture` shows the times.
#[test]
fn time_is_linear_and_memory_is_bounded() {
    let most: u64 = std::env::var("CHECK_EVENTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60_000);
    for (protocol, processes) in [(Protocol::Cbndvs, 1), (Protocol::CbndvsLog, 8)] {
        let mut per_event = Vec::new();
        for events in [most / 4, most] {
            let start = spent();
            let mut generated = 0;
            let mut computation = Computation::new(protocol, processes, EVEN, events);
            let mut sink = [0; 1 << 16];
            while let Ok(len @ 1..) = computation.read(&mut sink) {
                generated += len;
            }
            let making = spent() - start;
            let trace = BufReader::new(Computation::new(protocol, processes, EVEN, events));
            let start = spent();
            let report = check(Traces::one(trace)).expect("the trace is readable");
            // (It makes the events once more; a difference of two short times may be anything.)
            let both = spent() - start;
            let checking = both.saturating_sub(making);
            assert!(report.is_consistent(), "{report}");
            let nanoseconds = checking.as_nanos() as u64 / report.events;
            let resident = resident_kb();
            eprintln!(
                "{protocol} {processes} processes: {} events, {} MB of text, {checking:?}, \
                 {nanoseconds} ns an event, {resident} kB resident at most",
                report.events,
                generated >> 20,
            );
            let kept = kept_kb(report.of(Class::Send), processes as u64);
            let whole = both.as_nanos() as u64 / report.events;
            per_event.push((whole, resident, kept));
        }
        // Four times the events in the same memory, but for the sends that are remembered until
        // there are as many as may be; times vary too much to be asserted closely.
        let [first, last] = per_event[..] else {
            unreachable!("two lengths")
        };
        assert!(
            last.1 < first.1 + (last.2 - first.2) + 4096,
            "{per_event:?}"
        );
        assert!(last.0 < first.0 * 3 + 200, "{per_event:?}");
    }
}

/// What is remembered of so many sends: of all processes together 2^20 components of clocks, each
/// with the event that it leaves open, and some bytes beside them.
fn kept_kb(sends: u64, processes: u64) -> u64 {
    const COMPONENT: u64 = 48;
    const BESIDE: u64 = 128;
    sends.min((1 << 20) / processes) * (processes * COMPONENT + BESIDE) / 1024
}

/// The processor's time for this thread, whoever else has it meanwhile (proc(5), schedstat).
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("the kernel counts processor time"))
}

/// The most memory this process ever held.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}
