//! Where images meet models: pixels to the tensors that models take.

use std::marker::PhantomData;

use tiebeam_core::{DoFn, Element, ElementContext, Output, Result};
use tiebeam_inference::Tensor;
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
/// let tensors = photos.par_do(ImageToTensor::new(config)?);
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
}

impl<K> Clone for ImageToTensor<K> {
    fn clone(&self) -> Self {
        ImageToTensor { config: self.config, converter: None, key: PhantomData }
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
