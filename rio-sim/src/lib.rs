//! Persistent memory (Rio) on tmpfs, disk or pmem, and a simulator of its crashes.
