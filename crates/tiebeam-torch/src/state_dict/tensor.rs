//! [`StateTensor`]: one tensor of a state dict, as a view of the file's bytes.

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::Tensor;

/// The element type of a stored tensor, with torch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalarType {
    /// `float32`
    F32,
    /// `float64`
    F64,
    /// `float16`
    F16,
    /// `bfloat16`
    BF16,
    /// `int64`
    I64,
    /// `int32`
    I32,
    /// `int16`
    I16,
    /// `int8`
    I8,
    /// `uint8`
    U8,
    /// `bool`
    Bool,
}

impl ScalarType {
    /// torch's name, without `torch.`.
    pub const fn name(self) -> &'static str {
        match self {
            ScalarType::F32 => "float32",
            ScalarType::F64 => "float64",
            ScalarType::F16 => "float16",
            ScalarType::BF16 => "bfloat16",
            ScalarType::I64 => "int64",
            ScalarType::I32 => "int32",
            ScalarType::I16 => "int16",
            ScalarType::I8 => "int8",
            ScalarType::U8 => "uint8",
            ScalarType::Bool => "bool",
        }
    }

    /// The bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            ScalarType::F64 | ScalarType::I64 => 8,
            ScalarType::F32 | ScalarType::I32 => 4,
            ScalarType::F16 | ScalarType::BF16 | ScalarType::I16 => 2,
            ScalarType::I8 | ScalarType::U8 | ScalarType::Bool => 1,
        }
    }

    /// The type of torch's name, aliases included.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "float32" | "float" => ScalarType::F32,
            "float64" | "double" => ScalarType::F64,
            "float16" | "half" => ScalarType::F16,
            "bfloat16" => ScalarType::BF16,
            "int64" | "long" => ScalarType::I64,
            "int32" | "int" => ScalarType::I32,
            "int16" | "short" => ScalarType::I16,
            "int8" => ScalarType::I8,
            "uint8" => ScalarType::U8,
            "bool" => ScalarType::Bool,
            _ => return None,
        })
    }
}

/// A tensor of a state dict: shape, strides and a share of the file's bytes. Numbers are made when they are asked for.
///
/// Its elements are never more than its storage holds, so reading it costs no more than the file did.
#[derive(Debug, Clone)]
pub struct StateTensor {
    dtype: ScalarType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    len: usize,
    storage: Bytes,
}

impl StateTensor {
    /// A view of `storage` (little endian): `offset` and `strides` in elements.
    ///
    /// # Errors
    /// One line (to which the tensor's name is added) when an element would lie outside of the storage, or the tensor
    /// has more elements than its storage.
    pub(super) fn new(
        dtype: ScalarType,
        shape: &[u64],
        strides: &[u64],
        offset: u64,
        storage: Bytes,
    ) -> Result<Self, String> {
        let held = (storage.len() / dtype.size()) as u64;
        let outside = || {
            format!(
                "its shape {shape:?} and strides {strides:?} reach past the {held} elements of its storage"
            )
        };
        // Axes of nothing count as one here, so that no product of the others can overflow later.
        let bound = shape.iter().try_fold(1u64, |n, dim| n.checked_mul((*dim).max(1))).ok_or_else(outside)?;
        let len = if shape.contains(&0) { 0 } else { bound };
        if len > held {
            return Err(format!(
                "its shape {shape:?} has more elements than the {held} of its storage; save it with .contiguous()"
            ));
        }
        let mut last = offset;
        if len > 0 {
            for (dim, stride) in shape.iter().zip(strides) {
                let reach = (dim - 1).checked_mul(*stride).ok_or_else(outside)?;
                last = last.checked_add(reach).ok_or_else(outside)?;
            }
            if last >= held {
                return Err(outside());
            }
        }
        let index = |n: u64| usize::try_from(n).map_err(|_| outside());
        Ok(StateTensor {
            dtype,
            shape: shape.iter().map(|dim| index(*dim)).collect::<Result<_, _>>()?,
            // Of an axis of one element or none, the stride says nothing.
            strides: strides
                .iter()
                .zip(shape)
                .map(|(stride, dim)| if *dim <= 1 { Ok(0) } else { index(*stride) })
                .collect::<Result<_, _>>()?,
            offset: if len == 0 { 0 } else { index(offset)? },
            len: index(len)?,
            storage,
        })
    }

    /// A row-major tensor that fills `storage`.
    pub(super) fn contiguous(dtype: ScalarType, shape: &[u64], storage: Bytes) -> Result<Self, String> {
        let mut strides = vec![1u64; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
        }
        StateTensor::new(dtype, shape, &strides, 0, storage)
    }

    /// The stored element type.
    pub fn dtype(&self) -> ScalarType {
        self.dtype
    }

    /// The size of each axis; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of its elements.
    pub fn num_bytes(&self) -> usize {
        self.len * self.dtype.size()
    }

    /// Whether the elements lie in the storage one after the other in row-major order.
    pub fn is_contiguous(&self) -> bool {
        let mut wanted = 1;
        for (dim, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *dim > 1 {
                if *stride != wanted {
                    return false;
                }
                wanted *= dim;
            }
        }
        true
    }

    /// The elements as `float32`, in row-major order; other types are converted as torch's `.float()` does.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            ScalarType::F32 => self.gather(f32::from_le_bytes),
            ScalarType::F64 => self.gather(|bytes| f64::from_le_bytes(bytes) as f32),
            ScalarType::F16 => self.gather(|bytes| half_to_f32(u16::from_le_bytes(bytes))),
            ScalarType::BF16 => {
                self.gather(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
            }
            ScalarType::I64 => self.gather(|bytes| i64::from_le_bytes(bytes) as f32),
            ScalarType::I32 => self.gather(|bytes| i32::from_le_bytes(bytes) as f32),
            ScalarType::I16 => self.gather(|bytes| f32::from(i16::from_le_bytes(bytes))),
            ScalarType::I8 => self.gather(|bytes| f32::from(i8::from_le_bytes(bytes))),
            ScalarType::U8 => self.gather(|[byte]: [u8; 1]| f32::from(byte)),
            ScalarType::Bool => self.gather(|[byte]: [u8; 1]| if byte == 0 { 0.0 } else { 1.0 }),
        }
    }

    /// The elements as little-endian `float32` bytes, in row-major order; the file's own where they are that already.
    pub(crate) fn to_f32_bytes(&self) -> Bytes {
        if self.dtype == ScalarType::F32 && self.is_contiguous() {
            return self.storage.slice(self.offset * 4..(self.offset + self.len) * 4);
        }
        self.to_f32().into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
    }

    /// The tensor in row-major order. `float16` and `bfloat16` become `float32`, `int16` becomes `int32`: exactly.
    ///
    /// # Errors
    /// Never for a tensor that was read from a file.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self.dtype {
            ScalarType::F32 | ScalarType::F16 | ScalarType::BF16 => Tensor::new(&self.shape, self.to_f32()),
            ScalarType::F64 => Tensor::new(&self.shape, self.gather(f64::from_le_bytes)),
            ScalarType::I64 => Tensor::new(&self.shape, self.gather(i64::from_le_bytes)),
            ScalarType::I32 => Tensor::new(&self.shape, self.gather(i32::from_le_bytes)),
            ScalarType::I16 => {
                Tensor::new(&self.shape, self.gather(|bytes| i32::from(i16::from_le_bytes(bytes))))
            }
            ScalarType::I8 => Tensor::new(&self.shape, self.gather(i8::from_le_bytes)),
            ScalarType::U8 => Tensor::new(&self.shape, self.gather(|[byte]: [u8; 1]| byte)),
            ScalarType::Bool => Tensor::new(&self.shape, self.gather(|[byte]: [u8; 1]| byte != 0)),
        }
    }

    /// All elements in row-major order. `N` is the element's size.
    fn gather<const N: usize, T>(&self, convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        let element = |bytes: &[u8]| {
            let mut array = [0; N];
            array.copy_from_slice(bytes);
            convert(array)
        };
        if self.is_contiguous() {
            let from = self.offset * N;
            return self.storage[from..from + self.len * N].chunks_exact(N).map(element).collect();
        }
        let mut out = Vec::with_capacity(self.len);
        let mut index = vec![0usize; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..self.len {
            out.push(element(&self.storage[at * N..(at + 1) * N]));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        out
    }
}

/// IEEE half precision to single: exact.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        0 => {
            // Subnormal: fraction × 2^-24, exactly representable.
            let magnitude = fraction as f32 * 2f32.powi(-24);
            f32::from_bits(magnitude.to_bits() | sign)
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// The error of a tensor that can't be what the file says.
pub(super) fn bad_tensor(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Model, "TB0366", format!("tensor `{name}` can't be read: {why}"))
}
