//! Real programs driven through a pty, killed and compared with a native run.
