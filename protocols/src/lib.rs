//! The commit protocols and the theory of consistent recovery, as pure machines.
//!
//! A protocol sees events and returns decisions. It has no clock, no descriptor, no process and no
//! allocation, so that one and the same code runs inside a program's address space, in a model
//! checker that visits every history, and in a reader of traces. Whoever runs a machine makes the
//! commits it asks for and reports them back as events; nothing here can act.
//!
//! The vocabulary is that of Lowell's theory. An event is *non-deterministic* if re-execution may
//! see another result; *visible* if the outside world sees it; a *send* or a *receive* if it carries
//! a dependency to another process; a *commit* if the process can from now on be restored to this
//! point. The commit invariant (theorem 2) says: every non-deterministic event that causally
//! precedes a visible event or a commit is itself committed before it. [`rules`] has the seven ways
//! of upholding it on one screen.
//!
//! What lives elsewhere, so that this crate stays free of `std` whatever a workspace unifies: the
//! reader of traces, the check of the invariant and the exhaustive model, in `protocols-check`.
#![no_std]
#![forbid(unsafe_code)]

pub mod auto;
pub mod event;
pub mod group;
pub mod machine;
pub mod rules;
pub mod trace;

pub use event::{Decision, Event};
pub use machine::Machine;
pub use rules::{Protocol, Rules, Scope, When};
