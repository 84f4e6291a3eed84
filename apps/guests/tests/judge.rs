//! The harness on trial: it must find what is wrong, and nothing where nothing is.
//!
//! A stand-in for dcrun makes one mistake at a time; a judge that lets one pass would let the engine's pass as well.

use guests::{Kind, Mode, Options, Report, Result, run, session};
use std::path::PathBuf;

fn fake(mistake: &str) -> Options {
    Options {
        dcrun: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fake-dcrun"),
        env: vec![("FAKE".into(), mistake.into())],
        ..Options::default()
    }
}

fn judge(name: &str, mode: Mode, mistake: &str) -> Result<Report> {
    let session = session(name).ok_or_else(|| guests::Error::new("no such session"))?;
    run(&session, mode, &fake(mistake))
}

fn findings(report: &Report) -> Vec<(Kind, &str)> {
    report
        .differences
        .iter()
        .map(|found| (found.kind, found.subject.as_str()))
        .collect()
}

#[test]
fn an_honest_run_agrees() -> Result<()> {
    for name in [
        "probe-counter",
        "probe-counter-append",
        "probe-terminal-raw",
        "probe-chance",
    ] {
        let report = judge(name, Mode::Hosted, "honest")?;
        assert_eq!(findings(&report), [], "{name}");
        assert_eq!((report.runs, report.failed_runs), (1, 0), "{name}");
    }
    Ok(())
}

#[test]
fn each_mistake_is_found_and_named() -> Result<()> {
    for (name, mistake, kind, subject) in [
        ("probe-counter", "repeat", Kind::Repeated, "output"),
        ("probe-counter", "lose", Kind::Lost, "output"),
        ("probe-counter", "file", Kind::Different, "file counter.txt"),
        ("probe-counter", "status", Kind::Different, "exit status"),
        ("probe-chance", "repeat", Kind::Repeated, "chain"),
        ("probe-chance", "lose", Kind::Lost, "chain"),
    ] {
        let report = judge(name, Mode::Hosted, mistake)?;
        assert_eq!(
            findings(&report),
            [(kind, subject)],
            "{name} with {mistake}"
        );
        assert!(!report.agrees());
    }
    Ok(())
}

#[test]
fn workers_are_killed_and_counted() -> Result<()> {
    let report = judge("probe-counter", Mode::KillWorker, "patient")?;
    assert_eq!(findings(&report), []);
    assert!(report.kills >= 3, "{report}");
    assert_eq!(report.kills, report.recoveries);
    assert_eq!(report.recovery_us.len(), report.kills);
    Ok(())
}

#[test]
fn everything_is_killed_and_run_again_at_the_same_console() -> Result<()> {
    for name in [
        "probe-counter",
        "probe-counter-append",
        "probe-terminal-raw",
    ] {
        let report = judge(name, Mode::KillAll, "patient")?;
        assert_eq!(findings(&report), [], "{name}");
        assert!(report.kills >= 3, "{name}: {report}");
        assert_eq!(report.kills, report.recoveries);
    }
    Ok(())
}
