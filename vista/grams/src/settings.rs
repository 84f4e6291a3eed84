//! What a user may choose, with defaults that fit a local network.

use std::net::SocketAddr;
use std::time::Duration;

use crate::packet::{HEADER_LEN, Key, MESSAGE_LIMIT};
use crate::tables::WINDOW_LIMIT;
use crate::{Error, Plant};

/// All times are Durations, all sizes bytes, all numbers counts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen. Port 0 takes any port; a server that is to be found again names one.
    pub listen: SocketAddr,
    /// Where retransmitted requests are received, on the same address. Port 0 takes the one of the
    /// last start if it is free, else any: clients are told.
    pub resend_port: u16,
    /// The secret of all parties; without one packets are checked for damage, not for forgery.
    pub key: Option<Key>,
    /// The longest datagram, our header included, which has 72 to 96 bytes. 1432 passes Ethernet
    /// with IPv6 and most tunnels; a message of up to 96 bytes less is sent whole.
    pub datagram: usize,
    /// The longest message that may be sent.
    pub message_limit: usize,
    /// Requests that may be unsettled on one link, each way; counts when the tables are made.
    pub window: u32,
    /// Bytes of the segment that holds tables and buffers; counts when it is made.
    pub segment_len: usize,
    /// Requests that wait to be received, and their bytes. What comes on top is dropped, and its
    /// client sends it again.
    pub inbox: usize,
    pub inbox_bytes: usize,
    /// Bytes of messages of which fragments are missing.
    pub assembly_bytes: usize,
    /// Clients that are remembered. When there are more, those are forgotten that have nothing
    /// unsettled and have been quiet for longest.
    pub clients: usize,
    /// How long a client is remembered that has nothing unsettled.
    pub forget_after: Duration,
    /// The first retransmission, before the round trip is known; then as measured.
    pub resend_first: Duration,
    pub resend_least: Duration,
    /// Retransmissions come at twice the distance each time, up to this.
    pub resend_most: Duration,
    /// An acknowledgement waits so long for a request to ride on.
    pub ack_delay: Duration,
    /// A server asks for an acknowledgement after this time, then at twice the distance each time.
    pub ping_first: Duration,
    pub ping_most: Duration,
    #[doc(hidden)]
    pub plant: Option<Plant>,
}

impl Settings {
    /// Defaults, listening at this address.
    pub fn at(listen: SocketAddr) -> Settings {
        Settings {
            listen,
            resend_port: 0,
            key: None,
            datagram: 1432,
            message_limit: MESSAGE_LIMIT,
            window: 64,
            segment_len: 16 << 20,
            inbox: 1024,
            inbox_bytes: 32 << 20,
            assembly_bytes: 64 << 20,
            clients: 4096,
            forget_after: Duration::from_secs(24 * 3600),
            resend_first: Duration::from_millis(50),
            resend_least: Duration::from_millis(5),
            resend_most: Duration::from_secs(1),
            ack_delay: Duration::from_millis(100),
            ping_first: Duration::from_secs(1),
            ping_most: Duration::from_secs(60),
            plant: None,
        }
    }

    pub fn check(&self) -> Result<(), Error> {
        let bounds = [
            ("datagram", self.datagram, HEADER_LEN + 64, 65507),
            ("message_limit", self.message_limit, 0, MESSAGE_LIMIT),
            ("window", self.window as usize, 1, WINDOW_LIMIT as usize),
            ("inbox", self.inbox, 1, usize::MAX),
            ("inbox_bytes", self.inbox_bytes, MESSAGE_LIMIT, usize::MAX),
            (
                "assembly_bytes",
                self.assembly_bytes,
                2 * MESSAGE_LIMIT,
                usize::MAX,
            ),
            ("clients", self.clients, 1, 1 << 20),
        ];
        for (name, value, least, most) in bounds {
            if value < least || value > most {
                return Err(Error::Settings(format!(
                    "settings: {name} is {value}: choose {least} to {most}"
                )));
            }
        }
        Ok(())
    }

    /// The payload of a full fragment.
    pub(crate) fn piece(&self) -> u32 {
        (self.datagram - HEADER_LEN) as u32
    }
}
