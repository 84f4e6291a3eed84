//! Mail coming in: SMTP (RFC 5321) with PIPELINING, SIZE, 8BITMIME, SMTPUTF8,
//! ENHANCEDSTATUSCODES and STARTTLS; submission (RFC 6409) with AUTH; LMTP
//! (RFC 2033). One session serves all three; `Role` says where they differ.

pub mod accept;
pub mod command;
pub mod data;
pub mod session;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Anybody may bring mail for our domains.
    Smtp,
    /// Who has logged in may send mail anywhere.
    Submission,
    /// A server beside us brings mail, and hears of each recipient by itself.
    Lmtp,
}
