//! The Flatten operator: several edges of one type into one.

use std::marker::PhantomData;

use tiebeam_core::{Batch, Element, Error, Receiver, Result};

use crate::stage::{Build, Built, Node, Operator};

/// Passes on what comes in on any of its inputs.
pub struct Flatten<T>(PhantomData<fn(T)>);

impl<T> Default for Flatten<T> {
    fn default() -> Self {
        Flatten(PhantomData)
    }
}

impl<T: Element> Operator for Flatten<T> {
    fn build(&self, cx: Build) -> Result<Built> {
        let out =
            cx.outputs.into_iter().next().ok_or_else(|| Error::internal("a Flatten without an output"))?;
        Ok(Built::many::<T, _>(FlattenNode(out.open::<T>()?), &cx.step, &cx.stats, cx.inputs))
    }
}

struct FlattenNode<T>(Box<dyn Receiver<T>>);

impl<T: Element> Node for FlattenNode<T> {}

impl<T: Element> Receiver<T> for FlattenNode<T> {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        self.0.receive(batch)
    }
}
