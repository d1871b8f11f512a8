//! Images (ours): files to pixels, pixels to the tensors that models take.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{ElementContext, Error, ErrorKind, Output, Result};
use tiebeam_graph::Arity;
use tiebeam_inference::{DType, Tensor};
use tiebeam_io::images::{self, ImageConverter, ImageLimits, ImagePixels, ImageToF32, Layout, Resize};
use tiebeam_io::read::Listing;

use super::fields::one_to_one;
use super::files::source;
use super::inference::TensorColumn;
use super::{Failing, RowStep};
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::{Raised, show, unknown_column};
use crate::plan::{Collection, Made, Maker};

pub const TYPES: &[TransformType] = &[
    TransformType {
        name: "ReadImages",
        about: "decoded image files, as rows with the fields `file` and `image` (ours)",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[Key::required("path", Wants::Text, "a file, or a pattern with * and ?"), ERROR_HANDLING],
        make: read_images,
    },
    TransformType {
        name: "DecodeImage",
        about: "the bytes of image files as images: JPEG, PNG, GIF, BMP, WebP (ours)",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            Key::optional("bytes", Wants::Text, "the field of the file's bytes; `bytes`"),
            Key::optional("to", Wants::Text, "the field of the image; `image`"),
            ERROR_HANDLING,
        ],
        make: decode_image,
    },
    TransformType {
        name: "ImageToTensor",
        about: "images as the tensors that models take: resized, scaled, normalised (ours)",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            Key::required("size", Wants::List, "[height, width]"),
            Key::optional("image", Wants::Text, "the field of the image; `image`"),
            Key::optional("to", Wants::Text, "the field of the tensor; `tensor`"),
            Key::optional("layout", Wants::Text, "NCHW (the default) or NHWC"),
            Key::optional(
                "resize",
                Wants::Any,
                "stretch, crop, or a number: the shorter side before the middle is cut out",
            ),
            Key::optional("scale", Wants::Number, "what each byte is multiplied with; 1/255"),
            Key::optional("mean", Wants::Any, "what is subtracted then: a number, or one for each channel"),
            Key::optional("std", Wants::Any, "what it is divided by last"),
            ERROR_HANDLING,
        ],
        make: image_to_tensor,
    },
];

/// The schema of an image in a row.
fn image_schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("height", FieldType::required(TypeKind::Int32)),
        ("width", FieldType::required(TypeKind::Int32)),
        ("rgb", FieldType::required(TypeKind::Bytes)),
    ]))
}

fn image_value(image: &ImagePixels, schema: &Arc<Schema>) -> Value {
    let side = |side: u32| Value::Int32(i32::try_from(side).unwrap_or(i32::MAX));
    let values = vec![side(image.height()), side(image.width()), Value::Bytes(image.rgb().clone())];
    Value::Row(Row::new(schema.clone(), values))
}

fn image_of(value: &Value) -> Result<ImagePixels> {
    let missing = || Error::new(ErrorKind::InvalidData, "TB0226", "there is no image");
    let Value::Row(row) = value else { return Err(missing()) };
    match &*row.values {
        [Value::Int32(height), Value::Int32(width), Value::Bytes(rgb)] => {
            let side = |side: &i32| u32::try_from(*side).unwrap_or(0);
            ImagePixels::new(side(height), side(width), rgb.clone())
        }
        _ => Err(missing()),
    }
}

fn read_images(maker: &mut Maker<'_>) -> Option<Made> {
    let path = maker.text("path")?;
    if let Err(error) = Listing::default().ranges(&path) {
        let span = maker.span("path");
        maker.refuse(&error, span);
    }
    let image = image_schema();
    let schema = Arc::new(Schema::of([
        ("file", FieldType::required(TypeKind::String)),
        ("image", FieldType::required(TypeKind::Row(image.clone()))),
    ]));
    let rows = schema.clone();
    Some(source(maker, images::read(path), schema, move |images| {
        let schema = rows.clone();
        let to_row = move |(file, pixels): (String, ImagePixels)| {
            Row::new(schema.clone(), vec![Value::String(file.into()), image_value(&pixels, &image)])
        };
        images.step("ToRows").map(to_row).with_coder(row_coder(rows))
    }))
}

/// The input's fields with the result: as a new one, or in the place of what it was made of, where `to` is its name. Gives that
/// place, too.
fn with_result(
    maker: &mut Maker<'_>,
    input: &Collection,
    made_of: usize,
    to: Arc<str>,
    field_type: FieldType,
) -> Option<(Arc<Schema>, Option<usize>)> {
    let mut fields: Vec<(Arc<str>, FieldType)> =
        input.schema.fields.iter().map(|field| (field.name.clone(), field.field_type.clone())).collect();
    let place = match fields.iter().position(|(name, _)| *name == to) {
        Some(place) if place == made_of => {
            fields[place].1 = field_type;
            Some(place)
        }
        Some(_) => {
            let message = format!("the input has a field `{to}` already");
            let problem = Diagnostic::new("TB0209", maker.span("to"), message);
            maker.problem(problem.help("give the result another name: `to`"));
            return None;
        }
        None => {
            fields.push((to, field_type));
            None
        }
    };
    Some((Arc::new(Schema::of(fields)), place))
}

fn decode_image(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let field = maker.text("bytes").unwrap_or_else(|| "bytes".into());
    let Some(index) = input.schema.index_of(&field) else {
        let span = maker.span("bytes");
        maker.problem(unknown_column(&field, span, &input.schema, Some(&input.producer)));
        return None;
    };
    let seen = &input.schema.fields[index].field_type;
    if seen.kind != TypeKind::Bytes {
        let message = format!("`{field}` is {}, wanted the bytes of an image file", show(seen));
        maker.problem(Diagnostic::new("TB0205", maker.span("bytes"), message));
        return None;
    }
    let to = maker.text("to").unwrap_or_else(|| "image".into());
    let image = image_schema();
    let (schema, place) =
        with_result(maker, &input, index, to, FieldType::required(TypeKind::Row(image.clone())))?;
    let step = DecodeStep { index, place, image, schema: schema.clone() };
    Some(one_to_one(maker, &input, schema, Arity::OneToOne, step))
}

#[derive(Clone)]
struct DecodeStep {
    /// The column of the bytes.
    index: usize,
    /// The column that the image takes the place of; none where it is a new one.
    place: Option<usize>,
    image: Arc<Schema>,
    schema: Arc<Schema>,
}

impl RowStep for DecodeStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        let decoded = match row.values.get(self.index) {
            Some(Value::Bytes(bytes)) => images::decode(bytes, &ImageLimits::default()),
            _ => Err(Error::new(ErrorKind::InvalidData, "TB0226", "there are no bytes")),
        };
        match decoded {
            Ok(image) => {
                let image = image_value(&image, &self.image);
                out.emit(replaced(&row, &self.schema, self.place, image));
                Ok(())
            }
            Err(error) => Err((row, Failing::plain(&Raised::new("ValueError", error.message())))),
        }
    }
}

/// The row with one more value, or another one in that place.
fn replaced(row: &Row, schema: &Arc<Schema>, place: Option<usize>, value: Value) -> Row {
    let mut values = row.values.to_vec();
    match place {
        Some(place) => values[place] = value,
        None => values.push(value),
    }
    Row::new(schema.clone(), values)
}

fn image_to_tensor(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let field = maker.text("image").unwrap_or_else(|| "image".into());
    let Some(index) = input.schema.index_of(&field) else {
        let span = maker.span("image");
        maker.problem(unknown_column(&field, span, &input.schema, Some(&input.producer)));
        return None;
    };
    let seen = &input.schema.fields[index].field_type;
    if seen.kind != TypeKind::Row(image_schema()) {
        let problem =
            Diagnostic::new("TB0205", maker.span("image"), format!("`{field}` is {}, no image", show(seen)));
        maker.problem(problem.help("images come from `ReadImages` or `DecodeImage`"));
        return None;
    }
    let config = config(maker)?;
    let shape = match ImageConverter::new(config) {
        Ok(converter) => converter.shape().to_vec(),
        Err(error) => {
            let span = maker.span("size");
            maker.refuse(&error, span);
            return None;
        }
    };
    let to = maker.text("to").unwrap_or_else(|| "tensor".into());
    let (schema, place) = with_result(maker, &input, index, to, Tensor::field_type())?;
    let step = ConvertStep { config, index, place, schema: schema.clone(), converter: None };
    let column = place.unwrap_or(input.schema.fields.len());
    let mut made = one_to_one(maker, &input, schema, Arity::OneToOne, step);
    let build = made.build;
    made.build = Box::new(move |pipeline, inputs| {
        let mut outputs = build(pipeline, inputs);
        if let Some(tensors) = outputs.first_mut() {
            let column = TensorColumn { column, dtype: DType::F32, shape };
            *tensors = tensors.clone().with_note(column);
        }
        outputs
    });
    Some(made)
}

fn number(node: &Node) -> Option<f32> {
    match node.content {
        Content::Int(value) => Some(value as f32),
        Content::Float(value) => Some(value as f32),
        _ => None,
    }
}

/// A number for each channel, or one for all.
fn channels(maker: &mut Maker<'_>, key: &str, default: f32) -> Option<[f32; 3]> {
    let Some(node) = maker.get(key).cloned() else { return Some([default; 3]) };
    let numbers = match node.as_list() {
        Some(items) => items.iter().map(number).collect::<Option<Vec<f32>>>(),
        None => number(&node).map(|one| vec![one; 3]),
    };
    let found = numbers.and_then(|numbers| <[f32; 3]>::try_from(numbers).ok());
    if found.is_none() {
        let message = format!("`{key}` wants a number, or a list of three: red, green, blue");
        maker.problem(Diagnostic::new("TB0208", node.span, message));
    }
    found
}

fn config(maker: &mut Maker<'_>) -> Option<ImageToF32> {
    let size = maker.get("size")?.clone();
    let side = |node: &Node| match node.content {
        Content::Int(side) => u32::try_from(side).ok(),
        _ => None,
    };
    let sides: Option<Vec<u32>> = size.as_list()?.iter().map(side).collect();
    let Some(&[height, width]) = sides.as_deref() else {
        maker.problem(Diagnostic::new("TB0208", size.span, "`size` wants [height, width]"));
        return None;
    };
    let mut config = ImageToF32::of_size(height, width);
    config.layout = match maker.text("layout").as_deref() {
        None | Some("NCHW") => Layout::Nchw,
        Some("NHWC") => Layout::Nhwc,
        Some(other) => {
            let problem =
                Diagnostic::new("TB0208", maker.span("layout"), format!("unknown layout `{other}`"));
            maker.problem(problem.note("layouts: NCHW, NHWC"));
            return None;
        }
    };
    config.resize = match maker.get("resize").map(|node| (node.span, &node.content)) {
        None => Resize::Stretch,
        Some((_, Content::Int(side))) if u32::try_from(*side).is_ok() => {
            Resize::ShorterSide(u32::try_from(*side).unwrap_or(0))
        }
        Some((_, Content::String(text))) if &**text == "stretch" => Resize::Stretch,
        Some((_, Content::String(text))) if &**text == "crop" => Resize::Crop,
        Some((span, _)) => {
            maker.problem(Diagnostic::new(
                "TB0208",
                span,
                "`resize` wants stretch, crop or a number of pixels",
            ));
            return None;
        }
    };
    if let Some(scale) = maker.get("scale").and_then(number) {
        config.scale = scale;
    }
    config.mean = channels(maker, "mean", 0.0)?;
    config.std = channels(maker, "std", 1.0)?;
    Some(config)
}

struct ConvertStep {
    config: ImageToF32,
    /// The image's column.
    index: usize,
    /// The column that the tensor takes the place of; none where it is a new one.
    place: Option<usize>,
    schema: Arc<Schema>,
    /// Made for each thread when its first image comes.
    converter: Option<ImageConverter>,
}

impl Clone for ConvertStep {
    fn clone(&self) -> Self {
        ConvertStep { schema: self.schema.clone(), converter: None, ..*self }
    }
}

impl ConvertStep {
    fn tensor(&mut self, value: &Value) -> Result<Value> {
        let image = image_of(value)?;
        let converter = match &mut self.converter {
            Some(converter) => converter,
            None => self.converter.insert(ImageConverter::new(self.config)?),
        };
        let numbers = converter.convert(&image)?;
        Ok(Tensor::new(&converter.shape(), numbers)?.to_row_value())
    }
}

impl RowStep for ConvertStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        let value = row.values.get(self.index).cloned().unwrap_or(Value::Null);
        let tensor = match self.tensor(&value) {
            Ok(tensor) => tensor,
            Err(error) => return Err((row, Failing::plain(&Raised::new("ValueError", error.message())))),
        };
        out.emit(replaced(&row, &self.schema, self.place, tensor));
        Ok(())
    }
}
