//! What torch has as functions: arithmetic, activations, shapes.

use tiebeam_core::error::Result;

use super::{Attribute, Dim, ElementType, GraphBuilder, Value};

impl GraphBuilder<'_> {
    /// An operation on each element for itself.
    pub(crate) fn elementwise(&mut self, operator: &str, x: &Value) -> Value {
        self.node(operator, &[x], &[], x.element, x.shape.clone())
    }

    /// `max(x, 0)`
    pub fn relu(&mut self, x: &Value) -> Value {
        self.elementwise("Relu", x)
    }

    /// `1 / (1 + exp(-x))`
    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.elementwise("Sigmoid", x)
    }

    /// The hyperbolic tangent.
    pub fn tanh(&mut self, x: &Value) -> Value {
        self.elementwise("Tanh", x)
    }

    /// `x` held between two numbers.
    ///
    /// # Errors
    /// Never.
    pub fn clip(&mut self, x: &Value, low: f32, high: f32) -> Result<Value> {
        let (low, high) = (self.constant(&[], &[low])?, self.constant(&[], &[high])?);
        Ok(self.node("Clip", &[x, &low, &high], &[], x.element, x.shape.clone()))
    }

    /// `x · sigmoid(x)`
    ///
    /// # Errors
    /// Never.
    pub fn silu(&mut self, x: &Value) -> Result<Value> {
        let gate = self.sigmoid(x);
        self.mul(x, &gate)
    }

    /// `x · Φ(x)`, exact.
    ///
    /// # Errors
    /// Never.
    pub fn gelu(&mut self, x: &Value) -> Result<Value> {
        let (root, one, half) = (
            self.constant(&[], &[std::f32::consts::SQRT_2])?,
            self.constant(&[], &[1.0])?,
            self.constant(&[], &[0.5])?,
        );
        let scaled = self.div(x, &root)?;
        let erf = self.elementwise("Erf", &scaled);
        let raised = self.add(&erf, &one)?;
        let product = self.mul(x, &raised)?;
        self.mul(&product, &half)
    }

    /// `x · Φ(x)` by the tanh approximation.
    ///
    /// # Errors
    /// Never.
    pub fn gelu_tanh(&mut self, x: &Value) -> Result<Value> {
        let cubic = self.constant(&[], &[0.044_715])?;
        let root = self.constant(&[], &[(2.0 / std::f32::consts::PI).sqrt()])?;
        let (one, half) = (self.constant(&[], &[1.0])?, self.constant(&[], &[0.5])?);
        let square = self.mul(x, x)?;
        let cube = self.mul(&square, x)?;
        let small = self.mul(&cube, &cubic)?;
        let sum = self.add(x, &small)?;
        let inner = self.mul(&sum, &root)?;
        let tanh = self.tanh(&inner);
        let raised = self.add(&tanh, &one)?;
        let product = self.mul(x, &raised)?;
        self.mul(&product, &half)
    }

    /// Shares of one along `axis`; negative ones count from the end.
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn softmax(&mut self, x: &Value, axis: isize) -> Result<Value> {
        let axis = self.axis(x, axis)?;
        Ok(self.node("Softmax", &[x], &[("axis", Attribute::Int(axis as i64))], x.element, x.shape.clone()))
    }

    /// `a + b`, broadcast as in torch.
    ///
    /// # Errors
    /// When the shapes can't be broadcast.
    pub fn add(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.binary("Add", a, b)
    }

    /// `a - b`, broadcast as in torch.
    ///
    /// # Errors
    /// When the shapes can't be broadcast.
    pub fn sub(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.binary("Sub", a, b)
    }

    /// `a · b` element by element, broadcast as in torch.
    ///
    /// # Errors
    /// When the shapes can't be broadcast.
    pub fn mul(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.binary("Mul", a, b)
    }

    /// `a / b`, broadcast as in torch.
    ///
    /// # Errors
    /// When the shapes can't be broadcast.
    pub fn div(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.binary("Div", a, b)
    }

    fn binary(&mut self, operator: &str, a: &Value, b: &Value) -> Result<Value> {
        let shape = self.broadcast(&a.shape, &b.shape, a, b)?;
        Ok(self.node(operator, &[a, b], &[], a.element, shape))
    }

    fn broadcast(&self, left: &[Dim], right: &[Dim], a: &Value, b: &Value) -> Result<Vec<Dim>> {
        let rank = left.len().max(right.len());
        let at =
            |shape: &[Dim], i: usize| (i + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |i| shape[i]);
        let mut shape = Vec::with_capacity(rank);
        for i in 0..rank {
            shape.push(match (at(left, i), at(right, i)) {
                (dim, Dim::Fixed(1)) | (Dim::Fixed(1), dim) => dim,
                (Dim::Fixed(m), Dim::Fixed(n)) if m == n => Dim::Fixed(m),
                (Dim::Fixed(_), Dim::Fixed(_)) => {
                    return Err(self.wrong(format!(
                        "shapes {} and {} do not go together",
                        a.axes(),
                        b.axes()
                    )));
                }
                (Dim::Fixed(n), _) | (_, Dim::Fixed(n)) => Dim::Fixed(n),
                (dim, other) => {
                    if dim == other {
                        dim
                    } else {
                        Dim::Free
                    }
                }
            });
        }
        Ok(shape)
    }

    /// The product of the last two axes as matrices, broadcast over those before.
    ///
    /// # Errors
    /// When the inner sizes differ, or a value has fewer than two axes.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Result<Value> {
        let ([left @ .., rows, inner], [right @ .., also, columns]) =
            (a.shape.as_slice(), b.shape.as_slice())
        else {
            return Err(self.wrong(format!("{} and {} are not matrices", a.axes(), b.axes())));
        };
        if matches!((inner.size(), also.size()), (Some(m), Some(n)) if m != n) {
            return Err(self.wrong(format!("matrices {} and {} can't be multiplied", a.axes(), b.axes())));
        }
        let mut shape = self.broadcast(left, right, a, b)?;
        shape.extend([*rows, *columns]);
        Ok(self.node("MatMul", &[a, b], &[], a.element, shape))
    }

    /// The axes in another order: `order[i]` is the axis that comes to place `i`.
    ///
    /// # Errors
    /// When `order` does not name every axis once.
    pub fn permute(&mut self, x: &Value, order: &[usize]) -> Result<Value> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if sorted != (0..x.rank()).collect::<Vec<_>>() {
            return Err(self.wrong(format!("{order:?} is no order of the axes of {}", x.axes())));
        }
        let shape = order.iter().map(|axis| x.shape[*axis]).collect();
        Ok(self.node("Transpose", &[x], &[("perm", Attribute::Ints(order))], x.element, shape))
    }

    /// The same elements in other axes: 0 keeps the axis of that place, -1 takes what is left.
    ///
    /// # Errors
    /// When 0 stands where `x` has no axis, or -1 stands twice.
    pub fn reshape(&mut self, x: &Value, axes: &[i64]) -> Result<Value> {
        if axes.iter().filter(|axis| **axis == -1).count() > 1 {
            return Err(self.wrong(format!("{axes:?} leaves more than one axis open")));
        }
        let mut shape = Vec::with_capacity(axes.len());
        for (i, axis) in axes.iter().enumerate() {
            shape.push(match axis {
                0 => *x.shape.get(i).ok_or_else(|| {
                    self.wrong(format!("{axes:?} keeps axis {i}, which {} has not", x.axes()))
                })?,
                -1 => Dim::Free,
                n => Dim::Fixed(
                    usize::try_from(*n).map_err(|_| self.wrong(format!("{axes:?} is not a shape")))?,
                ),
            });
        }
        let product = |dims: &[Dim]| dims.iter().try_fold(1usize, |n, dim| n.checked_mul(dim.size()?));
        if let (Some(all), Some(open)) = (product(&x.shape), axes.iter().position(|axis| *axis == -1)) {
            let others: Vec<Dim> = (0..shape.len()).filter(|i| *i != open).map(|i| shape[i]).collect();
            if let Some(n) = product(&others).filter(|n| *n > 0) {
                shape[open] = Dim::Fixed(all / n);
            }
        }
        let target = self.constant_i64(&[axes.len()], axes)?;
        Ok(self.node("Reshape", &[x, &target], &[], x.element, shape))
    }

    /// All axes but the first as one.
    ///
    /// # Errors
    /// When there are fewer than two axes.
    pub fn flatten(&mut self, x: &Value) -> Result<Value> {
        let [first, rest @ ..] = x.shape.as_slice() else {
            return Err(self.wrong("a scalar can't be flattened"));
        };
        let size =
            rest.iter().try_fold(1usize, |n, dim| n.checked_mul(dim.size()?)).map_or(Dim::Free, Dim::Fixed);
        let shape = vec![*first, size];
        Ok(self.node("Flatten", &[x], &[("axis", Attribute::Int(1))], x.element, shape))
    }

    /// The mean over `axes`; they go, or stay with size one.
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn mean(&mut self, x: &Value, axes: &[isize], keep: bool) -> Result<Value> {
        let axes = axes.iter().map(|axis| self.axis(x, *axis)).collect::<Result<Vec<usize>>>()?;
        let mut shape = Vec::new();
        for (i, dim) in x.shape.iter().enumerate() {
            match (axes.contains(&i), keep) {
                (false, _) => shape.push(*dim),
                (true, true) => shape.push(Dim::Fixed(1)),
                (true, false) => {}
            }
        }
        let attributes = [("axes", Attribute::Ints(&axes)), ("keepdims", Attribute::Int(i64::from(keep)))];
        Ok(self.node("ReduceMean", &[x], &attributes, x.element, shape))
    }

    /// Values one after the other along `axis`.
    ///
    /// # Errors
    /// When there are none, or they differ in another axis.
    pub fn cat(&mut self, values: &[&Value], axis: isize) -> Result<Value> {
        let [first, rest @ ..] = values else { return Err(self.wrong("nothing can't be concatenated")) };
        let axis = self.axis(first, axis)?;
        let mut shape = first.shape.clone();
        for value in rest {
            let fits = value.rank() == first.rank()
                && (0..shape.len()).all(|i| {
                    i == axis
                        || !matches!((shape[i].size(), value.shape[i].size()), (Some(m), Some(n)) if m != n)
                });
            if !fits {
                return Err(self.wrong(format!(
                    "{} and {} can't be concatenated",
                    first.axes(),
                    value.axes()
                )));
            }
            shape[axis] = match (shape[axis].size(), value.shape[axis].size()) {
                (Some(m), Some(n)) => Dim::Fixed(m + n),
                _ => Dim::Free,
            };
        }
        Ok(self.node("Concat", values, &[("axis", Attribute::Int(axis as i64))], first.element, shape))
    }

    /// The `index`th slice along `axis`, which goes: torch's `x[:, index]`.
    ///
    /// # Errors
    /// When there is no such axis or slice.
    pub fn select(&mut self, x: &Value, axis: isize, index: usize) -> Result<Value> {
        let axis = self.axis(x, axis)?;
        if x.shape[axis].size().is_some_and(|size| index >= size) {
            return Err(self.wrong(format!("{} has no slice {index} along axis {axis}", x.axes())));
        }
        let index = self.constant_i64(&[], &[index as i64])?;
        let mut shape = x.shape.clone();
        shape.remove(axis);
        Ok(self.node("Gather", &[x, &index], &[("axis", Attribute::Int(axis as i64))], x.element, shape))
    }

    /// `x` where `condition` is true, `other` elsewhere; broadcast.
    ///
    /// # Errors
    /// When the shapes can't be broadcast, or the condition is not one.
    pub fn select_where(&mut self, condition: &Value, x: &Value, other: &Value) -> Result<Value> {
        if condition.element != ElementType::Bool {
            return Err(self.wrong("a condition must be bool"));
        }
        let shape = self.broadcast(&x.shape, &other.shape, x, other)?;
        let shape = self.broadcast(&condition.shape, &shape, condition, x)?;
        Ok(self.node("Where", &[condition, x, other], &[], x.element, shape))
    }

    /// The place of an axis that may count from the end.
    pub(crate) fn axis(&self, x: &Value, axis: isize) -> Result<usize> {
        let rank = x.rank() as isize;
        let at = if axis < 0 { axis + rank } else { axis };
        if (0..rank).contains(&at) {
            return Ok(at as usize);
        }
        Err(self.wrong(format!("{} has no axis {axis}", x.axes())))
    }
}
