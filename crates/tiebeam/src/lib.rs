//! The facade: prelude, re-exports, one feature a crate.
