//! [`HoldsNan`]: predictions that may hold a number that is none.

use crate::tensor::{Tensor, TensorData, Tensors};

/// A prediction of which can be told whether a NaN is in it; for [`with_nan_policy`](crate::RunInference::with_nan_policy).
pub trait HoldsNan {
    /// Whether there is one.
    fn holds_nan(&self) -> bool;
}

impl HoldsNan for f64 {
    fn holds_nan(&self) -> bool {
        self.is_nan()
    }
}

impl HoldsNan for f32 {
    fn holds_nan(&self) -> bool {
        self.is_nan()
    }
}

impl<T: HoldsNan> HoldsNan for Vec<T> {
    fn holds_nan(&self) -> bool {
        self.iter().any(T::holds_nan)
    }
}

impl<T: HoldsNan> HoldsNan for Option<T> {
    fn holds_nan(&self) -> bool {
        self.as_ref().is_some_and(T::holds_nan)
    }
}

impl HoldsNan for Tensor {
    fn holds_nan(&self) -> bool {
        match self.data() {
            TensorData::F32(numbers) => numbers.as_slice().iter().any(|x| x.is_nan()),
            TensorData::F64(numbers) => numbers.as_slice().iter().any(|x| x.is_nan()),
            _ => false,
        }
    }
}

impl HoldsNan for Tensors {
    fn holds_nan(&self) -> bool {
        self.values().iter().any(Tensor::holds_nan)
    }
}
