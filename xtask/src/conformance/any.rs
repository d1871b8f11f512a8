//! A value of any coder's: lets the product's own coders be built for a tree of URNs that is known only at run time.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{
    ShardedKey, Timer, WindowCoder, WindowedValueCoder, length_prefixed, mismatch, urn,
};
use tiebeam_core::{
    Codec, Coder, CoderSpec, Element, Iterable, Nesting, Reader, Result, Row, Window, WindowInfo,
};

/// What a coder gives.
#[derive(Debug, Clone)]
pub(crate) enum Any {
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Bytes),
    Text(String),
    Pair(Box<(Any, Any)>),
    Many(Vec<Any>),
    Nullable(Option<Box<Any>>),
    Window(Window),
    Windowed(Box<(Any, WindowInfo)>),
    Timer(Box<Timer<Any>>),
    Sharded(Box<ShardedKey<Any>>),
    Row(Row),
}

/// Doubles are equal when their bits are, so that signs of zeros count and NaN is itself.
impl PartialEq for Any {
    fn eq(&self, other: &Any) -> bool {
        match (self, other) {
            (Any::Double(a), Any::Double(b)) => a.to_bits() == b.to_bits(),
            (Any::Bool(a), Any::Bool(b)) => a == b,
            (Any::Int(a), Any::Int(b)) => a == b,
            (Any::Bytes(a), Any::Bytes(b)) => a == b,
            (Any::Text(a), Any::Text(b)) => a == b,
            (Any::Pair(a), Any::Pair(b)) => a == b,
            (Any::Many(a), Any::Many(b)) => a == b,
            (Any::Nullable(a), Any::Nullable(b)) => a == b,
            (Any::Window(a), Any::Window(b)) => a == b,
            (Any::Windowed(a), Any::Windowed(b)) => a == b,
            (Any::Timer(a), Any::Timer(b)) => a == b,
            (Any::Sharded(a), Any::Sharded(b)) => a == b,
            (Any::Row(a), Any::Row(b)) => a.schema.fields == b.schema.fields && a.values == b.values,
            _ => false,
        }
    }
}

/// Wraps one of the product's coders: the bytes are its work alone.
struct Adapted<T> {
    coder: Coder<T>,
    wrap: fn(T) -> Any,
    unwrap: fn(Any) -> Option<T>,
}

impl<T: 'static> Codec<Any> for Adapted<T> {
    fn encode(&self, value: &Any, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        let own =
            (self.unwrap)(value.clone()).ok_or_else(|| mismatch(&format!("{value:?}"), &self.spec()))?;
        self.coder.encode(&own, out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Any> {
        self.coder.decode(input, nesting).map(self.wrap)
    }

    fn spec(&self) -> CoderSpec {
        self.coder.spec()
    }
}

macro_rules! adapt {
    ($coder:expr, $wrap:expr, $pattern:pat => $own:expr) => {
        Coder::new(Adapted {
            coder: $coder,
            wrap: $wrap,
            unwrap: |any| match any {
                $pattern => Some($own),
                _ => None,
            },
        })
    };
}

impl Element for Any {
    fn coder() -> Coder<Self> {
        adapt!(Bytes::coder(), Any::Bytes, Any::Bytes(own) => own)
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        Ok(match spec.urn.as_str() {
            urn::BYTES => adapt!(Bytes::coder_of(spec)?, Any::Bytes, Any::Bytes(own) => own),
            urn::BOOL => adapt!(bool::coder_of(spec)?, Any::Bool, Any::Bool(own) => own),
            urn::VARINT => adapt!(i64::coder_of(spec)?, Any::Int, Any::Int(own) => own),
            urn::DOUBLE => adapt!(f64::coder_of(spec)?, Any::Double, Any::Double(own) => own),
            urn::STRING_UTF8 => adapt!(String::coder_of(spec)?, Any::Text, Any::Text(own) => own),
            urn::KV => adapt!(
                <(Any, Any)>::coder_of(spec)?, |own| Any::Pair(Box::new(own)), Any::Pair(own) => *own
            ),
            urn::ITERABLE | urn::STATE_BACKED_ITERABLE => adapt!(
                Iterable::<Any>::coder_of(spec)?,
                |own| Any::Many(own.to_vec()),
                Any::Many(own) => Iterable::from(own)
            ),
            urn::NULLABLE => adapt!(
                Option::<Any>::coder_of(spec)?,
                |own| Any::Nullable(own.map(Box::new)),
                Any::Nullable(own) => own.map(|own| *own)
            ),
            urn::GLOBAL_WINDOW | urn::INTERVAL_WINDOW | urn::CUSTOM_WINDOW => {
                adapt!(Coder::new(WindowCoder::of(spec)?), Any::Window, Any::Window(own) => own)
            }
            urn::WINDOWED_VALUE | urn::PARAM_WINDOWED_VALUE => adapt!(
                WindowedValueCoder::<Any>::pairs_of(spec)?,
                |own| Any::Windowed(Box::new(own)),
                Any::Windowed(own) => *own
            ),
            urn::TIMER => {
                adapt!(Timer::<Any>::coder_of(spec)?, |own| Any::Timer(Box::new(own)), Any::Timer(own) => *own)
            }
            urn::SHARDED_KEY => adapt!(
                ShardedKey::<Any>::coder_of(spec)?, |own| Any::Sharded(Box::new(own)), Any::Sharded(own) => *own
            ),
            urn::ROW => adapt!(Row::coder_of(spec)?, Any::Row, Any::Row(own) => own),
            urn::LENGTH_PREFIX => length_prefixed(Any::coder_of(spec.only_component()?)?),
            _ => return Err(mismatch("any kind known here", spec)),
        })
    }
}

/// What the runner keeps of a state-backed iterable: the document's own table.
pub(crate) struct Kept(pub(crate) Vec<(Vec<u8>, Bytes)>);

impl tiebeam_core::coder::IterableState for Kept {
    fn page(&self, token: &[u8], _: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
        let found = self.0.iter().find(|(known, _)| known == token).map(|(_, bytes)| bytes.clone());
        Ok((found.unwrap_or_default(), None))
    }
}

impl Kept {
    /// A reader of `bytes` that knows what is kept.
    pub(crate) fn reader(self: &Arc<Self>, bytes: Vec<u8>) -> Reader {
        Reader::new(bytes).with_state(self.clone())
    }
}
