//! Guesses a schema from the first lines of a file.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};
use tiebeam_core::{Error, ErrorKind, FieldType, Result, Schema, SourcePlace, TypeKind};

use super::read::json_error;
use crate::fs;
use crate::ranges::FileRange;
use crate::read::{Listing, lines, too_long};

/// The number of lines that a schema is guessed from.
pub const SAMPLE: usize = 1000;

/// Guesses a schema from the first 1000 lines of the first file (in the order of paths) that matches and is not empty.
///
/// Fields come in the order in which they first appear. Whole numbers that fit are int64, other numbers double; a field
/// that is null or missing in some line is nullable; one that is null in all is a nullable string.
///
/// Reads files: call it before the pipeline is built, and give the schema to [`read`](super::read()).
///
/// # Errors
/// `NotFound` when nothing matches; `InvalidData` when a line of the sample is no object, or a field has values of
/// different types.
pub fn infer_schema(pattern: &str, listing: &Listing) -> Result<Schema> {
    let files = fs::list(pattern, false)?;
    let empty = |path: &str| {
        Error::new(
            ErrorKind::InvalidData,
            "TB0433",
            "there is no line to tell the fields by: the file is empty",
        )
        .at_place(SourcePlace { file: path.to_owned(), ..SourcePlace::default() })
    };
    let file = files.iter().find(|file| file.size > 0).ok_or_else(|| empty(pattern))?;
    let range = FileRange { path: file.path.clone(), size: file.size, start: 0, end: file.size };
    let mut lines = lines(&range, listing, 0)?;
    let mut all: Option<Fields> = None;
    let mut seen = 0;
    while seen < SAMPLE
        && let Some(line) = lines.next()?
    {
        if line.too_long {
            return Err(too_long(&line, &file.path, listing.max_record));
        }
        if line.bytes.trim_ascii().is_empty() {
            continue;
        }
        seen += 1;
        let place = line.place(&file.path);
        let shape: Shape = serde_json::from_slice(line.bytes).map_err(|e| json_error(&e, place.clone()))?;
        let Shape::Object(fields) = shape else {
            let message = format!("a line is {shape}, wanted an object");
            return Err(Error::new(ErrorKind::InvalidData, "TB0431", message)
                .at_place(place)
                .with_help("the file must have one JSON object a line"));
        };
        match &mut all {
            None => all = Some(fields),
            Some(all) => all.merge(fields, "").map_err(|clash| {
                Error::new(ErrorKind::InvalidData, "TB0432", clash)
                    .at_place(place)
                    .with_help("give a schema that says which type the field has")
            })?,
        }
    }
    Ok(all.ok_or_else(|| empty(&file.path))?.schema())
}

/// What a value could be.
#[derive(Debug, Clone)]
enum Shape {
    Null,
    Bool,
    Int,
    Double,
    String,
    Array(Box<Element>),
    Object(Fields),
}

/// What the elements of an array, or the values of a field, could be.
#[derive(Debug, Clone)]
struct Element {
    shape: Shape,
    nullable: bool,
}

#[derive(Debug, Clone, Default)]
struct Fields(Vec<(String, Element)>);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Null => "null",
            Shape::Bool => "a truth value",
            Shape::Int | Shape::Double => "a number",
            Shape::String => "a string",
            Shape::Array(_) => "an array",
            Shape::Object(_) => "an object",
        })
    }
}

impl Element {
    const UNSEEN: Element = Element { shape: Shape::Null, nullable: false };

    fn of(shape: Shape) -> Self {
        Element { nullable: matches!(shape, Shape::Null), shape }
    }

    /// Makes room for another value too; the message when there is none for both.
    fn merge(&mut self, other: Element, path: &str) -> Result<(), String> {
        self.nullable |= other.nullable;
        match (&mut self.shape, other.shape) {
            (_, Shape::Null) => {}
            (this @ Shape::Null, shape) => *this = shape,
            (Shape::Bool, Shape::Bool)
            | (Shape::Int, Shape::Int)
            | (Shape::Double, Shape::Double | Shape::Int)
            | (Shape::String, Shape::String) => {}
            (this @ Shape::Int, Shape::Double) => *this = Shape::Double,
            (Shape::Array(this), Shape::Array(other)) => this.merge(*other, &format!("{path}[]"))?,
            (Shape::Object(this), Shape::Object(other)) => this.merge(other, &format!("{path}."))?,
            (this, shape) => return Err(format!("field `{path}` is {shape}, but {this} in a line before")),
        }
        Ok(())
    }

    fn field_type(self) -> FieldType {
        let kind = match self.shape {
            Shape::Null => return FieldType::nullable(TypeKind::String),
            Shape::Bool => TypeKind::Boolean,
            Shape::Int => TypeKind::Int64,
            Shape::Double => TypeKind::Double,
            Shape::String => TypeKind::String,
            Shape::Array(element) => TypeKind::Array(Box::new(element.field_type())),
            Shape::Object(fields) => TypeKind::Row(Arc::new(fields.schema())),
        };
        FieldType { kind, nullable: self.nullable }
    }
}

impl Fields {
    fn merge(&mut self, other: Fields, prefix: &str) -> Result<(), String> {
        let places: HashMap<String, usize> =
            other.0.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        let mut other: Vec<Option<(String, Element)>> = other.0.into_iter().map(Some).collect();
        for (name, element) in &mut self.0 {
            match places.get(name).and_then(|at| other[*at].take()) {
                Some((_, more)) => element.merge(more, &format!("{prefix}{name}"))?,
                None => element.nullable = true,
            }
        }
        self.0.extend(
            other.into_iter().flatten().map(|(name, element)| (name, Element { nullable: true, ..element })),
        );
        Ok(())
    }

    fn schema(self) -> Schema {
        Schema::of(self.0.into_iter().map(|(name, element)| (name, element.field_type())))
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: de::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Int)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
        Ok(if i64::try_from(value).is_ok() { Shape::Int } else { Shape::Double })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Double)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Shape, A::Error> {
        let mut all = Element::UNSEEN;
        while let Some(shape) = array.next_element::<Shape>()? {
            all.merge(Element::of(shape), "[]").map_err(de::Error::custom)?;
        }
        Ok(Shape::Array(Box::new(all)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Shape, A::Error> {
        let mut fields = Fields::default();
        let mut at = HashMap::<String, usize>::new();
        while let Some((name, shape)) = object.next_entry::<String, Shape>()? {
            let element = Element::of(shape);
            match at.get(&name) {
                // As when reading: the last one counts.
                Some(i) => fields.0[*i].1 = element,
                None => {
                    at.insert(name.clone(), fields.0.len());
                    fields.0.push((name, element));
                }
            }
        }
        Ok(Shape::Object(fields))
    }
}
