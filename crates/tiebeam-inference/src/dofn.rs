//! [`RunInferenceDoFn`]: the step that runs a model over a PCollection.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tiebeam_core::error::{Error, Result};
use tiebeam_core::{
    Batch, BundleContext, DoFn, ElementContext, Failure, Meta, Output, SetupContext, View, WindowInfo,
};

use crate::batcher::{Lane, ModelTag, Piece, Run, Slots};
use crate::call::{MeterBook, Refusal, Verdict};
use crate::chain::{After, Before, Fault, PredictionOf, rescued};
use crate::dead_letter::{FailedInference, Letter, Stage};
use crate::handler::{Answered, ModelHandler};
use crate::prediction::PredictionResult;
use crate::report;
use crate::scatter::Scatter;
use crate::step::Step;
use crate::update::ModelMetadata;

/// From this many elements on, results go on as a batch of their own.
const FORWARD: usize = 64;

/// Elements whose results are awaited, with all that did not travel to the model.
struct Awaited<I> {
    /// The slot of the first one.
    first: usize,
    left: usize,
    carried: Carried,
    /// What the examples were made of, where that must be remembered.
    origins: VecDeque<I>,
}

enum Carried {
    Uniform(WindowInfo),
    Each(std::vec::IntoIter<WindowInfo>),
}

/// Runs a model over elements. Made by [`RunInference`](crate::RunInference).
pub struct RunInferenceDoFn<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> {
    step: Arc<Step<H, B, A>>,
    /// The step's full path.
    name: String,
    meters: Option<MeterBook<H::Model>>,
    /// Counted among those that need the models.
    has_entered: bool,
    lane: Option<Lane<H::Example, H::Inference>>,
    awaited: VecDeque<Awaited<B::In>>,
    next_slot: usize,
    /// Pieces that came back before the ones in front of them, by their first slot.
    early: BTreeMap<usize, Piece<H::Example, H::Inference>>,
    /// Examples that do not come back side by side.
    scattered: Scatter<H::Example, H::Inference>,
    /// What is said of the model that was asked last. The id is this instance's own copy, so that threads do not share one
    /// count of references.
    tag: ModelTag,
}

impl<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> RunInferenceDoFn<H, B, A> {
    pub(crate) fn new(step: Arc<Step<H, B, A>>) -> Self {
        RunInferenceDoFn {
            step,
            name: String::new(),
            meters: None,
            has_entered: false,
            lane: None,
            awaited: VecDeque::new(),
            next_slot: 0,
            early: BTreeMap::new(),
            scattered: Scatter::default(),
            tag: ModelTag::default(),
        }
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> Clone for RunInferenceDoFn<H, B, A> {
    fn clone(&self) -> Self {
        RunInferenceDoFn::new(self.step.clone())
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> Drop for RunInferenceDoFn<H, B, A> {
    fn drop(&mut self) {
        // An instance that is given up without its end keeps no model.
        if std::mem::take(&mut self.has_entered) {
            self.step.leave();
        }
    }
}

/// Inputs made ready for the model.
struct Ready<E, I> {
    examples: Vec<E>,
    /// What they were made of, where that is kept.
    origins: VecDeque<I>,
    /// The places in the incoming batch of those that were refused, ascending.
    refused: Vec<usize>,
}

fn not_set_up() -> Error {
    Error::internal("RunInference ran without its set-up")
}

impl<H, B, A> RunInferenceDoFn<H, B, A>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    /// The element goes to the dead letters; without those, the bundle ends.
    fn refuse(
        &self,
        (element, inference): (B::In, Option<H::Inference>),
        fault: Fault,
        attempts: u32,
        info: &WindowInfo,
        out: &mut Output<A::Out>,
    ) -> Result<()> {
        let Some(tag) = &self.step.failed else { return Err(fault.into_error(&self.name)) };
        let windows: Vec<String> =
            info.windows.as_slice().iter().map(|window| format!("{window:?}")).collect();
        let mut failure = Failure::of(&fault.label(), &fault.error);
        failure.stage = fault.label();
        failure.attempts = attempts;
        let letter = Letter {
            inference,
            stage: fault.stage,
            model_id: self.tag.id.clone(),
            event_time: info.timestamp,
            window: windows.join(", "),
            failure,
        };
        out.emit_to_with(tag, FailedInference { element, letter }, info);
        Ok(())
    }

    /// The batch in parts that want the same version of the model each, as the side input says for their windows. An
    /// element of several windows follows its last one.
    fn by_version(
        batch: Batch<B::In>,
        view: &View<ModelMetadata>,
        cx: &BundleContext<'_>,
    ) -> Result<Vec<(Arc<ModelMetadata>, Batch<B::In>)>> {
        let wanted = |info: &WindowInfo| match info.windows.as_slice().last() {
            Some(window) => cx.side_input_in(view, window),
            None => Ok(Arc::default()),
        };
        let infos = match &batch.meta {
            Meta::Uniform(info) => return Ok(vec![(wanted(info)?, batch)]),
            Meta::Each(infos) => infos,
        };
        let mut ends: Vec<(Arc<ModelMetadata>, usize)> = Vec::new();
        for (i, info) in infos.iter().enumerate() {
            let same = i > 0 && infos[i - 1].windows.as_slice().last() == info.windows.as_slice().last();
            match ends.last_mut() {
                Some((_, end)) if same => *end = i + 1,
                last => {
                    let version = wanted(info)?;
                    match last {
                        Some((own, end)) if *own == version => *end = i + 1,
                        _ => ends.push((version, i + 1)),
                    }
                }
            }
        }
        if let [(version, _)] = ends.as_slice() {
            return Ok(vec![(version.clone(), batch)]);
        }
        let Batch { values, meta: Meta::Each(infos) } = batch else { return Ok(Vec::new()) };
        let (mut values, mut infos, mut begin) = (values.into_iter(), infos.into_iter(), 0);
        let part = |(version, end): (Arc<ModelMetadata>, usize)| {
            let n = end - std::mem::replace(&mut begin, end);
            let meta = Meta::Each(infos.by_ref().take(n).collect());
            (version, Batch { values: values.by_ref().take(n).collect(), meta })
        };
        Ok(ends.into_iter().map(part).collect())
    }

    fn process_part(&mut self, batch: Batch<B::In>, out: &mut Output<A::Out>) -> Result<()> {
        let Batch { values, meta } = batch;
        let ready = self.prepare(values, &meta, out)?;
        self.push(ready, meta)?;
        self.collect(out)
    }

    /// Runs the preprocess steps and the handler's check.
    fn prepare(
        &self,
        inputs: Vec<B::In>,
        meta: &Meta,
        out: &mut Output<A::Out>,
    ) -> Result<Ready<H::Example, B::In>> {
        let mut ready = Ready { examples: Vec::new(), origins: VecDeque::new(), refused: Vec::new() };
        let at = Cell::new(0);
        match B::untouched(inputs) {
            Ok(examples) => ready.examples = examples,
            Err(inputs) if self.step.failed.is_none() => {
                let run = |input| {
                    self.step.before.run(input, &at, 0).map_err(|error| {
                        Fault { stage: Stage::Preprocess, index: at.get(), error }.into_error(&self.name)
                    })
                };
                ready.examples = inputs.into_iter().map(run).collect::<Result<_>>()?;
            }
            Err(inputs) => {
                ready.examples.reserve(inputs.len());
                for (place, input) in inputs.into_iter().enumerate() {
                    let kept = input.clone();
                    match rescued(Stage::Preprocess, &at, || self.step.before.run(input, &at, 0)) {
                        Ok(example) => {
                            ready.examples.push(example);
                            ready.origins.push_back(kept);
                        }
                        Err(fault) => {
                            self.refuse((kept, None), fault, 1, meta.get(place), out)?;
                            ready.refused.push(place);
                        }
                    }
                }
            }
        }
        self.check(&mut ready, meta, out)?;
        Ok(ready)
    }

    /// Takes out the examples that the handler's check refuses.
    fn check(
        &self,
        ready: &mut Ready<H::Example, B::In>,
        meta: &Meta,
        out: &mut Output<A::Out>,
    ) -> Result<()> {
        let step = &self.step;
        // The models in use at the moment, each looked for once. One that is not loaded judges for itself later.
        let versions = RefCell::new(BTreeMap::new());
        let only = (step.models.len() == 1).then(|| step.models.peek(0).map(|cell| cell.current()));
        let check = |example: &H::Example| match &only {
            Some(version) => {
                step.handler.cohort_of(example)?;
                version.as_ref().map_or(Ok(()), |version| step.handler.check_example(example, version.any()))
            }
            None => {
                let cohort = step.handler.cohort_of(example)?;
                let mut versions = versions.borrow_mut();
                let version = versions
                    .entry(cohort)
                    .or_insert_with(|| step.models.peek(cohort).map(|cell| cell.current()));
                version.as_ref().map_or(Ok(()), |version| step.handler.check_example(example, version.any()))
            }
        };
        if ready.examples.iter().all(|example| check(example).is_ok()) {
            return Ok(());
        }
        let total = ready.examples.len() + ready.refused.len();
        let mut refused_before = std::mem::take(&mut ready.refused).into_iter().peekable();
        let mut examples = std::mem::take(&mut ready.examples).into_iter();
        let mut origins = std::mem::take(&mut ready.origins).into_iter();
        for place in 0..total {
            if refused_before.next_if_eq(&place).is_some() {
                ready.refused.push(place);
                continue;
            }
            let (Some(example), origin) = (examples.next(), origins.next()) else { break };
            match check(&example) {
                Ok(()) => {
                    ready.examples.push(example);
                    ready.origins.extend(origin);
                }
                Err(error) => {
                    let fault = Fault { stage: Stage::Inference, index: 0, error };
                    if self.step.failed.is_none() {
                        return Err(fault.into_error(&self.name));
                    }
                    let element = B::origin(origin, example).ok_or_else(not_kept)?;
                    self.refuse((element, None), fault, 0, meta.get(place), out)?;
                    ready.refused.push(place);
                }
            }
        }
        Ok(())
    }

    /// Hands examples to the batcher, and remembers what does not travel.
    fn push(&mut self, ready: Ready<H::Example, B::In>, meta: Meta) -> Result<()> {
        let Ready { examples, origins, refused } = ready;
        if examples.is_empty() {
            return Ok(());
        }
        let first = self.next_slot;
        let left = examples.len();
        self.next_slot += left;
        let carried = match meta {
            Meta::Uniform(info) => Carried::Uniform(info),
            Meta::Each(infos) if refused.is_empty() => Carried::Each(infos.into_iter()),
            Meta::Each(infos) => {
                let places = infos.into_iter().enumerate();
                let kept = places.filter(|(place, _)| refused.binary_search(place).is_err());
                Carried::Each(kept.map(|(_, info)| info).collect::<Vec<_>>().into_iter())
            }
        };
        self.awaited.push_back(Awaited { first, left, carried, origins });
        let chunks = self.step.chunks(examples, first);
        self.with_batcher(|lane, run| {
            lane.push(chunks, run);
            Ok(())
        })
    }

    /// Gives the lane, and the way to run a batch.
    fn with_batcher(
        &mut self,
        call: impl FnOnce(&Lane<H::Example, H::Inference>, Run<'_, H::Example, H::Inference>) -> Result<()>,
    ) -> Result<()> {
        let lane = self.lane.get_or_insert_with(|| self.step.batcher.open());
        let Some(meters) = &self.meters else { return Err(not_set_up()) };
        call(lane, &mut |cohort, examples| self.step.compute(cohort, examples, meters))
    }

    /// Passes on what has come back, in the order in which it went in.
    fn collect(&mut self, out: &mut Output<A::Out>) -> Result<()> {
        let Some(lane) = &self.lane else { return Ok(()) };
        for piece in lane.take_done() {
            if let Some(meters) = &self.meters {
                meters.waited(&piece.model, &piece.waits);
            }
            match (piece.slots, piece.verdict) {
                (_, Verdict::Failed(error)) => return Err(error.at_step(&self.name)),
                (Slots::From(first), verdict) => {
                    self.early.insert(first, Piece { slots: Slots::From(first), verdict, ..piece });
                }
                (Slots::Each(slots), verdict) => {
                    self.scattered.put(slots, piece.examples, verdict, &piece.model)
                }
            }
        }
        while let Some(awaited) = self.awaited.front() {
            let piece = self.early.remove(&awaited.first).or_else(|| self.scattered.next());
            let Some(piece) = piece else { break };
            self.emit(piece, out)?;
        }
        Ok(())
    }

    fn emit(&mut self, piece: Piece<H::Example, H::Inference>, out: &mut Output<A::Out>) -> Result<()> {
        if self.tag != *piece.model {
            self.tag = ModelTag { id: Arc::from(&*piece.model.id), prefix: piece.model.prefix.clone() };
        }
        let is_simple = (A::STEPS == 0 || self.step.failed.is_none()) && self.step.monitored.is_none();
        match piece.verdict {
            Verdict::Failed(error) => Err(error.at_step(&self.name)),
            Verdict::All(predictions) if is_simple => self.emit_all(piece.examples, predictions, out),
            Verdict::All(predictions) => self.emit_each(
                piece.examples.into_iter().zip(predictions.into_iter().map(|one| Ok(one.into()))),
                out,
            ),
            Verdict::Each(each) => self.emit_each(piece.examples.into_iter().zip(each), out),
        }
    }

    /// The usual way: everything was predicted, and nothing need be remembered.
    fn emit_all(
        &mut self,
        examples: Vec<H::Example>,
        predictions: Vec<H::Inference>,
        out: &mut Output<A::Out>,
    ) -> Result<()> {
        let mut left = predictions.len();
        if let Some(meters) = &self.meters {
            meters.inferred(&self.tag, left);
        }
        let (step, name, model_id) = (&self.step, &self.name, &self.tag.id);
        let at = Cell::new(0);
        let mut results = examples.into_iter().zip(predictions).map(|(example, inference)| {
            let result = PredictionResult { example, inference, model_id: model_id.clone() };
            step.after
                .run(result, &at)
                .map_err(|error| Fault { stage: Stage::Postprocess, index: at.get(), error }.into_error(name))
        });
        while left > 0 {
            let front = self.awaited.front_mut().ok_or_else(too_many)?;
            let n = left.min(front.left);
            let mut results = results.by_ref().take(n);
            match &mut front.carried {
                Carried::Uniform(info) if n >= FORWARD => {
                    out.forward(Batch::uniform(gather(results, n)?, info.clone()));
                }
                Carried::Uniform(info) => {
                    results.try_for_each(|result| result.map(|result| out.emit_with(result, info)))?;
                }
                Carried::Each(infos) if n >= FORWARD => {
                    let values = gather(results, n)?;
                    out.forward(Batch { values, meta: Meta::Each(infos.by_ref().take(n).collect()) });
                }
                Carried::Each(infos) => {
                    for (result, info) in results.zip(infos) {
                        out.emit_with(result?, &info);
                    }
                }
            }
            front.origins.drain(..n.min(front.origins.len()));
            front.first += n;
            front.left -= n;
            left -= n;
            if front.left == 0 {
                self.awaited.pop_front();
            }
        }
        Ok(())
    }

    /// The careful way: some were refused, or a postprocess step may still refuse one.
    fn emit_each(
        &mut self,
        each: impl Iterator<Item = (H::Example, Result<Answered<H::Inference>, Refusal>)>,
        out: &mut Output<A::Out>,
    ) -> Result<()> {
        let at = Cell::new(0);
        for (example, verdict) in each {
            let front = self.awaited.front_mut().ok_or_else(too_many)?;
            let info = match &mut front.carried {
                Carried::Uniform(info) => info.clone(),
                Carried::Each(infos) => infos.next().ok_or_else(too_many)?,
            };
            let kept = front.origins.pop_front();
            front.first += 1;
            front.left -= 1;
            if front.left == 0 {
                self.awaited.pop_front();
            }
            let Answered { inference, model_id } = match verdict {
                Ok(answered) => answered,
                Err(Refusal { error, attempts }) => {
                    let fault = Fault { stage: Stage::Inference, index: 0, error };
                    let origin = B::origin(kept, example).ok_or_else(not_kept)?;
                    self.refuse((origin, None), fault, attempts, &info, out)?;
                    continue;
                }
            };
            if let Some(meters) = &self.meters {
                meters.inferred(&self.tag, 1);
            }
            // Only a step can still fail, and only then need anything be remembered.
            let memory = (A::STEPS > 0).then(|| (example.clone(), inference.clone()));
            let model_id = model_id.unwrap_or_else(|| self.tag.id.clone());
            let result = PredictionResult { example, inference, model_id };
            if let Some(tag) = &self.step.monitored {
                out.emit_to_with(tag, result.clone(), &info);
            }
            match (rescued(Stage::Postprocess, &at, || self.step.after.run(result, &at)), memory) {
                (Ok(result), _) => out.emit_with(result, &info),
                (Err(fault), Some((example, inference))) if self.step.failed.is_some() => {
                    let origin = B::origin(kept, example).ok_or_else(not_kept)?;
                    self.refuse((origin, Some(inference)), fault, 1, &info, out)?;
                }
                (Err(fault), _) => return Err(fault.into_error(&self.name)),
            }
        }
        Ok(())
    }
}

/// Collects `n` results; collecting into a `Result` would not know their number beforehand.
fn gather<T>(results: impl Iterator<Item = Result<T>>, n: usize) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(n);
    for result in results {
        values.push(result?);
    }
    Ok(values)
}

fn not_kept() -> Error {
    Error::internal("an element that failed was not kept")
}

fn too_many() -> Error {
    Error::internal("more predictions than elements that await one")
}

impl<H, B, A> DoFn for RunInferenceDoFn<H, B, A>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    type In = B::In;
    type Out = A::Out;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        cx.step().clone_into(&mut self.name);
        let meters = MeterBook::new(cx.metrics(), &self.step.settings.namespace);
        if !std::mem::replace(&mut self.has_entered, true) {
            self.step.enter();
        }
        if self.step.models.len() == 1
            && let Err(error) = self.step.load(0).map(drop)
            && !self.step.rescues(&error)
        {
            return Err(error);
        }
        for cell in self.step.models.loaded() {
            report::used(&cell.report);
            let version = cell.current();
            meters.loaded(&version);
            self.tag = ModelTag { id: Arc::from(&*version.tag.id), prefix: version.tag.prefix.clone() };
        }
        self.meters = Some(meters);
        Ok(())
    }

    fn start_bundle(&mut self, _: &BundleContext<'_>, _: &mut Output<A::Out>) -> Result<()> {
        self.lane = Some(self.step.batcher.open());
        self.awaited.clear();
        self.early.clear();
        self.scattered.clear();
        self.next_slot = 0;
        Ok(())
    }

    fn process(&mut self, element: B::In, cx: &ElementContext<'_>, out: &mut Output<A::Out>) -> Result<()> {
        self.process_batch(Batch::uniform(vec![element], cx.info().clone()), cx.bundle(), out)
    }

    fn process_batch(
        &mut self,
        batch: Batch<B::In>,
        cx: &BundleContext<'_>,
        out: &mut Output<A::Out>,
    ) -> Result<()> {
        if let Some(updates) = &self.step.settings.updates.keyed {
            let latest = match &batch.meta {
                Meta::Uniform(info) => info.windows.as_slice().last(),
                Meta::Each(infos) => infos.iter().filter_map(|info| info.windows.as_slice().last()).max(),
            };
            if let Some(window) = latest {
                self.step.follow_keyed(updates, cx, window)?;
            }
        }
        let Some(view) = self.step.settings.updates.metadata.clone() else {
            self.process_part(batch, out)?;
            return out.check();
        };
        for (i, (version, part)) in Self::by_version(batch, &view, cx)?.into_iter().enumerate() {
            if i > 0 {
                // What came before was meant for the version before.
                self.with_batcher(|lane, run| lane.finish(&|| cx.is_cancelled(), run))?;
                self.collect(out)?;
            }
            self.step.follow(&version);
            self.process_part(part, out)?;
        }
        out.check()
    }

    fn finish_bundle(&mut self, cx: &BundleContext<'_>, out: &mut Output<A::Out>) -> Result<()> {
        self.with_batcher(|lane, run| lane.finish(&|| cx.is_cancelled(), run))?;
        if let (Some(_), Some(lane), Some(meters)) = (&self.step.length, &self.lane, &self.meters) {
            meters.total.was_padded(lane.take_lengths());
        }
        self.collect(out)?;
        self.lane = None;
        if !self.awaited.is_empty() {
            return Err(Error::internal("elements without predictions at a bundle's end"));
        }
        if let Some(meters) = &self.meters {
            meters.swapped(self.step.take_swaps());
            self.step.tell_counts(meters);
            meters.committed();
        }
        out.check()
    }

    fn teardown(&mut self) {
        self.lane = None;
        if let Some(meters) = self.meters.take() {
            meters.lost();
        }
        if std::mem::take(&mut self.has_entered) {
            self.step.leave();
        }
    }
}
