//! Recoverable memory: undo-log transactions on Rio.
