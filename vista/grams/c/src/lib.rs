//! The C interface of Vistagrams: `vista/include/vistagrams.h`. The library holds Vista's as well.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod c;
mod messages;

pub use c::*;
/// So that the names of Vista are in the library too.
pub use vista_c;
