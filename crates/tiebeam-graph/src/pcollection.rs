//! [`PCollection`]: a handle of the elements that flow along one edge.

use std::sync::Arc;

use tiebeam_core::coder::Coder;
use tiebeam_core::{
    CombineFn, DoFn, Element, Failed, Iterable, OutputTag, SideMap, SideMultimap, View, WindowingStrategy,
};
use tiebeam_exec::{EdgeId, SideInputSpec};

use crate::fns;
use crate::graph::Arity;
use crate::hints::ResourceHints;
use crate::ops;
use crate::par_do::ParDo;
use crate::pipeline::{PTransform, Pipeline};
use crate::side_input::SideInput;

/// Elements of one type; cheap to clone. Using one twice branches the pipeline.
pub struct PCollection<T> {
    pipeline: Pipeline,
    edge: EdgeId,
    coder: Coder<T>,
    label: Option<Arc<str>>,
    /// Few handles have any.
    hints: Option<ResourceHints>,
}

impl<T> Clone for PCollection<T> {
    fn clone(&self) -> Self {
        PCollection {
            pipeline: self.pipeline.clone(),
            edge: self.edge,
            coder: self.coder.clone(),
            label: self.label.clone(),
            hints: self.hints.clone(),
        }
    }
}

/// What [`PCollection::try_map`] makes.
pub struct TryMap<T, O> {
    /// What the function made.
    pub results: PCollection<O>,
    /// The elements that it failed on, with the reason.
    pub failed: PCollection<Failed<T>>,
}

impl<T: Element> PCollection<T> {
    pub(crate) fn from_edge(pipeline: Pipeline, edge: EdgeId, coder: Coder<T>) -> Self {
        PCollection { pipeline, edge, coder, label: None, hints: None }
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Its number in the graph.
    pub fn edge(&self) -> EdgeId {
        self.edge
    }

    /// How its elements travel.
    pub fn coder(&self) -> Coder<T> {
        self.coder.clone()
    }

    /// How it is windowed.
    pub fn windowing(&self) -> WindowingStrategy {
        self.pipeline.windowing(self.edge)
    }

    /// Makes its elements travel by another coder than their type's own.
    #[must_use]
    pub fn with_coder(mut self, coder: Coder<T>) -> Self {
        self.pipeline.set_coder(self.edge, coder.clone());
        self.coder = coder;
        self
    }

    /// Notes what is known of its elements beside their type, for transforms that are applied to it: one fact of a type.
    /// Steps that pass elements on as they are (`filter`, `window_into`, `reshuffle`) keep it.
    #[must_use]
    pub fn with_note<F: Send + Sync + 'static>(self, fact: F) -> Self {
        self.pipeline.note(self.edge, Arc::new(fact));
        self
    }

    /// What was [noted](PCollection::with_note) of its elements.
    pub fn noted<F: Send + Sync + 'static>(&self) -> Option<Arc<F>> {
        self.pipeline.noted(self.edge)
    }

    /// Labels the transform that is applied next; Beam's `"Label" >> transform`.
    #[must_use]
    pub fn step(&self, label: impl Into<Arc<str>>) -> Self {
        PCollection { label: Some(label.into()), ..self.clone() }
    }

    /// Says what the transform that is applied next needs of a machine.
    #[must_use]
    pub fn with_resource_hints(&self, hints: ResourceHints) -> Self {
        PCollection { hints: Some(hints), ..self.clone() }
    }

    /// Applies a transform.
    #[track_caller]
    pub fn apply<P: PTransform<PCollection<T>>>(&self, transform: P) -> P::Output {
        let input = PCollection { label: None, hints: None, ..self.clone() };
        self.pipeline.in_step((&self.label, &self.hints), &transform.label(), || transform.expand(input))
    }

    #[track_caller]
    fn labelled<R>(&self, default: &str, expand: impl FnOnce(&Self) -> R) -> R {
        let input = PCollection { label: None, hints: None, ..self.clone() };
        self.pipeline.in_step((&self.label, &self.hints), default, || expand(&input))
    }

    /// One result for each element.
    ///
    /// ```
    /// # use tiebeam_graph::{Create, Pipeline};
    /// let p = Pipeline::new();
    /// let doubled = p.apply(Create::of([1i64, 2])).map(|x| x * 2);
    /// ```
    #[track_caller]
    pub fn map<O: Element>(&self, f: impl Fn(T) -> O + Send + Sync + 'static) -> PCollection<O> {
        self.labelled("Map", |input| {
            ParDo::new(fns::MapFn::new(f)).with_arity(Arity::OneToOne).expand(input.clone())
        })
    }

    /// Any number of results for each element, in order.
    #[track_caller]
    pub fn flat_map<O: Element, I: IntoIterator<Item = O> + 'static>(
        &self,
        f: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> PCollection<O> {
        self.labelled("FlatMap", |input| ParDo::new(fns::FlatMapFn::new(f)).expand(input.clone()))
    }

    /// The elements that `f` says yes to.
    #[track_caller]
    pub fn filter(&self, f: impl Fn(&T) -> bool + Send + Sync + 'static) -> PCollection<T> {
        self.labelled("Filter", |input| {
            let kept = ParDo::new(fns::FilterFn::new(f))
                .with_arity(Arity::Filter)
                .with_coder(input.coder())
                .expand(input.clone());
            input.pipeline.keep_notes(input.edge, kept.edge);
            // Which of the given ones are left is known to nobody.
            kept.with_note(ops::Given::<T>(Arc::new([])))
        })
    }

    /// One result for each element, or an element in the dead letters.
    #[track_caller]
    pub fn try_map<O: Element, E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static>(
        &self,
        f: impl Fn(T) -> Result<O, E> + Send + Sync + 'static,
    ) -> TryMap<T, O> {
        self.labelled("TryMap", |input| {
            let tag = OutputTag::<Failed<T>>::new("failed");
            let outputs = ParDo::new(fns::TryMapFn::new(f, tag.clone()))
                .with_arity(Arity::OneToOne)
                .with_dead_letters(&tag, tiebeam_core::failed::failed_coder(input.coder()))
                .expand(input.clone());
            TryMap { failed: outputs.get(&tag), results: outputs.main }
        })
    }

    /// A DoFn; each worker thread has a clone.
    #[track_caller]
    pub fn par_do<D: DoFn<In = T> + Clone>(&self, dofn: D) -> PCollection<D::Out> {
        let name = std::any::type_name::<D>();
        let name = name.split('<').next().and_then(|n| n.rsplit("::").next()).unwrap_or("ParDo");
        self.labelled(name, |input| ParDo::new(dofn).expand(input.clone()))
    }

    /// Gives each element windows, times and lateness by `windowing`; groupings after it work within those windows.
    #[track_caller]
    pub fn window_into(&self, windowing: WindowingStrategy) -> PCollection<T> {
        self.labelled("WindowInto", |input| ops::assign_windows(input, windowing))
    }

    /// The same elements, spread anew over all workers; what is before is not done again when what is after fails.
    #[track_caller]
    pub fn reshuffle(&self) -> PCollection<T> {
        self.labelled("Reshuffle", ops::reshuffle)
    }

    /// A [`reshuffle`](PCollection::reshuffle) of elements that each stand for much work, such as a range of a file: each
    /// becomes a bundle of its own, so that threads take them one by one.
    #[track_caller]
    pub fn reshuffle_one_by_one(&self) -> PCollection<T> {
        self.labelled("Reshuffle", ops::reshuffle_one_by_one)
    }

    #[track_caller]
    fn side<V>(&self, spec: impl FnOnce(Arc<str>, WindowingStrategy) -> SideInputSpec) -> SideInput<V> {
        let id: Arc<str> = format!("side:{}:{}", self.edge.0, self.pipeline.next_view()).into();
        let windowing = self.windowing();
        SideInput::new(View::new(id.clone()), self.edge, spec(id, windowing))
    }

    /// A side input of exactly one value a window. More or none is an error when it is read.
    pub fn as_singleton(&self) -> SideInput<T> {
        self.side(|id, w| SideInputSpec::singleton(id, w.window_fn, self.coder(), None))
    }

    /// A side input of one value a window, or `default` where there is none.
    pub fn as_singleton_or(&self, default: T) -> SideInput<T> {
        self.side(|id, w| SideInputSpec::singleton(id, w.window_fn, self.coder(), Some(default)))
    }

    /// A side input of all values, which can be iterated again and again.
    pub fn as_iterable(&self) -> SideInput<Iterable<T>> {
        self.side(|id, w| SideInputSpec::iterable(id, w.window_fn, self.coder()))
    }

    /// A side input of all values in memory.
    pub fn as_list(&self) -> SideInput<Vec<T>> {
        self.side(|id, w| SideInputSpec::list(id, w.window_fn, self.coder()))
    }
}

impl<K: Element, V: Element> PCollection<(K, V)> {
    /// The values of each key and window.
    #[track_caller]
    pub fn group_by_key(&self) -> PCollection<(K, Iterable<V>)> {
        self.labelled("GroupByKey", ops::group_by_key)
    }

    /// The values of each key and window, combined. What can be combined before the shuffle is.
    #[track_caller]
    pub fn combine_per_key<C: CombineFn<Input = V>>(&self, combine: C) -> PCollection<(K, C::Output)> {
        self.labelled("CombinePerKey", |input| ops::combine_per_key(input, combine))
    }

    /// A side input of one value a key.
    pub fn as_map(&self) -> SideInput<SideMap<K, V>> {
        self.side(|id, w| SideInputSpec::map(id, w.window_fn, self.coder(), self.key_coder()))
    }

    /// A side input of any number of values a key, each key read when it is asked for.
    pub fn as_multimap(&self) -> SideInput<SideMultimap<K, V>> {
        self.side(|id, w| SideInputSpec::multimap(id, w.window_fn, self.key_coder(), self.value_coder()))
    }

    /// The key's part of the coder.
    pub fn key_coder(&self) -> Coder<K> {
        self.part(0)
    }

    /// The value's part of the coder.
    pub fn value_coder(&self) -> Coder<V> {
        self.part(1)
    }

    /// A part of the pair's coder, found by its place in the tree.
    fn part<P: Element>(&self, index: usize) -> Coder<P> {
        let spec = self.coder.spec();
        spec.components.get(index).and_then(|component| P::coder_of(component).ok()).unwrap_or_else(P::coder)
    }
}
