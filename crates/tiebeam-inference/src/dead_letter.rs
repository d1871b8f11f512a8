//! [`FailedInference`]: one element that a model, or a step before or after it, could not do.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::coder::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, nullable_coder, urn,
    write_varint,
};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::{Element, Failed, Failure, Timestamp};

use crate::prediction::{put_text, take_text};

/// Where an element failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// In a preprocess step.
    Preprocess,
    /// In the model, or in the check before it.
    Inference,
    /// In a postprocess step.
    Postprocess,
}

impl Stage {
    /// `preprocess`, `inference` or `postprocess`.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Preprocess => "preprocess",
            Stage::Inference => "inference",
            Stage::Postprocess => "postprocess",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One element in the dead letters of RunInference.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedInference<I, P> {
    /// The element as it went into RunInference, so that it can be mended and sent again.
    pub element: I,
    /// What is known of its failure.
    pub letter: Letter<P>,
}

/// What a dead letter says beside its element.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter<P> {
    /// What the model said, when only a postprocess step failed: the inference is not lost.
    pub inference: Option<P>,
    /// Where it failed.
    pub stage: Stage,
    /// The model that it was meant for.
    pub model_id: Arc<str>,
    /// The element's event time.
    pub event_time: Timestamp,
    /// The element's windows, as text.
    pub window: String,
    /// The step's label, the error, and how many calls of the model the element was part of.
    pub failure: Failure,
}

impl<I, P> FailedInference<I, P> {
    /// As the record that every step's dead letters share.
    pub fn into_failed(self) -> Failed<I> {
        Failed { element: self.element, failure: self.letter.failure }
    }
}

const LETTER: &str = "tiebeam:coder:failed_inference:v1";

struct LetterCodec<P> {
    inference: Coder<Option<P>>,
    spec: CoderSpec,
}

impl<P: 'static> Codec<Letter<P>> for LetterCodec<P> {
    fn encode(&self, value: &Letter<P>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        self.inference.encode(&value.inference, out, Nesting::Nested)?;
        out.push(value.stage as u8);
        put_text(&value.model_id, out);
        write_varint(value.event_time.micros(), out);
        put_text(&value.window, out);
        Failure::coder().encode(&value.failure, out, Nesting::Nested)
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Letter<P>> {
        let inference = self.inference.decode(input, Nesting::Nested)?;
        let stage = match input.u8()? {
            0 => Stage::Preprocess,
            1 => Stage::Inference,
            2 => Stage::Postprocess,
            other => {
                let message = format!("a failed inference's stage is 0, 1 or 2, got {other}");
                return Err(Error::new(ErrorKind::InvalidData, "TB0329", message));
            }
        };
        Ok(Letter {
            inference,
            stage,
            model_id: take_text(input)?,
            event_time: Timestamp::from_micros(input.varint()?),
            window: take_text(input)?.to_string(),
            failure: Failure::coder().decode(input, Nesting::Nested)?,
        })
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(LETTER, [self.spec.clone()])
    }
}

struct FailedCodec<I, P>(Coder<I>, Coder<Letter<P>>);

impl<I: Element, P: Element> Codec<FailedInference<I, P>> for FailedCodec<I, P> {
    fn encode(&self, value: &FailedInference<I, P>, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&value.element, out, Nesting::Nested)?;
        self.1.encode(&value.letter, out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<FailedInference<I, P>> {
        let element = self.0.decode(input, Nesting::Nested)?;
        Ok(FailedInference { element, letter: self.1.decode(input, nesting)? })
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(urn::KV, [self.0.spec(), self.1.spec()])
    }
}

fn letter_coder<P: Element>(inference: Coder<P>) -> Coder<Letter<P>> {
    let spec = inference.spec();
    Coder::new(LetterCodec { inference: nullable_coder(inference), spec })
}

fn letter_coder_of<P: Element>(spec: &CoderSpec) -> Result<Coder<Letter<P>>> {
    match (spec.urn.as_str(), spec.components.as_slice()) {
        (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(letter_coder_of(inner)?)),
        (LETTER, [inference]) => Ok(letter_coder(P::coder_of(inference)?)),
        _ => Err(mismatch("a failed inference", spec)),
    }
}

/// The coder of dead letters whose element and inference travel by these coders: `kv<element, letter>`.
pub fn failed_inference_coder<I: Element, P: Element>(
    element: Coder<I>,
    inference: Coder<P>,
) -> Coder<FailedInference<I, P>> {
    Coder::new(FailedCodec(element, length_prefixed(letter_coder(inference))))
}

impl<I: Element, P: Element> Element for FailedInference<I, P> {
    fn coder() -> Coder<Self> {
        failed_inference_coder(I::coder(), P::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (urn::KV, [element, letter]) => {
                Ok(Coder::new(FailedCodec(I::coder_of(element)?, letter_coder_of(letter)?)))
            }
            _ => Err(mismatch("a failed inference", spec)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_travel_whole() {
        let error = Error::new(ErrorKind::Inference, "TB0324", "too few").with_source("because");
        let letter = Letter {
            inference: Some(6i64),
            stage: Stage::Postprocess,
            model_id: "model.pth".into(),
            event_time: Timestamp::from_secs(7),
            window: "Global".to_owned(),
            failure: Failure::of("Run/Post", &error),
        };
        let value = FailedInference { element: "x".to_owned(), letter };
        let coder = FailedInference::<String, i64>::coder();
        let bytes = coder.to_bytes(&value).unwrap();
        assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), value);
        let again = FailedInference::<String, i64>::coder_of(&coder.spec()).unwrap();
        assert_eq!(again.from_bytes(bytes.clone()).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(coder.from_bytes(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        }
        assert_eq!(value.into_failed().failure.causes, ["because"]);
    }
}
