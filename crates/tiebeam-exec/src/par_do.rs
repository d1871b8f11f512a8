//! The ParDo operator: runs a [`DoFn`].

use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::{
    Batch, BundleContext, DoFn, Element, Error, ErrorKind, Meta, Output, OutputTag, Receiver, Result,
    SetupContext, WindowInfo, Windows,
};

use crate::edge::AnyReceiver;
use crate::harness::Harness;
use crate::side_input::{SideInputCache, SideInputSpec};
use crate::stage::{Build, Built, Node, Operator};

/// Makes an instance of a DoFn; called once for each stage instance.
pub type MakeDoFn<I, O> = dyn Fn() -> Box<dyn DoFn<In = I, Out = O>> + Send + Sync;
type Bind<O> = dyn Fn(&mut Output<O>, AnyReceiver) -> Result<()> + Send + Sync;

/// A DoFn from `I` to `O` with its side inputs and tagged outputs.
pub struct ParDo<I, O> {
    make: Arc<MakeDoFn<I, O>>,
    tags: Vec<(Arc<str>, Arc<Bind<O>>)>,
    side_inputs: Arc<[SideInputSpec]>,
    keeps_windows: bool,
}

impl<I: Element, O: Element> ParDo<I, O> {
    /// The operator of the DoFns that `make` makes.
    pub fn new(make: Arc<MakeDoFn<I, O>>) -> Self {
        ParDo { make, tags: Vec::new(), side_inputs: Arc::from([]), keeps_windows: false }
    }

    /// The operator of clones of `dofn`.
    pub fn of<D: DoFn<In = I, Out = O> + Clone>(dofn: D) -> Self {
        let prototype = Mutex::new(dofn);
        ParDo::new(Arc::new(move || {
            Box::new(prototype.lock().unwrap_or_else(PoisonError::into_inner).clone())
        }))
    }

    /// Adds a tagged output; the operator's outputs are the main one, then these in order.
    pub fn add_output<U: Element>(&mut self, tag: &OutputTag<U>) {
        let bound = tag.clone();
        self.tags.push((
            tag.name().clone(),
            Arc::new(move |out, receiver| {
                out.add_tagged(&bound, receiver.open::<U>()?);
                Ok(())
            }),
        ));
    }

    /// Sets the side inputs.
    pub fn set_side_inputs(&mut self, side_inputs: Vec<SideInputSpec>) {
        self.side_inputs = side_inputs.into();
    }

    /// An element of several windows goes to the DoFn once, though it reads side inputs: it asks for them by window.
    pub fn keep_windows(&mut self) {
        self.keeps_windows = true;
    }
}

impl<I: Element, O: Element> Operator for ParDo<I, O> {
    fn build(&self, cx: Build) -> Result<Built> {
        let mut outputs = cx.outputs.into_iter();
        let main = outputs.next().ok_or_else(|| Error::internal("a ParDo without a main output"))?;
        let mut out = Output::new(main.open::<O>()?);
        for ((_, bind), receiver) in self.tags.iter().zip(outputs) {
            bind(&mut out, receiver)?;
        }
        let node = ParDoNode {
            dofn: (self.make)(),
            out,
            side_inputs: SideInputCache::new(self.side_inputs.clone(), cx.harness.clone()),
            harness: cx.harness.clone(),
            step: cx.step.clone(),
            keeps_windows: self.keeps_windows,
        };
        Ok(Built::single::<I, _>(node, &cx.step, &cx.stats))
    }

    fn side_inputs(&self) -> &[SideInputSpec] {
        &self.side_inputs
    }

    fn output_names(&self) -> Vec<Arc<str>> {
        std::iter::once("main".into()).chain(self.tags.iter().map(|(name, _)| name.clone())).collect()
    }
}

struct ParDoNode<I, O> {
    dofn: Box<dyn DoFn<In = I, Out = O>>,
    out: Output<O>,
    side_inputs: SideInputCache,
    harness: Arc<dyn Harness>,
    step: Arc<str>,
    keeps_windows: bool,
}

impl<I: Element, O: Element> ParDoNode<I, O> {
    fn with_bundle<R>(
        &mut self,
        call: impl FnOnce(&mut dyn DoFn<In = I, Out = O>, &BundleContext<'_>, &mut Output<O>) -> R,
    ) -> R {
        let (harness, step) = (&self.harness, &self.step);
        let cancelled = || harness.is_cancelled();
        let enough = || harness.has_enough(step);
        let number = harness.bundle_number();
        let cx = BundleContext::new(&self.side_inputs, &cancelled).until(&enough).numbered(number);
        call(&mut *self.dofn, &cx, &mut self.out)
    }
}

impl<I: Element, O: Element> Node for ParDoNode<I, O> {
    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.dofn.setup(cx)
    }

    fn start_bundle(&mut self) -> Result<()> {
        self.side_inputs.clear();
        self.out.at(&WindowInfo::GLOBAL);
        self.with_bundle(|dofn, cx, out| dofn.start_bundle(cx, out))
    }

    fn finish_bundle(&mut self) -> Result<()> {
        self.out.at(&WindowInfo::GLOBAL);
        self.with_bundle(|dofn, cx, out| dofn.finish_bundle(cx, out))?;
        self.out.flush()
    }

    fn teardown(&mut self) {
        self.dofn.teardown();
    }
}

impl<I: Element, O: Element> Receiver<I> for ParDoNode<I, O> {
    fn receive(&mut self, batch: Batch<I>) -> Result<()> {
        if self.harness.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "TB0510", "the job was cancelled"));
        }
        // What a step sees of a side input depends on the window, so an element of several windows goes once in each.
        let batch = match self.side_inputs.is_empty() || self.keeps_windows {
            true => batch,
            false => one_window_each(batch),
        };
        self.with_bundle(|dofn, cx, out| dofn.process_batch(batch, cx, out))?;
        self.out.check()
    }
}

fn one_window_each<T: Clone>(batch: Batch<T>) -> Batch<T> {
    let several = |info: &WindowInfo| matches!(info.windows, Windows::Many(_));
    let exploded = match &batch.meta {
        Meta::Uniform(info) => several(info),
        Meta::Each(infos) => infos.iter().any(several),
    };
    if !exploded {
        return batch;
    }
    let (mut values, mut infos) = (Vec::new(), Vec::new());
    for (value, info) in batch.iter() {
        for window in info.windows.as_slice() {
            values.push(value.clone());
            infos.push(WindowInfo { windows: Windows::One(window.clone()), ..info.clone() });
        }
    }
    Batch { values, meta: Meta::Each(infos) }
}
