//! Discount Checking for programs that link it.
