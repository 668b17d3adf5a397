//! The same, from the same.
