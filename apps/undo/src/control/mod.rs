//! How an operator's tool talks to a manager: lines of JSON over a Unix socket.
//!
//! The socket is `HOME/control`, mode 0600: whoever may write to it may undo. Each line is a
//! [`Request`]; the answer is one line, `{"ok": ..}` or `{"error": ".."}`. Commands that take long
//! answer when they are done; `status` on another connection tells how far they are.

mod client;
mod server;

use serde::{Deserialize, Serialize};

pub use client::Client;
pub use server::serve;

use crate::manager::Search;
use crate::timeline::Lsn;

/// What an operator can ask for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status,
    Timeline {
        #[serde(default)]
        search: Search,
    },
    Show {
        lsn: Lsn,
    },
    Snapshot,
    Snapshots,
    /// `to` is read by [`crate::when::parse`].
    Rewind {
        to: String,
        #[serde(default)]
        scope: Option<String>,
    },
    Replay {
        #[serde(default)]
        dry_run: bool,
    },
    Cancel,
    Undo,
    Commit,
    Drop {
        lsn: Lsn,
    },
    Change {
        lsn: Lsn,
        verb: serde_json::Value,
    },
    Insert {
        after: Lsn,
        verb: serde_json::Value,
    },
    Unedit {
        lsn: Lsn,
    },
    /// How many verbs there were in each of `buckets` parts of the time from the first to now.
    Histogram {
        buckets: usize,
    },
    /// The last LSN that began no later than this.
    At {
        time_us: u64,
    },
    /// Where the live state is and how the repair shell gets there.
    Place,
}
