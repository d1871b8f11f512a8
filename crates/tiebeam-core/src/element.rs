//! [`Element`]: what may travel through a pipeline.

use std::sync::Arc;

use bytes::Bytes;

use crate::coder::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, write_varint};
use crate::error::{Error, ErrorKind, Result};

/// A value that can travel through a pipeline: cloneable, sendable, and with a coder.
///
/// Derive it for your structs (`#[derive(Element)]` makes them Beam rows). There is no implementation for `u8`: bytes
/// travel as [`Bytes`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel through a pipeline",
    note = "add `#[derive(Clone, Element)]` to `{Self}`; bytes travel as `Bytes`, not `Vec<u8>`"
)]
pub trait Element: Clone + Send + Sync + 'static {
    /// The coder of this type when nothing else is said.
    fn coder() -> Coder<Self>;

    /// The coder that a runner's tree asks for; it may have `length_prefix` anywhere.
    ///
    /// # Errors
    /// When values of this type can't be told by that tree.
    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        if spec.urn == LENGTH_PREFIX {
            return Ok(length_prefixed(Self::coder_of(spec.only_component()?)?));
        }
        let own = Self::coder();
        if own.spec() == *spec {
            return Ok(own);
        }
        // What we declare as `length_prefix<private>` comes back as the inner coder when a runner unwrapped it.
        Err(mismatch(std::any::type_name::<Self>(), spec))
    }
}

macro_rules! leaf {
    ($codec:ident, $type:ty, $urn:literal, |$value:ident, $out:ident, $en:ident| $encode:expr, |$input:ident, $de:ident| $decode:expr, $deterministic:expr) => {
        struct $codec;

        impl Codec<$type> for $codec {
            #[inline]
            fn encode(&self, $value: &$type, $out: &mut Vec<u8>, $en: Nesting) -> Result<()> {
                $encode;
                Ok(())
            }

            #[inline]
            fn decode(&self, $input: &mut Reader, $de: Nesting) -> Result<$type> {
                $decode
            }

            fn spec(&self) -> CoderSpec {
                CoderSpec::leaf($urn)
            }

            fn is_deterministic(&self) -> bool {
                $deterministic
            }
        }

        impl Element for $type {
            fn coder() -> Coder<Self> {
                Coder::new($codec)
            }
        }
    };
}

fn bounded<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| {
        Error::new(
            ErrorKind::InvalidData,
            "TB0107",
            format!("{value} is out of range for {}", std::any::type_name::<T>()),
        )
    })
}

fn take_bytes(input: &mut Reader, nesting: Nesting) -> Result<Bytes> {
    match nesting {
        Nesting::Outer => Ok(input.take_rest()),
        Nesting::Nested => {
            let n = input.length()?;
            input.take(n)
        }
    }
}

fn put_bytes(value: &[u8], out: &mut Vec<u8>, nesting: Nesting) {
    if nesting == Nesting::Nested {
        write_varint(value.len() as i64, out);
    }
    out.extend_from_slice(value);
}

/// Bytes that must be UTF-8.
pub(crate) fn utf8(bytes: Bytes) -> Result<String> {
    String::from_utf8(bytes.into()).map_err(|e| {
        Error::new(ErrorKind::InvalidData, "TB0108", format!("a string is not UTF-8: {}", e.utf8_error()))
    })
}

leaf!(UnitCodec, (), "tiebeam:coder:unit:v1", |_v, _out, _n| (), |_input, _n| Ok(()), true);
leaf!(
    BytesCodec,
    Bytes,
    "beam:coder:bytes:v1",
    |value, out, n| put_bytes(value, out, n),
    |input, n| take_bytes(input, n),
    true
);
leaf!(
    StringCodec,
    String,
    "beam:coder:string_utf8:v1",
    |value, out, n| put_bytes(value.as_bytes(), out, n),
    |input, n| utf8(take_bytes(input, n)?),
    true
);
leaf!(
    ArcStrCodec,
    Arc<str>,
    "beam:coder:string_utf8:v1",
    |value, out, n| put_bytes(value.as_bytes(), out, n),
    |input, n| utf8(take_bytes(input, n)?).map(Arc::from),
    true
);
leaf!(
    BoolCodec,
    bool,
    "beam:coder:bool:v1",
    |value, out, _n| out.push(u8::from(*value)),
    |input, _n| match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::new(ErrorKind::InvalidData, "TB0109", format!("a boolean is 0 or 1, got {other}"))),
    },
    true
);
leaf!(
    DoubleCodec,
    f64,
    "beam:coder:double:v1",
    |value, out, _n| out.extend_from_slice(&value.to_be_bytes()),
    |input, _n| input.array().map(f64::from_be_bytes),
    false
);
leaf!(
    FloatCodec,
    f32,
    "beam:coder:double:v1",
    |value, out, _n| out.extend_from_slice(&f64::from(*value).to_be_bytes()),
    |input, _n| input.array().map(|bytes| f64::from_be_bytes(bytes) as f32),
    false
);

macro_rules! varints {
    ($($codec:ident $type:ty),*) => {$(
        leaf!(
            $codec,
            $type,
            "beam:coder:varint:v1",
            |value, out, _n| write_varint(i64::from(*value), out),
            |input, _n| bounded(input.varint()?),
            true
        );
    )*};
}
varints!(I64Codec i64, I32Codec i32, I16Codec i16, I8Codec i8, U32Codec u32, U16Codec u16);

leaf!(
    U64Codec,
    u64,
    "beam:coder:varint:v1",
    |value, out, _n| write_varint(*value as i64, out),
    |input, _n| input.varint().map(|value| value as u64),
    true
);
leaf!(
    UsizeCodec,
    usize,
    "beam:coder:varint:v1",
    |value, out, _n| write_varint(*value as i64, out),
    |input, _n| bounded(input.varint()?),
    true
);

const KV: &str = "beam:coder:kv:v1";
const ITERABLE: &str = "beam:coder:iterable:v1";
const NULLABLE: &str = "beam:coder:nullable:v1";

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
        CoderSpec::of(KV, [self.0.spec(), self.1.spec()])
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
            (KV, [key, value]) => Ok(kv_coder(K::coder_of(key)?, V::coder_of(value)?)),
            _ => Err(mismatch("a key and a value", spec)),
        }
    }
}

struct VecCodec<T>(Coder<T>);

impl<T: 'static> Codec<Vec<T>> for VecCodec<T> {
    fn encode(&self, value: &Vec<T>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        let count = i32::try_from(value.len()).map_err(|_| {
            Error::new(ErrorKind::InvalidData, "TB0110", format!("{} values are too many for a list", value.len()))
        })?;
        out.extend_from_slice(&count.to_be_bytes());
        value.iter().try_for_each(|one| self.0.encode(one, out, Nesting::Nested))
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Vec<T>> {
        let count = i32::from_be_bytes(input.array()?);
        if let Ok(count) = usize::try_from(count) {
            // A lying count can't reserve more than the bytes could hold.
            let mut values = Vec::with_capacity(count.min(input.remaining()));
            for _ in 0..count {
                values.push(self.0.decode(input, Nesting::Nested)?);
            }
            return Ok(values);
        }
        let mut values = Vec::new();
        loop {
            match input.varint()? {
                0 => return Ok(values),
                -1 => {
                    let n = input.length()?;
                    let token = input.take(n)?;
                    let state = input.state().cloned().ok_or_else(|| {
                        Error::new(ErrorKind::InvalidData, "TB0111", "a state-backed iterable came without state")
                    })?;
                    let mut page = None;
                    loop {
                        let (bytes, next) = state.page(&token, page.as_deref())?;
                        let mut reader = Reader::new(bytes).with_state(state.clone());
                        while !reader.is_empty() {
                            values.push(self.0.decode(&mut reader, Nesting::Nested)?);
                        }
                        match next {
                            Some(next) => page = Some(next),
                            None => return Ok(values),
                        }
                    }
                }
                n if n > 0 => {
                    for _ in 0..n {
                        values.push(self.0.decode(input, Nesting::Nested)?);
                    }
                }
                n => {
                    return Err(Error::new(
                        ErrorKind::InvalidData,
                        "TB0112",
                        format!("an iterable's block says {n} values"),
                    ));
                }
            }
        }
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(ITERABLE, [self.0.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

impl<T: Element> Element for Vec<T> {
    fn coder() -> Coder<Self> {
        vec_coder(T::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (ITERABLE, [inner]) => Ok(vec_coder(T::coder_of(inner)?)),
            _ => Err(mismatch("a list", spec)),
        }
    }
}

/// `iterable<value>` held in memory as a list.
pub fn vec_coder<T: 'static>(value: Coder<T>) -> Coder<Vec<T>> {
    Coder::new(VecCodec(value))
}

struct NullableCodec<T>(Coder<T>);

impl<T: 'static> Codec<Option<T>> for NullableCodec<T> {
    fn encode(&self, value: &Option<T>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        match value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                self.0.encode(value, out, Nesting::Nested)?;
            }
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Option<T>> {
        match input.u8()? {
            0 => Ok(None),
            1 => self.0.decode(input, Nesting::Nested).map(Some),
            other => Err(Error::new(
                ErrorKind::InvalidData,
                "TB0113",
                format!("a nullable value begins with 0 or 1, got {other}"),
            )),
        }
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(NULLABLE, [self.0.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

impl<T: Element> Element for Option<T> {
    fn coder() -> Coder<Self> {
        Coder::new(NullableCodec(T::coder()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (NULLABLE, [inner]) => Ok(Coder::new(NullableCodec(T::coder_of(inner)?))),
            _ => Err(mismatch("an optional value", spec)),
        }
    }
}
