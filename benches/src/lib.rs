//! The benchmarks: overhead of commits, intervals, system calls, recovery.
