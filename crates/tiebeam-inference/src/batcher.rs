//! The batcher: gathers examples of all threads and bundles for one step, and lets whoever fills a batch run it.
//!
//! A bundle opens a [`Lane`] and pushes its examples in chunks; each example has a slot, counted from 0 in its lane. A
//! full batch is run by the thread that filled it, with its own examples first and then the oldest ones of others; the
//! predictions go back to the lanes by slot. At a bundle's end its thread runs what is left, or waits a little for
//! others where the settings ask for fuller batches. Nobody waits for a bundle that can't go on: neither for one that
//! is at its own end nor for one that lives on the same thread.
//!
//! No lock is held while a model runs, and nothing is done element by element that can be done chunk by chunk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::batching::Batching;
use crate::brain::{Brain, Lengths};
use crate::call::Verdict;
use crate::clock::Clock;
use crate::latency::{Arrivals, Arrived, Latencies, Span, Waits};
use crate::memory::ModelMemory;
pub(crate) use crate::queue::{Chunk, Slots};
use crate::queue::{Queue, Queued};

/// How long a bundle's end waits for the minimum batch size when no duration was set.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a waiting thread looks whether the job was cancelled.
const POLL: Duration = Duration::from_millis(10);

/// Where lengths count, so many batches are gathered before one is run, so that each can be of almost one length; but no
/// more than [`WINDOW_ELEMENTS`] for it.
const WINDOW: usize = 8;
const WINDOW_ELEMENTS: usize = 4096;

/// What is said of the model that computed a piece.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct ModelTag {
    /// The model's id, as it tells it itself.
    pub(crate) id: Arc<str>,
    /// What the names of its own metrics begin with, beside those of all models.
    pub(crate) prefix: Option<Arc<str>>,
}

/// Which model computed a piece.
pub(crate) type ModelId = Arc<ModelTag>;

/// What became of a batch, which model computed it, and how long it had to wait for its turn.
pub(crate) type Ran<P> = (Verdict<P>, ModelId, Duration);

/// Runs one batch of a cohort.
pub(crate) type Run<'a, E, P> = &'a mut dyn FnMut(usize, &[E]) -> Ran<P>;

/// What some of a lane's examples became.
#[derive(Debug)]
pub(crate) struct Piece<E, P> {
    pub(crate) slots: Slots,
    pub(crate) examples: Vec<E>,
    pub(crate) verdict: Verdict<P>,
    pub(crate) model: ModelId,
    pub(crate) waits: Waits,
}

struct LaneState<E, P> {
    done: Vec<Piece<E, P>>,
    queued: usize,
    running: usize,
    /// Of the batches that it ran and has not told yet.
    lengths: Lengths,
    /// At the bundle's end: it brings nothing more.
    finishing: bool,
    thread: ThreadId,
}

struct State<E, P> {
    queues: Vec<Queue<E>>,
    /// What all that waits takes together.
    bytes: u64,
    lanes: BTreeMap<u64, LaneState<E, P>>,
    next_lane: u64,
    cohorts: Vec<Cohort>,
}

/// The examples of one model, which share no batches with those of another one.
struct Cohort {
    brain: Arc<Brain>,
    /// Known from the model's first load on.
    memory: Option<Arc<ModelMemory>>,
    /// The same: where its elements' times are counted for the report.
    latencies: Option<Arc<Latencies>>,
}

/// See the module.
pub(crate) struct Batcher<E, P> {
    state: Mutex<State<E, P>>,
    changed: Condvar,
    batching: Batching,
    clock: Arc<dyn Clock>,
    /// Length classes of each cohort.
    classes: usize,
}

struct Part {
    lane: u64,
    slots: Slots,
    len: usize,
    arrived: Arrived,
}

struct Taken<E> {
    examples: Vec<E>,
    parts: Vec<Part>,
    class: usize,
    longest: usize,
    /// The sum of the lengths.
    length: u64,
}

impl<E> Taken<E> {
    fn lengths(&self) -> Lengths {
        let padded = (self.longest as u64).saturating_mul(self.examples.len() as u64);
        Lengths { padded, padding: padded.saturating_sub(self.length) }
    }
}

/// A batch that was run as a whole.
struct Timed {
    class: usize,
    size: usize,
    took: Duration,
    lengths: Lengths,
}

impl<E, P> Batcher<E, P> {
    /// A batcher for examples of so many cohorts, each of `classes` length classes (one when lengths don't matter).
    pub(crate) fn new(
        batching: &Batching,
        cohorts: usize,
        classes: usize,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let classes = classes.max(1);
        let cohort = |_| Cohort { brain: Brain::new(batching, classes), memory: None, latencies: None };
        let cohorts: Vec<Cohort> = (0..cohorts.max(1)).map(cohort).collect();
        let queue = |target| Queue {
            chunks: VecDeque::new(),
            len: 0,
            weight: 0,
            bytes: 0,
            target,
            has_lengths: false,
            is_ripe: false,
        };
        let targets = cohorts.iter().flat_map(|c| (0..classes).map(|class| c.brain.target(class)));
        Arc::new(Batcher {
            state: Mutex::new(State {
                queues: targets.map(queue).collect(),
                bytes: 0,
                lanes: BTreeMap::new(),
                next_lane: 0,
                cohorts,
            }),
            changed: Condvar::new(),
            batching: batching.clone(),
            clock,
            classes,
        })
    }

    /// From now on the cohort's batches are no larger than this model is known to hold, and sizes are learned for all who
    /// ask it; how long its elements take is counted with those of all who ask it.
    pub(crate) fn know(&self, cohort: usize, memory: &Arc<ModelMemory>, latencies: &Arc<Latencies>) {
        let mut state = self.lock();
        let State { queues, cohorts, .. } = &mut *state;
        let Some(known) = cohorts.get_mut(cohort) else { return };
        if !known.latencies.as_ref().is_some_and(|own| Arc::ptr_eq(own, latencies)) {
            known.latencies = Some(latencies.clone());
        }
        if known.memory.as_ref().is_some_and(|own| Arc::ptr_eq(own, memory)) {
            return;
        }
        known.memory = Some(memory.clone());
        known.brain = memory.brain(&self.batching, self.classes);
        for (class, queue) in queues.iter_mut().skip(cohort * self.classes).take(self.classes).enumerate() {
            queue.target = known.brain.target(class);
        }
    }

    /// The size that makes a batch full.
    fn full_size(&self, state: &State<E, P>, class: usize) -> usize {
        let memory = state.cohorts[class / self.classes].memory.as_ref();
        state.queues[class].target.min(memory.map_or(usize::MAX, |memory| memory.limit()))
    }

    /// A lane for a bundle that begins on this thread.
    pub(crate) fn open(self: &Arc<Self>) -> Lane<E, P> {
        let mut state = self.lock();
        let id = state.next_lane;
        state.next_lane += 1;
        let thread = std::thread::current().id();
        let lane = LaneState {
            done: Vec::new(),
            queued: 0,
            running: 0,
            lengths: Lengths::default(),
            finishing: false,
            thread,
        };
        state.lanes.insert(id, lane);
        drop(state);
        Lane { id, batcher: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State<E, P>> {
        // A panic inside a critical section would be a bug of ours; the state is whole between statements all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, state: &State<E, P>, class: usize) -> bool {
        let queue = &state.queues[class];
        let size = self.full_size(state, class);
        let (mut enough, mut factor) = (size, 1);
        if queue.has_lengths && !queue.is_ripe {
            enough = size.max(size.saturating_mul(WINDOW).min(WINDOW_ELEMENTS));
            factor = WINDOW as u128;
        }
        let is_heavy =
            self.batching.max_batch_weight.is_some_and(|max| queue.weight >= u128::from(max) * factor);
        queue.len > 0 && (queue.len >= enough || is_heavy)
    }

    /// The class that takes most, where all that waits takes more than it may.
    fn overflowing(&self, state: &State<E, P>) -> Option<usize> {
        if state.bytes <= self.batching.max_queue_bytes {
            return None;
        }
        let may_run = |queue: &Queue<E>| queue.len >= self.batching.min_batch_size.max(1);
        let queues = state.queues.iter().enumerate().filter(|(_, queue)| may_run(queue));
        queues.max_by_key(|(_, queue)| queue.bytes).map(|(class, _)| class)
    }

    fn is_overdue(&self, queue: &Queue<E>, patience: Duration) -> bool {
        let now = self.clock.now();
        queue.chunks.front().is_some_and(|oldest| now.saturating_sub(oldest.since) >= patience)
    }

    /// Whether the end of lane `id` runs what is in the queue now rather than wait for more.
    fn is_due(&self, state: &State<E, P>, class: usize, id: u64) -> bool {
        if self.is_full(state, class) {
            return true;
        }
        let patience = match self.batching.max_batch_duration {
            Some(duration) => duration,
            None if state.queues[class].len >= self.batching.min_batch_size => return true,
            None => PATIENCE,
        };
        let here = std::thread::current().id();
        let may_bring =
            |(other, lane): (&u64, &LaneState<E, P>)| *other != id && !lane.finishing && lane.thread != here;
        self.is_overdue(&state.queues[class], patience) || !state.lanes.iter().any(may_bring)
    }

    /// A batch from a queue that is not empty: the lane's own examples first, in order, then the oldest ones of others.
    fn take(&self, state: &mut State<E, P>, class: usize, id: u64) -> Taken<E> {
        let full = self.full_size(state, class);
        let State { queues, lanes, bytes, .. } = state;
        let queue = &mut queues[class];
        if queue.has_lengths {
            queue.is_ripe = true;
            queue.sort(id);
        }
        let wanted = full.min(queue.len);
        let max_weight = self.batching.max_batch_weight.unwrap_or(u64::MAX);
        let mut taken = Taken { examples: Vec::new(), parts: Vec::new(), class, longest: 0, length: 0 };
        let mut weight = 0u64;
        let mut is_heavy = false;
        for own in [true, false] {
            for chunk in &mut queue.chunks {
                let left = wanted - taken.examples.len();
                if is_heavy || left == 0 {
                    break;
                }
                if (chunk.lane == id) != own || chunk.values.len() == 0 {
                    continue;
                }
                let mut n = left.min(chunk.values.len());
                let too_heavy = chunk.weights.as_slice().iter().take(n).position(|more| {
                    weight = weight.saturating_add(*more);
                    weight > max_weight
                });
                if let Some(fits) = too_heavy {
                    is_heavy = true;
                    // A heavier one than all that is allowed goes alone, but it goes.
                    n = if fits == 0 && taken.examples.is_empty() { 1 } else { fits };
                }
                if n == 0 {
                    continue;
                }
                for length in chunk.lengths.by_ref().take(n) {
                    taken.longest = taken.longest.max(length);
                    taken.length = taken.length.saturating_add(length as u64);
                }
                let left = chunk.take_bytes(n);
                queue.bytes -= left;
                *bytes -= left;
                queue.len -= n;
                queue.weight -= chunk.weights.by_ref().take(n).map(u128::from).sum::<u128>();
                if taken.examples.is_empty() && n == wanted && n == chunk.values.len() {
                    // The whole chunk is the batch: its vector is used as it is.
                    taken.examples = std::mem::take(&mut chunk.values).collect();
                } else {
                    if taken.examples.is_empty() {
                        taken.examples.reserve(wanted);
                    }
                    taken.examples.extend(chunk.values.by_ref().take(n));
                }
                let (slots, arrived) = (chunk.slots.take(n), chunk.arrivals.take(n));
                taken.parts.push(Part { lane: chunk.lane, slots, len: n, arrived });
                if let Some(lane) = lanes.get_mut(&chunk.lane) {
                    lane.queued -= n;
                    lane.running += n;
                }
            }
        }
        queue.chunks.retain(|chunk| chunk.values.len() > 0);
        queue.is_ripe &= queue.len >= full;
        taken
    }

    /// Runs a batch with no lock held and gives everyone what is theirs.
    fn run(&self, taken: Taken<E>, run: Run<'_, E, P>) {
        let lengths = taken.lengths();
        let Taken { examples, parts, class, .. } = taken;
        let cohort = class / self.classes;
        // Should anything between here and the end panic, nobody is left waiting.
        let guard = Undelivered { batcher: self, parts };
        let started = self.clock.now();
        let (verdict, model, waited) = run(cohort, &examples);
        let (started, mut ended) = (started.saturating_add(waited), self.clock.now());
        let took = ended.saturating_sub(started);
        let timed = Timed { class, size: examples.len(), took, lengths };
        let timed = verdict.is_well().then_some(timed);
        let pieces = match verdict {
            verdict if guard.parts.len() == 1 => vec![(examples, verdict, model)],
            // Bundles that share a batch do not share its failure: each one's examples are tried apart.
            Verdict::Failed(_) => {
                let mut examples = examples.into_iter();
                let mut retry = |part: &Part| {
                    let own: Vec<E> = examples.by_ref().take(part.len).collect();
                    let (verdict, model, _) = run(cohort, &own);
                    (own, verdict, model)
                };
                let pieces = guard.parts.iter().map(&mut retry).collect();
                ended = self.clock.now();
                pieces
            }
            Verdict::All(all) => split(examples, all, &model, &guard.parts, Verdict::All),
            Verdict::Each(each) => split(examples, each, &model, &guard.parts, Verdict::Each),
        };
        self.deliver(cohort, guard.disarm(), pieces, Some(Span { started, ended }), timed);
    }

    fn deliver(
        &self,
        cohort: usize,
        parts: Vec<Part>,
        pieces: Vec<(Vec<E>, Verdict<P>, ModelId)>,
        span: Option<Span>,
        timed: Option<Timed>,
    ) {
        let mut state = self.lock();
        let latencies = state.cohorts.get(cohort).and_then(|cohort| cohort.latencies.clone());
        if let (Some(timed), Some(first)) = (&timed, parts.first())
            && let Some(lane) = state.lanes.get_mut(&first.lane)
        {
            lane.lengths.add(timed.lengths);
        }
        for (part, (examples, verdict, model)) in parts.into_iter().zip(pieces) {
            // A lane that is gone has failed for another reason; nobody wants its predictions.
            let Some(lane) = state.lanes.get_mut(&part.lane) else { continue };
            lane.running -= part.len;
            // Of what failed as a whole, the bundle is done again: it counts then.
            let span = span.filter(|_| !matches!(verdict, Verdict::Failed(_)));
            let waits = span.map(|span| Waits::of(&part.arrived, span)).unwrap_or_default();
            if let (Some(latencies), Some(span)) = (&latencies, span) {
                latencies.add(&part.arrived, span.ended);
            }
            lane.done.push(Piece { slots: part.slots, examples, verdict, model, waits });
        }
        if let Some(Timed { class, size, took, lengths }) = timed {
            let brain = &state.cohorts[class / self.classes].brain;
            brain.was_padded(lengths);
            state.queues[class].target = brain.record(class % self.classes, size, lengths, took);
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Gives each part its share of what became of all.
fn split<E, P, X>(
    examples: Vec<E>,
    outcomes: Vec<X>,
    model: &ModelId,
    parts: &[Part],
    verdict: fn(Vec<X>) -> Verdict<P>,
) -> Vec<(Vec<E>, Verdict<P>, ModelId)> {
    let (mut examples, mut outcomes) = (examples.into_iter(), outcomes.into_iter());
    let mut share = |part: &Part| {
        let own = outcomes.by_ref().take(part.len).collect();
        (examples.by_ref().take(part.len).collect(), verdict(own), model.clone())
    };
    parts.iter().map(&mut share).collect()
}

/// Parts in flight. If the thread that has them unwinds, they are failed instead of forgotten.
struct Undelivered<'a, E, P> {
    batcher: &'a Batcher<E, P>,
    parts: Vec<Part>,
}

impl<E, P> Undelivered<'_, E, P> {
    fn disarm(mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }
}

impl<E, P> Drop for Undelivered<'_, E, P> {
    fn drop(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        let failed = |_: &Part| {
            let error = Error::internal("the thread that ran a shared batch was lost").with_retryable(true);
            (Vec::new(), Verdict::Failed(error), ModelId::default())
        };
        let parts = std::mem::take(&mut self.parts);
        let pieces = parts.iter().map(failed).collect();
        self.batcher.deliver(0, parts, pieces, None, None);
    }
}

/// One bundle's way through the batcher. Dropped early (its bundle failed), it takes its waiting examples along.
pub(crate) struct Lane<E, P> {
    id: u64,
    batcher: Arc<Batcher<E, P>>,
}

impl<E, P> Lane<E, P> {
    /// Brings examples and runs every batch that is full or overdue with them.
    pub(crate) fn push(&self, chunks: impl IntoIterator<Item = Chunk<E>>, run: Run<'_, E, P>) {
        let batcher = &*self.batcher;
        let batching = &batcher.batching;
        let since = batcher.clock.now();
        let mut state = batcher.lock();
        // Only what was brought to can be full now; only where batches wait for a time can another one be overdue.
        let mut touched = Vec::new();
        for Chunk { slots, values, weights, lengths, bytes, class } in chunks {
            touched.push(class);
            let state = &mut *state;
            let Some(lane) = state.lanes.get_mut(&self.id) else { return };
            state.bytes += bytes;
            lane.queued += values.len();
            lane.thread = std::thread::current().id();
            let queue = &mut state.queues[class];
            queue.len += values.len();
            queue.bytes += bytes;
            queue.weight += weights.iter().copied().map(u128::from).sum::<u128>();
            queue.has_lengths = !lengths.is_empty();
            let (values, weights, lengths) = (values.into_iter(), weights.into_iter(), lengths.into_iter());
            let (lane, is_sorted, arrivals) = (self.id, false, Arrivals::At(since));
            let queued = Queued { lane, slots, values, weights, lengths, bytes, is_sorted, since, arrivals };
            queue.chunks.push_back(queued);
        }
        if batching.max_batch_duration.is_some() {
            touched = (0..state.queues.len()).collect();
        }
        let mut next = 0;
        while let Some(class) = touched.get(next).copied() {
            let is_overdue = |duration| batcher.is_overdue(&state.queues[class], duration);
            if batcher.is_full(&state, class) || batching.max_batch_duration.is_some_and(is_overdue) {
                let taken = batcher.take(&mut state, class, self.id);
                drop(state);
                batcher.run(taken, run);
                state = batcher.lock();
            } else {
                next += 1;
            }
        }
        while let Some(class) = batcher.overflowing(&state) {
            let taken = batcher.take(&mut state, class, self.id);
            drop(state);
            batcher.run(taken, run);
            state = batcher.lock();
        }
    }

    /// What has come back so far, in no particular order.
    pub(crate) fn take_done(&self) -> Vec<Piece<E, P>> {
        match self.batcher.lock().lanes.get_mut(&self.id) {
            Some(lane) => std::mem::take(&mut lane.done),
            None => Vec::new(),
        }
    }

    /// The lengths in the batches that this lane ran, once.
    pub(crate) fn take_lengths(&self) -> Lengths {
        match self.batcher.lock().lanes.get_mut(&self.id) {
            Some(lane) => std::mem::take(&mut lane.lengths),
            None => Lengths::default(),
        }
    }

    /// The bundle's end: after it, every example of the lane has come back.
    ///
    /// # Errors
    /// When the job was cancelled while this waited.
    pub(crate) fn finish(&self, cancelled: &dyn Fn() -> bool, run: Run<'_, E, P>) -> Result<()> {
        let batcher = &*self.batcher;
        let mut state = batcher.lock();
        if let Some(lane) = state.lanes.get_mut(&self.id) {
            lane.finishing = true;
            lane.thread = std::thread::current().id();
        }
        // Others may have waited for this one to bring something.
        batcher.changed.notify_all();
        loop {
            let Some(lane) = state.lanes.get(&self.id) else { return Ok(()) };
            if lane.queued == 0 && lane.running == 0 {
                return Ok(());
            }
            let has_own = |queue: &Queue<E>| queue.chunks.iter().any(|chunk| chunk.lane == self.id);
            let is_due =
                |class: &usize| has_own(&state.queues[*class]) && batcher.is_due(&state, *class, self.id);
            if let Some(class) = (0..state.queues.len()).find(is_due) {
                let taken = batcher.take(&mut state, class, self.id);
                drop(state);
                batcher.run(taken, run);
            } else {
                let waited = batcher.changed.wait_timeout(state, POLL);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                if cancelled() {
                    let message = "cancelled while a batch was waiting for its model";
                    return Err(Error::new(ErrorKind::Cancelled, "TB0326", message));
                }
            }
            state = batcher.lock();
        }
    }
}

impl<E, P> Drop for Lane<E, P> {
    fn drop(&mut self) {
        let mut state = self.batcher.lock();
        let gone = state.lanes.remove(&self.id);
        // Dropped after the lock is given back: what examples own may take long to drop.
        let mut waiting = Vec::new();
        if gone.is_some_and(|lane| lane.queued > 0) {
            let State { queues, bytes, .. } = &mut *state;
            for queue in queues {
                let all = std::mem::take(&mut queue.chunks).into_iter();
                let (own, others): (VecDeque<_>, _) = all.partition(|chunk| chunk.lane == self.id);
                queue.chunks = others;
                queue.len -= own.iter().map(|chunk| chunk.values.len()).sum::<usize>();
                let weights = own.iter().flat_map(|chunk| chunk.weights.as_slice());
                queue.weight -= weights.copied().map(u128::from).sum::<u128>();
                let own_bytes = own.iter().map(|chunk| chunk.bytes).sum::<u64>();
                queue.bytes -= own_bytes;
                *bytes -= own_bytes;
                waiting.push(own);
            }
        }
        drop(state);
        self.batcher.changed.notify_all();
    }
}
