//! Sessions that do not agree with themselves prove nothing: each is played natively three times here.
//!
//! The two that compute for long, xz and cc1, are left to whoever runs them hosted.

use std::sync::Mutex;

use guests::{Mode, Options, Session, run, sessions};

/// What is wrong with one.
fn disagreement(session: &Session) -> Vec<String> {
    if let Some(path) = session.missing() {
        let path = path.display();
        return vec![format!(
            "{}: {path} is not there, see scripts/install-guests",
            session.name
        )];
    }
    match run(session, Mode::Native, &Options::default()) {
        Ok(report) => {
            let differences = report.differences.iter();
            differences
                .map(|difference| format!("{}: {difference}", session.name))
                .collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn every_session_agrees_with_itself() {
    let mut sessions = sessions();
    sessions.retain(|session| !matches!(session.name, "xz" | "cc1"));
    assert!(sessions.len() >= 40, "only {} sessions", sessions.len());
    // (The first ones take the longest.)
    sessions.reverse();
    let waiting = Mutex::new(sessions);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(session) = waiting.lock().unwrap().pop() else {
                        return;
                    };
                    wrong.lock().unwrap().extend(disagreement(&session));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
