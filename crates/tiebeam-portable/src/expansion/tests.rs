//! Expansion without a network: the service's functions answer the client's requests, and a worker runs what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiebeam_core::coder::row_coder;
use tiebeam_core::coder::schema_proto::{decode_schema, encode_schema};
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Element, Error, ErrorKind, Result};
use tiebeam_graph::{Create, Graph, Pipeline};
use tiebeam_model::expansion::{ExpansionRequest, ExpansionResponse};
use tiebeam_model::fn_api::elements::Data;
use tiebeam_model::fn_api::{Elements, ProcessBundleDescriptor, ProcessBundleRequest, RemoteGrpcPort};
use tiebeam_model::pipeline::{
    self, ArtifactFilePayload, ArtifactInformation, ArtifactStagingToRolePayload, Coder, Components,
    FunctionSpec, PCollection, PTransform, SchemaTransformPayload, WindowingStrategy,
};
use tiebeam_model::{Message, urns};
use tiebeam_worker::{FnApi, Recipes, Steps, Worker, WorkerOptions, to_proto};

use super::external::{self, External};
use super::{
    ExpansionServer, LibraryRecipes, NamedRows, SchemaTransform, SchemaTransforms, client, discover, expand,
    expand_externals,
};
use crate::guard::Guard;
use crate::{Environment, artifacts};

const TIMES: &str = "beam:schematransform:test:times:v1";

/// Multiplies the field `n` of rows.
#[derive(Default)]
struct Times {
    made: AtomicUsize,
    /// A file that its steps read.
    file: Option<std::path::PathBuf>,
}

impl SchemaTransforms for Times {
    fn offered(&self) -> Vec<SchemaTransform> {
        vec![SchemaTransform {
            identifier: TIMES.to_owned(),
            about: "multiplies".to_owned(),
            config: numbers(&["by"]),
            fields: BTreeMap::from([("by".to_owned(), "the factor".to_owned())]),
            inputs: vec!["input".to_owned()],
            outputs: vec!["output".to_owned()],
        }]
    }

    fn apply(&self, _: &str, config: &Row, pipeline: &Pipeline, inputs: NamedRows) -> Result<NamedRows> {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.file.iter().for_each(|file| pipeline.add_file(file));
        let Some(Value::Int64(by)) = config.get("by").cloned() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0900", "no factor"));
        };
        let (_, input) = inputs.into_iter().next().unwrap();
        let coder = input.coder();
        let times = move |row: Row| match row.get("n") {
            Some(Value::Int64(n)) => Row::new(row.schema.clone(), vec![Value::Int64(n * by)]),
            other => panic!("{other:?}"),
        };
        Ok(vec![("output".to_owned(), input.step("Multiply").map(times).with_coder(coder))])
    }
}

fn numbers(names: &[&str]) -> Arc<Schema> {
    Arc::new(Schema::of(names.iter().map(|name| (*name, FieldType::required(TypeKind::Int64)))))
}

fn row(name: &str, n: i64) -> Row {
    Row::new(numbers(&[name]), vec![Value::Int64(n)])
}

fn spec(urn: &str, payload: Vec<u8>) -> Option<FunctionSpec> {
    Some(FunctionSpec { urn: urn.to_owned(), payload: payload.into() })
}

fn payload(identifier: &str, config: &Row) -> Vec<u8> {
    let schema = pipeline::Schema::decode(encode_schema(&config.schema).as_slice()).unwrap();
    let row = row_coder(config.schema.clone()).to_bytes(config).unwrap();
    SchemaTransformPayload {
        identifier: identifier.to_owned(),
        configuration_schema: Some(schema),
        configuration_row: row.into(),
    }
    .encode_to_vec()
}

/// A request as Python makes it: rows in windows that only Python knows.
fn request(namespace: &str, name: &str) -> ExpansionRequest {
    let coder = |urn: &str, payload: Vec<u8>| Coder { spec: spec(urn, payload), ..Coder::default() };
    let of_impulse = BTreeMap::from([("out".to_owned(), "theirs".to_owned())]);
    let impulse = PTransform {
        spec: spec(urns::transform::IMPULSE, vec![]),
        outputs: of_impulse,
        ..PTransform::default()
    };
    let window_fn = spec("beam:window_fn:pickled_python:v1", b"?".to_vec());
    let collection = PCollection {
        coder_id: "row".to_owned(),
        windowing_strategy_id: "w".to_owned(),
        is_bounded: 1,
        ..PCollection::default()
    };
    ExpansionRequest {
        components: Some(Components {
            transforms: BTreeMap::from([("impulse_input".to_owned(), impulse)]),
            pcollections: BTreeMap::from([("theirs".to_owned(), collection)]),
            coders: BTreeMap::from([
                ("row".to_owned(), coder(urns::coder::ROW, encode_schema(&numbers(&["n"])))),
                ("text".to_owned(), coder(urns::coder::STRING_UTF8, vec![])),
            ]),
            windowing_strategies: BTreeMap::from([(
                "w".to_owned(),
                WindowingStrategy { window_fn, ..WindowingStrategy::default() },
            )]),
            ..Components::default()
        }),
        transform: Some(PTransform {
            unique_name: name.to_owned(),
            spec: spec("beam:expansion:payload:schematransform:v1", payload(TIMES, &row("by", 3))),
            inputs: BTreeMap::from([("input".to_owned(), "theirs".to_owned())]),
            ..PTransform::default()
        }),
        namespace: namespace.to_owned(),
        ..ExpansionRequest::default()
    }
}

fn environment() -> pipeline::Environment {
    Environment::External { address: "127.0.0.1:9".to_owned() }.to_message(Vec::new())
}

fn answer(request: ExpansionRequest) -> ExpansionResponse {
    expand(&Times::default(), &environment(), None, request)
}

/// Runs the only ParDo of an answer in a worker that has no pipeline of its own: numbers in, numbers out.
fn run(response: &ExpansionResponse, numbers_in: &[i64], recipes: Arc<dyn Recipes>) -> Result<Vec<i64>> {
    let mut components = response.components.clone().unwrap();
    let is_par_do = |t: &&PTransform| t.spec.as_ref().is_some_and(|s| s.urn == urns::transform::PAR_DO);
    let par_do = components.transforms.values().find(is_par_do).unwrap().clone();
    let (input, output) =
        (par_do.inputs.values().next().unwrap().clone(), par_do.outputs.values().next().unwrap().clone());
    let element = components.pcollections[&output].coder_id.clone();
    let coder = |urn: &str, of: &[&str]| Coder {
        spec: spec(urn, vec![]),
        component_coder_ids: of.iter().map(|id| (*id).to_owned()).collect(),
    };
    components.coders.insert("global".to_owned(), coder(urns::coder::GLOBAL_WINDOW, &[]));
    components.coders.insert("wire".to_owned(), coder(urns::coder::WINDOWED_VALUE, &[&element, "global"]));
    let port = RemoteGrpcPort { coder_id: "wire".to_owned(), ..RemoteGrpcPort::default() }.encode_to_vec();
    let source = PTransform {
        spec: spec(urns::transform::DATA_SOURCE, port.clone()),
        outputs: BTreeMap::from([("out".to_owned(), input)]),
        ..PTransform::default()
    };
    let sink = PTransform {
        spec: spec(urns::transform::DATA_SINK, port),
        inputs: BTreeMap::from([("in".to_owned(), output)]),
        ..PTransform::default()
    };
    let descriptor = ProcessBundleDescriptor {
        id: "stage".to_owned(),
        transforms: [("source", source), ("step", par_do), ("sink", sink)]
            .map(|(id, transform)| (id.to_owned(), transform))
            .into(),
        pcollections: components.pcollections,
        coders: components.coders,
        windowing_strategies: components.windowing_strategies,
        ..ProcessBundleDescriptor::default()
    };
    struct Runner(ProcessBundleDescriptor);
    impl FnApi for Runner {
        fn descriptor(&self, _: &str) -> Result<ProcessBundleDescriptor> {
            Ok(self.0.clone())
        }
    }
    // Time, one global window, no pane; then the row.
    let header = [&[0x80, 0, 0, 0, 0, 0, 0, 0][..], &[0, 0, 0, 1], &[0x0f]].concat();
    let rows = row_coder(numbers(&["n"]));
    let mut bytes = Vec::new();
    for n in numbers_in {
        bytes.extend_from_slice(&header);
        bytes.extend(rows.to_bytes(&row("n", *n)).unwrap());
    }
    let data = Data {
        instruction_id: "1".to_owned(),
        transform_id: "source".to_owned(),
        data: bytes.into(),
        is_last: true,
    };
    let options = WorkerOptions { embed_output: true, ..WorkerOptions::default() };
    let worker = Worker::of(Steps::new(Arc::new(Graph::empty())), Some(recipes), options);
    let request = ProcessBundleRequest {
        process_bundle_descriptor_id: "stage".to_owned(),
        elements: Some(Elements { data: vec![data], ..Elements::default() }),
        ..ProcessBundleRequest::default()
    };
    let done = worker.process_bundle("1", request, &(Arc::new(Runner(descriptor)) as Arc<dyn FnApi>))?;
    let mut out = Vec::new();
    for data in done.elements.unwrap_or_default().data {
        let mut bytes = data.data;
        while !bytes.is_empty() {
            assert_eq!(&bytes[..header.len()], header);
            // A row of one small number: its length, no nulls, the number.
            let n = rows.from_bytes(bytes.slice(header.len()..header.len() + 3))?;
            bytes = bytes.slice(header.len() + 3..);
            out.push(match n.get("n") {
                Some(Value::Int64(n)) => *n,
                other => panic!("{other:?}"),
            });
        }
    }
    Ok(out)
}

#[test]
fn what_is_offered_is_told_with_its_fields() {
    let offered = discover(&Times::default());
    assert_eq!(offered.error, "");
    let config = &offered.schema_transform_configs[TIMES];
    assert_eq!(
        (config.description.as_str(), &config.input_pcollection_names[..]),
        ("multiplies", &["input".to_owned()][..])
    );
    let field = &config.config_schema.as_ref().unwrap().fields[0];
    assert_eq!((field.name.as_str(), field.description.as_str()), ("by", "the factor"));
}

#[test]
fn an_answer_holds_ids_of_its_own_and_the_callers_windows() {
    let sent = request("ns_1", "Outer/Times");
    let answer = answer(sent.clone());
    assert_eq!(answer.error, "");
    let (before, after) = (sent.components.unwrap(), answer.components.clone().unwrap());
    let root = answer.transform.clone().unwrap();
    assert_eq!(root.unique_name, "Outer/Times");
    assert_eq!(root.inputs["input"], "theirs");
    let output = &after.pcollections[&root.outputs["output"]];
    assert_eq!((output.windowing_strategy_id.as_str(), output.is_bounded), ("w", 1));
    let new = |old: Vec<&String>, all: Vec<&String>| {
        let new: Vec<String> = all.into_iter().filter(|id| !old.contains(id)).cloned().collect();
        assert!(!new.is_empty() && new.iter().all(|id| id.starts_with("ns_1_")), "{new:?}");
    };
    new(before.transforms.keys().collect(), after.transforms.keys().collect());
    new(before.pcollections.keys().collect(), after.pcollections.keys().collect());
    new(before.coders.keys().collect(), after.coders.keys().collect());
    new(vec![], after.environments.keys().collect());
    assert_eq!(before.windowing_strategies, after.windowing_strategies);
    // Every id that is named is there, and names are unique.
    let mut names = vec![root.unique_name.as_str()];
    for transform in after.transforms.values() {
        names.push(&transform.unique_name);
        assert!(
            transform
                .inputs
                .values()
                .chain(transform.outputs.values())
                .all(|id| after.pcollections.contains_key(id))
        );
        assert!(
            transform.environment_id.is_empty() || after.environments.contains_key(&transform.environment_id)
        );
    }
    assert!(root.subtransforms.iter().all(|id| after.transforms.contains_key(id)));
    let n = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), n, "{names:?}");
}

#[test]
fn a_worker_without_a_pipeline_runs_it() {
    let recipes = Arc::new(LibraryRecipes::new(Arc::new(Times::default())));
    assert_eq!(run(&answer(request("ns", "T")), &[1, 2, 20], recipes).unwrap(), [3, 6, 60]);
}

#[test]
fn workers_of_one_process_share_a_graph_as_long_as_one_has_it() {
    let transforms = Arc::new(Times::default());
    let recipes = LibraryRecipes::new(transforms.clone());
    let recipe = tiebeam_worker::Recipe {
        urn: TIMES.to_owned(),
        config: row_coder(numbers(&["by"])).to_bytes(&row("by", 2)).unwrap().into(),
        config_schema: encode_schema(&numbers(&["by"])).into(),
        inputs: vec![tiebeam_worker::RecipeInput {
            name: "input".to_owned(),
            element: Some(tiebeam_worker::coder_to_tree(&row_coder(numbers(&["n"])).spec())),
            ..Default::default()
        }],
        namespace: "ns".to_owned(),
    };
    let (one, two) = (recipes.graph(&recipe).unwrap(), recipes.graph(&recipe).unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(transforms.made.load(Ordering::Relaxed), 1);
    drop((one, two));
    recipes.graph(&recipe).unwrap();
    assert_eq!(transforms.made.load(Ordering::Relaxed), 2, "nothing is kept that nobody uses");
}

#[test]
fn what_cannot_be_made_is_told_in_the_answer() {
    let error = |change: &dyn Fn(&mut ExpansionRequest)| {
        let mut request = request("ns", "T");
        change(&mut request);
        answer(request).error
    };
    let asks = |request: &mut ExpansionRequest, urn: &str, payload: Vec<u8>| {
        request.transform.as_mut().unwrap().spec = spec(urn, payload);
    };
    let schema_transform = "beam:expansion:payload:schematransform:v1";
    let said = error(&|request| asks(request, schema_transform, payload("other", &row("by", 1))));
    assert!(
        said.starts_with("error[TB0733]: this service has no transform `other`\n  help: it has "),
        "{said}"
    );
    let said = error(&|request| asks(request, "beam:transforms:python:fully_qualified_named", vec![]));
    assert!(said.starts_with("error[TB0732]"), "{said}");
    let said = error(&|request| asks(request, schema_transform, vec![0x0a, 9]));
    assert!(
        said.starts_with("error[TB0730]: the request holds a SchemaTransformPayload that is damaged"),
        "{said}"
    );
    let said = error(&|request| asks(request, schema_transform, payload(TIMES, &row("to", 1))));
    assert_eq!(said, "error[TB0900]: no factor");
    let said = error(&|request| {
        let components = request.components.as_mut().unwrap();
        components.pcollections.get_mut("theirs").unwrap().coder_id = "text".to_owned();
    });
    assert!(said.starts_with("error[TB0731]: input `input` is of coder "), "{said}");
    let said = error(&|request| request.components.as_mut().unwrap().pcollections.clear());
    assert!(said.starts_with("error[TB0730]: the request names PCollection `theirs`"), "{said}");
    let said = error(&|request| request.components.as_mut().unwrap().coders.clear());
    assert!(said.starts_with("error[TB0540]"), "{said}");
    let said = error(&|request| request.transform.as_mut().unwrap().inputs.clear());
    assert!(said.starts_with("error[TB0734]"), "{said}");
    assert!(!answer(ExpansionRequest::default()).error.is_empty());
}

#[derive(Debug, Clone, PartialEq, Element)]
struct Number {
    n: i64,
}

#[derive(Debug, Clone, PartialEq, Element)]
struct Other {
    n: String,
}

/// A pipeline that asks for `transform`, expanded by the service's functions.
fn expanded<O: Element>(transform: External<O>) -> Result<pipeline::Pipeline> {
    let p = Pipeline::new();
    let input = p.apply(Create::of([Number { n: 1 }]));
    let output = input.step("Ask").apply(transform);
    output.step("After").map(|_| 1i64);
    let graph = p.build().unwrap();
    let mut message = to_proto(&graph, environment())?;
    client::expand_by(&graph, &mut message, &mut |_, request| {
        let response = expand(&Times::default(), &environment(), None, request);
        Ok(("here".to_owned(), response))
    })?;
    Ok(message)
}

#[test]
fn a_pipeline_of_ours_holds_what_a_service_gave() {
    let ask = external::schema_transform::<Number>("nowhere:1", TIMES, row("by", 3));
    let message = expanded(ask).unwrap();
    let components = message.components.unwrap();
    let ask = &components.transforms["Ask"];
    assert!(!ask.subtransforms.is_empty());
    let output = ask.outputs.values().next().unwrap();
    // What follows reads it by the id that it had.
    assert_eq!(components.transforms["After"].inputs.values().next(), Some(output));
    let coder = &components.coders[&components.pcollections[output].coder_id];
    let schema = decode_schema(coder.spec.as_ref().unwrap().payload.clone()).unwrap();
    assert_eq!(schema.to_string(), "n: INT64");
    assert!(
        components.environments.contains_key("external0_tiebeam"),
        "{:?}",
        components.environments.keys()
    );
    assert!(!components.transforms.contains_key("impulse_input"));
    for transform in components.transforms.values() {
        let ids = transform.inputs.values().chain(transform.outputs.values());
        assert!(ids.clone().all(|id| components.pcollections.contains_key(id)), "{transform:?}");
        assert!(transform.subtransforms.iter().all(|id| components.transforms.contains_key(id)));
    }
}

/// What a pipeline takes along that asks a real service, whose steps read `file`.
fn taken_along(file: &std::path::Path, elsewhere: bool) -> (ExpansionServer, Vec<ArtifactInformation>) {
    let times = Arc::new(Times { file: Some(file.to_owned()), ..Times::default() });
    let there = Environment::Docker { image: "there".to_owned() };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let service = ExpansionServer::start(any, times, &there, elsewhere, &Guard::default()).unwrap();
    let p = Pipeline::new();
    let ask = external::schema_transform::<Number>(&service.address().to_string(), TIMES, row("by", 3));
    p.apply(Create::of([Number { n: 1 }])).step("Ask").apply(ask);
    let graph = p.build().unwrap();
    let mut message = to_proto(&graph, environment()).unwrap();
    expand_externals(&graph, &mut message).unwrap();
    let environments = message.components.unwrap().environments;
    (service, environments["external0_tiebeam"].dependencies.clone())
}

#[test]
fn files_of_steps_that_run_elsewhere_come_from_the_service_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    // More than one piece, so that their order matters.
    let bytes: Vec<u8> = (0u32..1_300_000).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&model, &bytes).unwrap();
    let (service, files) = taken_along(&model, true);
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let payload = ArtifactFilePayload::decode(file.type_payload.clone()).unwrap();
    assert_ne!(payload.path, model.display().to_string(), "it is fetched, as from another machine");
    assert_eq!(std::fs::read(&payload.path).unwrap(), bytes);
    assert_eq!(payload.sha256, artifacts::sha256(&model).unwrap());
    let role = ArtifactStagingToRolePayload::decode(file.role_payload.clone()).unwrap();
    assert_eq!(role.staged_name, artifacts::StagedFile::of(&model).name, "by which the worker finds it");
    std::fs::remove_file(&payload.path).unwrap();

    let secret = folder.path().join("secret");
    std::fs::write(&secret, b"hunter2").unwrap();
    let secret = artifacts::describe(&artifacts::StagedFile::of(&secret)).unwrap();
    let refused = artifacts::fetch_foreign(&service.address().to_string(), &[secret]).unwrap_err();
    assert!(format!("{refused:?}").contains("given no transform with that file"), "{refused:?}");
    assert_eq!(taken_along(&model, false).1, [], "the service's own process has them");
    assert_eq!(taken_along(&folder.path().join("none"), true).1, []);
}

#[test]
fn elements_of_another_type_than_the_pipeline_says_are_refused() {
    let error = expanded(external::schema_transform::<Other>("nowhere:1", TIMES, row("by", 3))).unwrap_err();
    assert_eq!(error.code(), "TB0745");
    let said = error.to_string();
    assert!(
        said.contains(
            "Ask: the transform makes elements of coder row<n: INT64>, and the pipeline says row<n: STRING>"
        ),
        "{said}"
    );
    let error =
        expanded(external::schema_transform::<Number>("nowhere:1", "none", row("by", 3))).unwrap_err();
    assert_eq!(error.code(), "TB0741");
}

#[test]
fn arguments_are_told_as_each_language_wants_them() {
    let p = Pipeline::new();
    let input = p.apply(Create::of(["a".to_owned()]));
    let of = |graph: &Graph| {
        graph.nodes.iter().find_map(|node| match &node.kind {
            tiebeam_graph::NodeKind::External(spec) => Some(spec.clone()),
            _ => None,
        })
    };
    input.apply(
        external::python::<String>("a.b.C").arg(1).arg("x").kwarg("f", external::callable("lambda x: x")),
    );
    let spec = of(&p.build().unwrap()).unwrap();
    let message = pipeline::ExternalConfigurationPayload::decode(spec.payload.as_slice()).unwrap();
    let schema = decode_schema(message.schema.unwrap().encode_to_vec()).unwrap();
    assert_eq!(
        schema.to_string(),
        "constructor: STRING, args: ROW<arg0: INT64, arg1: STRING>, kwargs: ROW<f: LOGICAL<beam:logical_type:python_callable:v1>>"
    );
    let row = row_coder(Arc::new(schema)).from_bytes(message.payload).unwrap();
    assert_eq!(row.get("constructor"), Some(&Value::String("a.b.C".into())));

    let p = Pipeline::new();
    let java =
        external::java::<String>("h:1", "org.x.Y").constructor_method("of").arg("v").method("withN").arg(2);
    p.apply(Create::of(["a".to_owned()])).apply(java);
    let spec = of(&p.build().unwrap()).unwrap();
    let message = pipeline::JavaClassLookupPayload::decode(spec.payload.as_slice()).unwrap();
    assert_eq!((message.class_name.as_str(), message.constructor_method.as_str()), ("org.x.Y", "of"));
    assert_eq!(message.constructor_schema.unwrap().fields[0].name, "ignore0");
    assert_eq!(message.builder_methods[0].name, "withN");
}

#[test]
fn what_an_sdk_says_is_told_without_its_stack_trace() {
    let python = "Traceback (most recent call last):\n  File \"x.py\", line 3, in f\n    g()\nValueError: no such thing\n";
    assert_eq!(client::words(python), "ValueError: no such thing");
    let java = "java.lang.IllegalStateException: no\n\tat org.a.B(C.java:1)\n";
    assert_eq!(client::words(java), "java.lang.IllegalStateException: no");
}
