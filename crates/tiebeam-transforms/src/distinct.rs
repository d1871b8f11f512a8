//! Each element once.

use tiebeam_core::Element;
use tiebeam_graph::{PCollection, PTransform, composite};

use crate::count;
use crate::keyed::KeyedExt;

/// Each element of a window once. Equal elements are those of equal encodings.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::distinct;
/// let once = p.apply(Create::of([1i64, 2, 1])).apply(distinct()); // 1, 2
/// ```
pub fn distinct<T: Element>() -> impl PTransform<PCollection<T>, Output = PCollection<T>> {
    composite("Distinct", |input: PCollection<T>| input.apply(count::per_element()).keys())
}
