//! The driver as its users see it.
