//! [`PredictionResult`]: an example with what a model said of it, and how it travels; [`Predictions`]: what it says of a batch.

use std::sync::Arc;

use tiebeam_core::Element;
use tiebeam_core::coder::schema_proto::{decode_schema, encode_schema};
use tiebeam_core::coder::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, urn, write_varint,
};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::{FieldType, Schema, TypeKind};

/// One example with what a model said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionResult<E, P> {
    /// What went in.
    pub example: E,
    /// What came out.
    pub inference: P,
    /// Which model computed it, told by the model object itself.
    pub model_id: Arc<str>,
}

/// What a model says of a batch.
#[derive(Debug)]
pub enum Predictions<P> {
    /// A prediction for every example, in order.
    All(Vec<P>),
    /// For every example, in order, a prediction or why there is none: where a handler knows which examples are to blame,
    /// so that their batch-mates need not be asked again.
    Each(Vec<Result<P>>),
    /// The same, where each prediction may tell of itself which model it is of: a service behind HTTP says so.
    Told(Vec<Result<Answered<P>>>),
}

/// One inference with the model that computed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered<P> {
    /// What the model said.
    pub inference: P,
    /// The model, where the answer named it; none where it is the one that was loaded.
    pub model_id: Option<Arc<str>>,
}

impl<P> From<P> for Answered<P> {
    fn from(inference: P) -> Self {
        Answered { inference, model_id: None }
    }
}

impl<P> Predictions<P> {
    /// The number of examples that are answered.
    pub fn len(&self) -> usize {
        match self {
            Predictions::All(all) => all.len(),
            Predictions::Each(each) => each.len(),
            Predictions::Told(told) => told.len(),
        }
    }

    /// One for each example, whatever is known of it.
    pub fn into_each(self) -> Vec<Result<Answered<P>>> {
        match self {
            Predictions::All(all) => all.into_iter().map(|one| Ok(one.into())).collect(),
            Predictions::Each(each) => each.into_iter().map(|one| one.map(Answered::from)).collect(),
            Predictions::Told(told) => told,
        }
    }

    /// All of them, as [`ModelHandler::run_inference`](crate::ModelHandler::run_inference) gives them.
    ///
    /// # Errors
    /// Why there is none for the first example that has none.
    pub fn into_all(self) -> Result<Vec<P>> {
        match self {
            Predictions::All(all) => Ok(all),
            Predictions::Each(each) => each.into_iter().collect(),
            Predictions::Told(told) => told.into_iter().map(|one| one.map(|one| one.inference)).collect(),
        }
    }

    /// Whether nothing is answered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Ours: an example, an inference, a model id, where one of the first two is no type of Beam's schemas.
const PREDICTION: &str = "tiebeam:coder:prediction_result:v1";

/// The type of a field whose values a row writes just as that coder does.
fn field_type(spec: &CoderSpec) -> Option<FieldType> {
    Some(FieldType::required(match (spec.urn.as_str(), spec.components.as_slice()) {
        (urn::VARINT, _) => TypeKind::Int64,
        (urn::DOUBLE, _) => TypeKind::Double,
        (urn::BOOL, _) => TypeKind::Boolean,
        (urn::STRING_UTF8, _) => TypeKind::String,
        (urn::BYTES, _) => TypeKind::Bytes,
        (urn::ROW, _) => TypeKind::Row(Arc::new(decode_schema(spec.payload.clone()).ok()?)),
        _ => return None,
    }))
}

/// The coder of a field's values: the way back from [`field_type`].
fn spec_of(field: &FieldType) -> Option<CoderSpec> {
    Some(match &field.kind {
        _ if field.nullable => return None,
        TypeKind::Int64 => CoderSpec::leaf(urn::VARINT),
        TypeKind::Double => CoderSpec::leaf(urn::DOUBLE),
        TypeKind::Boolean => CoderSpec::leaf(urn::BOOL),
        TypeKind::String => CoderSpec::leaf(urn::STRING_UTF8),
        TypeKind::Bytes => CoderSpec::leaf(urn::BYTES),
        TypeKind::Row(schema) => CoderSpec { payload: encode_schema(schema), ..CoderSpec::leaf(urn::ROW) },
        _ => return None,
    })
}

/// The coder of a field's values: their type's own where that writes such a field.
fn field_coder<T: Element>(field: &FieldType) -> Option<Result<Coder<T>>> {
    let own = T::coder();
    if field_type(&own.spec()).as_ref() == Some(field) {
        return Some(Ok(own));
    }
    spec_of(field).map(|spec| T::coder_of(&spec))
}

/// A row of three where both parts are types of Beam's schemas, so that every SDK can read it; else a form of our own.
struct PredictionCodec<E, P> {
    example: Coder<E>,
    inference: Coder<P>,
    schema: Option<Vec<u8>>,
}

/// Text with its length in front.
pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    write_varint(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Text as [`put_text`] writes it.
pub(crate) fn take_text(input: &mut Reader) -> Result<Arc<str>> {
    let n = input.length()?;
    let bytes = input.take(n)?;
    let text = std::str::from_utf8(&bytes);
    text.map(Arc::from)
        .map_err(|e| Error::new(ErrorKind::InvalidData, "TB0328", format!("a model id is not UTF-8: {e}")))
}

impl<E: 'static, P: 'static> Codec<PredictionResult<E, P>> for PredictionCodec<E, P> {
    fn encode(&self, value: &PredictionResult<E, P>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        if self.schema.is_some() {
            // Three fields, none of them absent.
            out.extend_from_slice(&[3, 0]);
        }
        self.example.encode(&value.example, out, Nesting::Nested)?;
        self.inference.encode(&value.inference, out, Nesting::Nested)?;
        put_text(&value.model_id, out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<PredictionResult<E, P>> {
        if self.schema.is_some() {
            let fields = input.varint()?;
            let nulls = input.length()?;
            let is_absent = input.take(nulls)?.iter().any(|bits| *bits != 0);
            if fields != 3 || is_absent {
                let message = format!("a prediction is a row of 3 fields that are all there, got {fields}");
                return Err(Error::new(ErrorKind::InvalidData, "TB0328", message));
            }
        }
        Ok(PredictionResult {
            example: self.example.decode(input, Nesting::Nested)?,
            inference: self.inference.decode(input, Nesting::Nested)?,
            model_id: take_text(input)?,
        })
    }

    fn spec(&self) -> CoderSpec {
        match &self.schema {
            Some(schema) => CoderSpec { payload: schema.clone(), ..CoderSpec::leaf(urn::ROW) },
            None => CoderSpec::of(PREDICTION, [self.example.spec(), self.inference.spec()]),
        }
    }

    fn is_deterministic(&self) -> bool {
        self.example.is_deterministic() && self.inference.is_deterministic()
    }
}

/// The coder of predictions whose parts travel by these coders: a Beam row `{example, inference, model_id}` where the
/// parts are types of Beam's schemas.
pub fn prediction_coder<E: Element, P: Element>(
    example: Coder<E>,
    inference: Coder<P>,
) -> Coder<PredictionResult<E, P>> {
    let fields = field_type(&example.spec()).zip(field_type(&inference.spec()));
    let schema = fields.map(|(example, inference)| {
        let model_id = FieldType::required(TypeKind::String);
        encode_schema(&Schema::of([("example", example), ("inference", inference), ("model_id", model_id)]))
    });
    let is_row = schema.is_some();
    let coder = Coder::new(PredictionCodec { example, inference, schema });
    // A coder that runners don't know travels as bytes with their length.
    if is_row { coder } else { length_prefixed(coder) }
}

impl<E: Element, P: Element> Element for PredictionResult<E, P> {
    fn coder() -> Coder<Self> {
        prediction_coder(E::coder(), P::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        let wrong = || mismatch("a prediction", spec);
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (PREDICTION, [example, inference]) => Ok(Coder::new(PredictionCodec {
                example: E::coder_of(example)?,
                inference: P::coder_of(inference)?,
                schema: None,
            })),
            (urn::ROW, _) => {
                let schema = decode_schema(spec.payload.clone())?;
                let [example, inference, _] = schema.fields.as_slice() else { return Err(wrong()) };
                Ok(Coder::new(PredictionCodec {
                    example: field_coder(&example.field_type).ok_or_else(wrong)??,
                    inference: field_coder(&inference.field_type).ok_or_else(wrong)??,
                    schema: Some(spec.payload.clone()),
                }))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    fn round_trip<E, P>(example: E, inference: P, urn: &str) -> Vec<u8>
    where
        E: Element + PartialEq + std::fmt::Debug,
        P: Element + PartialEq + std::fmt::Debug,
    {
        let value = PredictionResult { example, inference, model_id: "m".into() };
        let coder = PredictionResult::<E, P>::coder();
        assert_eq!(coder.spec().urn, urn);
        let bytes = coder.to_bytes(&value).unwrap();
        assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), value);
        let again = PredictionResult::<E, P>::coder_of(&coder.spec()).unwrap();
        assert_eq!(again.spec(), coder.spec());
        assert_eq!(again.from_bytes(bytes.clone()).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(coder.from_bytes(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        }
        bytes
    }

    #[test]
    fn predictions_of_schema_types_are_beam_rows() {
        let bytes = round_trip(7i64, "yes".to_owned(), urn::ROW);
        assert_eq!(bytes, [3, 0, 7, 3, b'y', b'e', b's', 1, b'm']);
        round_trip(Tensor::scalar(1.5f32), Tensor::vector(vec![1i64, 2]), urn::ROW);
        round_trip(1.5f64, true, urn::ROW);
        let schema = decode_schema(PredictionResult::<i64, f32>::coder().spec().payload).unwrap();
        let names: Vec<_> = schema.fields.iter().map(|field| &*field.name).collect();
        assert_eq!(names, ["example", "inference", "model_id"]);
    }

    #[test]
    fn other_predictions_travel_behind_their_length() {
        round_trip(("k".to_owned(), 1i64), 2i64, LENGTH_PREFIX);
        round_trip(Some(1i64), (), LENGTH_PREFIX);
        round_trip(vec![1.5f64], true, LENGTH_PREFIX);
    }

    #[test]
    fn a_foreign_coder_is_refused() {
        let error = PredictionResult::<i64, i64>::coder_of(&CoderSpec::leaf(urn::VARINT)).unwrap_err();
        assert_eq!(error.code(), "TB0106");
        let spec = PredictionResult::<i64, String>::coder().spec();
        assert_eq!(PredictionResult::<i64, i64>::coder_of(&spec).unwrap_err().code(), "TB0106");
    }
}
