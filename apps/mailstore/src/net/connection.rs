//! One connection to a client or a relay: lines in, octets out, over TCP, a Unix
//! socket or TLS.
//!
//! Every wait for the other side has an end, and ends at once when the server is
//! told to stop. What was read ahead is dropped when TLS begins, or rather: there
//! must not be any, for it came before TLS and could be anybody's.

use std::io;
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const READ_SIZE: usize = 16 << 10;
/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
const TLS_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a conversation ended before its end.
#[derive(Debug)]
pub enum Trouble {
    Io(io::Error),
    TimedOut,
    LineTooLong,
    /// The server is told to stop.
    Stopping,
}

impl From<io::Error> for Trouble {
    fn from(cause: io::Error) -> Self {
        Trouble::Io(cause)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Trouble::Io(cause) => write!(f, "{cause}"),
            Trouble::TimedOut => f.write_str("the other side was silent for too long"),
            Trouble::LineTooLong => f.write_str("the other side sent too long a line"),
            Trouble::Stopping => f.write_str("the server stops"),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// Only while TLS is being set up, and after that has failed.
    Closed,
}

macro_rules! each {
    ($stream:expr, $name:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($name) => $call,
            Stream::Unix($name) => $call,
            Stream::ServerTls($name) => $call,
            Stream::ClientTls($name) => $call,
            Stream::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    };
}

pub struct Connection {
    stream: Stream,
    /// What was read and not yet used begins at `used`.
    buffer: Vec<u8>,
    used: usize,
    stop: watch::Receiver<bool>,
    /// How long to wait for the other side.
    pub patience: Duration,
    /// The other side's address, for the log and for Received.
    pub peer: String,
    pub is_loopback: bool,
    pub is_tls: bool,
}

impl Connection {
    pub fn tcp(stream: TcpStream, stop: watch::Receiver<bool>, patience: Duration) -> Self {
        let address = stream.peer_addr().ok();
        let _ = stream.set_nodelay(true);
        let is_loopback = address.is_some_and(|a| a.ip().to_canonical().is_loopback());
        let peer = address.map_or("unknown".into(), |a| a.ip().to_canonical().to_string());
        Connection::new(Stream::Tcp(stream), stop, patience, peer, is_loopback)
    }

    pub fn unix(stream: UnixStream, stop: watch::Receiver<bool>, patience: Duration) -> Self {
        Connection::new(Stream::Unix(stream), stop, patience, "local".into(), true)
    }

    fn new(
        stream: Stream,
        stop: watch::Receiver<bool>,
        patience: Duration,
        peer: String,
        is_loopback: bool,
    ) -> Self {
        let buffer = Vec::new();
        Connection {
            stream,
            buffer,
            used: 0,
            stop,
            patience,
            peer,
            is_loopback,
            is_tls: false,
        }
    }

    /// Reads a line with its end; `None` if the other side has closed.
    pub async fn read_line(&mut self, max: usize) -> Result<Option<Vec<u8>>, Trouble> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr(b'\n', &self.unread()[searched..]) {
                let len = searched + at + 1;
                let line = self.unread()[..len].to_vec();
                self.consume(len);
                return Ok(Some(line));
            }
            searched = self.unread().len();
            if searched > max {
                return Err(Trouble::LineTooLong);
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    pub async fn read_exact(&mut self, len: usize, into: &mut Vec<u8>) -> Result<(), Trouble> {
        let mut left = len;
        while left > 0 {
            if self.unread().is_empty() && self.fill().await? == 0 {
                return Err(Trouble::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let part = left.min(self.unread().len());
            into.extend_from_slice(&self.unread()[..part]);
            self.consume(part);
            left -= part;
        }
        Ok(())
    }

    pub async fn skip(&mut self, mut len: u64) -> Result<(), Trouble> {
        while len > 0 {
            if self.unread().is_empty() && self.fill().await? == 0 {
                return Err(Trouble::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let part = len.min(self.unread().len() as u64);
            self.consume(part as usize);
            len -= part;
        }
        Ok(())
    }

    /// What was read ahead.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    pub fn consume(&mut self, len: usize) {
        self.used = (self.used + len).min(self.buffer.len());
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
            // A large message must not stay in memory for the session's life.
            self.buffer.shrink_to(4 * READ_SIZE);
        }
    }

    /// Waits for octets and reads them ahead; 0 if the other side has closed. May
    /// be dropped while it waits: nothing is lost.
    pub async fn fill(&mut self) -> Result<usize, Trouble> {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.reserve(READ_SIZE);
        let Connection {
            stream,
            buffer,
            stop,
            patience,
            ..
        } = self;
        if *stop.borrow() {
            return Err(Trouble::Stopping);
        }
        let reading = async { each!(stream, s => s.read_buf(buffer).await) };
        tokio::select! {
            read = tokio::time::timeout(*patience, reading) => match read {
                Ok(read) => Ok(read?),
                Err(_) => Err(Trouble::TimedOut),
            },
            _ = stop.wait_for(|stop| *stop) => Err(Trouble::Stopping),
        }
    }

    pub async fn send(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        let stream = &mut self.stream;
        let is_tls = self.is_tls;
        let writing = async {
            each!(stream, s => s.write_all(octets).await)?;
            // Only TLS holds back what is written.
            if is_tls {
                each!(stream, s => s.flush().await)
            } else {
                Ok(())
            }
        };
        match tokio::time::timeout(WRITE_TIMEOUT, writing).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Trouble::TimedOut),
        }
    }

    /// Begins TLS as the server.
    pub async fn accept_tls(&mut self, acceptor: &TlsAcceptor) -> Result<(), Trouble> {
        let stream = self.take_tcp()?;
        let begun = tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)).await;
        let stream = begun.map_err(|_| Trouble::TimedOut)??;
        self.stream = Stream::ServerTls(Box::new(stream));
        self.is_tls = true;
        Ok(())
    }

    /// Begins TLS as the client of a host.
    pub async fn connect_tls(
        &mut self,
        connector: &TlsConnector,
        host: &str,
    ) -> Result<(), Trouble> {
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| io::Error::other(format!("{host:?} is no host name")))?;
        let stream = self.take_tcp()?;
        let begun = tokio::time::timeout(TLS_TIMEOUT, connector.connect(name, stream)).await;
        let stream = begun.map_err(|_| Trouble::TimedOut)??;
        self.stream = Stream::ClientTls(Box::new(stream));
        self.is_tls = true;
        Ok(())
    }

    fn take_tcp(&mut self) -> Result<TcpStream, Trouble> {
        if !self.unread().is_empty() {
            return Err(io::Error::other("octets came before TLS had begun").into());
        }
        match std::mem::replace(&mut self.stream, Stream::Closed) {
            Stream::Tcp(stream) => Ok(stream),
            other => {
                self.stream = other;
                Err(io::Error::other("TLS can begin only once, and on TCP").into())
            }
        }
    }

    /// Says that nothing more will be sent.
    pub async fn close(&mut self) {
        let stream = &mut self.stream;
        let closing = async { each!(stream, s => s.shutdown().await) };
        let _ = tokio::time::timeout(Duration::from_secs(5), closing).await;
    }
}
