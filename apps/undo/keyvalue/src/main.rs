//! Serves keys and values of a folder to lines on stdin:
//!
//!     keyvalue HOME [STORAGE]
//!
//!     get USER KEY · list USER · put USER KEY VALUE · append USER KEY VALUE · delete USER KEY
//!     post USER KEY ID WINDOW_MS LINE
//!
//! Each line is answered by one line: `ok ..`, `failed ..`, `refused ..` or `accepted ARRIVAL`. An operator's
//! `undo --home HOME` reaches it meanwhile.
#![forbid(unsafe_code)]

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use keyvalue::{Act, Files, KeyValue, Verb};
use undo::{Error, Manager, Result, Settings, Status, Timing, Verb as _, control, storage};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyvalue: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || {
        Error::new(
            "keyvalue",
            "start",
            "usage: keyvalue HOME [auto|btrfs|overlay|copies]",
        )
    };
    let home = arguments.next().ok_or_else(usage)?;
    let home = Path::new(&home);
    std::fs::create_dir_all(home).map_err(|e| Error::new(home.display(), "create", e))?;
    let storage = storage::open(&arguments.next().unwrap_or("auto".into()), home)?;
    let service = KeyValue {
        files: Files::open(storage.live()),
        returned: home.join("returned"),
    };
    let settings = Settings {
        home: home.to_owned(),
        retry_every_s: 0.2,
        ..Settings::default()
    };
    let manager = Manager::open(settings, storage, service)?;
    control::serve(manager.manager.clone(), &home.join("control"))?;

    let mut stdout = std::io::stdout().lock();
    let mut say = |text: String| {
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(|e| Error::new("stdout", "write", e))
    };
    say("ready".into())?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::new("stdin", "read", e))?;
        let Some(verb) = parse(&line) else {
            say(format!("refused: no such verb: {line}"))?;
            continue;
        };
        let answer = match verb.timing() {
            Timing::Asynchronous { .. } => format!("accepted {}", manager.accept(&verb)?),
            Timing::Synchronous => match manager.submit(verb) {
                Ok((lsn, outcome, shown)) => match outcome.status {
                    Status::Done => format!("ok {lsn} {shown:?}"),
                    Status::Failed(why) => format!("failed {why}"),
                },
                Err(refused) => format!("refused: {refused}"),
            },
        };
        say(answer)?;
    }
    Ok(())
}

fn parse(line: &str) -> Option<Verb> {
    let mut words = line.splitn(4, ' ');
    let (act, user) = (words.next()?, words.next()?);
    let (key, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let act = match act {
        "get" => Act::Get,
        "list" => Act::List,
        "put" => Act::Put(rest.into()),
        "append" => Act::Append(rest.into()),
        "delete" => Act::Delete,
        "post" => {
            let mut parts = rest.splitn(3, ' ');
            Act::Post {
                id: parts.next()?.parse().ok()?,
                window_ms: parts.next()?.parse().ok()?,
                line: parts.next()?.into(),
            }
        }
        _ => return None,
    };
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (plain(user) && plain(key) && !user.is_empty()).then(|| Verb::new(user, key, act))
}
