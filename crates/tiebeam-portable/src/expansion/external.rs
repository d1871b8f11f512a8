//! Transforms of Python and Java in a pipeline of ours: what names and configures them.
//!
//! ```
//! use tiebeam_graph::{Create, Pipeline};
//! use tiebeam_portable::expansion::external;
//!
//! let p = Pipeline::new();
//! let words = p.apply(Create::of(["a".to_owned(), "b".to_owned(), "a".to_owned()]));
//! let per_element = external::python::<(String, i64)>("apache_beam.transforms.combiners.Count.PerElement");
//! let counted = words.apply(per_element);
//! # assert_eq!(p.len(), 4);
//! ```

use std::sync::Arc;

use tiebeam_core::coder::schema_proto::encode_schema;
use tiebeam_core::coder::{Coder, row_coder};
use tiebeam_core::row::{FieldType, LogicalType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Element, Error, ErrorKind, Result};
use tiebeam_graph::{ExpansionService, ExternalSpec, PCollection, PTransform, apply_external};
use tiebeam_model::pipeline::{
    self, BuilderMethod, ExternalConfigurationPayload, JavaClassLookupPayload, SchemaTransformPayload,
};
use tiebeam_model::{DecodeError, Message};

const PYTHON: &str = "beam:transforms:python:fully_qualified_named";
const JAVA: &str = "beam:expansion:payload:java_class_lookup:v1";
const SCHEMA_TRANSFORM: &str = "beam:expansion:payload:schematransform:v1";
const PYTHON_CALLABLE: &str = "beam:logical_type:python_callable:v1";

/// An argument of a transform: a value and its type in a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    field_type: FieldType,
    value: Value,
}

impl Argument {
    /// A value of that type.
    pub fn new(field_type: FieldType, value: Value) -> Self {
        Argument { field_type, value }
    }
}

macro_rules! arguments {
    ($($of:ty, $kind:expr, $value:expr;)*) => {$(
        impl From<$of> for Argument {
            fn from(value: $of) -> Self {
                Argument { field_type: FieldType::required($kind), value: $value(value) }
            }
        }
    )*};
}

arguments! {
    bool, TypeKind::Boolean, Value::Bool;
    i64, TypeKind::Int64, Value::Int64;
    f64, TypeKind::Double, Value::Double;
    &str, TypeKind::String, |text: &str| Value::String(text.into());
    String, TypeKind::String, |text: String| Value::String(text.into());
}

impl From<Row> for Argument {
    fn from(row: Row) -> Self {
        Argument {
            field_type: FieldType::required(TypeKind::Row(row.schema.clone())),
            value: Value::Row(row),
        }
    }
}

/// A Python function as its source: a lambda, or text whose last statement defines a function or class.
pub fn callable(source: &str) -> Argument {
    let representation = FieldType::required(TypeKind::String);
    let logical =
        LogicalType { urn: PYTHON_CALLABLE.to_owned(), payload: Vec::new(), representation, argument: None };
    Argument {
        field_type: FieldType::required(TypeKind::Logical(Arc::new(logical))),
        value: Value::String(source.into()),
    }
}

/// A transform of another language that makes elements of `O`.
#[derive(Clone)]
pub struct External<O> {
    label: String,
    function: Function,
    service: ExpansionService,
    coder: Coder<O>,
}

#[derive(Clone)]
enum Function {
    Python { constructor: String, args: Vec<Argument>, kwargs: Vec<(String, Argument)> },
    Java { class: String, constructor: String, args: Vec<Argument>, methods: Vec<(String, Vec<Argument>)> },
    Schema { identifier: String, config: Row },
}

/// The Python transform of that full name: a class, or a function that gives a transform.
///
/// It is asked for the coder of `O`, so that its elements come as such; whatever it makes must be that in Python's eyes,
/// too: a `str` for a `String`, a pair for a pair, something with the fields' attributes for a row.
pub fn python<O: Element>(constructor: &str) -> External<O> {
    let function =
        Function::Python { constructor: constructor.to_owned(), args: Vec::new(), kwargs: Vec::new() };
    External::new(constructor, function, ExpansionService::Python)
}

/// The Java transform of that class, known by the expansion service at `host:port`. Its output must have the coder of `O`.
pub fn java<O: Element>(service: &str, class: &str) -> External<O> {
    let function = Function::Java {
        class: class.to_owned(),
        constructor: String::new(),
        args: Vec::new(),
        methods: Vec::new(),
    };
    External::new(class, function, ExpansionService::At(service.to_owned()))
}

/// The SchemaTransform of that identifier, known by the expansion service at `host:port`, with that configuration. Its output
/// must have the coder of `O`.
pub fn schema_transform<O: Element>(service: &str, identifier: &str, config: Row) -> External<O> {
    let function = Function::Schema { identifier: identifier.to_owned(), config };
    External::new(identifier, function, ExpansionService::At(service.to_owned()))
}

impl<O: Element> External<O> {
    fn new(name: &str, function: Function, service: ExpansionService) -> Self {
        let label = name.rsplit(['.', ':']).find(|part| !part.starts_with('v')).unwrap_or(name).to_owned();
        External { label, function, service, coder: O::coder() }
    }

    /// Adds an argument of the constructor.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Argument>) -> Self {
        match &mut self.function {
            Function::Python { args, .. } => args.push(value.into()),
            Function::Java { args, methods, .. } => match methods.last_mut() {
                Some((_, args)) => args.push(value.into()),
                None => args.push(value.into()),
            },
            Function::Schema { config, .. } => {
                let name = format!("arg{}", config.values.len());
                *config = with_field(config, &name, value.into());
            }
        }
        self
    }

    /// Adds an argument by name: of Python's constructor, or of a SchemaTransform's configuration. Java has none; there it is
    /// one more argument.
    #[must_use]
    pub fn kwarg(mut self, name: &str, value: impl Into<Argument>) -> Self {
        match &mut self.function {
            Function::Python { kwargs, .. } => kwargs.push((name.to_owned(), value.into())),
            Function::Schema { config, .. } => *config = with_field(config, name, value.into()),
            Function::Java { .. } => return self.arg(value),
        }
        self
    }

    /// Has the Java transform made by this static method of its class and not by a constructor.
    #[must_use]
    pub fn constructor_method(mut self, name: &str) -> Self {
        if let Function::Java { constructor, .. } = &mut self.function {
            name.clone_into(constructor);
        }
        self
    }

    /// Calls a builder's method of the Java transform; arguments that follow are the method's.
    #[must_use]
    pub fn method(mut self, name: &str) -> Self {
        if let Function::Java { methods, .. } = &mut self.function {
            methods.push((name.to_owned(), Vec::new()));
        }
        self
    }

    /// Asks this service, at `host:port`, and not one that is started.
    #[must_use]
    pub fn with_expansion_service(mut self, address: &str) -> Self {
        self.service = ExpansionService::At(address.to_owned());
        self
    }

    /// The output travels by this coder.
    #[must_use]
    pub fn with_coder(mut self, coder: Coder<O>) -> Self {
        self.coder = coder;
        self
    }
}

fn with_field(row: &Row, name: &str, argument: Argument) -> Row {
    let fields = row.schema.fields.iter().map(|field| (field.name.clone(), field.field_type.clone()));
    let schema = Schema::of(fields.chain([(name.into(), argument.field_type)]));
    let values: Vec<Value> = row.values.iter().cloned().chain([argument.value]).collect();
    Row::new(Arc::new(schema), values)
}

/// Arguments without names, as rows want some.
fn row_of(args: &[Argument], prefix: &str) -> Row {
    let fields = args.iter().enumerate().map(|(i, arg)| (format!("{prefix}{i}"), arg.field_type.clone()));
    let values: Vec<Value> = args.iter().map(|arg| arg.value.clone()).collect();
    Row::new(Arc::new(Schema::of(fields)), values)
}

fn encoded(row: &Row) -> Result<(pipeline::Schema, Vec<u8>)> {
    let schema = pipeline::Schema::decode(encode_schema(&row.schema).as_slice()).map_err(not_a_schema)?;
    Ok((schema, row_coder(row.schema.clone()).to_bytes(row)?))
}

fn not_a_schema(error: DecodeError) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0730", "a schema cannot be written").with_source(error)
}

impl Function {
    fn spec(&self) -> Result<(&'static str, Vec<u8>)> {
        Ok(match self {
            Function::Python { constructor, args, kwargs } => {
                let names = kwargs.iter().map(|(name, argument)| (name.clone(), argument.field_type.clone()));
                let values: Vec<Value> = kwargs.iter().map(|(_, argument)| argument.value.clone()).collect();
                let kwargs = Row::new(Arc::new(Schema::of(names)), values);
                let mut row = Row::new(Arc::new(Schema::default()), Vec::new());
                row = with_field(&row, "constructor", constructor.as_str().into());
                for (name, arguments) in [("args", row_of(args, "arg")), ("kwargs", kwargs)] {
                    if !arguments.values.is_empty() {
                        row = with_field(&row, name, arguments.into());
                    }
                }
                let (schema, payload) = encoded(&row)?;
                let message = ExternalConfigurationPayload { schema: Some(schema), payload: payload.into() };
                (PYTHON, message.encode_to_vec())
            }
            Function::Java { class, constructor, args, methods } => {
                // Java takes fields of these names for arguments by place.
                let (schema, payload) = encoded(&row_of(args, "ignore"))?;
                let builder = |(name, args): &(String, Vec<Argument>)| -> Result<BuilderMethod> {
                    let (schema, payload) = encoded(&row_of(args, "ignore"))?;
                    Ok(BuilderMethod { name: name.clone(), schema: Some(schema), payload: payload.into() })
                };
                let message = JavaClassLookupPayload {
                    class_name: class.clone(),
                    constructor_method: constructor.clone(),
                    constructor_schema: Some(schema),
                    constructor_payload: payload.into(),
                    builder_methods: methods.iter().map(builder).collect::<Result<_>>()?,
                };
                (JAVA, message.encode_to_vec())
            }
            Function::Schema { identifier, config } => {
                let (schema, row) = encoded(config)?;
                let message = SchemaTransformPayload {
                    identifier: identifier.clone(),
                    configuration_schema: Some(schema),
                    configuration_row: row.into(),
                };
                (SCHEMA_TRANSFORM, message.encode_to_vec())
            }
        })
    }
}

impl<I: Element, O: Element> PTransform<PCollection<I>> for External<O> {
    type Output = PCollection<O>;

    fn label(&self) -> String {
        self.label.clone()
    }

    #[track_caller]
    fn expand(self, input: PCollection<I>) -> PCollection<O> {
        let (urn, payload) = self.function.spec().unwrap_or_else(|error| {
            input.pipeline().fail(error);
            (PYTHON, Vec::new())
        });
        let takes_coder = urn == PYTHON;
        let spec = ExternalSpec { urn: urn.to_owned(), payload, service: self.service, takes_coder };
        apply_external(&input, spec, self.coder)
    }
}
