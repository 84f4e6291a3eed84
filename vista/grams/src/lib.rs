//! Vistagrams: messages in local transactions.
#![deny(unsafe_code)]

mod error;
pub mod exchange;
pub mod fragment;
mod id;
pub mod machine;
#[allow(unsafe_code)]
pub mod memory;
pub mod packet;
mod plant;
mod settings;
pub mod tables;

pub use error::Error;
pub use id::{NodeId, RequestId};
pub use packet::Key;
#[doc(hidden)]
pub use plant::Plant;
pub use settings::Settings;
