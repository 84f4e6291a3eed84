//! The systems under test, one file each.

pub mod bare;
pub mod floor;
pub mod library;
pub mod lmdb;
pub mod pmemobj;
pub mod redb;
pub mod rocksdb;
pub mod sqlite;
pub mod vista;
