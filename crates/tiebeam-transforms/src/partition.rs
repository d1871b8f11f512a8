//! One PCollection into several.

use std::sync::Arc;

use tiebeam_core::{DoFn, Element, ElementContext, Error, ErrorKind, Output, OutputTag, Result};
use tiebeam_graph::{Arity, PCollection, PTransform, ParDo, composite};

/// Each element into the one of `n` PCollections whose number `f` says. Another number fails the bundle.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::partition;
/// let parts = p.apply(Create::of([1i64, 2, 3])).apply(partition(2, |x: &i64| (*x % 2) as usize));
/// let (even, odd) = (&parts[0], &parts[1]);
/// ```
pub fn partition<T: Element>(
    n: usize,
    f: impl Fn(&T) -> usize + Send + Sync + 'static,
) -> impl PTransform<PCollection<T>, Output = Vec<PCollection<T>>> {
    composite("Partition", move |input: PCollection<T>| {
        if n == 0 {
            input.pipeline().fail(Error::new(
                ErrorKind::InvalidArgument,
                "TB0240",
                "a partition into 0 parts was asked for, wanted at least 1",
            ));
        }
        let tags: Vec<OutputTag<T>> = (1..n).map(|i| OutputTag::new(format!("part{i}"))).collect();
        let dofn = PartitionFn { f: Arc::new(f), tags: tags.clone().into() };
        let par_do = ParDo::new(dofn).with_coder(input.coder()).with_arity(Arity::OneToOne);
        let Some((first, others)) = tags.split_first() else {
            return vec![input.apply(par_do)];
        };
        let first = par_do.with_coded_output(first, input.coder());
        let outputs =
            input.apply(others.iter().fold(first, |p, tag| p.with_coded_output(tag, input.coder())));
        let tagged: Vec<_> = tags.iter().map(|tag| outputs.get(tag)).collect();
        std::iter::once(outputs.main).chain(tagged).collect()
    })
}

struct PartitionFn<T, F> {
    f: Arc<F>,
    tags: Arc<[OutputTag<T>]>,
}

impl<T, F> Clone for PartitionFn<T, F> {
    fn clone(&self) -> Self {
        PartitionFn { f: self.f.clone(), tags: self.tags.clone() }
    }
}

impl<T: Element, F: Fn(&T) -> usize + Send + Sync + 'static> DoFn for PartitionFn<T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, element: T, _: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        match (self.f)(&element) {
            0 => out.emit(element),
            part => match self.tags.get(part - 1) {
                Some(tag) => out.emit_to(tag, element),
                None => {
                    return Err(Error::new(
                        ErrorKind::InvalidData,
                        "TB0241",
                        format!("part {part} of {} was asked for", self.tags.len() + 1),
                    ));
                }
            },
        }
        Ok(())
    }
}
