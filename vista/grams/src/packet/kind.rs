//! What packets there are, and why bytes are none for us.

use std::fmt;

use super::VERSION;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// To the server: asks for a stream. `stream` is the one it had, or 0; `cookie` says which
    /// start of the client asks.
    Hello = 1,
    /// To the client: grants one. Payload: [`super::Welcome`].
    Welcome = 2,
    /// To the server: a fragment of a request.
    Request = 3,
    /// To the client: a fragment of a response.
    Response = 4,
    /// To the server: `low` and `done` only.
    Ack = 5,
    /// To the client: which fragments of a request are there. Payload: a [`super::Have`].
    HaveRequest = 6,
    /// To the server: which fragments of a response are there. Payload: a [`super::Have`].
    HaveResponse = 7,
    /// To the client: here I am; which responses are settled? Payload: [`super::Welcome`].
    Ping = 8,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        Some(match byte {
            1 => Hello,
            2 => Welcome,
            3 => Request,
            4 => Response,
            5 => Ack,
            6 => HaveRequest,
            7 => HaveResponse,
            8 => Ping,
            _ => return None,
        })
    }

    pub fn is_for_client(self) -> bool {
        use Kind::*;
        matches!(self, Welcome | Response | HaveRequest | Ping)
    }
}

/// Why bytes are not a packet for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Shorter than a header, or without our two letters.
    Foreign,
    OtherVersion(u8),
    /// The tag is not that of these bytes, or one side has a key and the other has not.
    Tag,
    /// The tag is right, and a field is out of bounds: a writer that is not this library.
    Field(&'static str),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::Foreign => f.write_str("not a packet of this protocol"),
            Rejected::OtherVersion(version) => {
                write!(
                    f,
                    "version {version} of the protocol, this program speaks {VERSION}"
                )
            }
            Rejected::Tag => f.write_str("damaged, or made with another key"),
            Rejected::Field(field) => write!(f, "{field} is out of bounds"),
        }
    }
}
