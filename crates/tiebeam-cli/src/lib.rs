//! The tiebeam command.
