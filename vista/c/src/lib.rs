//! libvista_c: the C interface of Vista, declared in `vista/include/vista.h`.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod c;

pub use c::*;
