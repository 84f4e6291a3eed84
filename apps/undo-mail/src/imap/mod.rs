//! IMAP on both sides: `front` serves clients, `session` and `pool` speak to the real server.

pub mod copies;
pub mod front;
pub mod pool;
pub mod separator;
pub mod session;
pub mod token;
pub mod turns;
pub mod view;
