//! From rows to a batch and back: which shapes fit, which numbers may become which, stacking and splitting.

use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::signature::Axes;
use tiebeam_inference::tensor::TensorElement;
use tiebeam_inference::{DType, Dim, Port, Tensor, TensorData};

/// How a row's tensor becomes a model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The input has one more axis: rows are stacked along a new first one.
    Stack,
    /// The input has that first axis, but its size is fixed to 1: one row a call, with the axis put in front.
    StackOne,
    /// The input has no batch axis: one row a call, as it is.
    Whole,
}

fn wrong(code: &'static str, message: String) -> Error {
    Error::new(ErrorKind::InvalidData, code, message)
}

/// How a tensor of that shape goes into an input.
///
/// # Errors
/// When it does not: the shape seen and the shape wanted.
pub(crate) fn fit(port: &Port, tensor: &Tensor) -> Result<Fit> {
    let Some(dims) = port.shape.as_deref() else { return Ok(Fit::Whole) };
    let fits = tensor.with_shape(|shape| {
        let admit = |dims: &[Dim], shape: &[usize]| {
            dims.len() == shape.len() && dims.iter().zip(shape).all(|(dim, size)| dim.admits(*size))
        };
        if let Some((first, rest)) = dims.split_first() {
            let stack = match first {
                Dim::Fixed(1) => Some(Fit::StackOne),
                Dim::Fixed(_) => None,
                Dim::Named(_) | Dim::Free => Some(Fit::Stack),
            };
            // A number is a row of size 1 on every axis.
            let number = shape.is_empty() && rest.iter().all(|dim| dim.admits(1));
            if stack.is_some() && (number || admit(rest, shape)) {
                return stack;
            }
        }
        admit(dims, shape).then_some(Fit::Whole)
    });
    fits.ok_or_else(|| {
        let row = match dims.split_first() {
            Some((Dim::Named(_) | Dim::Free | Dim::Fixed(1), rest)) => {
                format!(" (a row: {})", Axes(Some(rest)))
            }
            _ => String::new(),
        };
        let (name, seen) = (&port.name, tensor.shape());
        wrong("TB0340", format!("input {name} wants the shape {}{row}, got {seen:?}", Axes(Some(dims))))
    })
}

/// A number type that values of other types may become where nothing is lost but binary digits of a fraction.
trait Wanted: TensorElement + Copy {
    fn of_float(value: f64) -> Option<Self>;
    fn of_int(value: i64) -> Option<Self>;
}

impl Wanted for f32 {
    fn of_float(value: f64) -> Option<Self> {
        let narrow = value as f32;
        (narrow.is_finite() || !value.is_finite()).then_some(narrow)
    }

    fn of_int(value: i64) -> Option<Self> {
        let float = value as f32;
        (float as i128 == i128::from(value)).then_some(float)
    }
}

impl Wanted for f64 {
    fn of_float(value: f64) -> Option<Self> {
        Some(value)
    }

    fn of_int(value: i64) -> Option<Self> {
        let float = value as f64;
        (float as i128 == i128::from(value)).then_some(float)
    }
}

macro_rules! wanted_integers {
    ($($type:ty),*) => {$(
        impl Wanted for $type {
            fn of_float(_: f64) -> Option<Self> {
                None
            }

            fn of_int(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }
        }
    )*};
}
wanted_integers!(i64, i32, u8, i8);

/// What the conversion of a tensor came to.
enum Conversion {
    /// Every number fits.
    Fits,
    /// The types are never converted into each other.
    Never,
    /// This number does not fit.
    Misfit(String),
}

/// Gives each number of `data` as a `T` to `each`.
fn convert<T: Wanted>(data: &TensorData, mut each: impl FnMut(T)) -> Conversion {
    macro_rules! all {
        ($buffer:expr, |$value:ident| $to:expr) => {{
            for number in $buffer.as_slice() {
                let $value = *number;
                match $to {
                    Some(converted) => each(converted),
                    None => return Conversion::Misfit(number.to_string()),
                }
            }
            Conversion::Fits
        }};
    }
    let floats = matches!(T::DTYPE, DType::F32 | DType::F64);
    match data {
        TensorData::F32(b) if floats => all!(b, |v| T::of_float(f64::from(v))),
        TensorData::F64(b) if floats => all!(b, |v| T::of_float(v)),
        TensorData::I64(b) => all!(b, |v| T::of_int(v)),
        TensorData::I32(b) => all!(b, |v| T::of_int(i64::from(v))),
        TensorData::U8(b) => all!(b, |v| T::of_int(i64::from(v))),
        TensorData::I8(b) => all!(b, |v| T::of_int(i64::from(v))),
        TensorData::F32(_) | TensorData::F64(_) | TensorData::Bool(_) | TensorData::Str(_) => {
            Conversion::Never
        }
    }
}

impl Conversion {
    fn into_result(self, port: &Port, seen: DType) -> Result<()> {
        let (name, wanted) = (&port.name, &port.type_name);
        match self {
            Conversion::Fits => Ok(()),
            Conversion::Never => Err(wrong("TB0341", format!("input {name} wants {wanted}, got {seen}"))),
            Conversion::Misfit(number) => Err(wrong(
                "TB0341",
                format!("input {name} wants {wanted}, and {number} ({seen}) does not fit"),
            )),
        }
    }
}

/// The dtype that an input takes; ports without one are refused when a model is loaded.
fn wanted_dtype(port: &Port) -> Result<DType> {
    port.dtype.ok_or_else(|| Error::internal(format!("input {} has the type {}", port.name, port.type_name)))
}

/// Whether a tensor's numbers may go into an input. Costs nothing where the dtypes are the same.
///
/// # Errors
/// The dtype seen and the one wanted, and the number that does not fit.
pub(crate) fn check_numbers(port: &Port, tensor: &Tensor) -> Result<()> {
    let (wanted, seen) = (wanted_dtype(port)?, tensor.dtype());
    if wanted == seen {
        return Ok(());
    }
    let data = tensor.data();
    match wanted {
        DType::F32 => convert::<f32>(data, |_| ()),
        DType::F64 => convert::<f64>(data, |_| ()),
        DType::I64 => convert::<i64>(data, |_| ()),
        DType::I32 => convert::<i32>(data, |_| ()),
        DType::U8 => convert::<u8>(data, |_| ()),
        DType::I8 => convert::<i8>(data, |_| ()),
        DType::Bool | DType::Str => Conversion::Never,
    }
    .into_result(port, seen)
}

/// Rows as one input, in the input's dtype: rows of the same shape, or, with `padding`, of the same rank, each filled up
/// with that number to the longest on every axis.
///
/// # Errors
/// When a number does not fit.
pub(crate) fn gather<'a>(
    port: &Port,
    fit: Fit,
    n: usize,
    padding: Option<i64>,
    rows: impl Fn(usize) -> &'a Tensor,
) -> Result<Tensor> {
    let first = rows(0);
    let wanted = wanted_dtype(port)?;
    if let Some(padding) = padding
        && (1..n).any(|i| !rows(i).same_shape(first))
    {
        return padded(port, wanted, n, padding, rows);
    }
    let shape = batch_shape(port, fit, n, first);
    if n == 1 && first.dtype() == wanted {
        return first.reshape(&shape);
    }
    fn numbers<'a, T: Wanted>(
        port: &Port,
        shape: &[usize],
        n: usize,
        rows: impl Fn(usize) -> &'a Tensor,
    ) -> Result<Tensor> {
        let mut out = Vec::with_capacity(shape.iter().product());
        for i in 0..n {
            let row = rows(i);
            match row.as_slice::<T>() {
                Some([one]) => out.push(*one),
                Some(same) => out.extend_from_slice(same),
                None => convert::<T>(row.data(), |v| out.push(v)).into_result(port, row.dtype())?,
            }
        }
        Tensor::new(shape, out)
    }
    fn same<'a, T: TensorElement>(
        port: &Port,
        shape: &[usize],
        n: usize,
        rows: impl Fn(usize) -> &'a Tensor,
    ) -> Result<Tensor> {
        let mut out: Vec<T> = Vec::with_capacity(shape.iter().product());
        for i in 0..n {
            match rows(i).as_slice::<T>() {
                Some(same) => out.extend_from_slice(same),
                None => Conversion::Never.into_result(port, rows(i).dtype())?,
            }
        }
        Tensor::new(shape, out)
    }
    match wanted {
        DType::F32 => numbers::<f32>(port, &shape, n, rows),
        DType::F64 => numbers::<f64>(port, &shape, n, rows),
        DType::I64 => numbers::<i64>(port, &shape, n, rows),
        DType::I32 => numbers::<i32>(port, &shape, n, rows),
        DType::U8 => numbers::<u8>(port, &shape, n, rows),
        DType::I8 => numbers::<i8>(port, &shape, n, rows),
        DType::Bool => same::<bool>(port, &shape, n, rows),
        DType::Str => same::<Arc<str>>(port, &shape, n, rows),
    }
}

/// Rows of one rank and different shapes, filled up to the longest on every axis.
fn padded<'a>(
    port: &Port,
    wanted: DType,
    n: usize,
    padding: i64,
    rows: impl Fn(usize) -> &'a Tensor,
) -> Result<Tensor> {
    fn numbers<'a, T: Wanted>(
        port: &Port,
        n: usize,
        padding: i64,
        rows: impl Fn(usize) -> &'a Tensor,
    ) -> Result<Tensor> {
        let mut longest = rows(0).shape();
        for i in 1..n {
            rows(i).with_shape(|shape| {
                longest.iter_mut().zip(shape).for_each(|(most, size)| *most = (*most).max(*size))
            });
        }
        let filler = T::of_int(padding).ok_or_else(|| {
            wrong(
                "TB0341",
                format!(
                    "input {} wants {}, and the padding {padding} does not fit",
                    port.name, port.type_name
                ),
            )
        })?;
        let size: usize = longest.iter().product();
        let mut out = vec![filler; n * size];
        let mut converted = Vec::new();
        for (i, place) in (0..n).zip(out.chunks_exact_mut(size.max(1))) {
            let row = rows(i);
            let values = match row.as_slice::<T>() {
                Some(same) => same,
                None => {
                    converted.clear();
                    convert::<T>(row.data(), |v| converted.push(v)).into_result(port, row.dtype())?;
                    &converted
                }
            };
            row.with_shape(|shape| lay(place, &longest, values, shape));
        }
        let mut shape = vec![n];
        shape.extend(longest);
        Tensor::new(&shape, out)
    }
    match wanted {
        DType::F32 => numbers::<f32>(port, n, padding, rows),
        DType::F64 => numbers::<f64>(port, n, padding, rows),
        DType::I64 => numbers::<i64>(port, n, padding, rows),
        DType::I32 => numbers::<i32>(port, n, padding, rows),
        DType::U8 => numbers::<u8>(port, n, padding, rows),
        DType::I8 => numbers::<i8>(port, n, padding, rows),
        DType::Bool | DType::Str => {
            Err(wrong("TB0341", format!("input {} wants {wanted}, which cannot be padded", port.name)))
        }
    }
}

/// Lays numbers of a shape into the corner of a larger one of the same rank.
fn lay<T: Copy>(place: &mut [T], larger: &[usize], values: &[T], shape: &[usize]) {
    let (Some((most, larger)), Some((size, shape))) = (larger.split_first(), shape.split_first()) else {
        if let (Some(to), Some(from)) = (place.first_mut(), values.first()) {
            *to = *from;
        }
        return;
    };
    if shape.is_empty() {
        place[..*size].copy_from_slice(&values[..*size]);
        return;
    }
    let (stride, step) = (place.len() / (*most).max(1), values.len() / (*size).max(1));
    for i in 0..*size {
        lay(&mut place[i * stride..(i + 1) * stride], larger, &values[i * step..(i + 1) * step], shape);
    }
}

/// The shape of `n` rows of the shape of `row`.
fn batch_shape(port: &Port, fit: Fit, n: usize, row: &Tensor) -> Vec<usize> {
    if fit == Fit::Whole {
        return row.shape();
    }
    let mut shape = vec![n];
    match &port.shape {
        Some(dims) if row.rank() == 0 => shape.resize(dims.len(), 1),
        _ => row.with_shape(|row| shape.extend_from_slice(row)),
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_shapes_lie_in_the_corner_of_larger_ones() {
        let mut place = [0; 12];
        lay(&mut place, &[2, 2, 3], &[1, 2, 3, 4], &[2, 1, 2]);
        assert_eq!(place, [1, 2, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0]);
        lay(&mut place, &[2, 2, 3], &[], &[0, 2, 3]);
        lay(&mut place, &[2, 2, 3], &[], &[2, 0, 3]);
        assert_eq!(place[..3], [1, 2, 0], "nothing was there to lay");
    }
}
