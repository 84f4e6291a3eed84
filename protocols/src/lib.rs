//! The commit protocols and the theory of consistent recovery, as pure machines.
#![no_std]
