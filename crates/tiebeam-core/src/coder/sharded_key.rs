//! `beam:coder:sharded_key:v1`: a key that is cut into shards.

use bytes::Bytes;

use super::atoms::{put_bytes, take_bytes};
use super::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, urn};
use crate::element::Element;
use crate::error::Result;

/// A key and the shard of it: grouping by this cuts a hot key into pieces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardedKey<K> {
    /// Any bytes that tell the shards of one key apart.
    pub shard_id: Bytes,
    /// The key.
    pub key: K,
}

struct ShardedKeyCodec<K>(Coder<K>);

/// `sharded_key<key>`.
pub fn sharded_key_coder<K: 'static>(key: Coder<K>) -> Coder<ShardedKey<K>> {
    Coder::new(ShardedKeyCodec(key))
}

impl<K: 'static> Codec<ShardedKey<K>> for ShardedKeyCodec<K> {
    fn encode(&self, value: &ShardedKey<K>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        put_bytes(&value.shard_id, out, Nesting::Nested);
        self.0.encode(&value.key, out, Nesting::Nested)
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<ShardedKey<K>> {
        Ok(ShardedKey {
            shard_id: take_bytes(input, Nesting::Nested)?,
            key: self.0.decode(input, Nesting::Nested)?,
        })
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(urn::SHARDED_KEY, [self.0.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

impl<K: Element> Element for ShardedKey<K> {
    fn coder() -> Coder<Self> {
        sharded_key_coder(K::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (urn::SHARDED_KEY, [key]) => Ok(sharded_key_coder(K::coder_of(key)?)),
            _ => Err(mismatch("a key and its shard", spec)),
        }
    }
}
