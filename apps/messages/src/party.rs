//! A program with a store, its messages, a structure of its own, and a trace of what it does.
//!
//! Every message begins with the event that sent it and that event's vector clock, so that traces
//! of several programs can be judged together by the theory of consistent recovery.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use vista::{AnyRio, Kind, Options, Persistent, Ptr, SegmentOptions, Store};
use vistagrams::{Awaited, Error, Grams, Peer, Request, RequestId, Settings, Transaction};

use crate::trace::{Stamp, Trace, TraceRow};

/// What is said on the command line.
pub struct Arguments {
    /// The number of the program in traces, and of a client at its server.
    pub number: u32,
    pub image: String,
    pub rio: Kind,
    pub listen: SocketAddr,
    pub servers: Vec<SocketAddr>,
    pub trace: Option<String>,
    /// Begins nothing new, finishes what was begun, says how it stands, and ends.
    pub drain: bool,
    /// Ends after so many requests of its own; 0 goes on for ever.
    pub rounds: u64,
}

pub struct Party<T> {
    pub grams: Grams<AnyRio>,
    pub own: Ptr<T>,
    trace: Trace,
    row: Ptr<TraceRow>,
}

/// A message to be sent at the end of a transaction.
pub enum Out {
    Request(Peer, Vec<u8>),
    Response(Request, Vec<u8>),
}

/// A transaction in which received messages are on the trace.
pub struct Step<'p> {
    pub tx: Transaction<'p, AnyRio>,
    trace: &'p mut Trace,
    row: Ptr<TraceRow>,
    out: Vec<Out>,
}

impl<T: Persistent> Party<T> {
    /// Opens or creates the image; `T` lies at the start of a segment of its own, zeros at first.
    pub fn open(arguments: &Arguments) -> Result<Party<T>, Error> {
        let path = Path::new(&arguments.image);
        let (kind, options) = (
            arguments.rio,
            Options {
                log_len: 4 << 20,
                ..Options::default()
            },
        );
        let mut store = match path.exists() {
            true => Store::open_on(path, options, |image| AnyRio::open_as(kind, image))?,
            false => Store::create_on(path, options, |image| AnyRio::create_as(kind, image))?,
        };
        let len = size_of::<T>().next_multiple_of(4096) + 4096;
        let segment = store.segment_or_create("example", SegmentOptions::raw(len))?;
        let row = Ptr::from_at(segment.at(0));
        let own = Ptr::from_at(segment.at(4096));
        let mut settings = Settings::at(arguments.listen);
        settings.segment_len = 4 << 20;
        let mut grams = Grams::open(store, settings)?;
        let committed = grams.transaction(|tx| Ok(*tx.get::<TraceRow>(row)?))?;
        let trace = Trace::open(arguments.number, arguments.trace.as_deref(), &committed)
            .map_err(|error| Error::Settings(format!("trace: {error}")))?;
        Ok(Party {
            grams,
            own,
            trace,
            row,
        })
    }

    pub fn state(&mut self) -> Result<T, Error> {
        let own = self.own;
        self.grams.transaction(|tx| Ok(*tx.get(own)?))
    }

    pub fn begin(&mut self) -> Result<Step<'_>, Error> {
        Ok(Step {
            tx: self.grams.begin()?,
            trace: &mut self.trace,
            row: self.row,
            out: Vec::new(),
        })
    }

    /// Something that the world sees; what it shows was committed before.
    pub fn show(&mut self, line: &str) {
        self.trace.visible();
        // Whoever watches may be gone; that is no reason to stop.
        use std::io::Write;
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

impl Step<'_> {
    pub fn receive_request(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<(Request, Vec<u8>)>, Error> {
        let Some(request) = self.tx.receive_request(timeout)? else {
            return Ok(None);
        };
        let (stamp, body) = Stamp::split(request.body()).ok_or_else(unknown)?;
        self.trace.received(&stamp);
        let body = body.to_vec();
        Ok(Some((request, body)))
    }

    pub fn receive_response(
        &mut self,
        awaited: &Awaited,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(bytes) = self.tx.receive_response(awaited, timeout)? else {
            return Ok(None);
        };
        let (stamp, body) = Stamp::split(&bytes).ok_or_else(unknown)?;
        self.trace.received(&stamp);
        Ok(Some(body.to_vec()))
    }

    pub fn send(&mut self, out: Out) {
        self.out.push(out);
    }

    /// Commits; the ids of the requests sent are stored by `store`, in the same transaction.
    pub fn commit(
        mut self,
        store: impl FnOnce(&mut Transaction<'_, AnyRio>, &[RequestId]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let stamps = self.trace.stamps(self.out.len());
        let mut ids = Vec::new();
        for (out, stamp) in self.out.drain(..).zip(&stamps) {
            match out {
                Out::Request(peer, body) => {
                    ids.push(self.tx.send_request(peer, &stamp.before(&body))?);
                }
                Out::Response(request, body) => {
                    self.tx.send_response(request, &stamp.before(&body))?;
                }
            }
        }
        store(&mut self.tx, &ids)?;
        let row = self.trace.row(stamps.len());
        self.tx.set(self.row, row)?;
        self.tx.commit()?;
        self.trace.committed(stamps.len());
        Ok(())
    }
}

fn unknown() -> Error {
    Error::Settings("message without a stamp: it is not from one of these programs".into())
}
