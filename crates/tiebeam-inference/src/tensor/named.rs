//! [`Tensors`]: tensors by name, for models of several inputs or outputs.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind, Result};

use super::Tensor;

/// A few tensors by name, in order. The names are shared by all elements that were made together, so that one element
/// costs one allocation.
#[derive(Clone, PartialEq)]
pub struct Tensors {
    names: Arc<[Arc<str>]>,
    values: Vec<Tensor>,
}

impl Tensors {
    /// Tensors with their names, in the same order.
    ///
    /// # Errors
    /// When there is not exactly one name for each tensor, or a name comes twice.
    pub fn new(names: impl Into<Arc<[Arc<str>]>>, values: Vec<Tensor>) -> Result<Self> {
        let names = names.into();
        let invalid = |message| Err(Error::new(ErrorKind::InvalidArgument, "TB0312", message));
        if names.len() != values.len() {
            return invalid(format!("{} names for {} tensors", names.len(), values.len()));
        }
        if let Some((_, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return invalid(format!("two tensors have the name `{twice}`"));
        }
        Ok(Tensors { names, values })
    }

    /// Tensors whose names were checked before: one for each, no name twice. For results of a batch, where the names are
    /// the same for every row. A wrong count keeps the shorter of the two.
    pub fn of_checked_names(names: Arc<[Arc<str>]>, values: Vec<Tensor>) -> Self {
        debug_assert_eq!(names.len(), values.len());
        Tensors { names, values }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.values.get(self.names.iter().position(|own| &**own == name)?)
    }

    /// The names, in order.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// The tensors, in the order of the names.
    pub fn values(&self) -> &[Tensor] {
        &self.values
    }

    /// Each name with its tensor.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(|name| &**name).zip(&self.values)
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The bytes of all numbers.
    pub fn num_bytes(&self) -> usize {
        self.values.iter().map(Tensor::num_bytes).sum()
    }
}

/// As `{name: numbers, …}`, in order.
impl fmt::Display for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, tensor)) in self.iter().enumerate() {
            write!(f, "{}{name}: {tensor}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
