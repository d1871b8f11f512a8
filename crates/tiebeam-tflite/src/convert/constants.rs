//! Constants: their numbers as floats and whole numbers, with those that are quantised made into what they stand for.

use super::{Converter, Done, unsupported};
use crate::model::{Tensor, Type};

/// How many numbers a constant may have that says how something is done.
const MOST_NUMBERS: usize = 1 << 12;

impl<'a> Converter<'a> {
    /// The constant that a tensor is.
    fn constant_tensor(&self, tensor: usize) -> Option<(&'a Tensor<'a>, &'a [u8])> {
        let model = self.model;
        let tensor = &model.tensors[self.values[tensor].same_as.unwrap_or(tensor)];
        Some((tensor, tensor.data?))
    }

    pub(super) fn is_constant(&self, tensor: usize) -> bool {
        self.constant_tensor(tensor).is_some()
    }

    /// The sizes of a constant's axes.
    pub(super) fn dims(&self, tensor: usize) -> Done<Vec<usize>> {
        let tensor = self.values[tensor].same_as.unwrap_or(tensor);
        let dims: Option<Vec<usize>> = self.shape(tensor).iter().copied().collect();
        dims.ok_or_else(|| "a constant without a size".into())
    }

    /// A constant as a value of the graph.
    pub(super) fn constant(&mut self, tensor: usize) -> Done<String> {
        let Some((declared, data)) = self.constant_tensor(tensor) else {
            return Err(format!("tensor {tensor} is used before anything gives it").into());
        };
        let dims = self.dims(tensor)?;
        Ok(match declared.kind {
            Type::F32 => self.w.f32_bytes(&dims, data)?,
            Type::F16 | Type::F64 => {
                let numbers = self.floats(tensor)?;
                self.w.f32s(&dims, &numbers)?
            }
            _ if declared.is_quantized() => {
                let numbers = self.floats(tensor)?;
                self.w.f32s(&dims, &numbers)?
            }
            Type::I32 | Type::I64 => {
                let numbers: Vec<i64> = whole(declared.kind, data).collect();
                self.w.i64s(&dims, &numbers)?
            }
            Type::Bool => {
                let flags: Vec<bool> = data.iter().map(|byte| *byte != 0).collect();
                self.w.bools(&dims, &flags)?
            }
            other => return unsupported(format!("a constant of type {other:?}")),
        })
    }

    /// The numbers of a constant of floats, or of whole numbers that stand for floats.
    pub(super) fn floats(&self, tensor: usize) -> Done<Vec<f32>> {
        let Some((declared, data)) = self.constant_tensor(tensor) else {
            return unsupported("takes weights that are computed");
        };
        Ok(match declared.kind {
            Type::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Type::F16 => data.chunks_exact(2).map(|b| half(u16::from_le_bytes([b[0], b[1]]))).collect(),
            Type::F64 => data
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
                .collect(),
            _ if declared.is_quantized() => return dequantized(declared, data),
            other => return Err(format!("weights of type {other:?}").into()),
        })
    }

    /// The numbers of a small constant of whole numbers; none where it is computed.
    pub(super) fn wholes(&self, tensor: usize) -> Done<Option<Vec<i64>>> {
        let Some((declared, data)) = self.constant_tensor(tensor) else { return Ok(None) };
        if !matches!(declared.kind, Type::I32 | Type::I64) {
            return Err(format!("numbers of type {:?} in place of whole ones", declared.kind).into());
        }
        if data.len() > MOST_NUMBERS * 8 {
            return Err("too many numbers".into());
        }
        Ok(Some(whole(declared.kind, data).collect()))
    }

    /// As [`wholes`](Self::wholes), of a constant that must be one.
    pub(super) fn fixed(&self, tensor: usize) -> Done<Vec<i64>> {
        match self.wholes(tensor)? {
            Some(numbers) => Ok(numbers),
            None => unsupported("takes axes or sizes that are computed"),
        }
    }

    /// The one number of such a constant.
    pub(super) fn one(&self, tensor: usize) -> Done<i64> {
        match self.fixed(tensor)?.as_slice() {
            [one] => Ok(*one),
            other => Err(format!("{} numbers in place of one", other.len()).into()),
        }
    }
}

fn whole(kind: Type, data: &[u8]) -> impl Iterator<Item = i64> + '_ {
    let size = if kind == Type::I64 { 8 } else { 4 };
    data.chunks_exact(size).map(move |b| match *b {
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    })
}

/// What quantised numbers stand for.
fn dequantized(tensor: &Tensor<'_>, data: &[u8]) -> Done<Vec<f32>> {
    let numbers: Vec<i64> = match tensor.kind {
        Type::I8 => data.iter().map(|byte| i64::from(*byte as i8)).collect(),
        Type::U8 => data.iter().map(|byte| i64::from(*byte)).collect(),
        Type::I16 => data.chunks_exact(2).map(|b| i64::from(i16::from_le_bytes([b[0], b[1]]))).collect(),
        _ => whole(tensor.kind, data).collect(),
    };
    let q = &tensor.quantization;
    let dims: Vec<usize> = tensor.shape.iter().map(|dim| dim.unwrap_or(1)).collect();
    let (slices, inner) = if q.scales.len() == 1 {
        (1, numbers.len().max(1))
    } else {
        let slices = dims.get(q.axis).copied().unwrap_or(0);
        (slices, dims.get(q.axis + 1..).unwrap_or_default().iter().product::<usize>().max(1))
    };
    if slices != q.scales.len() || !(q.zeros.is_empty() || q.zeros.len() == q.scales.len()) {
        return Err(format!("{} scales for {slices} slices", q.scales.len()).into());
    }
    let one = |(i, number): (usize, i64)| {
        let slice = i / inner % slices;
        let zero = q.zeros.get(slice).copied().unwrap_or(0);
        number.saturating_sub(zero) as f32 * q.scales[slice]
    };
    Ok(numbers.into_iter().enumerate().map(one).collect())
}

/// A number of half precision.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_exact() {
        for (bits, want) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0x8000, -0.0),
        ] {
            assert_eq!(half(bits).to_bits(), f32::to_bits(want), "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn quantised_numbers_are_what_they_stand_for() {
        let quantization = crate::model::Quantization { scales: vec![0.5, 2.0], zeros: vec![0, 1], axis: 1 };
        let data = [2u8, 3, 254, 255];
        let shape = vec![Some(2), Some(2)];
        let tensor = Tensor { name: "w", kind: Type::I8, shape, data: Some(&data), quantization };
        assert_eq!(dequantized(&tensor, &data).unwrap(), [1.0, 4.0, -1.0, -4.0]);
    }
}
