//! What a caller is told: the object, the action, the cause, and what to do.

use std::net::SocketAddr;
use std::{fmt, io};

use crate::RequestId;
use crate::packet::MESSAGE_LIMIT;

#[derive(Debug)]
pub enum Error {
    /// Vista's own: the storage, the image, the undo log, the heap.
    Vista(vista::Error),
    /// A socket: what was tried with which address.
    Socket {
        action: &'static str,
        address: String,
        cause: io::Error,
    },
    /// The tables are not as a writer would have left them.
    Damaged(String),
    OtherVersion(u32),
    /// The message is longer than a message may be.
    TooLong {
        len: usize,
        limit: usize,
    },
    /// As many requests to this server are unsettled as may be.
    WindowFull {
        server: SocketAddr,
        window: u32,
    },
    /// The id names no request that is unsettled here.
    NoSuchRequest(RequestId),
    /// The request was sent by the transaction that is open: its answer cannot come before the end.
    SentInThisTransaction(RequestId),
    /// The id names no request that was received and not answered.
    NotReceived(RequestId),
    /// At the server's address another installation answers, which knows nothing of the requests.
    ServerReplaced {
        server: SocketAddr,
    },
    /// No such link, or one with requests that are unsettled.
    NoSuchPeer(u32),
    PeerBusy {
        server: SocketAddr,
        unsettled: usize,
    },
    TooManyPeers {
        limit: usize,
    },
    /// Another thread or call has this store's messages.
    AlreadyOpen,
    /// An image that is only looked at.
    ReadOnly,
    Settings(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Error::*;
        match self {
            Vista(error) => error.fmt(f),
            Socket {
                action,
                address,
                cause,
            } => write!(
                f,
                "{action} {address}: {cause}: choose an address of this machine that is free"
            ),
            Damaged(what) => write!(
                f,
                "message tables: {what}: they are damaged; restore the image from a copy"
            ),
            OtherVersion(version) => write!(
                f,
                "message tables: version {version}, this program reads {}: use the program that \
                 wrote them",
                crate::tables::VERSION
            ),
            TooLong { len, limit } => write!(
                f,
                "send a message of {len} bytes: the limit is {limit} (at most {MESSAGE_LIMIT}): \
                 send it in parts"
            ),
            WindowFull { server, window } => write!(
                f,
                "send a request to {server}: {window} are unsettled already: receive responses \
                 first"
            ),
            NoSuchRequest(id) => write!(
                f,
                "wait for the answer to {id}: no such request is unsettled: it was received \
                 already, abandoned, or never committed"
            ),
            SentInThisTransaction(id) => write!(
                f,
                "wait for the answer to {id}: the transaction that sends it is still open, so \
                 nothing was sent: end it, and wait in another one"
            ),
            NotReceived(id) => write!(
                f,
                "respond to {id}: no such request was received and is unanswered: respond once to \
                 each that was received"
            ),
            ServerReplaced { server } => write!(
                f,
                "request to {server}: another installation answers there, which knows nothing of \
                 what was sent to the former one: abandon the requests, or accept the new server"
            ),
            NoSuchPeer(number) => {
                write!(
                    f,
                    "peer {number}: not in this store's tables: ask for it by its address"
                )
            }
            PeerBusy { server, unsettled } => write!(
                f,
                "forget the server {server}: {unsettled} requests are unsettled: receive their \
                 answers or abandon them first"
            ),
            TooManyPeers { limit } => write!(
                f,
                "add a peer: there are {limit}, which is the limit: forget one, or raise the limit"
            ),
            AlreadyOpen => write!(
                f,
                "open messages: this store has them open already: use what was opened first"
            ),
            ReadOnly => write!(f, "change the tables: the image is only looked at"),
            Settings(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<vista::Error> for Error {
    fn from(error: vista::Error) -> Error {
        Error::Vista(error)
    }
}
