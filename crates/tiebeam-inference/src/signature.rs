//! [`Port`]: what goes into a model and what comes out, as the model declares it, the same for every framework; and how
//! elements bring and take it: [`Example`], [`Inference`].

use std::fmt;
use std::sync::Arc;

use tiebeam_core::Element;

use crate::tensor::{DType, Tensor, Tensors};

/// The size of an axis as a model declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always that size.
    Fixed(usize),
    /// Any size; axes of the same name have the same.
    Named(Arc<str>),
    /// Any size.
    Free,
}

impl Dim {
    /// Whether an axis of that size fits.
    #[inline]
    pub fn admits(&self, size: usize) -> bool {
        match self {
            Dim::Fixed(fixed) => *fixed == size,
            Dim::Named(_) | Dim::Free => true,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => size.fmt(f),
            Dim::Named(name) => f.write_str(name),
            Dim::Free => f.write_str("?"),
        }
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: Arc<str>,
    /// Its type as numpy names it (`float32`), or as ONNX does where it is not a tensor (`sequence<…>`).
    pub type_name: String,
    /// Its type as our tensors have it; none when they can't hold it.
    pub dtype: Option<DType>,
    /// The axes; none when even their number is free.
    pub shape: Option<Vec<Dim>>,
}

impl Port {
    /// The number of axes, where it is fixed.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

/// As `x float32[batch, 3, ?]`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.name, self.type_name, Axes(self.shape.as_deref()))
    }
}

/// Axes as `[batch, 3]`; nothing when their number is free.
pub struct Axes<'a>(pub Option<&'a [Dim]>);

impl fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = self.0 else { return Ok(()) };
        f.write_str("[")?;
        for (i, dim) in dims.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What goes in.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
}

impl Signature {
    /// What keeps a model of this signature from taking the place of one of `other`; nothing if it can. Axes that are free
    /// in both may have different names.
    pub fn differs_from(&self, other: &Signature) -> Option<String> {
        let same_axes = |one: &Option<Vec<Dim>>, other: &Option<Vec<Dim>>| match (one, other) {
            (Some(one), Some(other)) => {
                let same = |(one, other): (&Dim, &Dim)| match (one, other) {
                    (Dim::Fixed(one), Dim::Fixed(other)) => one == other,
                    (Dim::Fixed(_), _) | (_, Dim::Fixed(_)) => false,
                    _ => true,
                };
                one.len() == other.len() && one.iter().zip(other).all(same)
            }
            (one, other) => one.is_none() == other.is_none(),
        };
        let same = |(one, other): (&Port, &Port)| {
            one.name == other.name && one.type_name == other.type_name && same_axes(&one.shape, &other.shape)
        };
        let list = |ports: &[Port]| ports.iter().map(Port::to_string).collect::<Vec<_>>().join(", ");
        for (what, own, others) in
            [("takes", &self.inputs, &other.inputs), ("gives", &self.outputs, &other.outputs)]
        {
            if own.len() != others.len() || !own.iter().zip(others).all(same) {
                return Some(format!("it {what} {}, the one in use {}", list(own), list(others)));
            }
        }
        None
    }
}

/// An example: what one element brings for the inputs of a model.
pub trait Example: Element {
    /// Whether it brings one tensor, without a name.
    const SINGLE: bool;

    /// The tensor for the input of that name, which is input number `index` of the model.
    fn tensor(&self, index: usize, name: &str) -> Option<&Tensor>;

    /// The names that it brings; none where it brings the only input.
    fn names(&self) -> Option<&[Arc<str>]>;

    /// The bytes of its numbers.
    fn num_bytes(&self) -> usize;
}

impl Example for Tensor {
    const SINGLE: bool = true;

    fn tensor(&self, _: usize, _: &str) -> Option<&Tensor> {
        Some(self)
    }

    fn names(&self) -> Option<&[Arc<str>]> {
        None
    }

    fn num_bytes(&self) -> usize {
        Tensor::num_bytes(self)
    }
}

impl Example for Tensors {
    const SINGLE: bool = false;

    fn tensor(&self, index: usize, name: &str) -> Option<&Tensor> {
        match Tensors::names(self).get(index) {
            Some(own) if &**own == name => self.values().get(index),
            _ => self.get(name),
        }
    }

    fn names(&self) -> Option<&[Arc<str>]> {
        Some(Tensors::names(self))
    }

    fn num_bytes(&self) -> usize {
        Tensors::num_bytes(self)
    }
}

/// An inference: what one element gets of the outputs of a model.
pub trait Inference: Element {
    /// Whether it holds one output only.
    const SINGLE: bool;

    /// One inference for each row; `columns` has the rows of each output, all of the same number.
    fn of_columns(names: &Arc<[Arc<str>]>, columns: Vec<Vec<Tensor>>) -> Vec<Self>;
}

impl Inference for Tensor {
    const SINGLE: bool = true;

    fn of_columns(_: &Arc<[Arc<str>]>, columns: Vec<Vec<Tensor>>) -> Vec<Self> {
        columns.into_iter().next().unwrap_or_default()
    }
}

impl Inference for Tensors {
    const SINGLE: bool = false;

    fn of_columns(names: &Arc<[Arc<str>]>, columns: Vec<Vec<Tensor>>) -> Vec<Self> {
        let n = columns.first().map_or(0, Vec::len);
        let mut columns = columns.into_iter().map(Vec::into_iter).collect::<Vec<_>>();
        (0..n)
            .map(|_| {
                let values = columns.iter_mut().filter_map(Iterator::next).collect();
                Tensors::of_checked_names(names.clone(), values)
            })
            .collect()
    }
}
