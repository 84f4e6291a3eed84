//! The machine-dependent room: x86-64, Linux.
//!
//! Every asm block of the runtime is one named function in here. Nothing above
//! this folder knows a register by name, except through [`frame::Frame`].

pub mod bytes;
pub mod clock;
pub mod entry;
pub mod frame;
pub mod futex;
pub mod nr;
pub mod own_table;
pub mod site;
pub mod sys;
pub mod user;
pub mod vector;
