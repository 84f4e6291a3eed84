//! What the pool believes of a folder, against a server that tells news at every place where it may.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use undo_mail::imap::copies::Copies;
use undo_mail::imap::pool::{Login, Pool, Trouble};
use undo_mail::imap::separator::Separator;

/// One folder for all: the UIDs in it. The UndoID of a message is its UID, of which those from 100
/// to 10,000 are copies.
#[derive(Default)]
struct Folder {
    uids: Vec<u32>,
    /// Every second session hears of nothing before it selects the folder anew.
    lags: bool,
    sessions: usize,
    /// Come and go while the next list of UIDs is on its way: added, and removed.
    meanwhile: (Vec<u32>, Vec<u32>),
}

type Shared = Arc<Mutex<Folder>>;

/// Serves sessions, each of which knows what it has told its client so far.
fn serve(folder: Shared) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || session(&folder, stream));
        }
    });
    address
}

fn session(folder: &Shared, mut out: TcpStream) -> Option<()> {
    let input = BufReader::new(out.try_clone().ok()?);
    let mut told: Vec<u32> = Vec::new();
    let number = {
        let mut folder = folder.lock().unwrap();
        folder.sessions += 1;
        folder.sessions
    };
    writeln!(out, "* OK ready\r").ok()?;
    for line in input.lines() {
        let line = line.ok()?;
        let (tag, command) = line.split_once(' ')?;
        let mut folder = folder.lock().unwrap();
        let mut answer = String::new();
        let deaf = folder.lags && number % 2 == 0;
        if command.starts_with("SELECT") || command.starts_with("EXAMINE") {
            told = folder.uids.clone();
            let count = told.len();
            answer = format!("* {count} EXISTS\r\n* OK [UIDVALIDITY 7] as ever\r\n");
        } else if command == "UID SEARCH ALL" {
            let uids: String = told.iter().map(|uid| format!(" {uid}")).collect();
            answer = format!("* SEARCH{uids}\r\n");
            let (come, gone) = std::mem::take(&mut folder.meanwhile);
            folder.uids.retain(|uid| !gone.contains(uid));
            folder.uids.extend(come);
            if !deaf {
                answer += &news(&folder.uids, &mut told);
            }
        } else if let Some(set) = command.strip_prefix("UID FETCH ") {
            let set = set.split(' ').next()?;
            let within = |uid: u32| {
                set.split(',').any(|range| {
                    let (from, to) = range.split_once(':').unwrap_or((range, range));
                    (from.parse().unwrap()..=to.parse().unwrap()).contains(&uid)
                })
            };
            for (at, &uid) in told.iter().enumerate().filter(|(_, uid)| within(**uid)) {
                let id = if uid < 10_000 { uid % 100 } else { uid };
                let header = format!("X-Undo-ID: {id:016x}\r\n\r\n");
                let (number, length) = (at + 1, header.len());
                answer += &format!(
                    "* {number} FETCH (UID {uid} BODY[HEADER.FIELDS (X-UNDO-ID)] {{{length}}}\r\n{header})\r\n"
                );
            }
        } else if !deaf && (command == "NOOP" || command == "CHECK") {
            answer = news(&folder.uids, &mut told);
        }
        write!(out, "{answer}{tag} OK done\r\n").ok()?;
        if command == "LOGOUT" {
            return Some(());
        }
    }
    Some(())
}

/// What has gone and what has come since a client was told last. It is not told again.
fn news(now: &[u32], told: &mut Vec<u32>) -> String {
    let mut text = String::new();
    for at in (0..told.len()).rev() {
        if !now.contains(&told[at]) {
            text += &format!("* {} EXPUNGE\r\n", at + 1);
            told.remove(at);
        }
    }
    if now.len() != told.len() {
        *told = now.to_vec();
        text += &format!("* {} EXISTS\r\n", now.len());
    }
    text
}

fn pool(uids: &[u32]) -> (Pool, Shared) {
    // (A folder that is not there is made when there is something to write.)
    pool_with(uids, std::path::Path::new("/nowhere"))
}

fn pool_with(uids: &[u32], copies: &std::path::Path) -> (Pool, Shared) {
    let folder = Shared::default();
    folder.lock().unwrap().uids = uids.to_vec();
    let login = Login {
        address: serve(folder.clone()),
        name: "{user}".into(),
        password: "x".into(),
        patience: Duration::from_secs(20),
    };
    let separator = Separator::open(std::path::Path::new("/nowhere"));
    (Pool::new(login, Copies::open(copies), separator), folder)
}

/// UIDs and UndoIDs as the pool lists them.
fn listed(pool: &Pool) -> Vec<(u32, u64)> {
    let list = |listing: &undo_mail::imap::pool::Listing| {
        listing.iter().map(|(uid, m)| (*uid, m.id)).collect()
    };
    pool.within("ann", "x", true, |_, listing| Ok(list(listing)))
        .unwrap()
}

fn with_ids(uids: &[u32]) -> Vec<(u32, u64)> {
    uids.iter().map(|&uid| (uid, u64::from(uid))).collect()
}

#[test]
fn a_message_that_comes_behind_the_list_of_uids_is_not_forgotten() {
    let (pool, folder) = pool(&[1, 2]);
    folder.lock().unwrap().meanwhile = (vec![3], vec![]);
    listed(&pool);
    assert_eq!(listed(&pool), with_ids(&[1, 2, 3]));
}

#[test]
fn a_message_that_goes_behind_the_list_of_uids_leaves_the_others_in_their_places() {
    let (pool, folder) = pool(&[1, 2, 3]);
    folder.lock().unwrap().meanwhile = (vec![], vec![1]);
    listed(&pool);
    folder.lock().unwrap().uids.retain(|uid| *uid != 2);
    assert_eq!(listed(&pool), with_ids(&[3]));
    // One comes and one goes: the count is as before.
    folder.lock().unwrap().uids.push(4);
    folder.lock().unwrap().meanwhile = (vec![5], vec![3]);
    listed(&pool);
    assert_eq!(listed(&pool), with_ids(&[4, 5]));
}

#[test]
fn a_session_in_use_while_a_folder_is_renamed_is_told_so_and_not_kept() {
    let (pool, _folder) = pool(&[1, 2]);
    let again = pool.within("ann", "x", true, |session, _| {
        pool.forget_folder("ann", "x");
        pool.listing("ann", session)
    });
    assert!(
        matches!(again, Err(Trouble::Refused(_))),
        "what it has open may have another name: {again:?}"
    );
    assert_eq!(listed(&pool).len(), 2, "what was forgotten is asked again");
    let kept = pool.within("ann", "x", true, |session, _| {
        session.generation = 7;
        Ok(())
    });
    kept.unwrap();
    let which = |pool: &Pool| {
        pool.within("ann", "x", true, |session, _| Ok(session.generation))
            .unwrap()
    };
    assert_eq!(which(&pool), 7, "a session is kept");
    let in_use = pool.within("ann", "x", true, |session, _| {
        session.generation = 1;
        pool.forget_folder("ann", "x");
        Ok(())
    });
    in_use.unwrap();
    assert_eq!(which(&pool), 2, "one from before the rename is not");
}

#[test]
fn a_session_outlives_a_folder_that_is_deleted() {
    let (pool, folder) = pool(&[1, 2]);
    listed(&pool);
    let of = |pool: &Pool| {
        let kept = pool.within("ann", "x", true, |session, _| {
            Ok(session.selected.is_some())
        });
        assert!(kept.unwrap());
        folder.lock().unwrap().sessions
    };
    pool.forget_folder("ann", "y");
    assert_eq!(of(&pool), 1, "another one");
    // Its own: it is selected anew, and shows what came without a word.
    folder.lock().unwrap().uids.push(3);
    pool.forget_folder("ann", "x");
    let unselected = pool.with("ann", |session| Ok(session.selected.is_none()));
    assert!(unselected.unwrap());
    assert_eq!(listed(&pool), with_ids(&[1, 2, 3]));
    assert_eq!(of(&pool), 1, "its own");
    pool.forget_sessions("ann");
    assert_eq!(of(&pool), 2);
}

#[test]
fn a_question_to_a_session_that_has_ended_is_asked_again() {
    let (pool, folder) = pool(&[1]);
    let ended = pool.with("ann", |session| Ok(session.ask(b"LOGOUT")?));
    ended.unwrap();
    for _ in 0..2 {
        pool.ask("ann", b"STATUS x (MESSAGES)").unwrap();
        assert_eq!(folder.lock().unwrap().sessions, 2);
    }
}

#[test]
fn what_one_session_has_listed_is_listed_by_all() {
    let (pool, folder) = pool(&[1, 2]);
    // Two sessions, of which the second one hears of nothing.
    let both = pool.within("ann", "x", true, |_, _| Ok(listed(&pool)));
    assert_eq!(both.unwrap(), with_ids(&[1, 2]));
    folder.lock().unwrap().lags = true;
    folder.lock().unwrap().uids.push(3);
    let lists: Vec<_> = (0..6).map(|_| listed(&pool)).collect();
    let first = lists.iter().position(|l| *l == with_ids(&[1, 2, 3]));
    let first = first.expect("the first session hears of it");
    for list in &lists[first..] {
        assert_eq!(*list, with_ids(&[1, 2, 3]), "{lists:?}");
    }
    folder.lock().unwrap().uids.retain(|uid| *uid != 2);
    let lists: Vec<_> = (0..6).map(|_| listed(&pool)).collect();
    assert_eq!(*lists.last().unwrap(), with_ids(&[1, 3]), "{lists:?}");
}

#[test]
fn a_folder_with_very_many_messages_is_listed() {
    // Their UIDs make a line of 300 KB.
    let uids: Vec<u32> = (10_001..60_001).collect();
    let (pool, _folder) = pool(&uids);
    assert_eq!(listed(&pool), with_ids(&uids));
}

#[test]
fn a_copy_keeps_its_name_when_an_earlier_one_goes() {
    let place = tempfile::tempdir().unwrap();
    let (pool, folder) = pool_with(&[1, 2, 101], place.path());
    let names = |pool: &Pool| {
        let list = |listing: &undo_mail::imap::pool::Listing| {
            listing
                .iter()
                .map(|(uid, m)| (*uid, m.nth))
                .collect::<Vec<_>>()
        };
        pool.within("ann", "x", true, |_, l| Ok(list(l))).unwrap()
    };
    assert_eq!(names(&pool), [(1, 1), (2, 1), (101, 2)]);
    folder.lock().unwrap().uids.retain(|uid| *uid != 1);
    folder.lock().unwrap().uids.push(201);
    assert_eq!(names(&pool), [(2, 1), (101, 2), (201, 3)]);
    // A death, after which one goes that is written down before.
    let (pool, _folder) = pool_with(&[2, 101, 201], place.path());
    assert_eq!(names(&pool), [(2, 1), (101, 2), (201, 3)]);
    let two = undo_mail::names::Message { id: 2, nth: 1 };
    pool.within("ann", "x", false, |session, _| {
        Ok(pool.write_names("ann", session, &[two])?)
    })
    .unwrap();
    let (pool, _folder) = pool_with(&[101, 201, 302], place.path());
    assert_eq!(names(&pool), [(101, 2), (201, 3), (302, 2)]);
}
