//! Names that no other message or party in the world has.
//!
//! A store draws its [`NodeId`] once, at random, when its tables are made: a reinstalled program is
//! another node, so its first request is never taken for one of its predecessor's. A link is the
//! way from one client to one server; its number is never used again, and its requests are counted
//! without gaps, so that a server knows from two numbers which requests are settled for ever.

use std::fmt;

use vista::persistent;

/// One store with message tables: 128 random bits, drawn when the tables are made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

persistent! {
    /// A request, the same on both sides and over restarts. Zero in all fields names none.
    ///
    /// It may be stored in persistent memory: a client that waits for an answer keeps it there.
    #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct RequestId {
        /// The client's node.
        pub node: [u8; 16],
        /// Which of the client's links.
        pub link: u64,
        /// Which request of the link, from 1.
        pub seq: u64,
    }
}

impl RequestId {
    /// The name of no request.
    pub const NONE: RequestId = RequestId {
        node: [0; 16],
        link: 0,
        seq: 0,
    };

    pub fn is_none(&self) -> bool {
        *self == RequestId::NONE
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", NodeId(self.node), self.link, self.seq)
    }
}

impl NodeId {
    /// The name of no node.
    pub const NONE: NodeId = NodeId([0; 16]);

    pub fn is_none(&self) -> bool {
        *self == NodeId::NONE
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell nodes apart for a reader; `Debug` has all of it.
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
