//! [`DoFn`] and what it is given: contexts and the output.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::batch::{BATCH_SIZE, Batch, BatchBuilder, Meta};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::metrics::{Counter, Distribution, Gauge, StepMetrics};
use crate::run_id::RunId;
use crate::side_input::{SideInputs, View};
use crate::time::Timestamp;
use crate::window::{Window, WindowInfo, Windows};

/// Takes batches of one edge.
pub trait Receiver<T>: Send {
    /// Takes one batch; never an empty one.
    ///
    /// # Errors
    /// Whatever keeps the bundle from going on.
    fn receive(&mut self, batch: Batch<T>) -> Result<()>;
}

/// A function over elements. Each worker thread has one instance of its own, made anew after a failure.
///
/// `setup` → (`start_bundle` → `process`… → `finish_bundle`)… → `teardown`. After an error the instance is only torn down.
pub trait DoFn: Send + 'static {
    /// What goes in.
    type In: Element;
    /// What comes out of the main output.
    type Out: Element;

    /// Once an instance, before anything else.
    ///
    /// # Errors
    /// End the bundle that needed the instance.
    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Before the first element of a bundle.
    ///
    /// # Errors
    /// End the bundle.
    fn start_bundle(&mut self, cx: &BundleContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let _ = (cx, out);
        Ok(())
    }

    /// One element. What it emits takes over the element's time, windows and pane.
    ///
    /// # Errors
    /// End the bundle, which is tried again if the error is retryable.
    fn process(
        &mut self,
        element: Self::In,
        cx: &ElementContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()>;

    /// A batch; by default its elements one by one.
    ///
    /// # Errors
    /// As [`process`](DoFn::process).
    fn process_batch(
        &mut self,
        batch: Batch<Self::In>,
        cx: &BundleContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        each_element(batch, cx, out, |element, cx, out| self.process(element, cx, out))
    }

    /// After the last element of a bundle. What it emits is given the global window unless it says otherwise.
    ///
    /// # Errors
    /// End the bundle.
    fn finish_bundle(&mut self, cx: &BundleContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let _ = (cx, out);
        Ok(())
    }

    /// Once, when the instance is given up, after a failure too.
    fn teardown(&mut self) {}
}

/// Runs `process` over a batch, each element with its own context and its output at its own time.
///
/// # Errors
/// The first one of `process` or of the output.
pub fn each_element<I, O>(
    batch: Batch<I>,
    cx: &BundleContext<'_>,
    out: &mut Output<O>,
    mut process: impl FnMut(I, &ElementContext<'_>, &mut Output<O>) -> Result<()>,
) -> Result<()> {
    match &batch.meta {
        Meta::Uniform(info) => {
            out.at(info);
            let cx = ElementContext { info, bundle: cx };
            for element in batch.values {
                process(element, &cx, out)?;
            }
        }
        Meta::Each(infos) => {
            for (element, info) in batch.values.into_iter().zip(infos) {
                out.at(info);
                process(element, &ElementContext { info, bundle: cx }, out)?;
            }
        }
    }
    out.check()
}

/// What an instance may ask for at set-up.
pub struct SetupContext {
    step: Arc<str>,
    run: RunId,
    metrics: StepMetrics,
}

impl SetupContext {
    /// For the step of that full path, in that run.
    pub fn new(step: impl Into<Arc<str>>, run: RunId, metrics: StepMetrics) -> Self {
        SetupContext { step: step.into(), run, metrics }
    }

    /// The run of the pipeline: the same on every machine and in every attempt.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The step's full path.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// A counter of this step.
    pub fn counter(&self, namespace: &str, name: &str) -> Counter {
        self.metrics.counter(namespace, name)
    }

    /// A distribution of this step.
    pub fn distribution(&self, namespace: &str, name: &str) -> Distribution {
        self.metrics.distribution(namespace, name)
    }

    /// A gauge of this step.
    pub fn gauge(&self, namespace: &str, name: &str) -> Gauge {
        self.metrics.gauge(namespace, name)
    }

    /// All metrics of this step, to be kept.
    pub fn metrics(&self) -> &StepMetrics {
        &self.metrics
    }
}

/// What a DoFn may ask for during a bundle.
pub struct BundleContext<'a> {
    side_inputs: &'a dyn SideInputs,
    cancelled: &'a dyn Fn() -> bool,
    enough: Option<&'a dyn Fn() -> bool>,
    number: Option<u64>,
}

impl<'a> BundleContext<'a> {
    /// For a bundle with these side inputs; `cancelled` tells long-running user code when to give up.
    pub fn new(side_inputs: &'a dyn SideInputs, cancelled: &'a dyn Fn() -> bool) -> Self {
        BundleContext { side_inputs, cancelled, enough: None, number: None }
    }

    /// With what tells a source that nobody wants more of it.
    #[must_use]
    pub fn until(self, enough: &'a dyn Fn() -> bool) -> Self {
        BundleContext { enough: Some(enough), ..self }
    }

    /// The same for a bundle of that number.
    #[must_use]
    pub fn numbered(mut self, number: Option<u64>) -> Self {
        self.number = number;
        self
    }

    /// The number of the bundle among all of the run, where the runner tells it: the same for every attempt at it, and
    /// also after a killed run was resumed.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Whether the job was cancelled; long loops ask now and then.
    pub fn is_cancelled(&self) -> bool {
        (self.cancelled)()
    }

    /// Whether nobody wants more of what this step reads. A source that asks now and then need not read to its end; what
    /// is wanted of it is held to the exact number elsewhere.
    pub fn has_enough(&self) -> bool {
        self.enough.is_some_and(|enough| enough())
    }

    /// A side input as it is for `main`, a window of the main input.
    ///
    /// # Errors
    /// When the step was applied without that side input, or it can't be read.
    pub fn side_input_in<V: Send + Sync + 'static>(&self, view: &View<V>, main: &Window) -> Result<Arc<V>> {
        let any: Arc<dyn Any + Send + Sync> = self.side_inputs.side_input(view.id(), main)?;
        any.downcast().map_err(|_| {
            Error::internal(format!("side input `{}` is not a {}", view.id(), std::any::type_name::<V>()))
        })
    }
}

/// What a DoFn may ask about the element it has.
pub struct ElementContext<'a> {
    info: &'a WindowInfo,
    bundle: &'a BundleContext<'a>,
}

impl<'a> ElementContext<'a> {
    /// For an element that carries `info`.
    pub fn new(info: &'a WindowInfo, bundle: &'a BundleContext<'a>) -> Self {
        ElementContext { info, bundle }
    }

    /// The element's event time.
    pub fn timestamp(&self) -> Timestamp {
        self.info.timestamp
    }

    /// The element's windows.
    pub fn windows(&self) -> &[Window] {
        self.info.windows.as_slice()
    }

    /// Time, windows and pane together.
    pub fn info(&self) -> &WindowInfo {
        self.info
    }

    /// The bundle's own context.
    pub fn bundle(&self) -> &BundleContext<'a> {
        self.bundle
    }

    /// A side input as it is for this element's window. A step with side inputs sees an element of several windows once
    /// in each.
    ///
    /// # Errors
    /// As [`BundleContext::side_input_in`].
    pub fn side_input<V: Send + Sync + 'static>(&self, view: &View<V>) -> Result<Arc<V>> {
        let window = self.windows().first().unwrap_or(&Window::Global);
        self.bundle.side_input_in(view, window)
    }
}

/// Names an output beside the main one.
pub struct OutputTag<T> {
    name: Arc<str>,
    element: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// A tag of that name; names are unique within a step.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        OutputTag { name: name.into(), element: PhantomData }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        OutputTag { name: self.name.clone(), element: PhantomData }
    }
}

impl<T> fmt::Debug for OutputTag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputTag({})", self.name)
    }
}

/// Where a DoFn's results go: gathered into batches, each with the time and windows of the element it came from.
///
/// Emitting never fails visibly: an error downstream is kept, further output is dropped, and the bundle ends when
/// `process` returns.
pub struct Output<T> {
    current: WindowInfo,
    port: Port<T>,
    tagged: Vec<(Arc<str>, Box<dyn TaggedPort>)>,
}

struct Port<T> {
    batch: BatchBuilder<T>,
    receiver: Box<dyn Receiver<T>>,
    failed: Option<Error>,
}

impl<T> Port<T> {
    #[inline]
    fn push(&mut self, value: T, info: &WindowInfo) {
        self.batch.push(value, info);
        if self.batch.len() >= BATCH_SIZE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let batch = self.batch.take();
            self.send(batch);
        }
    }

    fn send(&mut self, batch: Batch<T>) {
        if self.failed.is_none()
            && let Err(error) = self.receiver.receive(batch)
        {
            self.failed = Some(error);
        }
    }

    fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

trait TaggedPort: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn flush(&mut self) -> Result<()>;
    fn check(&mut self) -> Result<()>;
}

impl<T: 'static + Send> TaggedPort for Port<T> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn flush(&mut self) -> Result<()> {
        Port::flush(self);
        Port::check(self)
    }

    fn check(&mut self) -> Result<()> {
        Port::check(self)
    }
}

impl<T> Output<T> {
    /// An output into `receiver`.
    pub fn new(receiver: Box<dyn Receiver<T>>) -> Self {
        Output {
            current: WindowInfo::GLOBAL,
            port: Port { batch: BatchBuilder::default(), receiver, failed: None },
            tagged: Vec::new(),
        }
    }

    /// Adds the receiver of a tagged output.
    pub fn add_tagged<U: Element>(&mut self, tag: &OutputTag<U>, receiver: Box<dyn Receiver<U>>) {
        let port = Port { batch: BatchBuilder::<U>::default(), receiver, failed: None };
        self.tagged.push((tag.name.clone(), Box::new(port)));
    }

    /// What follows carries `info`. The engine calls it before each element.
    #[inline]
    pub fn at(&mut self, info: &WindowInfo) {
        if self.current != *info {
            self.current = info.clone();
        }
    }

    /// Emits a value with the current element's time, windows and pane.
    #[inline]
    pub fn emit(&mut self, value: T) {
        self.port.push(value, &self.current);
    }

    /// Emits values with the current element's time, windows and pane; as cheap as filling a vector. Stops early when what
    /// is downstream has failed.
    #[inline]
    pub fn emit_all(&mut self, values: impl IntoIterator<Item = T>) {
        let mut values = values.into_iter();
        while self.port.failed.is_none() {
            // A port passes its batch on as soon as it is full, so there is always room.
            let room = BATCH_SIZE.saturating_sub(self.port.batch.len()).max(1);
            self.port.batch.extend(values.by_ref().take(room), &self.current);
            if self.port.batch.len() < BATCH_SIZE {
                return;
            }
            self.port.flush();
        }
    }

    /// Emits a value at another time, in the same windows.
    pub fn emit_at(&mut self, value: T, timestamp: Timestamp) {
        let info = self.current.at(timestamp);
        self.port.push(value, &info);
    }

    /// Emits a value with all of its time, windows and pane told.
    pub fn emit_with(&mut self, value: T, info: &WindowInfo) {
        self.port.push(value, info);
    }

    /// Emits a value in one window, at its last instant.
    pub fn emit_in(&mut self, value: T, window: Window) {
        let info = WindowInfo {
            timestamp: window.max_timestamp(),
            windows: Windows::One(window),
            pane: crate::window::Pane::NO_FIRING,
        };
        self.port.push(value, &info);
    }

    /// Emits a whole batch, which keeps what its elements carry. The cheapest way for transforms that make one batch
    /// from one batch.
    pub fn forward(&mut self, batch: Batch<T>) {
        self.port.flush();
        if !batch.is_empty() {
            self.port.send(batch);
        }
    }

    /// Emits a value to a tagged output, with the current element's time, windows and pane.
    ///
    /// An output that the step was not applied with is an internal error at the end of the element.
    pub fn emit_to<U: Element>(&mut self, tag: &OutputTag<U>, value: U) {
        let Output { current, port, tagged } = self;
        Self::push_to(port, tagged, tag, value, current);
    }

    /// Emits a value to a tagged output with all it carries told.
    pub fn emit_to_with<U: Element>(&mut self, tag: &OutputTag<U>, value: U, info: &WindowInfo) {
        let Output { port, tagged, .. } = self;
        Self::push_to(port, tagged, tag, value, info);
    }

    fn push_to<U: Element>(
        main: &mut Port<T>,
        tagged: &mut [(Arc<str>, Box<dyn TaggedPort>)],
        tag: &OutputTag<U>,
        value: U,
        info: &WindowInfo,
    ) {
        let found = tagged.iter_mut().find(|(name, _)| *name == tag.name);
        match found.and_then(|(_, port)| port.as_any().downcast_mut::<Port<U>>()) {
            Some(port) => port.push(value, info),
            None => {
                main.failed.get_or_insert_with(|| {
                    Error::new(
                        crate::error::ErrorKind::InvalidPipeline,
                        "TB0212",
                        format!("this step has no output `{}` of that type", tag.name),
                    )
                    .with_help("declare it with `with_output(&tag)` where the step is applied")
                });
            }
        }
    }

    /// The first error downstream, if any.
    ///
    /// # Errors
    /// That error.
    pub fn check(&mut self) -> Result<()> {
        self.port.check()?;
        self.tagged.iter_mut().try_for_each(|(_, port)| port.check())
    }

    /// Passes on all that is gathered.
    ///
    /// # Errors
    /// The first error downstream.
    pub fn flush(&mut self) -> Result<()> {
        self.port.flush();
        self.port.check()?;
        self.tagged.iter_mut().try_for_each(|(_, port)| port.flush())
    }
}
