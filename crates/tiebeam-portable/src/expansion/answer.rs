//! From a request to an answer, without a network.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_exec::EdgeId;
use tiebeam_model::expansion::{
    DiscoverSchemaTransformResponse, ExpansionRequest, ExpansionResponse, SchemaTransformConfig,
};
use tiebeam_model::pipeline::{
    self, ArtifactFilePayload, ArtifactInformation, Components, FunctionSpec, PCollection, PTransform,
    SchemaTransformPayload,
};
use tiebeam_model::{DecodeError, Message, urns};
use tiebeam_worker::coders::coder_spec;
use tiebeam_worker::{Recipe, RecipeInput, Steps, coder_to_tree, to_proto_with};

use super::recipes::{Made, make};
use super::schema::described;
use super::{SchemaTransform, SchemaTransforms};
use crate::artifacts;

/// The one way by which our transforms are asked for.
const SCHEMA_TRANSFORM: &str = "beam:expansion:payload:schematransform:v1";

/// What a service of these transforms offers.
pub fn discover(transforms: &dyn SchemaTransforms) -> DiscoverSchemaTransformResponse {
    let config = |offered: &SchemaTransform| -> Result<SchemaTransformConfig> {
        Ok(SchemaTransformConfig {
            config_schema: Some(described(&offered.config, &offered.fields)?),
            input_pcollection_names: offered.inputs.clone(),
            output_pcollection_names: offered.outputs.clone(),
            description: offered.about.clone(),
        })
    };
    let mut answer = DiscoverSchemaTransformResponse::default();
    for offered in transforms.offered() {
        match config(&offered) {
            Ok(config) => {
                answer.schema_transform_configs.insert(offered.identifier, config);
            }
            Err(error) => answer.error = format!("{error:?}"),
        }
    }
    answer
}

/// Answers a request: the transform that is asked for, whose steps run in `environment`. A transform that can't be made is
/// told in the answer's `error`, as its askers expect. The files that the steps read, such as models, become the
/// environment's, so that they travel with the job; without `files` they do not, as workers in this process need none.
pub fn expand(
    transforms: &dyn SchemaTransforms,
    environment: &pipeline::Environment,
    files: Option<&OfferedFiles>,
    request: ExpansionRequest,
) -> ExpansionResponse {
    match expanded(transforms, environment, files, request) {
        Ok(answer) => answer,
        Err(error) => ExpansionResponse { error: format!("{error:?}"), ..ExpansionResponse::default() },
    }
}

/// The files that a service has named in its answers: these it gives to who asks, and no others.
#[derive(Default)]
pub struct OfferedFiles(Mutex<HashSet<Bytes>>);

impl OfferedFiles {
    /// Describes those of the files that are here; they are offered from now on.
    fn describe(&self, files: &[PathBuf]) -> Result<Vec<ArtifactInformation>> {
        // A file that is not here is one of the workers' machines, or an address that they read themselves.
        let here = files.iter().filter(|path| path.is_file());
        let described: Vec<_> =
            here.map(|path| artifacts::describe(&artifacts::StagedFile::of(path))).collect::<Result<_>>()?;
        let mut offered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offered.extend(described.iter().map(|file| file.type_payload.clone()));
        Ok(described)
    }

    /// Where a file is that was offered; whoever asks may have changed its role, never what it is.
    pub(super) fn path(&self, file: &ArtifactInformation) -> Option<PathBuf> {
        let offered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_offered = file.type_urn == urns::artifact::FILE && offered.contains(&file.type_payload);
        let payload = ArtifactFilePayload::decode(file.type_payload.clone()).ok().filter(|_| is_offered)?;
        Some(PathBuf::from(payload.path))
    }
}

/// The error of bytes that are not what they should be.
pub(super) fn damaged(what: &str) -> impl Fn(DecodeError) -> Error + '_ {
    move |error| {
        Error::new(ErrorKind::InvalidData, "TB0730", format!("the request holds {what} that is damaged"))
            .with_source(error)
    }
}

fn lacks(what: &str, id: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        "TB0730",
        format!("the request names {what} `{id}` and has none of that id"),
    )
}

fn expanded(
    transforms: &dyn SchemaTransforms,
    environment: &pipeline::Environment,
    files: Option<&OfferedFiles>,
    request: ExpansionRequest,
) -> Result<ExpansionResponse> {
    let transform = request.transform.unwrap_or_default();
    let mut components = request.components.unwrap_or_default();
    let recipe = recipe(&transform, &components, transforms)?;
    let given = given(&transform, &components)?;
    let made = make(transforms, &recipe)?;
    let mut environment = environment.clone();
    if let Some(files) = files {
        environment.dependencies.extend(files.describe(&made.graph.files)?);
    }
    let mut naming = Naming { namespace: &request.namespace, inputs: HashMap::new() };
    for (name, edge) in &made.inputs {
        let id = transform.inputs.get(name).ok_or_else(|| lacks("input", name))?;
        naming.inputs.insert(*edge, id.clone());
    }
    let root = merge(&made, recipe, &environment, &transform, &given, &naming, &mut components)?;
    Ok(ExpansionResponse { components: Some(components), transform: Some(root), ..Default::default() })
}

/// What a request asks for, as workers will be told it.
fn recipe(
    transform: &PTransform,
    components: &Components,
    transforms: &dyn SchemaTransforms,
) -> Result<Recipe> {
    let function = transform.spec.clone().unwrap_or_default();
    let payload = match function.urn.as_str() {
        SCHEMA_TRANSFORM => SchemaTransformPayload::decode(function.payload.as_ref())
            .map_err(damaged("a SchemaTransformPayload"))?,
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "TB0732",
                format!("this service makes SchemaTransforms ({SCHEMA_TRANSFORM}), not `{other}`"),
            )
            .with_help("in Python use ExternalTransformProvider, in Beam YAML a provider of type remote"));
        }
    };
    let offered = transforms.offered();
    if !offered.iter().any(|offered| offered.identifier == payload.identifier) {
        let names: Vec<&str> = offered.iter().map(|offered| offered.identifier.as_str()).collect();
        return Err(Error::new(
            ErrorKind::NotFound,
            "TB0733",
            format!("this service has no transform `{}`", payload.identifier),
        )
        .with_help(format!("it has {}", names.join(", "))));
    }
    let mut inputs = Vec::with_capacity(transform.inputs.len());
    for (name, id) in &transform.inputs {
        let collection = components.pcollections.get(id).ok_or_else(|| lacks("PCollection", id))?;
        let element = coder_to_tree(&coder_spec(&components.coders, &collection.coder_id)?);
        let strategy = components.windowing_strategies.get(&collection.windowing_strategy_id);
        let window_fn = strategy.and_then(|strategy| strategy.window_fn.as_ref());
        let window_fn = window_fn.filter(|window_fn| window_fn.urn != urns::window_fn::GLOBAL);
        let window_fn = window_fn.map(|window_fn| window_fn.encode_to_vec().into()).unwrap_or_default();
        inputs.push(RecipeInput { name: name.clone(), element: Some(element), window_fn });
    }
    Ok(Recipe {
        urn: payload.identifier,
        config: payload.configuration_row,
        config_schema: payload.configuration_schema.unwrap_or_default().encode_to_vec().into(),
        inputs,
        namespace: transform.unique_name.clone(),
    })
}

/// An input of the request: what it makes has its windowing and is as bounded.
fn given(transform: &PTransform, components: &Components) -> Result<PCollection> {
    let id = transform.inputs.values().next().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidPipeline,
            "TB0734",
            format!("`{}` is applied to nothing, and reads rows", transform.unique_name),
        )
    })?;
    components.pcollections.get(id).cloned().ok_or_else(|| lacks("PCollection", id))
}

/// How ids of ours become ids that are unique in the caller's pipeline.
struct Naming<'a> {
    namespace: &'a str,
    /// The caller's ids of what the transform reads.
    inputs: HashMap<EdgeId, String>,
}

impl Naming<'_> {
    fn of(&self, id: &str) -> String {
        format!("{}_{id}", self.namespace)
    }

    fn pcollection(&self, id: &str) -> String {
        let edge = id.strip_prefix('p').and_then(|number| number.parse().ok()).map(EdgeId);
        edge.and_then(|edge| self.inputs.get(&edge).cloned()).unwrap_or_else(|| self.of(id))
    }

    fn pcollections(&self, ids: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        ids.iter().map(|(local, id)| (local.clone(), self.pcollection(id))).collect()
    }
}

/// Puts the graph's transforms into the caller's components; gives the transform that holds them all.
fn merge(
    made: &Made,
    recipe: Recipe,
    environment: &pipeline::Environment,
    asked: &PTransform,
    given: &PCollection,
    naming: &Naming<'_>,
    components: &mut Components,
) -> Result<PTransform> {
    let whole = recipe.namespace.clone();
    let steps = Steps::new(made.graph.clone()).with_recipe(recipe);
    let ours = to_proto_with(&steps, environment.clone())?.components.unwrap_or_default();
    let mut ids: HashMap<&str, String> = HashMap::new();
    for (i, id) in ours.transforms.keys().enumerate() {
        ids.insert(id, naming.of(&format!("t{i}")));
    }
    let mut root = None;
    for (id, transform) in &ours.transforms {
        if is_urn(transform, urns::transform::IMPULSE) {
            continue;
        }
        // The payloads of others hold ids of coders, or environments of windows.
        if transform.subtransforms.is_empty() && !is_urn(transform, urns::transform::PAR_DO) {
            return Err(Error::internal(format!("step {id} cannot be given to other pipelines")));
        }
        let environment_id = match transform.environment_id.as_str() {
            "" => String::new(),
            id => naming.of(id),
        };
        let subtransforms = transform.subtransforms.iter();
        let renamed = PTransform {
            subtransforms: subtransforms.filter_map(|id| ids.get(id.as_str()).cloned()).collect(),
            inputs: naming.pcollections(&transform.inputs),
            outputs: naming.pcollections(&transform.outputs),
            environment_id,
            ..transform.clone()
        };
        if *id == whole {
            root = Some(renamed);
        } else {
            components.transforms.insert(ids.get(id.as_str()).cloned().unwrap_or_default(), renamed);
        }
    }
    for (id, coder) in ours.coders {
        let component_coder_ids = coder.component_coder_ids.iter().map(|id| naming.of(id)).collect();
        components.coders.insert(naming.of(&id), pipeline::Coder { component_coder_ids, ..coder });
    }
    for (id, environment) in ours.environments {
        components.environments.insert(naming.of(&id), environment);
    }
    for (id, collection) in ours.pcollections {
        let renamed = naming.pcollection(&id);
        let coder_id = naming.of(&collection.coder_id);
        // The caller's own stay as they are. Element-wise steps keep windows and boundedness.
        components.pcollections.entry(renamed).or_insert(PCollection {
            coder_id,
            windowing_strategy_id: given.windowing_strategy_id.clone(),
            is_bounded: given.is_bounded,
            ..collection
        });
    }
    let root = root.ok_or_else(|| Error::internal("the transform is not in its own graph"))?;
    let output =
        |(name, edge): &(String, EdgeId)| (name.clone(), naming.pcollection(&format!("p{}", edge.0)));
    Ok(PTransform {
        unique_name: asked.unique_name.clone(),
        spec: asked.spec.clone(),
        inputs: asked.inputs.clone(),
        outputs: made.outputs.iter().map(output).collect(),
        ..root
    })
}

fn is_urn(transform: &PTransform, urn: &str) -> bool {
    transform.spec.as_ref().map(|spec: &FunctionSpec| spec.urn.as_str()) == Some(urn)
}
