//! From a row to a model's inputs.

use std::sync::Arc;

use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader};
use tiebeam_core::element::kv_coder;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Element, Error, ErrorKind, Result};
use tiebeam_graph::PCollection;
use tiebeam_inference::Example;
use tiebeam_inference::{DType, Feeds, Tensor, Tensors, converts};
use tiebeam_onnx::{Dim, Port};

use super::handlers::Loaded;
use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::{Expression, Form, columns, show, unknown_column};
use crate::plan::{Collection, Maker};
use crate::source::Span;

/// What a model that takes whatever it is given is asked about, where that is one thing.
pub const INSTANCE: &str = "instance";

/// A row with the tensors that go into the model.
#[derive(Debug, Clone)]
pub struct Prepared {
    row: Row,
    tensors: Tensors,
}

impl Prepared {
    /// The row.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Tensors whose row is elsewhere.
    pub fn bare(tensors: Tensors) -> Prepared {
        Prepared { row: Row::new(Arc::new(Schema::of::<&str>([])), Vec::new()), tensors }
    }

    /// Its tensors.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// The text of the only input.
    ///
    /// # Errors
    /// When it is none.
    #[cfg(any(feature = "remote", feature = "text"))]
    pub fn text(&self) -> Result<Arc<str>> {
        match self.tensors.values().first().map(Tensor::to_value) {
            Some(Value::String(text)) => Ok(text),
            _ => {
                Err(Error::new(ErrorKind::InvalidData, "TB0227", "the input is no text")
                    .with_retryable(false))
            }
        }
    }

    /// The row, without its tensors.
    pub fn into_row(self) -> Row {
        self.row
    }
}

impl Example for Prepared {
    const SINGLE: bool = false;

    fn tensor(&self, index: usize, name: &str) -> Option<&Tensor> {
        self.tensors.tensor(index, name)
    }

    fn names(&self) -> Option<&[Arc<str>]> {
        Some(self.tensors.names())
    }

    fn num_bytes(&self) -> usize {
        self.tensors.num_bytes()
    }
}

/// Travels as its row and its tensors, where it has to.
struct PreparedCodec(Coder<(Row, Tensors)>);

impl Codec<Prepared> for PreparedCodec {
    fn encode(&self, value: &Prepared, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&(value.row.clone(), value.tensors.clone()), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Prepared> {
        let (row, tensors) = self.0.decode(input, nesting)?;
        Ok(Prepared { row, tensors })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl Element for Prepared {
    fn coder() -> Coder<Self> {
        Coder::new(PreparedCodec(kv_coder(Row::coder(), Tensors::coder())))
    }
}

/// Where the tensor of one input comes from: columns of the row, or of what `preprocess` makes of it.
#[derive(Debug, Clone)]
enum From {
    Column(usize),
    Columns(Vec<usize>),
    /// No column is called like it: a missing value.
    Missing,
}

/// How a row becomes the inputs of a model.
#[derive(Debug, Clone)]
pub struct InputPlan {
    preprocess: Option<Expression>,
    /// Whether `preprocess` makes a row of several inputs.
    makes_row: bool,
    names: Arc<[Arc<str>]>,
    from: Arc<[From]>,
    /// Nulls are missing values: NaN.
    takes_missing: bool,
    /// Whether each row is one of a batch: outputs then lose their first axis.
    pub is_batched: bool,
    /// What is known of each input's tensor.
    known: Arc<[Option<(DType, Vec<Dim>)>]>,
}

/// A column of tensors that are known: a note of rows.
pub struct TensorColumn {
    pub column: usize,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl InputPlan {
    /// Finds the columns of each input; mistakes are noted.
    pub fn make(
        maker: &mut Maker<'_>,
        config: &Node,
        input: &Collection,
        loaded: &Loaded,
    ) -> Option<InputPlan> {
        let (preprocess, features) = preprocess(maker, config, input)?;
        let makes_row = preprocess
            .as_ref()
            .and_then(Expression::field_type)
            .is_some_and(|field| matches!(field.kind, TypeKind::Row(_)));
        let given = config.get("inputs").filter(|node| node.content != Content::Null);
        let told;
        let ports = match loaded.is_open {
            false => loaded.inputs(),
            true => {
                told = open_ports(given, &features, preprocess.is_some() && !makes_row);
                &told
            }
        };
        let takes_missing = loaded.takes_missing();
        let in_order = config.get("features").filter(|node| node.content != Content::Null);
        let from = match (given, in_order) {
            (Some(given), _) => given_inputs(maker, given, &features, ports)?,
            (None, Some(columns)) => features_in_order(maker, columns, &features, ports)?,
            (None, None) if loaded.is_open => {
                let all = (0..features.schema.fields.len()).map(|index| (From::Column(index), loaded.span));
                all.collect()
            }
            (None, None) => default_inputs(maker, &features, ports, loaded.span, takes_missing)?,
        };
        let mut is_batched = true;
        let mut fine = true;
        for ((from, span), port) in from.iter().zip(ports) {
            match fits(from, &features.schema, port) {
                Ok(batched) => is_batched &= batched,
                Err(message) => {
                    let shown = shape(port);
                    let problem = Diagnostic::new("TB0205", *span, message);
                    maker.problem(
                        problem
                            .note(format!("the model's input: {} ({} {shown})", port.name, port.type_name))
                            .help("give it columns of that type, as many as its shape has numbers a row; MapToFields makes them"),
                    );
                    fine = false;
                }
            }
        }
        fine.then(|| InputPlan {
            preprocess,
            makes_row,
            names: ports.iter().map(|port| port.name.clone()).collect(),
            takes_missing,
            known: from.iter().map(|(from, _)| known(from, &features.schema)).collect(),
            from: from.into_iter().map(|(from, _)| from).collect(),
            is_batched,
        })
    }

    /// What is known of the tensors that rows of that collection bring.
    pub fn feeds(&self, rows: &PCollection<Row>) -> Feeds {
        let column = rows.noted::<TensorColumn>().filter(|_| self.preprocess.is_none());
        let of_column = |from: &From| {
            let column = column.as_ref().filter(|own| matches!(from, From::Column(i) if *i == own.column))?;
            Some((column.dtype, column.shape.iter().map(|size| Dim::Fixed(*size)).collect()))
        };
        let all = self.names.iter().zip(self.from.iter().zip(self.known.iter()));
        let fed: Vec<_> = all
            .filter_map(|(name, (from, known))| {
                let (dtype, shape) = known.clone().or_else(|| of_column(from))?;
                Some((name.clone(), dtype, shape))
            })
            .collect();
        let is_part = fed.len() < self.names.len();
        let feeds = Feeds::named(fed).from("the row");
        if is_part { feeds.and_others() } else { feeds }
    }

    /// A row with its tensors.
    ///
    /// # Errors
    /// When `preprocess` fails on it, or a column is null or ragged.
    pub fn prepare(&self, row: Row) -> Result<Prepared> {
        let made = match &self.preprocess {
            None => None,
            Some(expression) => {
                let value = expression.evaluate(&row).map_err(|raised| {
                    let message = expression.trace(&raised).replace("\n  ", " ");
                    Error::new(ErrorKind::UserCode, "TB0225", message).with_retryable(false)
                })?;
                Some(match value {
                    Value::Row(row) if self.makes_row => row.values,
                    value => Arc::from([value]),
                })
            }
        };
        let values = made.as_ref().unwrap_or(&row.values);
        let column = |index: usize| values.get(index).unwrap_or(&Value::Null);
        let mut tensors = Vec::with_capacity(self.from.len());
        for (from, name) in self.from.iter().zip(self.names.iter()) {
            let tensor = match from {
                From::Missing => Ok(Tensor::scalar(f64::NAN)),
                From::Column(index) if self.takes_missing && *column(*index) == Value::Null => {
                    Ok(Tensor::scalar(f64::NAN))
                }
                From::Column(index) => Tensor::from_value(column(*index)),
                From::Columns(indexes) => Tensor::from_fields(indexes.iter().map(|index| column(*index))),
            };
            tensors.push(tensor.map_err(|error| {
                let message = format!("input `{name}`: {}", error.message());
                Error::new(error.kind(), error.code(), message).with_retryable(false)
            })?);
        }
        Ok(Prepared { row, tensors: Tensors::of_checked_names(self.names.clone(), tensors) })
    }
}

/// What `preprocess` is, and what it makes: a row of inputs, or the only input.
fn preprocess(
    maker: &mut Maker<'_>,
    config: &Node,
    input: &Collection,
) -> Option<(Option<Expression>, Collection)> {
    let Some(node) = config.get("preprocess").filter(|node| node.content != Content::Null) else {
        return Some((None, input.clone()));
    };
    let expression = processing(maker, node, "`preprocess`", input)?;
    let field = expression.field_type()?.clone();
    let schema = match &field.kind {
        TypeKind::Row(schema) => schema.clone(),
        TypeKind::Map(..) => {
            let problem = Diagnostic::new(
                "TB0205",
                node.span,
                "`preprocess` gives a dict, whose keys are not known before the run",
            );
            maker.problem(problem.help("give a row: `beam.Row(name=…)`"));
            return None;
        }
        _ => Arc::new(Schema::of([("value", field)])),
    };
    Some((Some(expression), Collection { schema, producer: "preprocess".into(), ..input.clone() }))
}

/// The expression of `preprocess` or `postprocess`.
pub fn processing(maker: &mut Maker<'_>, node: &Node, place: &str, input: &Collection) -> Option<Expression> {
    let keys = [
        Key::optional("callable", Wants::Text, "`lambda row: …` or `def f(row): …`"),
        Key::optional("expression", Wants::Any, "an expression (ours)"),
        Key::optional("path", Wants::Text, "a file of Python"),
        Key::optional("name", Wants::Text, "the function in that file"),
    ];
    if !check_keys(node.as_map()?, &keys, place, node.span, maker.problems) {
        return None;
    }
    if let Some(entry) = node.entry("path").or(node.entry("name")) {
        let problem =
            Diagnostic::new("TB0219", entry.key_span, "functions in files are not available in this build");
        maker.problem(problem.help("write the function here: `callable: |`"));
        return None;
    }
    match (node.get("expression"), node.get("callable")) {
        (Some(expression), None) => maker.expression(Form::Expression, expression, input, None),
        (None, Some(callable)) => maker.expression(Form::Callable, callable, input, None),
        _ => {
            let message = format!("{place} has one of `callable` and `expression`");
            maker.problem(Diagnostic::new("TB0207", node.span, message));
            None
        }
    }
}

type Found = Vec<(From, Span)>;

/// The columns of each of the model's inputs, as the file tells them.
fn given_inputs(maker: &mut Maker<'_>, given: &Node, features: &Collection, ports: &[Port]) -> Option<Found> {
    let mut fine = true;
    let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
    for entry in given.as_map()?.iter().filter(|entry| !names.contains(&&*entry.key)) {
        let problem =
            Diagnostic::new("TB0231", entry.key_span, format!("the model has no input `{}`", entry.key));
        maker.problem(
            problem.did_you_mean(&entry.key, names.clone()).note(format!("its inputs: {}", names.join(", "))),
        );
        fine = false;
    }
    let mut found = Vec::with_capacity(ports.len());
    for port in ports {
        let Some(node) = given.get(&port.name) else {
            let message = format!("`inputs` lacks the model's input `{}`", port.name);
            maker.problem(Diagnostic::new("TB0207", given.span, message));
            fine = false;
            continue;
        };
        let mut column = |node: &Node| {
            let Some(name) = node.as_str() else {
                let message = format!("an input is a field's name or a list of them, got {}", node.kind());
                maker.problem(Diagnostic::new("TB0208", node.span, message));
                return None;
            };
            let index = features.schema.index_of(name);
            if index.is_none() {
                maker.problem(unknown_column(name, node.span, &features.schema, Some(&features.producer)));
            }
            index
        };
        let from = match &node.content {
            Content::List(items) => {
                items.iter().map(&mut column).collect::<Option<Vec<_>>>().map(From::Columns)
            }
            _ => column(node).map(From::Column),
        };
        match from {
            Some(from) => found.push((from, node.span)),
            None => fine = false,
        }
    }
    fine.then_some(found)
}

/// The columns of the features, in the model's order.
fn features_in_order(
    maker: &mut Maker<'_>,
    listed: &Node,
    features: &Collection,
    ports: &[Port],
) -> Option<Found> {
    let items = listed.as_list()?;
    if items.len() != ports.len() {
        let message = format!("the model has {} features, {} columns are listed", ports.len(), items.len());
        let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
        let problem = Diagnostic::new("TB0231", listed.span, message);
        maker.problem(problem.note(format!("its features: {}", names.join(", "))));
        return None;
    }
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let name = item.as_str()?;
        match features.schema.index_of(name) {
            Some(index) => found.push((From::Column(index), item.span)),
            None => {
                let problem = unknown_column(name, item.span, &features.schema, Some(&features.producer));
                maker.problem(problem);
                return None;
            }
        }
    }
    Some(found)
}

/// The columns with the inputs' names, or the only column of the only input.
fn default_inputs(
    maker: &mut Maker<'_>,
    features: &Collection,
    ports: &[Port],
    span: Span,
    takes_missing: bool,
) -> Option<Found> {
    if let ([_], 1) = (ports, features.schema.fields.len()) {
        return Some(vec![(From::Column(0), span)]);
    }
    let mut found = Vec::with_capacity(ports.len());
    let mut missing = Vec::new();
    for port in ports {
        match features.schema.index_of(&port.name) {
            Some(index) => found.push((From::Column(index), span)),
            None => missing.push(format!("`{}`", port.name)),
        }
    }
    if missing.is_empty() {
        return Some(found);
    }
    if takes_missing && !found.is_empty() {
        let from = |port: &Port| features.schema.index_of(&port.name).map_or(From::Missing, From::Column);
        return Some(ports.iter().map(|port| (from(port), span)).collect());
    }
    let problem = Diagnostic::new(
        "TB0207",
        span,
        format!("no column is called like the model's input {}", missing.join(", ")),
    );
    let inputs: Vec<String> = ports.iter().map(|port| format!("{}: COLUMN", port.name)).collect();
    maker.problem(
        problem
            .note(format!("columns here: {}", columns(&features.schema)))
            .help(format!("say which: `inputs: {{{}}}`", inputs.join(", "))),
    );
    None
}

/// The dtype and the number of axes of a column's tensors.
fn tensor_type(field: &FieldType) -> Option<(DType, usize)> {
    Some(match &field.kind {
        TypeKind::Byte => (DType::I8, 0),
        TypeKind::Int16 | TypeKind::Int32 => (DType::I32, 0),
        TypeKind::Int64 => (DType::I64, 0),
        TypeKind::Float => (DType::F32, 0),
        TypeKind::Double => (DType::F64, 0),
        TypeKind::Boolean => (DType::Bool, 0),
        TypeKind::String => (DType::Str, 0),
        TypeKind::Bytes => (DType::U8, 1),
        TypeKind::Array(item) | TypeKind::Iterable(item) => {
            let (dtype, rank) = tensor_type(item)?;
            (dtype, rank + 1)
        }
        _ => return None,
    })
}

/// The inputs of a model that takes what it is given: those that the file names, or all columns.
fn open_ports(given: Option<&Node>, features: &Collection, is_one: bool) -> Vec<Port> {
    let port = |name: &str| Port { name: name.into(), type_name: "any".to_owned(), dtype: None, shape: None };
    match given.and_then(Node::as_map) {
        Some(given) => given.iter().map(|entry| port(&entry.key)).collect(),
        None if is_one => vec![port(INSTANCE)],
        None => features.schema.fields.iter().map(|field| port(&field.name)).collect(),
    }
}

/// The dtype and the axes of an input's tensor, as far as its columns tell.
fn known(from: &From, schema: &Schema) -> Option<(DType, Vec<Dim>)> {
    let of = |index: &usize| tensor_type(&schema.fields.get(*index)?.field_type);
    match from {
        From::Column(index) => of(index).map(|(dtype, rank)| (dtype, vec![Dim::Free; rank])),
        From::Columns(indexes) => {
            let dtypes = indexes.iter().map(of).collect::<Option<Vec<_>>>()?;
            let float = |dtype: DType| matches!(dtype, DType::F32 | DType::F64);
            let (first, _) = *dtypes.first()?;
            let is_mixed = dtypes.iter().any(|(dtype, _)| *dtype != first);
            let dtype = match dtypes.iter().any(|(dtype, _)| float(*dtype)) {
                true if is_mixed => DType::F64,
                _ => first,
            };
            Some((dtype, vec![Dim::Fixed(indexes.len())]))
        }
        From::Missing => Some((DType::F64, Vec::new())),
    }
}

/// Whether columns can be an input at all; gives whether a row is one of a batch.
fn fits(from: &From, schema: &Schema, port: &Port) -> std::result::Result<bool, String> {
    let indexes = match from {
        From::Missing => return Ok(true),
        From::Column(index) => std::slice::from_ref(index),
        From::Columns(indexes) => indexes,
    };
    let mut rank = 0;
    for index in indexes {
        let field = &schema.fields[*index];
        // A tensor that is a value of its own brings its dtype and shape with it.
        if field.field_type.kind == Tensor::field_type().kind {
            return Ok(true);
        }
        let Some((dtype, axes)) = tensor_type(&field.field_type) else {
            return Err(format!("column `{}` is {}, no tensor", field.name, show(&field.field_type)));
        };
        if let Some(wanted) = port.dtype.filter(|wanted| !converts(dtype, *wanted)) {
            return Err(format!(
                "column `{}` is {}, the model wants {wanted}",
                field.name,
                show(&field.field_type)
            ));
        }
        rank = axes;
    }
    let sizes: Option<Vec<usize>> = match from {
        From::Columns(_) if rank > 0 => {
            return Err("a list of columns is one of numbers, not of lists".to_owned());
        }
        From::Columns(indexes) => Some(vec![indexes.len()]),
        From::Missing => Some(Vec::new()),
        From::Column(_) => (rank == 0).then(Vec::new),
    };
    let rank = sizes.as_ref().map_or(rank, Vec::len);
    let Some(dims) = &port.shape else { return Ok(false) };
    let admits = |dims: &[Dim]| match &sizes {
        Some(sizes) => {
            dims.len() == sizes.len() && dims.iter().zip(sizes).all(|(dim, size)| dim.admits(*size))
        }
        None => dims.len() == rank,
    };
    if let Some((first, rest)) = dims.split_first() {
        let has_batch = matches!(first, Dim::Named(_) | Dim::Free | Dim::Fixed(1));
        let number = rank == 0 && rest.iter().all(|dim| dim.admits(1));
        if has_batch && (number || admits(rest)) {
            return Ok(true);
        }
    }
    if admits(dims) {
        return Ok(false);
    }
    let seen = match &sizes {
        Some(sizes) if sizes.is_empty() => "a number".to_owned(),
        Some(sizes) => format!("{} numbers", sizes[0]),
        None => format!("{rank} axes"),
    };
    Err(format!("a row brings {seen}, which does not fit the shape {}", shape(port)))
}

/// A shape as people write it.
fn shape(port: &Port) -> String {
    match &port.shape {
        None => "of any shape".to_owned(),
        Some(dims) => format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ")),
    }
}
