//! The ParDo transform: a DoFn with its side inputs and outputs.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use tiebeam_core::coder::Coder;
use tiebeam_core::{DoFn, Element, OutputTag};
use tiebeam_exec::{EdgeId, EdgeType, SideInputSpec, TypedEdge};

use crate::graph::{Arity, NodeKind};
use crate::pcollection::PCollection;
use crate::pipeline::{NewOutput, PTransform, Pipeline};
use crate::side_input::{AnySideInput, SideInput};

/// A DoFn to be applied.
pub struct ParDo<I, O> {
    operator: tiebeam_exec::ParDo<I, O>,
    coder: Coder<O>,
    side_inputs: Vec<(SideInputSpec, EdgeId)>,
    arity: Arity,
    label: String,
}

/// A DoFn with outputs beside the main one.
pub struct MultiParDo<I, O> {
    par_do: ParDo<I, O>,
    tagged: Vec<Tagged>,
}

struct Tagged {
    name: Arc<str>,
    edge_type: Arc<dyn EdgeType>,
    coder: Box<dyn Any>,
    is_dead_letters: bool,
}

/// The outputs of a [`MultiParDo`].
pub struct Outputs<O> {
    /// The main output.
    pub main: PCollection<O>,
    pipeline: Pipeline,
    tagged: HashMap<Arc<str>, (EdgeId, Box<dyn Any>)>,
}

impl<O: Element> Outputs<O> {
    /// The output of that tag. A tag that the step was not applied with is a construction error, and gives an empty
    /// PCollection.
    #[track_caller]
    pub fn get<U: Element>(&self, tag: &OutputTag<U>) -> PCollection<U> {
        match self.tagged.get(tag.name()).map(|(edge, coder)| (*edge, coder.downcast_ref::<Coder<U>>())) {
            Some((edge, Some(coder))) => self.pipeline.pcollection(edge, coder.clone()),
            _ => {
                self.pipeline.fail(tiebeam_core::Error::new(
                    tiebeam_core::ErrorKind::InvalidPipeline,
                    "TB0212",
                    format!("the step has no output `{}` of that type", tag.name()),
                ));
                self.pipeline.apply(crate::ops::Create::<U>::of([]))
            }
        }
    }
}

impl<I: Element, O: Element> ParDo<I, O> {
    /// A DoFn; each worker thread has a clone.
    #[allow(clippy::new_ret_no_self)]
    pub fn new<D: DoFn<In = I, Out = O> + Clone>(dofn: D) -> Self {
        ParDo {
            operator: tiebeam_exec::ParDo::of(dofn),
            coder: O::coder(),
            side_inputs: Vec::new(),
            arity: Arity::Any,
            label: short_name::<D>(),
        }
    }

    /// A DoFn that is made anew for each worker thread.
    pub fn from_fn<D: DoFn<In = I, Out = O>>(make: impl Fn() -> D + Send + Sync + 'static) -> Self {
        ParDo {
            operator: tiebeam_exec::ParDo::new(Arc::new(move || Box::new(make()))),
            coder: O::coder(),
            side_inputs: Vec::new(),
            arity: Arity::Any,
            label: short_name::<D>(),
        }
    }

    /// The main output travels by this coder.
    #[must_use]
    pub fn with_coder(mut self, coder: Coder<O>) -> Self {
        self.coder = coder;
        self
    }

    /// Says how the counts of input and outputs relate, for reports.
    #[must_use]
    pub fn with_arity(mut self, arity: Arity) -> Self {
        self.arity = arity;
        self
    }

    /// Lets the DoFn read a side input.
    #[must_use]
    pub fn with_side_input<V>(self, side: &SideInput<V>) -> Self {
        self.with_any_side_input(&side.any())
    }

    /// Lets the DoFn read a side input of whichever type.
    #[must_use]
    pub fn with_any_side_input(mut self, side: &AnySideInput) -> Self {
        self.side_inputs.push((side.spec.clone(), side.edge));
        self
    }

    /// Gives elements of several windows to the DoFn once, though it reads side inputs, which differ by window: it asks for
    /// them with [`side_input_in`](tiebeam_core::BundleContext::side_input_in).
    #[must_use]
    pub fn with_windows_kept(mut self) -> Self {
        self.operator.keep_windows();
        self
    }

    /// Adds an output beside the main one.
    #[must_use]
    pub fn with_output<U: Element>(self, tag: &OutputTag<U>) -> MultiParDo<I, O> {
        MultiParDo { par_do: self, tagged: Vec::new() }.with_output(tag)
    }

    /// Adds an output that travels by a coder of its own.
    #[must_use]
    pub fn with_coded_output<U: Element>(self, tag: &OutputTag<U>, coder: Coder<U>) -> MultiParDo<I, O> {
        MultiParDo { par_do: self, tagged: Vec::new() }.with_coded_output(tag, coder)
    }

    /// Adds an output of dead letters, counted as such in reports.
    #[must_use]
    pub fn with_dead_letters<U: Element>(self, tag: &OutputTag<U>, coder: Coder<U>) -> MultiParDo<I, O> {
        MultiParDo { par_do: self, tagged: Vec::new() }.with_dead_letters(tag, coder)
    }
}

impl<I: Element, O: Element> MultiParDo<I, O> {
    /// Adds an output beside the main one.
    #[must_use]
    pub fn with_output<U: Element>(self, tag: &OutputTag<U>) -> Self {
        self.add(tag, U::coder(), false)
    }

    /// Adds an output that travels by a coder of its own.
    #[must_use]
    pub fn with_coded_output<U: Element>(self, tag: &OutputTag<U>, coder: Coder<U>) -> Self {
        self.add(tag, coder, false)
    }

    /// Adds an output of dead letters, counted as such in reports.
    #[must_use]
    pub fn with_dead_letters<U: Element>(self, tag: &OutputTag<U>, coder: Coder<U>) -> Self {
        self.add(tag, coder, true)
    }

    /// Lets the DoFn read a side input.
    #[must_use]
    pub fn with_side_input<V>(mut self, side: &SideInput<V>) -> Self {
        self.par_do = self.par_do.with_side_input(side);
        self
    }

    fn add<U: Element>(mut self, tag: &OutputTag<U>, coder: Coder<U>, is_dead_letters: bool) -> Self {
        self.par_do.operator.add_output(tag);
        self.tagged.push(Tagged {
            name: tag.name().clone(),
            edge_type: TypedEdge::new(coder.clone()),
            coder: Box::new(coder),
            is_dead_letters,
        });
        self
    }
}

impl<I: Element, O: Element> PTransform<PCollection<I>> for ParDo<I, O> {
    type Output = PCollection<O>;

    fn label(&self) -> String {
        self.label.clone()
    }

    #[track_caller]
    fn expand(self, input: PCollection<I>) -> PCollection<O> {
        MultiParDo { par_do: self, tagged: Vec::new() }.expand(input).main
    }
}

impl<I: Element, O: Element> PTransform<PCollection<I>> for MultiParDo<I, O> {
    type Output = Outputs<O>;

    fn label(&self) -> String {
        self.par_do.label.clone()
    }

    #[track_caller]
    fn expand(self, input: PCollection<I>) -> Outputs<O> {
        let MultiParDo { par_do: ParDo { mut operator, coder, side_inputs, arity, .. }, tagged } = self;
        let pipeline = input.pipeline().clone();
        let windowing = input.windowing();
        let ids = side_inputs.iter().map(|(spec, edge)| (spec.id.clone(), *edge)).collect();
        operator.set_side_inputs(side_inputs.into_iter().map(|(spec, _)| spec).collect());
        let mut outputs = vec![NewOutput::main(coder.clone(), windowing.clone())];
        outputs.extend(tagged.iter().map(|tagged| NewOutput {
            name: tagged.name.clone(),
            edge_type: tagged.edge_type.clone(),
            windowing: windowing.clone(),
            is_dead_letters: tagged.is_dead_letters,
        }));
        let kind = NodeKind::ParDo(Arc::new(operator));
        let mut edges = pipeline.add_node(kind, vec![input.edge()], ids, outputs, arity).into_iter();
        let main = edges.next().unwrap_or(input.edge());
        Outputs {
            main: pipeline.pcollection(main, coder),
            tagged: tagged
                .into_iter()
                .zip(edges)
                .map(|(tagged, edge)| (tagged.name, (edge, tagged.coder)))
                .collect(),
            pipeline,
        }
    }
}

fn short_name<D>() -> String {
    let name = std::any::type_name::<D>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name).to_owned()
}
