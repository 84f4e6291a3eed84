//! Vistagrams: messages in local transactions, exactly once, over UDP.
//!
//! What a transaction changes in persistent memory, what it sends and what it has received become
//! permanent together, or not at all (Lowell, *Theory and Practice of Failure Transparency*,
//! chapter 4). A committed message is delivered once, whatever is lost on the way and whoever dies
//! how often; an abort, or a death, undoes a receive, and the message is received again.
//!
//! ```no_run
//! # fn main() -> Result<(), vistagrams::Error> {
//! use std::time::Duration;
//! use vista::{Store, Tmpfs};
//! use vistagrams::{Grams, Settings};
//!
//! let store: Store<Tmpfs> = Store::open_or_create("/dev/shm/client".as_ref(), Default::default())?;
//! let mut grams = Grams::open(store, Settings::at("0.0.0.0:4001".parse().unwrap()))?;
//! let id = grams.transaction(|tx| {
//!     let server = tx.peer("10.0.0.2:4000".parse().unwrap())?;
//!     tx.send_request(server, b"lock 7") // leaves when this transaction commits
//! })?;
//! let awaited = grams.awaited(id)?;
//! grams.transaction(|tx| {
//!     let answer = tx.receive_response(&awaited, Duration::from_secs(5))?;
//!     println!("{answer:?}"); // None: it has not come yet
//!     Ok(())
//! })?;
//! # Ok(()) }
//! ```
//!
//! The server's side:
//!
//! ```no_run
//! # use std::time::Duration;
//! # fn serve(mut grams: vistagrams::Grams<vista::Tmpfs>) -> Result<(), vistagrams::Error> {
//! loop {
//!     grams.transaction(|tx| {
//!         let Some(request) = tx.receive_request(Duration::from_secs(1))? else { return Ok(()) };
//!         tx.send_response(request, b"granted")
//!     })?;
//! }
//! # }
//! ```
//!
//! A transaction cannot wait for the answer to what it sends itself, since nothing leaves before it
//! commits (section 4.3). What a wait needs is made between transactions only:
//!
//! ```compile_fail,E0502
//! # fn wrong(mut grams: vistagrams::Grams<vista::Tmpfs>) -> Result<(), vistagrams::Error> {
//! let mut tx = grams.begin()?;
//! let server = tx.peer("10.0.0.2:4000".parse().unwrap())?;
//! let id = tx.send_request(server, b"lock 7")?;
//! let awaited = grams.awaited(id)?; // the open transaction has borrowed `grams`
//! tx.receive_response(&awaited, std::time::Duration::MAX)?;
//! # Ok(()) }
//! ```
//!
//! A request is answered once:
//!
//! ```compile_fail,E0382
//! # fn wrong(mut grams: vistagrams::Grams<vista::Tmpfs>) -> Result<(), vistagrams::Error> {
//! let mut tx = grams.begin()?;
//! let request = tx.receive_request(std::time::Duration::MAX)?.unwrap();
//! tx.send_response(request, b"yes")?;
//! tx.send_response(request, b"no")?; // it was moved
//! # Ok(()) }
//! ```
//!
//! And nothing is sent or received outside of a transaction:
//!
//! ```compile_fail,E0599
//! # fn wrong(mut grams: vistagrams::Grams<vista::Tmpfs>) {
//! grams.receive_request(std::time::Duration::MAX);
//! # }
//! ```
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod clock;
#[allow(unsafe_code)]
mod descriptors;
mod error;
pub mod exchange;
pub mod fragment;
mod grams;
mod id;
pub mod inspect;
pub mod landing;
pub mod machine;
#[allow(unsafe_code)]
pub mod memory;
mod message;
pub mod net;
pub mod packet;
mod plant;
mod rows;
mod settings;
#[allow(unsafe_code)]
pub mod socket;
#[allow(unsafe_code)]
pub mod stored;
#[allow(unsafe_code)]
mod sum;
pub mod tables;

pub use error::Error;
pub use grams::{Awaited, Grams, Peer, Ready, Request, Transaction, Waiter};
pub use id::{NodeId, RequestId};
pub use message::Message;
pub use packet::Key;
#[doc(hidden)]
pub use plant::Plant;
pub use settings::Settings;
