//! Newer versions of a model, while it runs: [`ModelMetadata`] names one, [`Rollout`] says how it takes over.

use tiebeam_core::Element;
use tiebeam_core::coder::schema_proto::encode_schema;
use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader, urn};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::{FieldType, Schema, TypeKind};

use crate::prediction::{put_text, take_text};

/// A version of a model: what the side input of updates holds, Beam's `ModelMetadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ModelMetadata {
    /// Where the model is, in the handler's own terms: a path or an address. Empty: the model stays as it is.
    pub model_id: String,
    /// What the version's own metrics begin with; empty for none.
    pub model_name: String,
}

impl ModelMetadata {
    /// The version in that file; its name is the file's, without the extension.
    pub fn of(model_id: impl Into<String>) -> Self {
        let model_id = model_id.into();
        let file = model_id.rsplit('/').next().unwrap_or_default();
        let model_name = file.rsplit_once('.').map_or(file, |(name, _)| name).to_owned();
        ModelMetadata { model_id, model_name }
    }
}

/// A handler has no such version, nor any.
pub fn no_versions(handler: &str, version: &ModelMetadata) -> Error {
    let message = format!("{handler} has no versions, so {} can't take its model's place", version.model_id);
    Error::new(ErrorKind::Unsupported, "TB0355", message)
}

/// A row of two strings, as in Beam.
struct MetadataCodec;

impl Codec<ModelMetadata> for MetadataCodec {
    fn encode(&self, value: &ModelMetadata, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        out.extend_from_slice(&[2, 0]);
        put_text(&value.model_id, out);
        put_text(&value.model_name, out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<ModelMetadata> {
        let fields = input.varint()?;
        let nulls = input.length()?;
        if fields != 2 || input.take(nulls)?.iter().any(|bits| *bits != 0) {
            let message = format!("a model's metadata is a row of 2 strings, got {fields} fields");
            return Err(Error::new(ErrorKind::InvalidData, "TB0352", message));
        }
        let (model_id, model_name) = (take_text(input)?.to_string(), take_text(input)?.to_string());
        Ok(ModelMetadata { model_id, model_name })
    }

    fn spec(&self) -> CoderSpec {
        let text = FieldType::required(TypeKind::String);
        let schema = Schema::of([("model_id", text.clone()), ("model_name", text)]);
        CoderSpec { payload: encode_schema(&schema), ..CoderSpec::leaf(urn::ROW) }
    }
}

impl Element for ModelMetadata {
    fn coder() -> Coder<Self> {
        Coder::new(MetadataCodec)
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        let own = Self::coder();
        if *spec == own.spec() {
            return Ok(own);
        }
        Err(tiebeam_core::coder::mismatch("a model's metadata", spec))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Swap,
    Canary,
    Shadow,
}

/// How a newer version of a model takes over. In each way it was loaded and tried on one example before, beside the model
/// in use, which stays if that fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollout {
    how: How,
    share: f64,
    promote_after: Option<u64>,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout::swap()
    }
}

impl Rollout {
    /// At once: from the next batch on everything is computed by the new version.
    pub fn swap() -> Self {
        Rollout { how: How::Swap, share: 1.0, promote_after: None }
    }

    /// The new version computes a `share` of the elements, from 0 to 1, whole batches at a time. A batch that fails on it is
    /// computed by the old one, and if that can, the new version is withdrawn and counted as a failed swap.
    pub fn canary(share: f64) -> Self {
        Rollout { how: How::Canary, share, promote_after: None }
    }

    /// The new version computes a `share` of the elements beside the old one, whole batches at a time. Only what the old one
    /// says goes on; where they differ is counted (`shadow_differences` of `shadow_inferences`).
    pub fn shadow(share: f64) -> Self {
        Rollout { how: How::Shadow, share, promote_after: None }
    }

    /// The new version takes over when it has computed so many elements without a failure. Without it, it stays on trial
    /// until the next version comes.
    #[must_use]
    pub fn promote_after(mut self, elements: u64) -> Self {
        self.promote_after = Some(elements);
        self
    }

    pub(crate) fn is_trial(&self) -> bool {
        self.how != How::Swap
    }

    pub(crate) fn is_shadow(&self) -> bool {
        self.how == How::Shadow
    }

    pub(crate) fn share(&self) -> f64 {
        self.share
    }

    pub(crate) fn enough(&self) -> Option<u64> {
        self.promote_after
    }

    pub(crate) fn validated(self) -> Result<Self> {
        if self.share > 0.0 && self.share <= 1.0 {
            return Ok(self);
        }
        let message =
            format!("the share of a canary or shadow ({}) must be above 0 and at most 1", self.share);
        Err(Error::new(ErrorKind::InvalidArgument, "TB0353", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_travels_as_beams_row() {
        let metadata = ModelMetadata::of("models/v2/five.onnx");
        assert_eq!((&*metadata.model_id, &*metadata.model_name), ("models/v2/five.onnx", "five"));
        let coder = ModelMetadata::coder();
        let bytes = coder.to_bytes(&metadata).unwrap();
        assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), metadata);
        assert_eq!(
            ModelMetadata::coder_of(&coder.spec()).unwrap().from_bytes(bytes.clone()).unwrap(),
            metadata
        );
        for cut in 0..bytes.len() {
            assert!(coder.from_bytes(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        }
    }
}
