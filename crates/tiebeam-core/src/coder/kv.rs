//! `beam:coder:kv:v1`: a key, then a value in the pair's own context.

use super::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, urn};
use crate::element::Element;
use crate::error::Result;

struct KvCodec<K, V>(Coder<K>, Coder<V>);

impl<K: 'static, V: 'static> Codec<(K, V)> for KvCodec<K, V> {
    #[inline]
    fn encode(&self, value: &(K, V), out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&value.0, out, Nesting::Nested)?;
        self.1.encode(&value.1, out, nesting)
    }

    #[inline]
    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<(K, V)> {
        Ok((self.0.decode(input, Nesting::Nested)?, self.1.decode(input, nesting)?))
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(urn::KV, [self.0.spec(), self.1.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic() && self.1.is_deterministic()
    }
}

/// `kv<key, value>` from its parts.
pub fn kv_coder<K: 'static, V: 'static>(key: Coder<K>, value: Coder<V>) -> Coder<(K, V)> {
    Coder::new(KvCodec(key, value))
}

impl<K: Element, V: Element> Element for (K, V) {
    fn coder() -> Coder<Self> {
        kv_coder(K::coder(), V::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (urn::KV, [key, value]) => Ok(kv_coder(K::coder_of(key)?, V::coder_of(value)?)),
            _ => Err(mismatch("a key and a value", spec)),
        }
    }
}
