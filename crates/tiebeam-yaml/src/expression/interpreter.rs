//! What runs Python that has no typed part: `tiebeam-python`, or nothing in a build without it.

#[cfg(feature = "python")]
pub use tiebeam_python::{Exception, MODULES, Program, functions};

#[cfg(not(feature = "python"))]
pub use none::{Exception, MODULES, Program, functions};

#[cfg(not(feature = "python"))]
mod none {
    //! Nothing.

    use tiebeam_core::row::{Row, Value};

    /// The modules that a program may import.
    pub const MODULES: [&str; 0] = [];

    /// That there is no interpreter.
    #[derive(Debug, Clone)]
    pub struct Exception {
        pub kind: String,
        pub message: String,
        pub place: Option<(u32, u32)>,
    }

    /// A program, of which there is none.
    #[derive(Debug, Clone)]
    pub enum Program {}

    fn refused<T>() -> Result<T, Exception> {
        let message = "this build was made without the feature `python`, so only its typed part is there";
        Err(Exception { kind: "Unsupported".to_owned(), message: message.to_owned(), place: None })
    }

    impl Program {
        pub fn expression(_: &str, _: &[(String, usize)]) -> Result<Self, Exception> {
            refused()
        }

        pub fn function(_: &str, _: Option<&str>) -> Result<Self, Exception> {
            refused()
        }

        pub fn call(&self, _: &Row) -> Result<Value, Exception> {
            match *self {}
        }
    }

    /// The names of the functions that a text defines at its outermost level.
    pub fn functions(text: &str) -> Vec<&str> {
        let name = |line: &'_ str| -> Option<usize> {
            let rest = line.strip_prefix("def ")?;
            rest.find(|c: char| !c.is_alphanumeric() && c != '_')
        };
        text.lines().filter_map(|line| name(line).map(|end| &line[4..4 + end])).collect()
    }
}
