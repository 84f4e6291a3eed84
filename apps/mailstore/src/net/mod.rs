//! Sockets: listening, one connection, TLS.

pub mod connection;
pub mod listen;
pub mod tls;
