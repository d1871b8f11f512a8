//! What goes wrong with engines.

use std::fmt::{self, Display};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Error {
        Error(message)
    }
}

impl From<Error> for String {
    fn from(error: Error) -> String {
        error.0
    }
}
