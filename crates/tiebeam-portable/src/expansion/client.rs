//! From a pipeline that asks for transforms of other languages to one that holds them.

use std::collections::BTreeMap;

use tiebeam_core::coder::schema_proto::decode_schema;
use tiebeam_core::coder::urn;
use tiebeam_core::row::{FieldType, Schema, TypeKind};
use tiebeam_core::{CoderSpec, Error, ErrorKind, Result};
use tiebeam_graph::{ExpansionService, ExternalSpec, Graph, GraphNode, NodeKind};
use tiebeam_model::expansion::expansion_service_client::ExpansionServiceClient;
use tiebeam_model::expansion::{ExpansionRequest, ExpansionResponse};
use tiebeam_model::pipeline::{self, Components, FunctionSpec, PTransform};
use tiebeam_model::urns;
use tiebeam_worker::coders::coder_spec;

use super::python::PythonService;
use crate::artifacts;
use crate::wire::{connect_client, first_lines, refused, runtime};

/// What runs while a job with transforms of other languages does. Ends when it is dropped.
#[derive(Default)]
pub struct Services {
    python: Option<PythonService>,
}

impl Services {
    /// Whether something runs that must outlive the submission.
    pub fn is_needed(&self) -> bool {
        self.python.is_some()
    }

    fn address(&mut self, service: &ExpansionService) -> Result<String> {
        match (service, &self.python) {
            (ExpansionService::At(address), _) => Ok(address.clone()),
            (ExpansionService::Python, Some(python)) => Ok(python.address().to_owned()),
            (ExpansionService::Python, None) => {
                let started = self.python.insert(PythonService::start()?);
                Ok(started.address().to_owned())
            }
        }
    }
}

/// Puts the transforms of other languages into the message of a pipeline that asks for them; starts what they need.
///
/// # Errors
/// When an expansion service can't be reached or started, refuses a transform, or gives one that makes something else than
/// the pipeline says.
pub fn expand_externals(graph: &Graph, pipeline: &mut pipeline::Pipeline) -> Result<Services> {
    let mut services = Services::default();
    expand_by(graph, pipeline, &mut |service, request| {
        let address = services.address(service)?;
        let response = ask(&address, request)?;
        Ok((address, response))
    })?;
    Ok(services)
}

/// Answers a request; gives the service's address, too, for messages.
type Ask<'a> = dyn FnMut(&ExpansionService, ExpansionRequest) -> Result<(String, ExpansionResponse)> + 'a;

/// As [`expand_externals`], by whoever answers.
pub(super) fn expand_by(graph: &Graph, pipeline: &mut pipeline::Pipeline, ask: &mut Ask<'_>) -> Result<()> {
    let externals = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::External(spec) => Some((node, spec)),
        _ => None,
    });
    for (number, (node, spec)) in externals.enumerate() {
        let expanded = request(node, spec, pipeline, &format!("external{number}")).and_then(|request| {
            let (address, response) = ask(&spec.service, request.clone())?;
            merge(pipeline, &request, response, &address)
        });
        expanded.map_err(|error| error.at_step(&node.step))?;
    }
    Ok(())
}

fn ask(address: &str, request: ExpansionRequest) -> Result<ExpansionResponse> {
    let response = runtime()?.block_on(async {
        let channel = connect_client("the expansion service", address).await?;
        let mut client = ExpansionServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        client.expand(request).await.map_err(refused("expanding a transform"))
    })?;
    Ok(response.into_inner())
}

/// What an SDK says, without its stack trace: Python's last line, Java's first.
pub(super) fn words(error: &str) -> String {
    let error = error.trim();
    if error.starts_with("Traceback") {
        let is_place = |line: &&str| line.starts_with("  ") || line.starts_with("Traceback");
        let said: Vec<&str> = error.lines().rev().take_while(|line| !is_place(line)).collect();
        return first_lines(&said.into_iter().rev().collect::<Vec<_>>().join("\n"), 12);
    }
    let lines = error.lines().take_while(|line| !line.trim_start().starts_with("at "));
    first_lines(&lines.collect::<Vec<_>>().join("\n"), 12)
}

fn has_no(what: &str, id: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        "TB0742",
        format!("the expanded transform names {what} `{id}` and has none"),
    )
}

/// What a service is told: the transform and what its input needs, made by an impulse that stands for all before it.
fn request(
    node: &GraphNode,
    spec: &ExternalSpec,
    pipeline: &pipeline::Pipeline,
    namespace: &str,
) -> Result<ExpansionRequest> {
    let all = pipeline.components.as_ref().ok_or_else(|| Error::internal("a pipeline without components"))?;
    let mut transform = all
        .transforms
        .get(&*node.step)
        .cloned()
        .ok_or_else(|| Error::internal(format!("the pipeline's message has no step {}", node.step)))?;
    let only = |ids: &BTreeMap<String, String>| ids.values().next().cloned();
    let input =
        only(&transform.inputs).ok_or_else(|| Error::internal("an external transform without input"))?;
    let output =
        only(&transform.outputs).ok_or_else(|| Error::internal("an external transform without output"))?;
    let impulse = PTransform {
        unique_name: "impulse_input".to_owned(),
        spec: Some(FunctionSpec { urn: urns::transform::IMPULSE.to_owned(), ..FunctionSpec::default() }),
        outputs: BTreeMap::from([("out".to_owned(), input.clone())]),
        ..PTransform::default()
    };
    let mut output_coder_requests = BTreeMap::new();
    if spec.takes_coder
        && let Some(output) = all.pcollections.get(&output)
    {
        output_coder_requests.insert("output".to_owned(), output.coder_id.clone());
    }
    let collection = all.pcollections.get(&input).cloned().unwrap_or_default();
    let components = Components {
        transforms: BTreeMap::from([("impulse_input".to_owned(), impulse)]),
        pcollections: BTreeMap::from([(input.clone(), collection)]),
        ..all.clone()
    };
    transform.inputs = BTreeMap::from([("input".to_owned(), input)]);
    transform.outputs.clear();
    Ok(ExpansionRequest {
        components: Some(components),
        transform: Some(transform),
        namespace: namespace.to_owned(),
        output_coder_requests,
        ..ExpansionRequest::default()
    })
}

/// Puts what a service gave in the place of the step that asked for it.
fn merge(
    pipeline: &mut pipeline::Pipeline,
    request: &ExpansionRequest,
    response: ExpansionResponse,
    address: &str,
) -> Result<()> {
    if !response.error.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidPipeline,
            "TB0741",
            format!(
                "the expansion service at {address} does not give the transform: {}",
                words(&response.error)
            ),
        ));
    }
    let step = request.transform.as_ref().map(|transform| transform.unique_name.clone()).unwrap_or_default();
    let (Some(mut given), Some(expanded)) = (response.components, response.transform) else {
        return Err(has_no("components of", &step));
    };
    let all = pipeline.components.get_or_insert_default();
    let ours = all.transforms.get(&step).and_then(|transform| transform.outputs.values().next()).cloned();
    let ours = ours.ok_or_else(|| Error::internal(format!("step {step} makes nothing")))?;
    let theirs = match expanded.outputs.values().collect::<Vec<_>>().as_slice() {
        [only] => (*only).clone(),
        many => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "TB0743",
                format!("the transform has {} outputs, wanted one", many.len()),
            ));
        }
    };
    agree(all, &given, &ours, &theirs)?;
    for (id, environment) in &mut given.environments {
        // What its steps want travels with the job, by way of this machine.
        if !all.environments.contains_key(id) && !environment.dependencies.is_empty() {
            environment.dependencies = artifacts::fetch_foreign(address, &environment.dependencies)?;
        }
    }
    let rename = |id: &String| if *id == theirs { ours.clone() } else { id.clone() };
    let renamed = |ids: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        ids.iter().map(|(local, id)| (local.clone(), rename(id))).collect()
    };
    for (id, transform) in given.transforms.into_iter().filter(|(id, _)| id != "impulse_input") {
        let (inputs, outputs) = (renamed(&transform.inputs), renamed(&transform.outputs));
        all.transforms.insert(id, PTransform { inputs, outputs, ..transform });
    }
    let (inputs, outputs) = (renamed(&expanded.inputs), renamed(&expanded.outputs));
    all.transforms.insert(step.clone(), PTransform { unique_name: step, inputs, outputs, ..expanded });
    for (id, collection) in given.pcollections {
        all.pcollections.entry(id).or_insert(collection);
    }
    if let Some(made) = all.pcollections.remove(&theirs) {
        let unique_name =
            all.pcollections.get(&ours).map(|ours| ours.unique_name.clone()).unwrap_or_default();
        all.pcollections.insert(ours, pipeline::PCollection { unique_name, ..made });
    }
    add(&mut all.coders, given.coders);
    add(&mut all.environments, given.environments);
    add(&mut all.windowing_strategies, given.windowing_strategies);
    for requirement in response.requirements {
        if !pipeline.requirements.contains(&requirement) {
            pipeline.requirements.push(requirement);
        }
    }
    Ok(())
}

/// What was sent comes back; what is new is added.
fn add<T>(all: &mut BTreeMap<String, T>, given: BTreeMap<String, T>) {
    for (id, message) in given {
        all.entry(id).or_insert(message);
    }
}

/// Whether what the transform makes is what the pipeline says that it makes.
fn agree(all: &Components, given: &Components, ours: &str, theirs: &str) -> Result<()> {
    let wanted = all.pcollections.get(ours).ok_or_else(|| has_no("PCollection", ours))?;
    let made = given.pcollections.get(theirs).ok_or_else(|| has_no("PCollection", theirs))?;
    let wanted_coder = coder_spec(&all.coders, &wanted.coder_id)?;
    let made_coder = coder_spec(&given.coders, &made.coder_id)?;
    if essence(&wanted_coder) != essence(&made_coder) {
        return Err(Error::new(
            ErrorKind::InvalidPipeline,
            "TB0745",
            format!(
                "the transform makes elements of coder {}, and the pipeline says {}",
                shown(&made_coder),
                shown(&wanted_coder)
            ),
        )
        .with_help(
            "change the type that the transform is said to make, or convert its elements over there",
        ));
    }
    let window_fn = |components: &Components, id: &str| {
        let strategy = components.windowing_strategies.get(id).cloned();
        strategy.and_then(|strategy| strategy.window_fn).map(|window_fn| (window_fn.urn, window_fn.payload))
    };
    let (before, after) =
        (window_fn(all, &wanted.windowing_strategy_id), window_fn(given, &made.windowing_strategy_id));
    if before != after {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "TB0746",
            "the transform gives its elements other windows than its input has, which this build does not follow",
        ));
    }
    Ok(())
}

/// A coder without what may differ between two schemas of the same rows.
fn essence(spec: &CoderSpec) -> CoderSpec {
    let components: Vec<CoderSpec> = spec.components.iter().map(essence).collect();
    if spec.urn != urn::ROW {
        return CoderSpec { components, ..spec.clone() };
    }
    let fields = decode_schema(spec.payload.clone()).map(|schema| without_ids(&schema).to_string());
    CoderSpec { payload: fields.unwrap_or_default().into_bytes(), components, ..spec.clone() }
}

fn without_ids(schema: &Schema) -> Schema {
    let fields = schema.fields.iter().map(|field| (field.name.clone(), bare(&field.field_type)));
    Schema::of(fields)
}

fn bare(field_type: &FieldType) -> FieldType {
    let kind = match &field_type.kind {
        TypeKind::Row(schema) => TypeKind::Row(without_ids(schema).into()),
        // Beam has two names for many values of one type.
        TypeKind::Array(item) | TypeKind::Iterable(item) => TypeKind::Array(Box::new(bare(item))),
        TypeKind::Map(key, value) => TypeKind::Map(Box::new(bare(key)), Box::new(bare(value))),
        other => other.clone(),
    };
    FieldType { kind, nullable: field_type.nullable }
}

fn shown(spec: &CoderSpec) -> String {
    match decode_schema(spec.payload.clone()) {
        Ok(schema) if spec.urn == urn::ROW => format!("row<{schema}>"),
        _ => spec.to_string(),
    }
}
