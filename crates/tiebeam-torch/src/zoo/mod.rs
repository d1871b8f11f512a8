//! The architectures that are there from the start, with the names and weights of their torch classes.

mod bert;
mod efficientnet;
mod regression;
mod resnet;

use crate::architecture::Architecture;

/// All of them.
pub(crate) fn architectures() -> Vec<Architecture> {
    let mut all = regression::architectures();
    all.extend(resnet::architectures());
    all.extend(bert::architectures());
    all.extend(efficientnet::architectures());
    all
}
