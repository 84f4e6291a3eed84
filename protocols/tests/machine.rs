//! What each protocol answers, told event by event.
//!
//! A script is a line of letters: `n` a non-deterministic event that cannot be logged, `l` one that
//! can, `r` a receive, `v` visible, `s` send, `u` unknown, `x` visible and non-deterministic at
//! once, `q` a commit asked for from outside. The answer repeats each letter with what was done
//! around it: `|` a local commit, `#` a round of the group, `+` a log record, `!` a flush.

use protocols::{Decision, Event, Machine, Protocol};

fn play(machine: &mut Machine, script: &str) -> String {
    let mut story = String::new();
    let commit = |machine: &mut Machine, decision: &Decision, story: &mut String| {
        story.push(if decision.global { '#' } else { '|' });
        assert_eq!(machine.step(Event::Committed), Decision::NONE);
    };
    for letter in script.chars() {
        let event = match letter {
            'n' => Event::NonDeterministic { loggable: false },
            'l' => Event::NonDeterministic { loggable: true },
            'r' => Event::Receive,
            'v' => Event::Visible,
            's' => Event::Send,
            'u' => Event::Unknown,
            'x' => Event::VisibleNonDeterministic,
            'q' => Event::CommitRequested,
            _ => unreachable!(),
        };
        let decision = machine.step(event);
        if decision.flush {
            assert!(
                !decision.commit_before,
                "a commit takes the place of the log"
            );
            story.push('!');
            machine.step(Event::Flushed);
        }
        if decision.commit_before {
            commit(machine, &decision, &mut story);
        }
        story.push(letter);
        if decision.log {
            story.push('+');
        }
        if decision.commit_after {
            commit(machine, &decision, &mut story);
        }
    }
    story
}

#[test]
fn the_seven_protocols_side_by_side() {
    let script = "vnlrvvsslsnsv";
    let expected = [
        (Protocol::Cpvs, "|vnlr|v|v|s|sl|sn|s|v"),
        (Protocol::Cand, "vn|l|r|vvssl|sn|sv"),
        (Protocol::Cbndvs, "vnlr|vvssl|sn|sv"),
        (Protocol::CandLog, "vn|l+r+!vvssl+!sn|sv"),
        (Protocol::CbndvsLog, "vnlr|vvssl+!sn|sv"),
        (Protocol::Cpv2pc, "#vnlr#v#vsslsns#v"),
        (Protocol::Cbndv2pc, "vnlr#vvsslsns#v"),
    ];
    for (protocol, story) in expected {
        assert_eq!(
            play(&mut Machine::new(protocol), script),
            story,
            "{protocol}"
        );
    }
}

#[test]
fn logging_stops_at_the_first_event_that_is_not_in_the_log() {
    let mut machine = Machine::new(Protocol::CbndvsLog);
    assert_eq!(play(&mut machine, "llnllvl"), "l+l+nll|vl+");
}

#[test]
fn an_eager_log_is_flushed_at_once() {
    let mut machine = Machine::new(Protocol::CbndvsLog);
    machine.set_lazy_log(false);
    let decision = machine.step(Event::Receive);
    assert!(decision.log && decision.flush);
    machine.step(Event::Flushed);
    assert_eq!(machine.step(Event::Visible), Decision::NONE);
}

#[test]
fn what_is_unknown_or_both_is_committed_around_under_every_protocol() {
    for protocol in Protocol::ALL {
        let mark = if protocol.is_two_phase() { '#' } else { '|' };
        let around = format!("{mark}u{mark}");
        assert_eq!(play(&mut Machine::new(protocol), "u"), around, "{protocol}");
        let asked = format!("{mark}q");
        assert_eq!(play(&mut Machine::new(protocol), "q"), asked, "{protocol}");
        let both = Machine::new(protocol).step(Event::VisibleNonDeterministic);
        assert!(both.commit_after && both.atomic, "{protocol}");
    }
}

#[test]
fn several_threads_keep_the_flag_set_and_the_log_shut() {
    for protocol in Protocol::ALL {
        let mut machine = Machine::new(protocol);
        machine.set_always_nd(true);
        let mark = if protocol.is_two_phase() { '#' } else { '|' };
        let twice = format!("{mark}v{mark}v");
        assert_eq!(play(&mut machine, "vv"), twice, "{protocol}");
        assert!(machine.flag(), "{protocol}");
        assert!(!machine.step(Event::Receive).log, "{protocol}");

        machine.step(Event::Committed);
        machine.set_always_nd(true);
        machine.set_always_nd(false);
        assert!(machine.flag(), "{protocol}: the interleaving has happened");
        machine.step(Event::Committed);
        assert!(!machine.flag(), "{protocol}");
    }
}

#[test]
fn a_commit_that_was_asked_for_stays_owed_until_it_is_made() {
    let mut machine = Machine::new(Protocol::Cand);
    assert!(machine.step(Event::Receive).commit_after);
    // The runtime could not commit then, inside a handler for instance.
    assert!(machine.step(Event::Visible).commit_before);
    assert!(machine.step(Event::Send).commit_before);
    machine.step(Event::Committed);
    assert_eq!(machine.step(Event::Visible), Decision::NONE);
}

#[test]
fn protocols_change_only_at_safe_points_and_within_their_scope() {
    let mut machine = Machine::new(Protocol::Cbndvs);
    machine.step(Event::Receive);
    assert!(
        !machine.change_to(Protocol::Cand),
        "an event is uncommitted"
    );
    machine.step(Event::Committed);
    assert!(
        !machine.change_to(Protocol::Cbndv2pc),
        "the group moves together"
    );
    assert!(machine.change_to(Protocol::CbndvsLog));
    assert!(machine.step(Event::Receive).log);
    assert!(!machine.change_to(Protocol::Cpvs), "a record may be lost");
    machine.step(Event::Flushed);
    assert!(machine.change_to(Protocol::Cpvs));
    assert_eq!(machine.protocol(), Protocol::Cpvs);
}

#[test]
fn an_image_leads_back_to_its_machine_and_garbage_to_none() {
    let mut machine = Machine::new(Protocol::CandLog);
    machine.step(Event::Receive);
    assert_eq!(Machine::from_bytes(machine.to_bytes()), Some(machine));
    for (byte, bad) in [(0, 7), (1, 2), (2, 255), (6, 1), (7, 1)] {
        let mut image = machine.to_bytes();
        image[byte] = bad;
        assert_eq!(Machine::from_bytes(image), None, "byte {byte}");
    }
}

#[test]
fn the_flag_never_costs_a_commit() {
    // Every script of up to six letters: CBNDVS commits at most as often as CPVS and as CAND, and
    // the logging protocols at most as often as those without a log.
    fn commits(protocol: Protocol, script: &[Event]) -> u32 {
        let mut machine = Machine::new(protocol);
        let mut count = 0;
        for event in script {
            let decision = machine.step(*event);
            for asked in [decision.commit_before, decision.commit_after] {
                if asked {
                    count += 1;
                    machine.step(Event::Committed);
                }
            }
        }
        count
    }
    let alphabet = [
        Event::NonDeterministic { loggable: false },
        Event::NonDeterministic { loggable: true },
        Event::Receive,
        Event::Visible,
        Event::Send,
    ];
    let mut scripts = 0;
    let mut strictly = 0;
    for length in 0..=6u32 {
        for number in 0..5usize.pow(length) {
            let mut rest = number;
            let script: Vec<Event> = (0..length)
                .map(|_| {
                    let letter = alphabet[rest % 5];
                    rest /= 5;
                    letter
                })
                .collect();
            let [cpvs, cand, cbndvs, cand_log, cbndvs_log, ..] =
                Protocol::ALL.map(|p| commits(p, &script));
            assert!(cbndvs <= cpvs && cbndvs <= cand, "{script:?}");
            assert!(cand_log <= cand && cbndvs_log <= cbndvs, "{script:?}");
            scripts += 1;
            strictly += (cbndvs < cpvs && cbndvs < cand) as u32;
        }
    }
    assert_eq!((scripts, strictly), (19531, 10662));
}
