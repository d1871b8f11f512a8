//! Combining a whole PCollection to one value a window.

use tiebeam_core::{CombineFn, DoFn, Element, ElementContext, Iterable, Output, Result, View};
use tiebeam_graph::{PCollection, ParDo, composite, impulse};

use crate::keyed::KeyedExt;

/// Combines that need no key.
pub trait CombineExt<T> {
    /// All elements of each window, combined. In the global window the result of no elements is that of an empty
    /// accumulator; in other windows there is none.
    ///
    /// ```
    /// # use tiebeam_graph::{Create, Pipeline};
    /// use tiebeam_transforms::{sums::Sum, CombineExt};
    /// let p = Pipeline::new();
    /// let total = p.apply(Create::of([1i64, 2, 3])).combine_globally(Sum::new()); // 6
    /// ```
    fn combine_globally<C: CombineFn<Input = T>>(&self, combine: C) -> PCollection<C::Output>;
}

impl<T: Element> CombineExt<T> for PCollection<T> {
    #[track_caller]
    fn combine_globally<C: CombineFn<Input = T>>(&self, combine: C) -> PCollection<C::Output> {
        self.apply(composite("CombineGlobally", |input: PCollection<T>| {
            let empty = combine.extract_output(combine.create_accumulator());
            let coder = tiebeam_core::coder::kv_coder(bool::coder(), input.coder());
            let keyed = input.step("AddKey").map(|element| (true, element)).with_coder(coder);
            let combined = keyed.combine_per_key(combine).values();
            let is_global = input.windowing().window_fn.to_wire().0 == "beam:window_fn:global_windows:v1";
            if is_global { or_default(&combined, empty) } else { combined }
        }))
    }
}

/// The one element of `combined`, or `default` when there is none.
fn or_default<T: Element>(combined: &PCollection<T>, default: T) -> PCollection<T> {
    let all = combined.as_iterable();
    let dofn = OrDefault { all: all.view(), default };
    let default = ParDo::new(dofn).with_coder(combined.coder()).with_side_input(&all);
    impulse(combined.pipeline()).step("OrDefault").apply(default)
}

#[derive(Clone)]
struct OrDefault<T> {
    all: View<Iterable<T>>,
    default: T,
}

impl<T: Element> DoFn for OrDefault<T> {
    type In = tiebeam_core::Bytes;
    type Out = T;

    fn process(&mut self, _: Self::In, cx: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        let mut any = false;
        for one in cx.side_input(&self.all)?.iter() {
            out.emit(one);
            any = true;
        }
        if !any {
            out.emit(self.default.clone());
        }
        Ok(())
    }
}
