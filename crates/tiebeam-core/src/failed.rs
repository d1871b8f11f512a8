//! [`Failed`]: an element that a step could not do, with the reason.

use std::sync::Arc;

use crate::coder::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, write_varint,
};
use crate::element::{Element, kv_coder};
use crate::error::{Error, Result, SourcePlace};

/// One element in the dead letters.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed<T> {
    /// The element as it went into the step.
    pub element: T,
    /// Why it failed.
    pub failure: Failure,
}

/// An error as a record: what dead letters keep of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// The step or stage that failed.
    pub stage: String,
    /// The stable code.
    pub code: String,
    /// The error's kind, as its Rust name.
    pub kind: String,
    /// The message.
    pub message: String,
    /// The messages of the errors underneath, outermost first.
    pub causes: Vec<String>,
    /// Where the element stood in its source.
    pub source: Option<SourcePlace>,
    /// How often it was tried.
    pub attempts: u32,
}

impl Failure {
    /// The record of `error` in `stage`.
    pub fn of(stage: &str, error: &Error) -> Self {
        Failure {
            stage: error.step().unwrap_or(stage).to_owned(),
            code: error.code().to_owned(),
            kind: format!("{:?}", error.kind()),
            message: error.message().to_owned(),
            causes: error.causes(),
            source: error.place().cloned(),
            attempts: 1,
        }
    }
}

struct FailureCodec;

impl Codec<Failure> for FailureCodec {
    fn encode(&self, value: &Failure, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        let text = String::coder();
        for field in [&value.stage, &value.code, &value.kind, &value.message] {
            text.encode(field, out, Nesting::Nested)?;
        }
        Vec::<String>::coder().encode(&value.causes, out, Nesting::Nested)?;
        let place = value.source.as_ref();
        Option::<String>::coder().encode(&place.map(|p| p.file.clone()), out, Nesting::Nested)?;
        Option::<u64>::coder().encode(&place.and_then(|p| p.line), out, Nesting::Nested)?;
        Option::<u64>::coder().encode(&place.and_then(|p| p.offset), out, Nesting::Nested)?;
        write_varint(i64::from(value.attempts), out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Failure> {
        let text = String::coder();
        let stage = text.decode(input, Nesting::Nested)?;
        let code = text.decode(input, Nesting::Nested)?;
        let kind = text.decode(input, Nesting::Nested)?;
        let message = text.decode(input, Nesting::Nested)?;
        let causes = Vec::<String>::coder().decode(input, Nesting::Nested)?;
        let file = Option::<String>::coder().decode(input, Nesting::Nested)?;
        let line = Option::<u64>::coder().decode(input, Nesting::Nested)?;
        let offset = Option::<u64>::coder().decode(input, Nesting::Nested)?;
        let attempts = u32::coder().decode(input, Nesting::Nested)?;
        let source = file.map(|file| SourcePlace { file, line, offset });
        Ok(Failure { stage, code, kind, message, causes, source, attempts })
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf("tiebeam:coder:failure:v1")
    }
}

impl Element for Failure {
    fn coder() -> Coder<Self> {
        length_prefixed(Coder::new(FailureCodec))
    }
}

/// A [`Failed`] travels as its element and its failure: `kv<element, failure>`.
struct FailedCodec<T>(Coder<(Arc<T>, Failure)>);

struct SharedCodec<T>(Coder<T>);

impl<T: Element> Codec<Arc<T>> for SharedCodec<T> {
    fn encode(&self, value: &Arc<T>, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(value, out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Arc<T>> {
        self.0.decode(input, nesting).map(Arc::new)
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl<T: Element> Codec<Failed<T>> for FailedCodec<T> {
    fn encode(&self, value: &Failed<T>, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&(Arc::new(value.element.clone()), value.failure.clone()), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Failed<T>> {
        let (element, failure) = self.0.decode(input, nesting)?;
        Ok(Failed { element: Arc::unwrap_or_clone(element), failure })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

impl<T: Element> Element for Failed<T> {
    fn coder() -> Coder<Self> {
        failed_coder(T::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            ("beam:coder:kv:v1", [element, failure]) => Ok(Coder::new(FailedCodec(kv_coder(
                Coder::new(SharedCodec(T::coder_of(element)?)),
                Failure::coder_of(failure)?,
            )))),
            _ => Err(mismatch("a failed element", spec)),
        }
    }
}

/// The coder of failed elements whose own coder is not their type's.
pub fn failed_coder<T: Element>(element: Coder<T>) -> Coder<Failed<T>> {
    Coder::new(FailedCodec(kv_coder(Coder::new(SharedCodec(element)), Failure::coder())))
}
