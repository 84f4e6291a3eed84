//! Recoverable memory: undo-log transactions on Rio.
//!
//! ```no_run
//! # fn main() -> Result<(), vista::Error> {
//! use vista::{SegmentOptions, Store, Tmpfs, persistent};
//!
//! persistent! { pub struct Counter { pub value: u64 } }
//!
//! let mut store: Store<Tmpfs> = Store::open_or_create("/dev/shm/counter".as_ref(), Default::default())?;
//! let segment = store.segment_or_create("main", SegmentOptions::heap(1 << 20))?;
//! let value = store.transaction(|tx| {
//!     let counter = match tx.root::<Counter>(segment)? {
//!         Some(counter) => counter,
//!         None => {
//!             let counter = tx.alloc(segment, Counter { value: 0 })?;
//!             tx.set_root(segment, counter)?;
//!             counter
//!         }
//!     };
//!     let counter = tx.get_mut(counter)?;
//!     counter.value += 1;
//!     Ok(counter.value)
//! })?;
//! println!("run {value}");
//! # Ok(()) }
//! ```
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod any_rio;
mod error;
pub mod inspect;
#[allow(unsafe_code)]
mod persistent;
mod store;
#[allow(unsafe_code)]
mod transaction;
#[allow(unsafe_code)]
mod working_copy;
#[allow(unsafe_code)]
mod written;

pub use any_rio::{AnyRio, Kind};
pub use error::Error;
pub use persistent::{Persistent, Ptr};
pub use rio_core::At;
pub use rio_sim::{Backend, Disk, Pmem, Tmpfs};
pub use store::{Options, Segment, SegmentOptions, Store};
pub use transaction::Transaction;
pub use vista_core::Fault;
pub use working_copy::WorkingCopy;
pub use written::Finder;

/// Types that the macros name from outside.
#[doc(hidden)]
pub use persistent::assert_persistent;
