//! Where images meet models: pixels to the tensors that models take.

use std::marker::PhantomData;

use tiebeam_core::{DoFn, Element, ElementContext, Output, Result};
use tiebeam_graph::{Arity, PCollection, PTransform, ParDo};
use tiebeam_inference::{DType, Dim, Feeds, Tensor};
use tiebeam_io::images::{ImageConverter, ImagePixels, ImageToF32};

/// Turns images into tensors: `(K, ImagePixels)` to `(K, Tensor)`, a float32 tensor of three axes in the order of the
/// configuration, without a batch axis. One for one, order within a bundle kept; the key is left alone.
///
/// ```
/// use tiebeam::ImageToTensor;
/// use tiebeam::io::images::{self, ImageToF32};
/// use tiebeam::prelude::*;
///
/// let config = ImageToF32 { mean: [0.5; 3], std: [0.5; 3], ..ImageToF32::of_size(224, 224) };
/// let p = Pipeline::new();
/// let photos = p.apply(images::read("photos/*.jpg").with_error_handling()).records;
/// let tensors = photos.apply(ImageToTensor::new(config)?);
/// # Ok::<(), tiebeam::Error>(())
/// ```
///
/// # Errors
/// An image that is too small to be cut without being resized fails its bundle.
pub struct ImageToTensor<K> {
    config: ImageToF32,
    /// Made by the thread that needs it.
    converter: Option<ImageConverter>,
    key: PhantomData<fn(K)>,
}

impl<K: Element> ImageToTensor<K> {
    /// By that configuration.
    ///
    /// # Errors
    /// `InvalidArgument` as [`ImageConverter::new`].
    pub fn new(config: ImageToF32) -> Result<Self> {
        ImageConverter::new(config)?;
        Ok(ImageToTensor { config, converter: None, key: PhantomData })
    }

    /// What its tensors are.
    fn feeds(&self) -> Result<Feeds> {
        let shape = ImageConverter::new(self.config)?.shape();
        Ok(Feeds::one(DType::F32, shape.into_iter().map(Dim::Fixed)).from("ImageToTensor"))
    }
}

impl<K> Clone for ImageToTensor<K> {
    fn clone(&self) -> Self {
        ImageToTensor { config: self.config, converter: None, key: PhantomData }
    }
}

/// Applied as a transform, it also says what its tensors are, so that a model that takes others is refused before an image is
/// read.
impl<K: Element> PTransform<PCollection<(K, ImagePixels)>> for ImageToTensor<K> {
    type Output = PCollection<(K, Tensor)>;

    #[track_caller]
    fn expand(self, images: PCollection<(K, ImagePixels)>) -> PCollection<(K, Tensor)> {
        let feeds = self.feeds();
        let tensors = ParDo::new(self).with_arity(Arity::OneToOne).expand(images);
        match feeds {
            Ok(feeds) => tensors.with_note(feeds),
            Err(error) => {
                tensors.pipeline().fail(error);
                tensors
            }
        }
    }
}

impl<K: Element> DoFn for ImageToTensor<K> {
    type In = (K, ImagePixels);
    type Out = (K, Tensor);

    fn process(
        &mut self,
        (key, image): Self::In,
        _: &ElementContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        let converter = match &mut self.converter {
            Some(converter) => converter,
            None => self.converter.insert(ImageConverter::new(self.config)?),
        };
        let numbers = converter.convert(&image)?;
        out.emit((key, Tensor::new(&converter.shape(), numbers)?));
        Ok(())
    }
}

#[cfg(all(test, feature = "onnx"))]
mod tests {
    use tiebeam_core::ErrorKind;
    use tiebeam_graph::{Create, Pipeline};
    use tiebeam_inference::{ModelHandler, RunInference};
    use tiebeam_onnx::OnnxModelHandler;

    use super::*;

    #[test]
    fn a_model_that_takes_other_tensors_is_refused_before_an_image_is_read() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models/five.onnx");
        let p = Pipeline::new();
        let image = ImagePixels::new(1, 1, vec![0u8, 0, 0]).unwrap();
        let images = p.apply(Create::of([("a".to_owned(), image)]));
        let tensors = images.apply(ImageToTensor::new(ImageToF32::of_size(8, 9)).unwrap());
        tensors.apply(RunInference::new(OnnxModelHandler::new(model).carrying::<String>()));
        let error = p.build().unwrap().run_checks().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPipeline);
        let said =
            "ImageToTensor feeds OnnxModelHandler float32[3, 8, 9] for the input `x`, which wants the shape";
        assert!(error.message().starts_with(said), "{error}");
    }
}
