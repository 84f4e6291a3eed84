//! What the keeper opens for a process of the run that may not: the message which asks for it is
//! the process's entry (u32) with a socket for the answer, and the answer an errno (i32), 0 with
//! these descriptors.
//!
//! ```text
//! image | /proc/PID/pagemap | /proc/PID/mem | /proc/PID/io, if the kernel counts
//! ```

/// Bytes of the question, and of the answer.
pub const QUESTION_LEN: usize = 4;
pub const ANSWER_LEN: usize = 4;
/// Descriptors that come with the answer; the last may be missing.
pub const COUNT: usize = 4;
