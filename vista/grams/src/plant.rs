//! Faults that a test plants, to see that it would find them. No other use is meant.

/// Each leaves out one thing on which exactly-once rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plant {
    /// A request leaves when the program sends it, not at the commit.
    RequestLeavesEarly,
    /// A response leaves when the program sends it, not at the commit.
    ResponseLeavesEarly,
    /// A response is acknowledged when it was received, not at the commit.
    AcknowledgedEarly,
    /// The response table is not read at a start.
    ResponsesForgotten,
    /// The request table is not read at a start.
    RequestsForgotten,
    /// A request below the floor counts as a new one.
    FloorIgnored,
    /// What an abort gives back is dropped, and known as received.
    AbortLosesRequest,
    /// The answer to a retransmitted request is not sent again.
    AnsweredOnce,
    /// A response is freed when it was sent, not when it was acknowledged.
    FreedWhenSent,
    /// A client is forgotten, and what was granted to it still counts.
    GrantOutlivesClient,
}

impl Plant {
    pub const ALL: [Plant; 10] = [
        Plant::RequestLeavesEarly,
        Plant::ResponseLeavesEarly,
        Plant::AcknowledgedEarly,
        Plant::ResponsesForgotten,
        Plant::RequestsForgotten,
        Plant::FloorIgnored,
        Plant::AbortLosesRequest,
        Plant::AnsweredOnce,
        Plant::FreedWhenSent,
        Plant::GrantOutlivesClient,
    ];
}
