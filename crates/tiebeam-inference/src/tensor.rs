//! [`Tensor`]: a shaped array of numbers, the common currency of models.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind, Result};

mod coder;
mod named;
#[cfg(test)]
mod tests;
mod value;

pub use named::Tensors;
pub use value::TENSOR_TYPE;

/// The element type of a tensor, named as numpy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// `float32`
    F32,
    /// `float64`
    F64,
    /// `int64`
    I64,
    /// `int32`
    I32,
    /// `uint8`
    U8,
    /// `int8`
    I8,
    /// `bool`
    Bool,
    /// `str`: UTF-8 text, for models that take strings
    Str,
}

impl DType {
    /// numpy's name.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::U8 => "uint8",
            DType::I8 => "int8",
            DType::Bool => "bool",
            DType::Str => "str",
        }
    }

    /// The dtype of that numpy name.
    pub fn from_name(name: &str) -> Option<Self> {
        [DType::F32, DType::F64, DType::I64, DType::I32, DType::U8, DType::I8, DType::Bool, DType::Str]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers that are shared when there are many and held in place when there are few, so that scalars cost no allocation.
#[derive(Clone)]
pub enum Buffer<T> {
    /// At most one number.
    One([T; 1]),
    /// Any number of them, shared.
    Shared(Arc<Vec<T>>),
}

impl<T> Buffer<T> {
    /// The numbers.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Buffer::One(one) => one,
            Buffer::Shared(all) => all,
        }
    }
}

impl<T: Clone> Buffer<T> {
    /// The numbers as a vector: moved out when nobody else holds them, else copied.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Buffer::One(one) => one.to_vec(),
            Buffer::Shared(all) => Arc::unwrap_or_clone(all),
        }
    }
}

impl<T: Clone> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        match <[T; 1]>::try_from(values) {
            Ok(one) => Buffer::One(one),
            Err(values) => Buffer::Shared(Arc::new(values)),
        }
    }
}

/// The numbers of a tensor, in row-major order.
#[derive(Clone)]
#[allow(missing_docs)] // each variant is its dtype
pub enum TensorData {
    F32(Buffer<f32>),
    F64(Buffer<f64>),
    I64(Buffer<i64>),
    I32(Buffer<i32>),
    U8(Buffer<u8>),
    I8(Buffer<i8>),
    Bool(Buffer<bool>),
    Str(Buffer<Arc<str>>),
}

/// A shape of up to four axes in place, more on the heap.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Shape {
    Inline(u8, [u32; 4]),
    Heap(Arc<[usize]>),
}

/// A shaped array in row-major order. Clones share their numbers; scalars need no allocation.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    data: TensorData,
}

/// A Rust number (or string) that tensors can hold.
pub trait TensorElement: Clone + Sized + 'static {
    /// Its dtype.
    const DTYPE: DType;
    /// Wraps numbers.
    fn wrap(buffer: Buffer<Self>) -> TensorData;
    /// The numbers, if they are of this type.
    fn slice(data: &TensorData) -> Option<&[Self]>;
}

macro_rules! tensor_elements {
    ($($type:ty => $variant:ident),*) => {
        $(impl TensorElement for $type {
            const DTYPE: DType = DType::$variant;
            fn wrap(buffer: Buffer<Self>) -> TensorData { TensorData::$variant(buffer) }
            fn slice(data: &TensorData) -> Option<&[Self]> {
                match data { TensorData::$variant(buffer) => Some(buffer.as_slice()), _ => None }
            }
        })*
    };
}
tensor_elements!(f32 => F32, f64 => F64, i64 => I64, i32 => I32, u8 => U8, i8 => I8, bool => Bool, Arc<str> => Str);

impl Shape {
    fn of(dims: &[usize]) -> Shape {
        let mut inline = [0u32; 4];
        if dims.len() <= 4 {
            for (slot, dim) in inline.iter_mut().zip(dims) {
                match u32::try_from(*dim) {
                    Ok(dim) => *slot = dim,
                    Err(_) => return Shape::Heap(dims.into()),
                }
            }
            return Shape::Inline(dims.len() as u8, inline);
        }
        Shape::Heap(dims.into())
    }
}

impl Tensor {
    /// Numbers in row-major order with their shape (`[]` is a scalar).
    ///
    /// # Errors
    /// When the shape does not hold exactly that many numbers.
    pub fn new<T: TensorElement>(shape: &[usize], values: Vec<T>) -> Result<Self> {
        let wanted = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        if wanted != Some(values.len()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0310",
                format!("a tensor of shape {shape:?} cannot hold {} values", values.len()),
            ));
        }
        Ok(Tensor { shape: Shape::of(shape), data: T::wrap(Buffer::from(values)) })
    }

    /// A tensor of shape `[]`.
    pub fn scalar<T: TensorElement>(value: T) -> Self {
        Tensor { shape: Shape::Inline(0, [0; 4]), data: T::wrap(Buffer::One([value])) }
    }

    /// A tensor of one axis.
    pub fn vector<T: TensorElement>(values: Vec<T>) -> Self {
        Tensor { shape: Shape::of(&[values.len()]), data: T::wrap(Buffer::from(values)) }
    }

    /// The size of each axis.
    pub fn shape(&self) -> Vec<usize> {
        match &self.shape {
            Shape::Inline(n, dims) => dims[..usize::from(*n)].iter().map(|dim| *dim as usize).collect(),
            Shape::Heap(dims) => dims.to_vec(),
        }
    }

    /// Calls `f` with the size of each axis, without an allocation where the axes are few.
    #[inline]
    pub fn with_shape<R>(&self, f: impl FnOnce(&[usize]) -> R) -> R {
        match &self.shape {
            Shape::Inline(n, dims) => {
                let mut sizes = [0usize; 4];
                for (size, dim) in sizes.iter_mut().zip(dims) {
                    *size = *dim as usize;
                }
                f(&sizes[..usize::from(*n)])
            }
            Shape::Heap(dims) => f(dims),
        }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        match &self.shape {
            Shape::Inline(n, _) => usize::from(*n),
            Shape::Heap(dims) => dims.len(),
        }
    }

    /// Whether two tensors have the same shape, without an allocation.
    pub fn same_shape(&self, other: &Tensor) -> bool {
        self.shape == other.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            TensorData::F32(b) => b.as_slice().len(),
            TensorData::F64(b) => b.as_slice().len(),
            TensorData::I64(b) => b.as_slice().len(),
            TensorData::I32(b) => b.as_slice().len(),
            TensorData::U8(b) => b.as_slice().len(),
            TensorData::I8(b) => b.as_slice().len(),
            TensorData::Bool(b) => b.as_slice().len(),
            TensorData::Str(b) => b.as_slice().len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            TensorData::F32(_) => DType::F32,
            TensorData::F64(_) => DType::F64,
            TensorData::I64(_) => DType::I64,
            TensorData::I32(_) => DType::I32,
            TensorData::U8(_) => DType::U8,
            TensorData::I8(_) => DType::I8,
            TensorData::Bool(_) => DType::Bool,
            TensorData::Str(_) => DType::Str,
        }
    }

    /// The numbers with their type.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// The numbers with their type, without the tensor.
    pub fn into_data(self) -> TensorData {
        self.data
    }

    /// The numbers, if they are of type `T`.
    pub fn as_slice<T: TensorElement>(&self) -> Option<&[T]> {
        T::slice(&self.data)
    }

    /// The only number of a tensor that has just one of type `T`.
    pub fn to_scalar<T: TensorElement + Copy>(&self) -> Option<T> {
        match self.as_slice::<T>()? {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// When the shape holds another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let wanted = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        if wanted != Some(self.len()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0310",
                format!("a tensor of shape {shape:?} cannot hold {} values", self.len()),
            ));
        }
        Ok(Tensor { shape: Shape::of(shape), data: self.data.clone() })
    }
}

impl Tensor {
    /// The tensors along the first axis, without that axis. Rows of one number cost no allocation.
    ///
    /// # Errors
    /// When there is no axis.
    pub fn into_rows(self) -> Result<Vec<Tensor>> {
        let shape = self.shape();
        let Some((n, rest)) = shape.split_first() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0310",
                "a tensor without axes has no rows",
            ));
        };
        let row_shape = Shape::of(rest);
        if *n == 1 {
            return Ok(vec![Tensor { shape: row_shape, data: self.data }]);
        }
        fn rows<T: TensorElement>(n: usize, shape: &Shape, stride: usize, values: &[T]) -> Vec<Tensor> {
            let row = |values: &[T]| Tensor {
                shape: shape.clone(),
                data: T::wrap(match values {
                    [one] => Buffer::One([one.clone()]),
                    many => Buffer::Shared(Arc::new(many.to_vec())),
                }),
            };
            (0..n).map(|i| row(&values[i * stride..(i + 1) * stride])).collect()
        }
        let stride = rest.iter().product();
        Ok(match &self.data {
            TensorData::F32(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::F64(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::I64(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::I32(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::U8(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::I8(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::Bool(b) => rows(*n, &row_shape, stride, b.as_slice()),
            TensorData::Str(b) => rows(*n, &row_shape, stride, b.as_slice()),
        })
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        fn same<T: TensorElement + PartialEq>(a: &Tensor, b: &Tensor) -> bool {
            a.as_slice::<T>() == b.as_slice::<T>()
        }
        self.shape == other.shape
            && self.dtype() == other.dtype()
            && match self.dtype() {
                DType::F32 => same::<f32>(self, other),
                DType::F64 => same::<f64>(self, other),
                DType::I64 => same::<i64>(self, other),
                DType::I32 => same::<i32>(self, other),
                DType::U8 => same::<u8>(self, other),
                DType::I8 => same::<i8>(self, other),
                DType::Bool => same::<bool>(self, other),
                DType::Str => same::<Arc<str>>(self, other),
            }
    }
}

fn write_nested<T: fmt::Display>(f: &mut fmt::Formatter<'_>, shape: &[usize], values: &[T]) -> fmt::Result {
    match shape {
        [] => values.first().map_or(Ok(()), |value| value.fmt(f)),
        [n, rest @ ..] => {
            let stride = rest.iter().product::<usize>();
            f.write_str("[")?;
            for i in 0..*n {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write_nested(f, rest, &values[i * stride..(i + 1) * stride])?;
            }
            f.write_str("]")
        }
    }
}

/// Numbers as Rust writes them, nested by axis: `100`, `[1, 2.5]`.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.shape();
        match &self.data {
            TensorData::F32(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::F64(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::I64(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::I32(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::U8(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::I8(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::Bool(b) => write_nested(f, &shape, b.as_slice()),
            TensorData::Str(b) => write_nested(f, &shape, b.as_slice()),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len() <= 16 {
            write!(f, "Tensor({}{:?} {self})", self.dtype(), self.shape())
        } else {
            write!(f, "Tensor({}{:?})", self.dtype(), self.shape())
        }
    }
}
