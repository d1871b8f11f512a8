//! The primitives beside ParDo, and Create.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::Coder;
use tiebeam_core::element::kv_coder;
use tiebeam_core::{
    Batch, CombineFn, DoFn, Element, ElementContext, Error, ErrorKind, Iterable, Output, Result, WindowInfo,
    WindowingStrategy,
};
use tiebeam_exec::combine::{
    CombineGroupedValues, ConvertToAccumulators, ExtractOutputs, MergeAccumulators, Precombine,
};
use tiebeam_exec::flatten;
use tiebeam_exec::windows::AssignWindows;
use tiebeam_exec::{GroupType, Operator, TypedEdge, TypedGroup};

use crate::graph::{Arity, CombineParts, NodeKind};
use crate::par_do::ParDo;
use crate::pcollection::PCollection;
use crate::pipeline::{Begin, NewOutput, PTransform, Pipeline};

/// One empty element in the global window: what all sources begin with.
#[track_caller]
pub fn impulse(pipeline: &Pipeline) -> PCollection<Bytes> {
    pipeline.in_scope(None, "Impulse", || {
        let output = NewOutput::main(Bytes::coder(), WindowingStrategy::global());
        let edges = pipeline.add_node(NodeKind::Impulse, vec![], vec![], vec![output], Arity::Any);
        pipeline.pcollection(edges[0], Bytes::coder())
    })
}

/// Elements given in the program.
pub struct Create<T> {
    elements: Arc<[T]>,
    coder: Coder<T>,
}

/// What is [noted](PCollection::noted) of a PCollection whose elements are given in the program: these.
pub struct Given<T>(pub Arc<[T]>);

impl<T: Element> Create<T> {
    /// These elements, in the global window without times of their own.
    pub fn of(elements: impl IntoIterator<Item = T>) -> Self {
        Create { elements: elements.into_iter().collect(), coder: T::coder() }
    }

    /// They travel by this coder.
    #[must_use]
    pub fn with_coder(mut self, coder: Coder<T>) -> Self {
        self.coder = coder;
        self
    }
}

impl<T: Element> PTransform<Begin> for Create<T> {
    type Output = PCollection<T>;

    fn expand(self, input: Begin) -> PCollection<T> {
        let given = Given(self.elements.clone());
        let elements = ParDo::new(Elements(self.elements)).with_coder(self.coder);
        impulse(input.pipeline()).step("Elements").apply(elements).reshuffle().with_note(given)
    }
}

struct Elements<T>(Arc<[T]>);

impl<T> Clone for Elements<T> {
    fn clone(&self) -> Self {
        Elements(self.0.clone())
    }
}

impl<T: Element> DoFn for Elements<T> {
    type In = Bytes;
    type Out = T;

    fn process(&mut self, _: Bytes, cx: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        for chunk in self.0.chunks(tiebeam_core::BATCH_SIZE) {
            out.forward(Batch::uniform(chunk.to_vec(), cx.info().clone()));
        }
        Ok(())
    }
}

pub(crate) fn assign_windows<T: Element>(
    input: &PCollection<T>,
    windowing: WindowingStrategy,
) -> PCollection<T> {
    let operator = tiebeam_exec::ParDo::of(AssignWindows::<T>::new(windowing.window_fn.clone()));
    same_elements(input, NodeKind::AssignWindows(Arc::new(operator)), windowing)
}

pub(crate) fn reshuffle<T: Element>(input: &PCollection<T>) -> PCollection<T> {
    same_elements(input, NodeKind::Reshuffle, input.windowing())
}

pub(crate) fn reshuffle_one_by_one<T: Element>(input: &PCollection<T>) -> PCollection<T> {
    same_elements(input, NodeKind::ReshuffleOneByOne, input.windowing())
}

fn same_elements<T: Element>(
    input: &PCollection<T>,
    kind: NodeKind,
    windowing: WindowingStrategy,
) -> PCollection<T> {
    let pipeline = input.pipeline();
    let output = NewOutput::main(input.coder(), windowing);
    let edges = pipeline.add_node(kind, vec![input.edge()], vec![], vec![output], Arity::OneToOne);
    pipeline.keep_notes(input.edge(), edges[0]);
    pipeline.pcollection(edges[0], input.coder())
}

pub(crate) fn group_by_key<K: Element, V: Element>(
    input: &PCollection<(K, V)>,
) -> PCollection<(K, Iterable<V>)> {
    let pipeline = input.pipeline();
    let group = TypedGroup::new(input.key_coder(), input.value_coder());
    let coder = group.grouped_coder();
    let output = NewOutput::main(coder.clone(), input.windowing());
    let kind = NodeKind::GroupByKey(Arc::new(group));
    let edges = pipeline.add_node(kind, vec![input.edge()], vec![], vec![output], Arity::Any);
    pipeline.pcollection(edges[0], coder)
}

pub(crate) fn combine_per_key<K: Element, C: CombineFn>(
    input: &PCollection<(K, C::Input)>,
    combine: C,
) -> PCollection<(K, C::Output)> {
    let pipeline = input.pipeline();
    let (key, windowing) = (input.key_coder(), input.windowing());
    let (combine, timestamps) = (Arc::new(combine), windowing.timestamp_combiner);
    let precombine = {
        let (combine, key) = (combine.clone(), key.clone());
        tiebeam_exec::ParDo::new(Arc::new(move || {
            Box::new(Precombine::<K, C>::new(combine.clone(), key.clone(), timestamps))
        }))
    };
    let accumulator = C::Accumulator::coder();
    let accumulators = kv_coder(key.clone(), accumulator.clone());
    let parts = CombineParts {
        precombine: Arc::new(precombine),
        accumulators: TypedEdge::new(accumulators),
        accumulator_group: Arc::new(TypedGroup::new(key.clone(), accumulator)) as Arc<dyn GroupType>,
        merge: operator(MergeAccumulators::<K, C>::new(combine.clone())),
        extract: operator(ExtractOutputs::<K, C>::new(combine.clone())),
        convert: operator(ConvertToAccumulators::<K, C>::new(combine.clone())),
        input_group: Arc::new(TypedGroup::new(key.clone(), input.value_coder())),
        combine_grouped: operator(CombineGroupedValues::<K, C>::new(combine)),
    };
    let coder = kv_coder(key, C::Output::coder());
    let output = NewOutput::main(coder.clone(), windowing);
    let edges = pipeline.add_node(
        NodeKind::CombinePerKey(parts),
        vec![input.edge()],
        vec![],
        vec![output],
        Arity::Any,
    );
    pipeline.pcollection(edges[0], coder)
}

fn operator<D: DoFn + Clone>(dofn: D) -> Arc<dyn Operator> {
    Arc::new(tiebeam_exec::ParDo::of(dofn))
}

impl Pipeline {
    /// All elements of several PCollections. They must be windowed alike; of none it is empty.
    #[track_caller]
    pub fn flatten<T: Element>(
        &self,
        collections: impl IntoIterator<Item = PCollection<T>>,
    ) -> PCollection<T> {
        let collections: Vec<_> = collections.into_iter().collect();
        self.in_scope(None, "Flatten", || flatten_in(self, collections))
    }
}

fn flatten_in<T: Element>(pipeline: &Pipeline, collections: Vec<PCollection<T>>) -> PCollection<T> {
    let Some(first) = collections.first() else {
        return pipeline.apply(Create::of([]));
    };
    let (coder, windowing) = (first.coder(), first.windowing());
    for other in &collections[1..] {
        if !other.pipeline().is(pipeline) {
            pipeline.fail(Error::new(
                ErrorKind::InvalidPipeline,
                "TB0214",
                "collections of different pipelines cannot be flattened",
            ));
        }
        if other.windowing().window_fn.to_wire() != windowing.window_fn.to_wire() {
            pipeline.fail(
                Error::new(
                    ErrorKind::InvalidPipeline,
                    "TB0215",
                    format!(
                        "collections with different windows cannot be flattened: {:?} and {:?}",
                        windowing.window_fn,
                        other.windowing().window_fn
                    ),
                )
                .with_help("apply the same `window_into` to each of them first"),
            );
        }
    }
    let inputs = collections.iter().map(PCollection::edge).collect();
    let kind = NodeKind::Flatten(Arc::new(flatten::Flatten::<T>::default()));
    let output = NewOutput::main(coder.clone(), windowing);
    let edges = pipeline.add_node(kind, inputs, vec![], vec![output], Arity::Any);
    pipeline.pcollection(edges[0], coder)
}

/// Gives each element a time of its own, made from the element; its windows stay.
pub(crate) struct AddTimestamps<T, F>(pub(crate) Arc<F>, pub(crate) std::marker::PhantomData<fn(T)>);

impl<T, F> Clone for AddTimestamps<T, F> {
    fn clone(&self) -> Self {
        AddTimestamps(self.0.clone(), std::marker::PhantomData)
    }
}

impl<T: Element, F: Fn(&T) -> tiebeam_core::Timestamp + Send + Sync + 'static> DoFn for AddTimestamps<T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, element: T, cx: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        let info = WindowInfo { timestamp: (self.0)(&element), ..cx.info().clone() };
        out.emit_with(element, &info);
        Ok(())
    }
}

impl<T: Element> PCollection<T> {
    /// Gives each element the event time that `f` reads from it; windows stay until the next
    /// [`window_into`](PCollection::window_into).
    #[track_caller]
    pub fn with_timestamps(
        &self,
        f: impl Fn(&T) -> tiebeam_core::Timestamp + Send + Sync + 'static,
    ) -> PCollection<T> {
        let dofn = AddTimestamps(Arc::new(f), std::marker::PhantomData);
        let label_free = ParDo::new(dofn).with_coder(self.coder()).with_arity(Arity::OneToOne);
        self.apply(Labelled("WithTimestamps", label_free))
    }
}

/// A transform under another default label.
struct Labelled<P>(&'static str, P);

impl<I, P: PTransform<I>> PTransform<I> for Labelled<P> {
    type Output = P::Output;

    fn label(&self) -> String {
        self.0.to_owned()
    }

    fn expand(self, input: I) -> P::Output {
        self.1.expand(input)
    }
}
