//! RunInference: a model over rows. Columns become the model's inputs, its outputs become a column.

mod apart;
mod beside;
#[cfg(feature = "remote")]
mod declared;
mod handlers;
mod inputs;
mod keyed;
mod limits;
mod outputs;
#[cfg(feature = "remote")]
mod remote;
mod rows;
#[cfg(feature = "text")]
mod texts;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{Field, FieldType, Row, Schema, TypeKind, Value};
use tiebeam_graph::PCollection;
use tiebeam_inference::chain::{After, Before, IntoChain, PredictionOf};
use tiebeam_inference::{
    Batching, FailedInference, InferenceArgs, ModelHandler, PerKeyModels, PredictionResult, RunInference,
    Tensors,
};

use self::beside::{METADATA, Monitoring, Slot, Versions};
use self::handlers::{KEYED, Loaded};
use self::inputs::{InputPlan, Prepared};
use self::keyed::{Keyed, key_of, keyed_models};
use self::limits::Limits;
use self::outputs::OutputPlan;
use self::rows::{Measures, RowHandler};
use super::ErrorOutput;
use super::fields::udf;
use crate::build::expand;
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::Expression;
use crate::plan::{Collection, MAIN, Made, Maker};
use crate::schema::plain_value;

pub use self::apart::be_model_process;
pub use self::handlers::{HandlerType, handler_types};
pub(super) use self::inputs::TensorColumn;

pub(super) const TYPES: &[TransformType] = &[TransformType {
    name: "RunInference",
    about: "runs a model on each row: the row with the model's answer as one more field",
    inputs: Inputs::Beside(METADATA),
    keeps_rows: false,
    keys: &[
        Key::required(
            "model_handler",
            Wants::Map,
            "`{type: …, config: …}`; `tiebeam transforms RunInference` lists the types",
        ),
        Key::optional("inference_tag", Wants::Text, "the name of the new field; `inference`"),
        Key::optional("inference_args", Wants::Map, "arguments for the handler"),
        Key::optional("with_model_id", Wants::Bool, "adds the field `<tag>_model_id` (ours)"),
        Key::optional(
            "drop_example",
            Wants::Bool,
            "the answers without the rows' own fields, but a key's (ours)",
        ),
        Key::optional(
            "monitoring",
            Wants::Map,
            "`{output: NAME}`: a copy of what the model says goes there, before `postprocess` (ours)",
        ),
        Key::optional("metrics_namespace", Wants::Text, "what its metrics are counted under; the handler's"),
        Key::optional("model_identifier", Wants::Text, "steps with the same one share one loaded model"),
        ERROR_HANDLING,
    ],
    make: run_inference,
}];

/// The keys that all handlers have.
pub const COMMON: &[Key] = &[
    Key::optional("inputs", Wants::Map, "`{model input: field}`, or a list of fields in place of the field"),
    Key::optional("outputs", Wants::Texts, "the outputs that are wanted; all"),
    Key::optional(
        "preprocess",
        Wants::Map,
        "`{expression: …}` or `{callable: …}` that makes the inputs of a row",
    ),
    Key::optional("postprocess", Wants::Map, "the same over `inference`, `example` and `model_id`"),
    Key::optional("min_batch_size", Wants::Int, "batches wait for as many rows; 1"),
    Key::optional("max_batch_size", Wants::Int, "batches never hold more rows; 10000"),
    Key::optional("max_batch_duration_secs", Wants::Number, "batches wait no longer"),
    Key::optional("max_batch_duration", Wants::Any, "the same with a unit: 200ms (ours)"),
    Key::optional("max_batch_weight", Wants::Int, "batches never weigh more: bytes of tensors, or as told"),
    Key::optional("max_queue_bytes", Wants::Int, "rows that wait take no more together; 67108864 (ours)"),
    Key::optional("element_size_fn", Wants::Any, "an expression or `{callable: …}`: what a row weighs"),
    Key::optional(
        "batch_length_fn",
        Wants::Any,
        "an expression or `{callable: …}`: rows of about one length share batches",
    ),
    Key::optional("batch_bucket_boundaries", Wants::List, "upper ends of the classes of lengths"),
    Key::optional(
        "target_batch_overhead",
        Wants::Number,
        "batches grow until their fixed cost is no larger a share; 0.05, null for none",
    ),
    Key::optional(
        "target_batch_duration_secs",
        Wants::Number,
        "how long the rows of a batch may take; 10, null for none",
    ),
    Key::optional(
        "target_batch_duration_secs_including_fixed_cost",
        Wants::Number,
        "how long a batch may take; no bound",
    ),
    Key::optional("variance", Wants::Number, "how far sizes spread, so that the estimate goes on; 0.25"),
    Key::optional("model_copies", Wants::Int, "copies of the model, taken in turn; 1"),
    Key::optional("timeout", Wants::Any, "how long a load or a call may take: seconds, or 500ms"),
    Key::optional(
        "isolation",
        Wants::Any,
        "process, or `{memory_mb, writable, trusted}`: the model in a process of its own (ours)",
    ),
    Key::optional("env_vars", Wants::Map, "variables of the environment, set before the model is loaded"),
    Key::optional("sha256", Wants::Text, "what the model's file must have, in hex"),
    Key::optional(
        "watch_model_pattern",
        Wants::Map,
        "`{pattern: models/v*.onnx, interval: 60}`: newer files take over while it runs",
    ),
    Key::optional(
        "rollout",
        Wants::Map,
        "`{canary: 0.1, promote_after: 1000}` or `{shadow: 0.1}`: how newer files take over; at once (ours)",
    ),
    Key::optional("nan", Wants::Text, "what is done with NaN in an answer: pass, dead_letter, fail (ours)"),
];

fn run_inference(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let handler = maker.get("model_handler")?.clone();
    let (kind, config) = handler_of(maker, &handler)?;
    let length = measure(maker, &config, "batch_length_fn", &input);
    let weight = measure(maker, &config, "element_size_fn", &input);
    let copies = positive(maker, &config, "model_copies").unwrap_or(1);
    let limits = Limits::of(maker, &config);
    let batching = batching(maker, &config, config.get("batch_length_fn").is_some());
    let args = inference_args(maker, kind);
    let before = maker.problems.len();
    let (loaded, keyed) = match kind.name {
        KEYED => keyed_models(maker, &config, &input)?,
        _ => (apart::made(maker, kind, &config)?, None),
    };
    let inputs = InputPlan::make(maker, &config, &input, &loaded)?;
    let tag = maker.text("inference_tag").unwrap_or_else(|| "inference".into());
    let outputs = OutputPlan::make(maker, &config, &input, &inputs, &loaded)?;
    let with_model_id = maker.flag("with_model_id");
    let kept = match (maker.flag("drop_example"), &keyed) {
        (false, _) => 0..input.schema.fields.len(),
        (true, Some(keyed)) => keyed.column..keyed.column + 1,
        (true, None) => 0..0,
    };
    let added = (outputs.field_type(), with_model_id);
    let schema = answer_schema(maker, &input.schema.fields[kept.clone()], &tag, added)?;
    let monitoring = Monitoring::of(maker, &input, &tag, &outputs)?;
    let versions = Versions::of(maker, keyed.is_some())?;
    let errors = maker.errors_within(FieldType::required(TypeKind::Row(input.schema.clone())));
    if maker.problems.len() > before {
        return None;
    }
    let mut made = vec![(MAIN.into(), schema.clone())];
    made.extend(errors.clone().map(|(name, schema, _)| (name, schema)));
    made.extend(monitoring.as_ref().map(Monitoring::output));
    let errors = errors.map(|(name, schema, part)| ErrorOutput::new(&name, schema).within(part));
    let mut limits = limits?;
    let mut batching = batching?;
    if let Some(own) = &loaded.batching {
        // Of a model behind HTTP it is the time of a request.
        limits.timeout = None;
        if config.get("max_batch_size").is_none() {
            batching.max_batch_size = own.max_batch_size.max(batching.min_batch_size);
        }
    }
    let measures = Measures { length: length?, weight: weight? };
    let step = Step {
        loaded,
        measures,
        inputs,
        outputs,
        schema,
        kept,
        with_model_id,
        batching,
        copies,
        limits,
        keyed,
        args,
        monitoring,
        versions,
    };
    Some(Made {
        outputs: made,
        build: Box::new(move |_, inputs| {
            let mut inputs = inputs.into_iter();
            match inputs.next() {
                Some(input) => step.build(input, inputs.next(), errors),
                None => Vec::new(),
            }
        }),
    })
}

/// The handler's type and configuration.
fn handler_of(maker: &mut Maker<'_>, handler: &Node) -> Option<(&'static HandlerType, Node)> {
    let keys = [
        Key::required("type", Wants::Text, "the handler's type, such as OnnxModelHandlerNumpy"),
        Key::required("config", Wants::Map, "the handler's configuration"),
    ];
    // In Beam's words, which people search for.
    let known = |key: &str| keys.iter().any(|own| own.name == key);
    let extra = handler.as_map()?.iter().filter(|entry| !known(&entry.key));
    let mut is_fine = true;
    for entry in extra {
        let message = format!("Unexpected parameters in model_handler: {{'{}'}}", entry.key);
        let problem = Diagnostic::new("TB0206", entry.key_span, message);
        maker.problem(
            problem.did_you_mean(&entry.key, ["type", "config"]).help("`config` is the place for them"),
        );
        is_fine = false;
    }
    if !is_fine {
        return None;
    }
    if !check_keys(handler.as_map()?, &keys, "`model_handler`", handler.span, maker.problems) {
        return None;
    }
    let (kind, config) = (handler.get("type")?, handler.get("config")?);
    let name = kind.as_str()?;
    let types = handler_types();
    let Some(found) = types.iter().find(|handler| handler.name == &**name) else {
        let names = types.iter().map(|handler| handler.name);
        let problem = Diagnostic::new("TB0232", kind.span, format!("unknown model handler `{name}`"))
            .did_you_mean(name, names.clone())
            .note(format!("handlers here: {}", names.collect::<Vec<_>>().join(", ")));
        maker.problem(problem);
        return None;
    };
    let keys = found.all_keys();
    let place = format!("`{}`", found.name);
    let fine = check_keys(config.as_map()?, &keys, &place, kind.span, maker.problems);
    fine.then(|| (found, config.clone()))
}

/// What the handler is given with every batch. Handlers of tensors take nothing; whoever gives some should know.
fn inference_args(maker: &mut Maker<'_>, kind: &HandlerType) -> InferenceArgs {
    let given = maker.get("inference_args").and_then(Node::as_map);
    if let (true, Some(given)) = (kind.takes_args(), given) {
        return given.iter().map(|entry| (entry.key.to_string(), plain_value(&entry.value))).collect();
    }
    if let Some(args) = maker.get("inference_args")
        && let Some(entry) = args.as_map().and_then(<[_]>::first)
    {
        let message = format!("{} takes no inference_args, got `{}`", kind.name, entry.key);
        let problem = Diagnostic::new("TB0208", entry.key_span, message);
        maker.problem(problem.help("what a model needs is told by `inputs`"));
    }
    InferenceArgs::none()
}

fn positive(maker: &mut Maker<'_>, config: &Node, key: &str) -> Option<usize> {
    let node = config.get(key)?;
    match node.content {
        Content::Int(n @ 1..) => usize::try_from(n).ok(),
        Content::Null => None,
        _ => {
            maker.problem(Diagnostic::new("TB0208", node.span, format!("`{key}` is a number from 1 up")));
            None
        }
    }
}

/// What is measured of rows by an expression of the file: none within where nothing is told, none where it is wrong.
fn measure(
    maker: &mut Maker<'_>,
    config: &Node,
    key: &str,
    input: &Collection,
) -> Option<Option<Arc<Expression>>> {
    let Some(node) = config.get(key).filter(|node| node.content != Content::Null) else { return Some(None) };
    let udf = udf(maker, node, &format!("`{key}`"))?;
    let int = FieldType::required(TypeKind::Int64);
    Some(Some(Arc::new(maker.expression(udf.form, &udf.node, input, Some(int))?)))
}

/// The ends of the classes of lengths.
fn boundaries(maker: &mut Maker<'_>, config: &Node) -> Option<Arc<[usize]>> {
    let node = config.get("batch_bucket_boundaries")?;
    let ends = node.as_list()?.iter().map(|end| match end.content {
        Content::Int(end @ 1..) => usize::try_from(end).ok(),
        _ => None,
    });
    let ends: Option<Vec<usize>> = ends.collect();
    if ends.is_none() {
        let message = "`batch_bucket_boundaries` are numbers from 1 up";
        maker.problem(Diagnostic::new("TB0208", node.span, message));
    }
    ends.map(Arc::from)
}

/// A number that the file tells: none within for `null`, none where there is nothing.
fn number(config: &Node, key: &str) -> Option<Option<f64>> {
    match config.get(key)?.content {
        Content::Int(number) => Some(Some(number as f64)),
        Content::Float(number) => Some(Some(number)),
        _ => Some(None),
    }
}

/// As [`number`], of seconds.
fn seconds(maker: &mut Maker<'_>, config: &Node, key: &str) -> Option<Option<Duration>> {
    let Some(told) = number(config, key)? else { return Some(None) };
    match Duration::try_from_secs_f64(told) {
        Ok(duration) => Some(Some(duration)),
        Err(_) => {
            let message = format!("`{key}` is a number of seconds");
            maker.problem(Diagnostic::new("TB0208", config.get(key)?.span, message));
            None
        }
    }
}

/// The keys that errors of batching are about; a longer name before one that it begins with.
const BATCHING: [&str; 7] = [
    "batch_bucket_boundaries",
    "max_batch_duration_secs",
    "max_batch_duration",
    "target_batch_overhead",
    "target_batch_duration_secs_including_fixed_cost",
    "target_batch_duration_secs",
    "variance",
];

fn batching(maker: &mut Maker<'_>, config: &Node, has_lengths: bool) -> Option<Batching> {
    let mut batching = Batching::default();
    if let Some(n) = positive(maker, config, "max_batch_size") {
        batching.max_batch_size = n;
    }
    if let Some(n) = positive(maker, config, "min_batch_size") {
        batching.min_batch_size = n;
        if config.get("max_batch_size").is_none() {
            batching.max_batch_size = batching.max_batch_size.max(n);
        }
    }
    batching.max_batch_weight = positive(maker, config, "max_batch_weight").map(|n| n as u64);
    if let Some(bytes) = positive(maker, config, "max_queue_bytes") {
        batching.max_queue_bytes = bytes as u64;
    }
    if let Some(told) = seconds(maker, config, "max_batch_duration_secs") {
        batching.max_batch_duration = told;
    }
    if let Some(told) = seconds(maker, config, "target_batch_duration_secs") {
        batching.target_batch_duration = told;
    }
    if let Some(told) = seconds(maker, config, "target_batch_duration_secs_including_fixed_cost") {
        batching.target_batch_duration_including_fixed_cost = told;
    }
    if let Some(told) = number(config, "target_batch_overhead") {
        batching.target_batch_overhead = told;
    }
    if let Some(Some(variance)) = number(config, "variance") {
        batching.variance = variance;
    }
    if let Some(node) = config.get("max_batch_duration").filter(|node| node.content != Content::Null) {
        match crate::windowing::duration(node) {
            Ok(duration) => batching.max_batch_duration = Some(duration),
            Err(problem) => maker.problem(problem),
        }
    }
    batching.bucket_boundaries = boundaries(maker, config);
    match batching.validated(has_lengths) {
        Ok(batching) => Some(batching),
        Err(error) => {
            // The error has the names of Rust's.
            let about = |key: &&str| {
                let name = key.trim_start_matches("batch_").replace("_secs", "");
                config.get(key).filter(|_| error.message().contains(&name))
            };
            let sizes = || config.get("min_batch_size").or(config.get("max_batch_size"));
            let span = BATCHING.iter().find_map(about).or_else(sizes).map_or(config.span, |n| n.span);
            maker.refuse(&error, span);
            None
        }
    }
}

/// The input's fields that are kept, the answer, and the model's id where it is wanted.
fn answer_schema(
    maker: &mut Maker<'_>,
    kept: &[Field],
    tag: &Arc<str>,
    (answer, with_model_id): (&FieldType, bool),
) -> Option<Arc<Schema>> {
    let mut fields: Vec<(Arc<str>, FieldType)> =
        kept.iter().map(|field| (field.name.clone(), field.field_type.clone())).collect();
    let mut added = vec![(tag.clone(), answer.clone())];
    if with_model_id {
        added.push((format!("{tag}_model_id").into(), FieldType::required(TypeKind::String)));
    }
    for (name, field) in added {
        if fields.iter().any(|(taken, _)| *taken == name) {
            let span = maker.get("inference_tag").map_or(maker.step.title_span(), |node| node.span);
            let problem = Diagnostic::new("TB0209", span, format!("the input has a field `{name}` already"));
            maker.problem(problem.help("give the answer another name: `inference_tag`"));
            return None;
        }
        fields.push((name, field));
    }
    Some(Arc::new(Schema::of(fields)))
}

struct Step {
    loaded: Loaded,
    measures: Measures,
    inputs: InputPlan,
    outputs: OutputPlan,
    schema: Arc<Schema>,
    /// The columns that go on beside the answer.
    kept: Range<usize>,
    with_model_id: bool,
    batching: Batching,
    copies: usize,
    limits: Limits,
    keyed: Option<Keyed>,
    args: InferenceArgs,
    monitoring: Option<Monitoring>,
    versions: Option<Versions>,
}

impl Step {
    fn build(
        self,
        input: PCollection<Row>,
        side: Option<PCollection<Row>>,
        errors: Option<ErrorOutput>,
    ) -> Vec<PCollection<Row>> {
        let Step {
            loaded,
            measures,
            inputs,
            outputs,
            schema,
            kept,
            with_model_id,
            batching,
            copies,
            limits,
            keyed,
            args,
            monitoring,
            versions,
        } = self;
        let updates = versions.zip(side);
        let rows = schema.clone();
        let to_row = move |result: PredictionResult<Prepared, Tensors>| -> tiebeam_core::Result<Row> {
            let answer = outputs.answer(&result)?;
            let id = with_model_id.then(|| Value::String(result.model_id.clone()));
            let row = result.example.into_row();
            let own = row.values[kept.clone()].iter().cloned();
            let values = own.chain([answer]).chain(id).collect::<Vec<_>>();
            Ok(Row::new(rows.clone(), values))
        };
        let feeds = inputs.feeds(&input);
        let first = RowHandler::new(loaded, measures);
        let Some(Keyed { column, first: keys, others, max_models }) = keyed else {
            let chain = first
                .with_batching(batching)
                .model_copies(copies)
                .try_preprocess(move |row: Row| inputs.prepare(row))
                .try_postprocess(to_row);
            let mut inference = RunInference::new(chain).with_example_signature(feeds).with_pure_preprocess();
            if let Some((versions, side)) = updates {
                inference = inference.with_model_metadata(&versions.read(&side));
            }
            let (inference, tapped) = Monitoring::tap(monitoring, inference, |result| result);
            return run(inference, (limits, args), input, (schema, errors, tapped));
        };
        let mut models = PerKeyModels::new().with_models(keys, first.model_copies(copies));
        for (keys, loaded) in others {
            let handler = RowHandler::new(loaded, Measures::default()).model_copies(copies);
            models = models.with_models(keys, handler);
        }
        if let Some(most) = max_models {
            models = models.max_models_hint(most);
        }
        let chain = models
            .with_batching(batching)
            .into_chain()
            .try_preprocess(move |row: Row| {
                let key = key_of(row.values.get(column))?;
                inputs.prepare(row).map(|prepared| (key, prepared))
            })
            .try_postprocess(move |(_, result)| to_row(result));
        let mut inference = RunInference::new(chain).with_example_signature(feeds).with_pure_preprocess();
        if let Some((versions, side)) = updates {
            inference = inference.with_keyed_model_updates(&versions.read_keyed(&side));
        }
        let (inference, tapped) = Monitoring::tap(monitoring, inference, |result| {
            let PredictionResult { example: (_, example), inference, model_id } = result;
            PredictionResult { example, inference, model_id }
        });
        run(inference, (limits, args), input, (schema, errors, tapped))
    }
}

/// Builds the step, with dead letters where they are wanted, and what was tapped.
fn run<H, B, A>(
    run: RunInference<H, B, A>,
    (limits, args): (Limits, InferenceArgs),
    input: PCollection<Row>,
    (schema, errors, tapped): (Arc<Schema>, Option<ErrorOutput>, Slot),
) -> Vec<PCollection<Row>>
where
    H: ModelHandler<Inference = Tensors>,
    B: Before<H::Example, In = Row>,
    A: After<PredictionOf<H>, Out = Row>,
{
    let run = limits.bound(run.with_inference_args(args));
    let coder = row_coder(schema);
    let mut outputs = match errors {
        None => vec![expand(run, input).with_coder(coder)],
        Some(errors) => {
            let mut rescued = run.with_exception_handling();
            if let Some(threshold) = errors.threshold() {
                rescued = rescued.with_threshold(threshold);
            }
            let inferred = expand(rescued, input);
            let error_coder = row_coder(errors.schema().clone());
            let to_error = move |failed: FailedInference<Row, Tensors>| {
                let failed = failed.into_failed();
                errors.of_failure(Value::Row(failed.element), &failed.failure)
            };
            let failed = inferred.failed.step("Errors").map(to_error).with_coder(error_coder);
            vec![inferred.results.with_coder(coder), failed]
        }
    };
    outputs.extend(tapped.take());
    outputs
}
