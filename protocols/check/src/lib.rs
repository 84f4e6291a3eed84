//! Reads the traces of runs and judges them by the theory of consistent recovery.
//!
//! A run is judged in one pass, line by line, in memory that does not grow with its length: what
//! must be known of the past is one standpoint for each process and the messages that may still be
//! received. [`check`] is the way in. It is apart from `protocols`, which holds the names that traces
//! are made of, because it needs `std`, and cargo would bring that into the runtime.
//!
//! - [`record`] reads lines, [`source`] brings the traces of several processes into one order;
//! - [`history`] follows clocks, commits and dependencies through messages and failures;
//! - [`judge`] asks of every event what theorem 2 asks, and says what it finds as a [`Violation`];
//! - [`equivalence`] compares what was shown with what a failure-free run shows, by definition 2;
//! - [`cascade`] says how far a failure rolls the processes back, classically and by the theory;
//! - [`lose_work`] asks the opposite: which commits made an application's own crash final.
#![forbid(unsafe_code)]

pub mod cascade;
pub mod equivalence;
pub mod history;
pub mod judge;
pub mod lose_work;
pub mod record;
pub mod source;
pub mod violation;

pub use judge::{Report, check};
pub use record::{Place, Record, TraceError};
pub use source::Traces;
pub use violation::{Kind, Violation};
