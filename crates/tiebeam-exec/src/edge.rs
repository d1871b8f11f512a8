//! Edges with their element types erased: opened once, when a stage is wired, never per element.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{self, Coder, CoderSpec, IterableState, Nesting, Reader, WindowedValueCoder};
use tiebeam_core::{
    BATCH_SIZE, Batch, BatchBuilder, Element, Error, Meta, Receiver, Result, WindowFn, WindowInfo,
};

use crate::flatten::Flatten;
use crate::par_do::ParDo;
use crate::reshuffle::ReshuffleParts;
use crate::stage::Operator;
use crate::windows::AssignWindows;

/// A `Box<dyn Receiver<T>>` whose `T` is not told.
pub struct AnyReceiver {
    receiver: Box<dyn Any + Send>,
    element: &'static str,
}

impl AnyReceiver {
    /// Hides the element type.
    pub fn new<T: 'static>(receiver: Box<dyn Receiver<T>>) -> Self {
        AnyReceiver { receiver: Box::new(receiver), element: std::any::type_name::<T>() }
    }

    /// Finds the element type again.
    ///
    /// # Errors
    /// An internal one when it is another type.
    pub fn open<T: 'static>(self) -> Result<Box<dyn Receiver<T>>> {
        let AnyReceiver { receiver, element } = self;
        receiver.downcast::<Box<dyn Receiver<T>>>().map(|boxed| *boxed).map_err(|_| {
            Error::internal(format!("an edge of {element} was opened as {}", std::any::type_name::<T>()))
        })
    }
}

/// A batch whose element type is not told; what runners keep between stages.
pub trait AnyBatch: Send + Sync {
    /// The number of elements.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The `Batch<T>`.
    fn as_any(&self) -> &dyn Any;
    /// The elements of `range`, in a batch of their own.
    fn slice(&self, range: std::ops::Range<usize>) -> Arc<dyn AnyBatch>;
}

impl<T: Element> AnyBatch for Batch<T> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn slice(&self, range: std::ops::Range<usize>) -> Arc<dyn AnyBatch> {
        let meta = match &self.meta {
            Meta::Uniform(info) => Meta::Uniform(info.clone()),
            Meta::Each(infos) => Meta::Each(infos[range.clone()].to_vec()),
        };
        Arc::new(Batch { values: self.values[range].to_vec(), meta })
    }
}

/// Takes whole batches out of a stage, still typed inside.
pub trait BatchSink: Send {
    /// Takes one batch.
    ///
    /// # Errors
    /// Whatever keeps it from doing so.
    fn accept(&mut self, batch: Arc<dyn AnyBatch>) -> Result<()>;
}

/// Takes encoded elements out of a stage: windowed values one after another, each in nested context.
pub trait EncodedSink: Send {
    /// Takes the encodings of `count` elements.
    ///
    /// # Errors
    /// Whatever keeps it from doing so.
    fn accept(&mut self, encoded: &[u8], count: usize) -> Result<()>;
}

/// Looks at the batches of an edge as they pass, and may hold their ends back.
pub trait Tap: Send + Sync {
    /// How many of the batch's elements go on, from its first; the others go nowhere.
    ///
    /// # Errors
    /// Whatever keeps it from saying so.
    fn pass(&self, batch: &dyn AnyBatch) -> Result<usize>;
}

/// Takes erased batches into a stage.
pub trait BatchReceiver: Send {
    /// Passes on a copy of the batch.
    ///
    /// # Errors
    /// Those of the stage, or an internal one for a batch of another type.
    fn receive(&mut self, batch: &dyn AnyBatch) -> Result<()>;
}

/// Takes encoded elements into a stage.
pub trait EncodedReceiver: Send {
    /// Decodes all elements in `encoded` and passes them on. `state` serves state-backed iterables.
    ///
    /// # Errors
    /// Those of the stage, or what is wrong with the bytes.
    fn receive(&mut self, encoded: Bytes, state: Option<Arc<dyn IterableState>>) -> Result<()>;
}

/// All that can be done with an edge without knowing its element type.
pub trait EdgeType: Send + Sync {
    /// The Rust type of the elements.
    fn type_id(&self) -> TypeId;
    /// Its name, for messages and the fingerprint.
    fn type_name(&self) -> &'static str;
    /// The coder, as it travels.
    fn coder_spec(&self) -> CoderSpec;
    /// The same type with the coder that a runner's tree asks for.
    ///
    /// # Errors
    /// When the type can't be told by that tree.
    fn with_coder(&self, spec: &CoderSpec) -> Result<Arc<dyn EdgeType>>;
    /// One receiver that gives each batch to all of them.
    ///
    /// # Errors
    /// An internal one when one is of another type.
    fn tee(&self, receivers: Vec<AnyReceiver>) -> Result<AnyReceiver>;
    /// A receiver that counts what passes.
    ///
    /// # Errors
    /// An internal one when `into` is of another type.
    fn counted(&self, into: AnyReceiver, count: Arc<std::sync::atomic::AtomicU64>) -> Result<AnyReceiver>;
    /// A receiver that passes on what the tap lets go.
    ///
    /// # Errors
    /// An internal one when `into` is of another type.
    fn tapped(&self, into: AnyReceiver, tap: Arc<dyn Tap>) -> Result<AnyReceiver>;
    /// A receiver that keeps batches as they are.
    fn collector(&self, sink: Box<dyn BatchSink>) -> AnyReceiver;
    /// The other end of [`collector`](EdgeType::collector).
    ///
    /// # Errors
    /// An internal one when `into` is of another type.
    fn replayer(&self, into: AnyReceiver) -> Result<Box<dyn BatchReceiver>>;
    /// A receiver that encodes elements as windowed values with windows by that coder. Where all elements have the same time
    /// and windows, `window` is the whole `param_windowed_value` coder that tells them, whatever its element part.
    ///
    /// # Errors
    /// When the window coder is unknown.
    fn encoder(&self, window: &CoderSpec, sink: Box<dyn EncodedSink>) -> Result<AnyReceiver>;
    /// The other end of [`encoder`](EdgeType::encoder).
    ///
    /// # Errors
    /// When the window coder is unknown, or `into` is of another type.
    fn decoder(&self, window: &CoderSpec, into: AnyReceiver) -> Result<Box<dyn EncodedReceiver>>;
    /// The operator that brings several edges of this type together, for a runner that puts one where the user had none.
    fn flatten(&self) -> Arc<dyn Operator>;
    /// The operator that gives elements of this type windows.
    fn assign_windows(&self, window_fn: Arc<dyn WindowFn>) -> Arc<dyn Operator>;
    /// The parts of a reshuffle of this type's elements with windows of that coder, for engines that know no reshuffle.
    ///
    /// # Errors
    /// When the window coder is unknown.
    fn reshuffle(&self, window: &CoderSpec) -> Result<ReshuffleParts>;
    /// Encodes the elements of a batch alone, without times and windows, each in nested context; gives each to `each`
    /// with what it carries. What side inputs are made of.
    ///
    /// # Errors
    /// What keeps an element from being encoded.
    fn encode_values(
        &self,
        batch: &dyn AnyBatch,
        each: &mut dyn FnMut(&[u8], &WindowInfo) -> Result<()>,
    ) -> Result<()>;
    /// The other way round: a batch of values that were encoded one after another, with what they carry.
    ///
    /// # Errors
    /// When the bytes are not exactly as many values as `meta` speaks of and `count` says.
    fn decode_values(&self, encoded: Bytes, count: usize, meta: Meta) -> Result<Arc<dyn AnyBatch>>;
    /// About the bytes that a batch takes in memory, told by a few of its elements.
    fn weigh(&self, batch: &dyn AnyBatch) -> usize;
}

/// The edge type of elements `T` with a coder.
pub struct TypedEdge<T> {
    coder: Coder<T>,
}

impl<T: Element> TypedEdge<T> {
    /// An edge of `T` that travels by `coder`.
    #[allow(clippy::new_ret_no_self)] // nobody wants one with its type
    pub fn new(coder: Coder<T>) -> Arc<dyn EdgeType> {
        Arc::new(TypedEdge { coder })
    }
}

impl<T: Element> EdgeType for TypedEdge<T> {
    fn type_id(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn coder_spec(&self) -> CoderSpec {
        self.coder.spec()
    }

    fn with_coder(&self, spec: &CoderSpec) -> Result<Arc<dyn EdgeType>> {
        Ok(if self.coder.spec() == *spec {
            TypedEdge::new(self.coder.clone())
        } else {
            TypedEdge::new(T::coder_of(spec)?)
        })
    }

    fn tee(&self, mut receivers: Vec<AnyReceiver>) -> Result<AnyReceiver> {
        if receivers.len() == 1
            && let Some(only) = receivers.pop()
        {
            return Ok(only);
        }
        let all = receivers.into_iter().map(AnyReceiver::open::<T>).collect::<Result<_>>()?;
        Ok(AnyReceiver::new::<T>(Box::new(Tee(all))))
    }

    fn counted(&self, into: AnyReceiver, count: Arc<std::sync::atomic::AtomicU64>) -> Result<AnyReceiver> {
        Ok(AnyReceiver::new::<T>(Box::new(Counted(into.open::<T>()?, count))))
    }

    fn tapped(&self, into: AnyReceiver, tap: Arc<dyn Tap>) -> Result<AnyReceiver> {
        Ok(AnyReceiver::new::<T>(Box::new(Tapped(into.open::<T>()?, tap))))
    }

    fn collector(&self, sink: Box<dyn BatchSink>) -> AnyReceiver {
        AnyReceiver::new::<T>(Box::new(Collector(sink)))
    }

    fn replayer(&self, into: AnyReceiver) -> Result<Box<dyn BatchReceiver>> {
        Ok(Box::new(Replayer(into.open::<T>()?)))
    }

    fn encoder(&self, window: &CoderSpec, sink: Box<dyn EncodedSink>) -> Result<AnyReceiver> {
        let coder = windowed(&self.coder, window)?;
        Ok(AnyReceiver::new::<T>(Box::new(Encoder { coder, sink, buffer: Vec::new() })))
    }

    fn decoder(&self, window: &CoderSpec, into: AnyReceiver) -> Result<Box<dyn EncodedReceiver>> {
        let coder = windowed(&self.coder, window)?;
        Ok(Box::new(Decoder { coder, into: into.open::<T>()? }))
    }

    fn flatten(&self) -> Arc<dyn Operator> {
        Arc::new(Flatten::<T>::default())
    }

    fn assign_windows(&self, window_fn: Arc<dyn WindowFn>) -> Arc<dyn Operator> {
        Arc::new(ParDo::of(AssignWindows::<T>::new(window_fn)))
    }

    fn reshuffle(&self, window: &CoderSpec) -> Result<ReshuffleParts> {
        ReshuffleParts::new(self.coder.clone(), window)
    }

    fn encode_values(
        &self,
        batch: &dyn AnyBatch,
        each: &mut dyn FnMut(&[u8], &WindowInfo) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        for (value, info) in opened::<T>(batch)?.iter() {
            buffer.clear();
            self.coder.encode(value, &mut buffer, Nesting::Nested)?;
            each(&buffer, info)?;
        }
        Ok(())
    }

    fn decode_values(&self, encoded: Bytes, count: usize, meta: Meta) -> Result<Arc<dyn AnyBatch>> {
        let mut reader = Reader::new(encoded);
        let values = (0..count)
            .map(|_| self.coder.decode(&mut reader, Nesting::Nested))
            .collect::<Result<Vec<_>>>()?;
        let fits = match &meta {
            Meta::Uniform(_) => true,
            Meta::Each(infos) => infos.len() == count,
        };
        if !reader.is_empty() || !fits {
            return Err(Error::internal("kept values are not what was encoded"));
        }
        Ok(Arc::new(Batch { values, meta }))
    }

    fn weigh(&self, batch: &dyn AnyBatch) -> usize {
        let Ok(batch) = opened::<T>(batch) else { return 0 };
        let looked = [0, batch.len() / 2];
        let looked = &looked[..batch.len().min(2)];
        let mut buffer = Vec::new();
        for value in looked.iter().filter_map(|i| batch.values.get(*i)) {
            // What can't be encoded is told of where it matters.
            let _ = self.coder.encode(value, &mut buffer, Nesting::Nested);
        }
        let each = size_of::<T>() + buffer.len() / looked.len().max(1);
        let carried = match &batch.meta {
            Meta::Uniform(_) => 0,
            Meta::Each(infos) => infos.len() * size_of::<WindowInfo>(),
        };
        BATCH_OVERHEAD + batch.len() * each + carried
    }
}

/// What a batch takes beside its elements.
const BATCH_OVERHEAD: usize = 160;

fn windowed<T: Element>(coder: &Coder<T>, window: &CoderSpec) -> Result<Coder<(T, WindowInfo)>> {
    if window.urn == coder::urn::PARAM_WINDOWED_VALUE {
        return WindowedValueCoder::of(window, |_| Ok(coder.clone())).map(Coder::new);
    }
    coder::windowed_value(coder.clone(), window)
}

/// The batch with its type.
///
/// # Errors
/// An internal one when it is of another type.
pub fn opened<T: Element>(batch: &dyn AnyBatch) -> Result<&Batch<T>> {
    batch.as_any().downcast_ref::<Batch<T>>().ok_or_else(|| {
        Error::internal(format!("a batch of another type was given as {}", std::any::type_name::<T>()))
    })
}

struct Tee<T>(Vec<Box<dyn Receiver<T>>>);

impl<T: Element> Receiver<T> for Tee<T> {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        if let Some((last, others)) = self.0.split_last_mut() {
            for receiver in others {
                receiver.receive(batch.clone())?;
            }
            last.receive(batch)?;
        }
        Ok(())
    }
}

struct Counted<T>(Box<dyn Receiver<T>>, Arc<std::sync::atomic::AtomicU64>);

impl<T: Element> Receiver<T> for Counted<T> {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        self.1.fetch_add(batch.len() as u64, std::sync::atomic::Ordering::Relaxed);
        self.0.receive(batch)
    }
}

struct Tapped<T>(Box<dyn Receiver<T>>, Arc<dyn Tap>);

impl<T: Element> Receiver<T> for Tapped<T> {
    fn receive(&mut self, mut batch: Batch<T>) -> Result<()> {
        let passing = self.1.pass(&batch)?;
        if passing == 0 {
            return Ok(());
        }
        batch.values.truncate(passing);
        if let Meta::Each(infos) = &mut batch.meta {
            infos.truncate(passing);
        }
        self.0.receive(batch)
    }
}

struct Collector(Box<dyn BatchSink>);

impl<T: Element> Receiver<T> for Collector {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        self.0.accept(Arc::new(batch))
    }
}

struct Replayer<T>(Box<dyn Receiver<T>>);

impl<T: Element> BatchReceiver for Replayer<T> {
    fn receive(&mut self, batch: &dyn AnyBatch) -> Result<()> {
        self.0.receive(opened::<T>(batch)?.clone())
    }
}

/// Encoded bytes that are passed on although their batch has not ended, on both ways.
const BYTES_AT_ONCE: usize = 1 << 20;

struct Encoder<T> {
    coder: Coder<(T, WindowInfo)>,
    sink: Box<dyn EncodedSink>,
    buffer: Vec<u8>,
}

impl<T: Element> Receiver<T> for Encoder<T> {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        self.buffer.clear();
        let mut count = 0;
        for (i, value) in batch.values.into_iter().enumerate() {
            let pair = (value, batch.meta.get(i).clone());
            self.coder.encode(&pair, &mut self.buffer, Nesting::Nested)?;
            count += 1;
            // A batch of images, say, is not held a second time as a whole.
            if self.buffer.len() >= BYTES_AT_ONCE {
                self.sink.accept(&self.buffer, count)?;
                self.buffer.clear();
                count = 0;
            }
        }
        if count == 0 { Ok(()) } else { self.sink.accept(&self.buffer, count) }
    }
}

struct Decoder<T> {
    coder: Coder<(T, WindowInfo)>,
    into: Box<dyn Receiver<T>>,
}

impl<T: Element> EncodedReceiver for Decoder<T> {
    fn receive(&mut self, encoded: Bytes, state: Option<Arc<dyn IterableState>>) -> Result<()> {
        let mut reader = Reader::new(encoded);
        if let Some(state) = state {
            reader = reader.with_state(state);
        }
        let mut batch = BatchBuilder::default();
        let mut start = reader.position();
        while !reader.is_empty() {
            let (value, info) = self.coder.decode(&mut reader, Nesting::Nested)?;
            batch.push(value, &info);
            // Few large elements are a batch, too.
            if batch.len() >= BATCH_SIZE || reader.position() - start >= BYTES_AT_ONCE {
                self.into.receive(batch.take())?;
                start = reader.position();
            }
        }
        if batch.is_empty() { Ok(()) } else { self.into.receive(batch.take()) }
    }
}

/// Takes what nobody reads.
pub struct Discard<T>(PhantomData<fn(T)>);

impl<T> Default for Discard<T> {
    fn default() -> Self {
        Discard(PhantomData)
    }
}

impl<T> Receiver<T> for Discard<T> {
    fn receive(&mut self, _: Batch<T>) -> Result<()> {
        Ok(())
    }
}
