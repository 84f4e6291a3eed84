//! Editing history: `undo edit drop|change|add|back`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;
use undo::control::{Client, Request};
use undo::{Context, Result};

#[derive(Subcommand)]
pub enum Edit {
    /// Take verbs out of history.
    Drop {
        #[arg(required = true)]
        lsns: Vec<u64>,
    },
    /// Put another verb in the place of one. The verb is JSON, as `undo show` prints it under
    /// "verb".
    Change {
        lsn: u64,
        /// A file with the verb; `-` is stdin.
        verb: PathBuf,
    },
    /// Put a new verb behind one.
    Add {
        #[arg(long)]
        after: u64,
        verb: PathBuf,
    },
    /// Take edits of this cycle back.
    Back {
        #[arg(required = true)]
        lsns: Vec<u64>,
    },
}

/// Makes the edit; all of several, up to the first that fails.
pub fn edit(home: &Path, edit: &Edit) -> Result<Value> {
    let mut client = Client::connect(home)?;
    match edit {
        Edit::Drop { lsns } => {
            lsns.iter()
                .try_for_each(|&lsn| client.ask(&Request::Drop { lsn }).map(drop))?;
            Ok(serde_json::json!({ "dropped": lsns }))
        }
        Edit::Change { lsn, verb } => {
            client.ask(&Request::Change {
                lsn: *lsn,
                verb: read(verb)?,
            })?;
            Ok(serde_json::json!({ "changed": lsn }))
        }
        Edit::Add { after, verb } => {
            let lsn = client.ask(&Request::Insert {
                after: *after,
                verb: read(verb)?,
            })?;
            Ok(serde_json::json!({ "added": lsn }))
        }
        Edit::Back { lsns } => {
            lsns.iter()
                .try_for_each(|&lsn| client.ask(&Request::Unedit { lsn }).map(drop))?;
            Ok(serde_json::json!({ "taken back": lsns }))
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("stdin", "read a verb")?;
    } else {
        text = std::fs::read_to_string(path).context(path.display(), "read a verb")?;
    }
    let value: Value =
        serde_json::from_str(&text).context(path.display(), "read a verb as JSON")?;
    // What `undo show` prints is taken as it is.
    Ok(if value["verb"].is_object() {
        value["verb"].clone()
    } else {
        value
    })
}
