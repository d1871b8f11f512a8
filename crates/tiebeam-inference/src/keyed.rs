//! Keys beside examples: [`Chain::keyed`] and [`Chain::maybe_keyed`].

use std::cell::Cell;
use std::marker::PhantomData;

use tiebeam_core::Element;
use tiebeam_core::coder::{
    Codec, Coder, CoderSpec, Nesting, Reader, kv_coder, mismatch, nullable_coder, urn,
};
use tiebeam_core::error::Result;

use crate::carrying::Carrying;
use crate::chain::{After, Before, Chain, DropExample, NoSteps, PredictionOf};
use crate::handler::ModelHandler;
use crate::prediction::PredictionResult;

/// Preprocess steps that run on the value of a pair.
pub struct OnValue<B, K> {
    before: B,
    key: PhantomData<fn(K)>,
}

impl<K> OnValue<NoSteps, K> {
    pub(crate) fn none() -> Self {
        OnValue { before: NoSteps, key: PhantomData }
    }
}

impl<K: Element, E: Element, B: Before<E>> Before<(K, E)> for OnValue<B, K> {
    type In = (K, B::In);

    fn run(&self, (key, value): Self::In, at: &Cell<usize>, index: usize) -> Result<(K, E)> {
        Ok((key, self.before.run(value, at, index)?))
    }

    fn untouched(inputs: Vec<Self::In>) -> Result<Vec<(K, E)>, Vec<Self::In>> {
        let (keys, values): (Vec<K>, Vec<B::In>) = inputs.into_iter().unzip();
        match B::untouched(values) {
            Ok(examples) => Ok(keys.into_iter().zip(examples).collect()),
            Err(values) => Err(keys.into_iter().zip(values).collect()),
        }
    }

    fn origin(kept: Option<Self::In>, (key, example): (K, E)) -> Option<Self::In> {
        Some((key, B::origin(kept.map(|(_, value)| value), example)?))
    }
}

/// Postprocess steps of a result whose key comes out with it.
pub struct WithKey<A>(A);

impl WithKey<NoSteps> {
    pub(crate) fn none() -> Self {
        WithKey(NoSteps)
    }
}

impl WithKey<DropExample> {
    pub(crate) fn dropping() -> Self {
        WithKey(DropExample)
    }
}

impl<K: Element, E: Element, P: Element, A: After<PredictionResult<E, P>>> After<PredictionResult<(K, E), P>>
    for WithKey<A>
{
    type Out = (K, A::Out);
    const STEPS: usize = A::STEPS;

    fn run(&self, result: PredictionResult<(K, E), P>, at: &Cell<usize>) -> Result<Self::Out> {
        let PredictionResult { example: (key, example), inference, model_id } = result;
        Ok((key, self.0.run(PredictionResult { example, inference, model_id }, at)?))
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> Chain<H, B, A> {
    /// The same for pairs of a key and an element: the steps and the model see the element, and the key comes out with the
    /// result.
    pub fn keyed<K: Element>(self) -> Chain<Carrying<H, K>, OnValue<B, K>, WithKey<A>> {
        let Chain { handler, before, after } = self;
        let before = OnValue { before, key: PhantomData };
        Chain { handler: Carrying::new(handler), before, after: WithKey(after) }
    }

    /// The same for elements of which some have a key.
    pub fn maybe_keyed<K: Element>(
        self,
    ) -> Chain<Carrying<H, Option<K>>, OnMaybeKeyed<B, K>, WithMaybeKey<A, K>> {
        let Chain { handler, before, after } = self;
        let before = OnMaybeKeyed { before, key: PhantomData };
        Chain { handler: Carrying::new(handler), before, after: WithMaybeKey { after, key: PhantomData } }
    }
}

/// A value that may have a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MaybeKeyed<K, V> {
    /// It has one.
    Keyed(K, V),
    /// It has none.
    Unkeyed(V),
}

impl<K, V> MaybeKeyed<K, V> {
    fn of(key: Option<K>, value: V) -> Self {
        match key {
            Some(key) => MaybeKeyed::Keyed(key, value),
            None => MaybeKeyed::Unkeyed(value),
        }
    }

    fn split(self) -> (Option<K>, V) {
        match self {
            MaybeKeyed::Keyed(key, value) => (Some(key), value),
            MaybeKeyed::Unkeyed(value) => (None, value),
        }
    }
}

impl<K, V> From<(K, V)> for MaybeKeyed<K, V> {
    fn from((key, value): (K, V)) -> Self {
        MaybeKeyed::Keyed(key, value)
    }
}

/// Travels as a pair whose key may be absent.
struct MaybeKeyedCodec<K, V>(Coder<(Option<K>, V)>);

impl<K: Element, V: Element> Codec<MaybeKeyed<K, V>> for MaybeKeyedCodec<K, V> {
    fn encode(&self, value: &MaybeKeyed<K, V>, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&value.clone().split(), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<MaybeKeyed<K, V>> {
        let (key, value) = self.0.decode(input, nesting)?;
        Ok(MaybeKeyed::of(key, value))
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl<K: Element, V: Element> Element for MaybeKeyed<K, V> {
    fn coder() -> Coder<Self> {
        Coder::new(MaybeKeyedCodec(kv_coder(nullable_coder(K::coder()), V::coder())))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (urn::KV, [key, value]) => {
                let pair = kv_coder(<Option<K>>::coder_of(key)?, V::coder_of(value)?);
                Ok(Coder::new(MaybeKeyedCodec(pair)))
            }
            _ => Err(mismatch("a value that may have a key", spec)),
        }
    }
}

/// Preprocess steps that run on the value, whether it has a key or not.
pub struct OnMaybeKeyed<B, K> {
    before: B,
    key: PhantomData<fn(K)>,
}

impl<K: Element, E: Element, B: Before<E>> Before<(Option<K>, E)> for OnMaybeKeyed<B, K> {
    type In = MaybeKeyed<K, B::In>;

    fn run(&self, input: Self::In, at: &Cell<usize>, index: usize) -> Result<(Option<K>, E)> {
        let (key, value) = input.split();
        Ok((key, self.before.run(value, at, index)?))
    }

    fn untouched(inputs: Vec<Self::In>) -> Result<Vec<(Option<K>, E)>, Vec<Self::In>> {
        let (keys, values): (Vec<_>, Vec<_>) = inputs.into_iter().map(MaybeKeyed::split).unzip();
        match B::untouched(values) {
            Ok(examples) => Ok(keys.into_iter().zip(examples).collect()),
            Err(values) => {
                Err(keys.into_iter().zip(values).map(|(key, value)| MaybeKeyed::of(key, value)).collect())
            }
        }
    }

    fn origin(kept: Option<Self::In>, (key, example): (Option<K>, E)) -> Option<Self::In> {
        let value = B::origin(kept.map(|kept| kept.split().1), example)?;
        Some(MaybeKeyed::of(key, value))
    }
}

/// Postprocess steps of a result that comes out with its key, if it has one.
pub struct WithMaybeKey<A, K> {
    after: A,
    key: PhantomData<fn(K)>,
}

impl<K> WithMaybeKey<DropExample, K> {
    pub(crate) fn dropping() -> Self {
        WithMaybeKey { after: DropExample, key: PhantomData }
    }
}

impl<K: Element, E: Element, P: Element, A: After<PredictionResult<E, P>>>
    After<PredictionResult<(Option<K>, E), P>> for WithMaybeKey<A, K>
{
    type Out = MaybeKeyed<K, A::Out>;
    const STEPS: usize = A::STEPS;

    fn run(&self, result: PredictionResult<(Option<K>, E), P>, at: &Cell<usize>) -> Result<Self::Out> {
        let PredictionResult { example: (key, example), inference, model_id } = result;
        Ok(MaybeKeyed::of(key, self.after.run(PredictionResult { example, inference, model_id }, at)?))
    }
}
