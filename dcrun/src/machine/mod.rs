//! The rooms where the keeper may be unsafe: what the kernel offers and no
//! safe crate wraps. Everything outside of this folder is safe Rust.

#[allow(unsafe_code)]
pub mod birthplace;
#[allow(unsafe_code)]
pub mod descriptors;
#[allow(unsafe_code)]
#[cfg(not(test))]
mod entry;
#[allow(unsafe_code)]
pub mod jump;
#[allow(unsafe_code)]
pub mod memory_holder;
#[allow(unsafe_code)]
pub mod probe;
#[allow(unsafe_code)]
pub mod process;
#[allow(unsafe_code)]
pub mod shared;
#[allow(unsafe_code)]
pub mod signals;
#[allow(unsafe_code)]
pub mod terminal;
