//! [`KServeModelHandler`]: servers that speak the Open Inference Protocol (KServe v2) over HTTP, Triton among them.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_http::escaped;
use tiebeam_inference::{
    DType, Dim, Example, Inference, InferenceArgs, ModelInfo, ModelMetadata, Port, Signature, Tensor,
    TensorData, Tensors,
};

use crate::handler::RemoteModelHandler;
use crate::json::{self, kind};
use crate::model::{Answers, RemoteModel};
use crate::remote::Remote;
use crate::request::{Credential, RemoteRequest, RemoteResponse, base_url, miscounted, unreadable};

/// Nested data deeper than this is no tensor.
const DEEPEST: usize = 32;

/// Runs models of servers that speak KServe v2. An example is one row: a [`Tensor`] for a model of one input, [`Tensors`]
/// after [`named_inputs`](RemoteModelHandler::named_inputs); an inference is the row of the only output, or of all outputs
/// by name after [`named_outputs`](RemoteModelHandler::named_outputs). A request stacks its examples on a new first axis.
///
/// When it is loaded, the model must be ready, and tells its inputs and outputs; each example is checked against them
/// before it is sent. The arguments of inference are the request's parameters.
///
/// ```no_run
/// use tiebeam_inference::RunInference;
/// use tiebeam_remote::KServeModelHandler;
///
/// let handler = KServeModelHandler::new("http://127.0.0.1:8000", "resnet50").with_version("3").with_request_size(16);
/// let predictions = RunInference::new(handler);
/// ```
pub type KServeModelHandler<E = Tensor, P = Tensor> = RemoteModelHandler<KServe<E, P>>;

/// A model of a server that speaks KServe v2.
pub struct KServe<E = Tensor, P = Tensor> {
    base_url: String,
    model: String,
    version: Option<String>,
    outputs: Vec<String>,
    credential: Credential,
    plain_http: bool,
    forms: PhantomData<fn(E) -> P>,
}

impl<E, P> Clone for KServe<E, P> {
    fn clone(&self) -> Self {
        self.with_forms()
    }
}

impl<E, P> KServe<E, P> {
    fn with_forms<F, Q>(&self) -> KServe<F, Q> {
        KServe {
            base_url: self.base_url.clone(),
            model: self.model.clone(),
            version: self.version.clone(),
            outputs: self.outputs.clone(),
            credential: self.credential.clone(),
            plain_http: self.plain_http,
            forms: PhantomData,
        }
    }

    fn url(&self, suffix: &str) -> String {
        let base = self.base_url.trim_end_matches('/');
        let version = self.version.as_ref().map(|version| format!("/versions/{}", escaped(version)));
        format!("{base}/v2/models/{}{}{suffix}", escaped(&self.model), version.unwrap_or_default())
    }
}

impl RemoteModelHandler<KServe> {
    /// The model of that name on the server at that address (scheme, host and port).
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        RemoteModelHandler::of(KServe {
            base_url: base_url.into(),
            model: model.into(),
            version: None,
            outputs: Vec::new(),
            credential: Credential::None,
            plain_http: false,
            forms: PhantomData,
        })
    }
}

impl<E: Example, P: Inference> RemoteModelHandler<KServe<E, P>> {
    /// Takes examples of several tensors by the names of the model's inputs.
    #[must_use]
    pub fn named_inputs(self) -> RemoteModelHandler<KServe<Tensors, P>> {
        self.into_other(|model| model.with_forms())
    }

    /// Gives all outputs (or those asked for) by name.
    #[must_use]
    pub fn named_outputs(self) -> RemoteModelHandler<KServe<E, Tensors>> {
        self.into_other(|model| model.with_forms())
    }

    /// That version of the model. Default: the one that the server chooses.
    #[must_use]
    pub fn with_version(self, version: impl Into<String>) -> Self {
        self.change(|model| model.version = Some(version.into()))
    }

    /// Asks for these outputs only, in this order.
    #[must_use]
    pub fn with_outputs<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.change(|model| model.outputs = names.into_iter().map(Into::into).collect())
    }

    /// A token sent with every request.
    #[must_use]
    pub fn with_bearer(self, token: impl Into<String>) -> Self {
        self.change(|model| model.credential = Credential::Value(token.into()))
    }

    /// The environment variable that holds a token.
    #[must_use]
    pub fn with_bearer_env(self, name: impl Into<String>) -> Self {
        self.change(|model| model.credential = Credential::Env(name.into()))
    }

    /// Sends the token without TLS too, to a server in a network of your own.
    #[must_use]
    pub fn with_plain_http(self) -> Self {
        self.change(|model| model.plain_http = true)
    }
}

/// What the model told of itself.
#[derive(Debug, Clone)]
pub struct KServeState {
    /// Its inputs, the first axis with them.
    pub inputs: Vec<Port>,
    /// The outputs that are asked for, the first axis with them.
    pub outputs: Vec<Port>,
    /// The name of each output's type as the protocol has it.
    output_types: Vec<String>,
    input_types: Vec<String>,
    output_names: Arc<[Arc<str>]>,
    /// Examples that a request may have.
    most: usize,
    model_id: Arc<str>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    inputs: Vec<MetadataTensor>,
    #[serde(default)]
    outputs: Vec<MetadataTensor>,
}

#[derive(Deserialize)]
struct MetadataTensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// The dtype in which tensors of that type of the protocol are held here.
fn dtype(datatype: &str) -> Option<DType> {
    Some(match datatype {
        "BOOL" => DType::Bool,
        "INT8" => DType::I8,
        "UINT8" => DType::U8,
        "INT16" | "UINT16" | "INT32" => DType::I32,
        "UINT32" | "INT64" => DType::I64,
        "FP16" | "BF16" | "FP32" => DType::F32,
        "FP64" => DType::F64,
        "BYTES" => DType::Str,
        _ => return None,
    })
}

fn misfit(message: String) -> Error {
    Error::new(ErrorKind::Model, "TB0609", message)
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0610", message)
}

fn port(told: &MetadataTensor) -> Result<Port> {
    let dim = |size: &i64| usize::try_from(*size).map_or(Dim::Free, Dim::Fixed);
    let Some(held) = dtype(&told.datatype) else {
        return Err(misfit(format!(
            "`{}` is of type {}, which tensors here can't hold",
            told.name, told.datatype
        )));
    };
    if told.shape.is_empty() || told.shape.len() > DEEPEST {
        let message = format!("`{}` has {} axes: it can't hold a batch", told.name, told.shape.len());
        return Err(misfit(message).with_help("the model must take several examples on its first axis"));
    }
    Ok(Port {
        name: told.name.as_str().into(),
        type_name: held.name().to_owned(),
        dtype: Some(held),
        shape: Some(told.shape.iter().map(dim).collect()),
    })
}

impl<E: Example, P: Inference> KServe<E, P> {
    /// Makes of the metadata what every batch needs, and refuses a model that can't be asked this way.
    fn state(&self, told: Metadata) -> Result<KServeState> {
        let model = &self.model;
        if told.inputs.is_empty() || told.outputs.is_empty() {
            return Err(misfit(format!("{model} tells no inputs or no outputs")));
        }
        let inputs = told.inputs.iter().map(port).collect::<Result<Vec<_>>>()?;
        let wanted = match self.outputs.is_empty() {
            true => told.outputs.iter().collect::<Vec<_>>(),
            false => {
                let find = |name: &String| {
                    told.outputs.iter().find(|output| output.name == *name).ok_or_else(|| {
                        let names =
                            told.outputs.iter().map(|output| &*output.name).collect::<Vec<_>>().join(", ");
                        misfit(format!("{model} has no output `{name}`; it has {names}"))
                    })
                };
                self.outputs.iter().map(find).collect::<Result<Vec<_>>>()?
            }
        };
        let outputs = wanted.iter().map(|output| port(output)).collect::<Result<Vec<_>>>()?;
        if E::SINGLE && inputs.len() != 1 {
            let names = inputs.iter().map(|input| &*input.name).collect::<Vec<_>>().join(", ");
            return Err(misfit(format!(
                "{model} has {} inputs ({names}), but examples are one tensor",
                inputs.len()
            ))
            .with_help("use `named_inputs()`"));
        }
        if P::SINGLE && outputs.len() != 1 {
            let names = outputs.iter().map(|output| &*output.name).collect::<Vec<_>>().join(", ");
            return Err(misfit(format!(
                "{model} has {} outputs ({names}), but inferences are one tensor",
                outputs.len()
            ))
            .with_help("choose one with `with_outputs`, or use `named_outputs()`"));
        }
        let first = |port: &Port| port.shape.as_ref().and_then(|dims| dims.first().cloned());
        let most = match inputs.iter().filter_map(first).find(|dim| matches!(dim, Dim::Fixed(_))) {
            None => usize::MAX,
            Some(Dim::Fixed(1)) => 1,
            Some(dim) => {
                let message = format!("{model} takes batches of exactly {dim} examples");
                return Err(misfit(message).with_help("serve it with a free first axis"));
            }
        };
        let version = self.version.clone().or(match told.versions.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        });
        let name = told.name.filter(|name| !name.is_empty()).unwrap_or_else(|| model.clone());
        Ok(KServeState {
            output_names: outputs.iter().map(|port| port.name.clone()).collect(),
            output_types: wanted.iter().map(|output| output.datatype.clone()).collect(),
            input_types: told.inputs.iter().map(|input| input.datatype.clone()).collect(),
            inputs,
            outputs,
            most,
            model_id: model_id(&name, version.as_deref()),
        })
    }
}

fn model_id(name: &str, version: Option<&str>) -> Arc<str> {
    match version {
        Some(version) if !version.is_empty() => format!("{name}/{version}").into(),
        _ => name.into(),
    }
}

#[derive(Serialize)]
struct InferRequest<'a> {
    inputs: Vec<InputTensor<'a>>,
    outputs: Vec<OutputName<'a>>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    parameters: serde_json::Map<String, Json>,
}

#[derive(Serialize)]
struct OutputName<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct InputTensor<'a> {
    name: &'a str,
    shape: Vec<usize>,
    datatype: &'a str,
    data: Data<'a>,
}

/// The numbers of several tensors, one after the other.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    Bool(Vec<bool>),
    Str(Vec<&'a str>),
}

impl<'a> Data<'a> {
    fn of(dtype: DType, rows: &[&'a Tensor]) -> Data<'a> {
        fn all<T: tiebeam_inference::tensor::TensorElement>(rows: &[&Tensor]) -> Vec<T> {
            rows.iter().flat_map(|row| row.as_slice::<T>().unwrap_or_default().iter().cloned()).collect()
        }
        match dtype {
            DType::F32 => Data::F32(all(rows)),
            DType::F64 => Data::F64(all(rows)),
            DType::I64 => Data::I64(all(rows)),
            DType::I32 => Data::I32(all(rows)),
            DType::U8 => Data::U8(all(rows)),
            DType::I8 => Data::I8(all(rows)),
            DType::Bool => Data::Bool(all(rows)),
            DType::Str => {
                let texts =
                    |row: &&'a Tensor| -> &'a [Arc<str>] { row.as_slice::<Arc<str>>().unwrap_or_default() };
                Data::Str(rows.iter().flat_map(texts).map(|text| &**text).collect())
            }
        }
    }
}

#[derive(Deserialize)]
struct InferResponse {
    model_name: Option<String>,
    model_version: Option<String>,
    outputs: Vec<OutputTensor>,
}

#[derive(Deserialize)]
struct OutputTensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Json,
}

/// The numbers of nested arrays, one after the other.
fn flat<'a>(json: &'a Json, depth: usize, out: &mut Vec<&'a Json>) -> Result<()> {
    match json {
        Json::Array(values) if depth < DEEPEST => {
            values.iter().try_for_each(|value| flat(value, depth + 1, out))
        }
        Json::Array(_) => Err(unreadable("an output's data are nested too deep")),
        one => {
            out.push(one);
            Ok(())
        }
    }
}

/// A tensor of an answer, of the type that was promised.
fn tensor(output: &OutputTensor, held: DType) -> Result<Tensor> {
    let mut values = Vec::new();
    flat(&output.data, 0, &mut values)?;
    let wrong = |value: &Json| {
        let shown: String = value.to_string().chars().take(40).collect();
        unreadable(format!("`{}` has {} {shown}, which is no {}", output.name, kind(value), output.datatype))
    };
    fn each<T>(
        values: &[&Json],
        take: impl Fn(&Json) -> Option<T>,
        wrong: impl Fn(&Json) -> Error,
    ) -> Result<Vec<T>> {
        values.iter().map(|value| take(value).ok_or_else(|| wrong(value))).collect()
    }
    let integer = |value: &Json| value.as_i64();
    let shape = &output.shape;
    let made = match held {
        DType::F32 => {
            let single = |value: &Json| value.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
            Tensor::new(shape, each(&values, single, wrong)?)
        }
        DType::F64 => Tensor::new(shape, each(&values, Json::as_f64, wrong)?),
        DType::I64 => Tensor::new(shape, each(&values, integer, wrong)?),
        DType::I32 => Tensor::new(shape, each(&values, |v| i32::try_from(integer(v)?).ok(), wrong)?),
        DType::U8 => Tensor::new(shape, each(&values, |v| u8::try_from(integer(v)?).ok(), wrong)?),
        DType::I8 => Tensor::new(shape, each(&values, |v| i8::try_from(integer(v)?).ok(), wrong)?),
        DType::Bool => Tensor::new(shape, each(&values, Json::as_bool, wrong)?),
        DType::Str => Tensor::new(shape, each(&values, |v| v.as_str().map(Arc::<str>::from), wrong)?),
    };
    made.map_err(|error| unreadable(format!("`{}`: {}", output.name, error.message())))
}

/// Whether all numbers can be written as JSON.
fn is_finite(tensor: &Tensor) -> bool {
    match tensor.data() {
        TensorData::F32(values) => values.as_slice().iter().all(|v| v.is_finite()),
        TensorData::F64(values) => values.as_slice().iter().all(|v| v.is_finite()),
        _ => true,
    }
}

impl<E: Example, P: Inference> RemoteModel for KServe<E, P> {
    type Example = E;
    type Inference = P;
    type State = KServeState;

    fn endpoint(&self) -> String {
        self.url("")
    }

    fn load(&self, remote: &Remote) -> Result<KServeState> {
        let ready = remote.call(|| self.get("/ready"))?;
        if ready.status() != 200 {
            let message = format!("{} is not ready: HTTP {}", self.endpoint(), ready.status());
            return Err(
                misfit(message).with_help("look at the model's name and version, and at the server's log")
            );
        }
        let told = remote.call(|| self.get(""))?;
        if told.status() != 200 {
            let message = format!("{} tells nothing of itself: HTTP {}", self.endpoint(), told.status());
            return Err(misfit(message));
        }
        let metadata: Metadata = told.json().map_err(|error| {
            misfit(format!("{} tells of itself what can't be read", self.endpoint())).with_source(error)
        })?;
        self.state(metadata)
    }

    fn request(&self, examples: &[E], state: &KServeState, args: &InferenceArgs) -> Result<RemoteRequest> {
        let mut inputs = Vec::with_capacity(state.inputs.len());
        for (index, (port, datatype)) in state.inputs.iter().zip(&state.input_types).enumerate() {
            let rows =
                examples.iter().filter_map(|example| example.tensor(index, &port.name)).collect::<Vec<_>>();
            let (Some(first), true) = (rows.first(), rows.len() == examples.len()) else {
                return Err(refused(format!("an example has no tensor `{}`", port.name)));
            };
            let mut shape = vec![rows.len()];
            first.with_shape(|row| shape.extend_from_slice(row));
            let data = Data::of(first.dtype(), &rows);
            inputs.push(InputTensor { name: &port.name, shape, datatype, data });
        }
        let outputs = state.output_names.iter().map(|name| OutputName { name }).collect();
        let body = InferRequest { inputs, outputs, parameters: json::of_args(args)? };
        let body =
            serde_json::to_vec(&body).map_err(|error| refused(format!("examples are no JSON: {error}")))?;
        Ok(RemoteRequest::post_json(self.url("/infer"), body).bearer(self.credential.token()?))
    }

    fn response(&self, examples: &[E], response: &RemoteResponse, state: &KServeState) -> Result<Answers<P>> {
        let answer: InferResponse = response.json()?;
        let n = examples.len();
        let mut columns = Vec::with_capacity(state.outputs.len());
        for (port, datatype) in state.outputs.iter().zip(&state.output_types) {
            let mut named = answer.outputs.iter().filter(|output| *output.name == *port.name);
            let (Some(output), None) = (named.next(), named.next()) else {
                return Err(unreadable(format!("the answer has not exactly one output `{}`", port.name)));
            };
            if output.datatype != *datatype {
                let (name, got) = (&port.name, &output.datatype);
                return Err(unreadable(format!("`{name}` came as {got}, and the model promised {datatype}")));
            }
            let Some(held) = port.dtype else { return Err(Error::internal("an output without a type")) };
            if output.shape.first() != Some(&n) {
                return Err(miscounted(format!(
                    "`{}` has the shape {:?} for {n} examples",
                    port.name, output.shape
                )));
            }
            columns.push(tensor(output, held)?.into_rows()?);
        }
        let name = answer.model_name.filter(|name| !name.is_empty());
        let model_id = answer
            .model_version
            .map(|version| model_id(name.as_deref().unwrap_or(&self.model), Some(&version)));
        Ok(Answers { inferences: P::of_columns(&state.output_names, columns), model_id })
    }

    fn request_size(&self) -> usize {
        16
    }

    fn max_request_size(&self, state: &KServeState) -> usize {
        state.most
    }

    /// Rows of one shape can be stacked.
    fn fit_together(&self, one: &E, other: &E) -> bool {
        let names = one.names().map_or(1, <[_]>::len);
        (0..names).all(|index| {
            let name = one.names().and_then(|names| names.get(index)).map_or("", |name| &**name);
            match (one.tensor(index, name), other.tensor(index, name)) {
                (Some(one), Some(other)) => one.same_shape(other),
                _ => false,
            }
        })
    }

    fn name(&self) -> String {
        "KServeModelHandler".to_owned()
    }

    fn metrics_namespace(&self) -> String {
        "BeamML_KServe".to_owned()
    }

    fn model_info(&self, state: &KServeState) -> ModelInfo {
        ModelInfo { model_id: state.model_id.clone(), uri: Some(self.endpoint()), ..ModelInfo::default() }
    }

    fn signature(&self, state: &KServeState) -> Option<Signature> {
        Some(Signature { inputs: state.inputs.clone(), outputs: state.outputs.clone() })
    }

    /// Another model of the same server: `name/version`, or a name for the version that the server chooses.
    fn version(&self, version: &ModelMetadata) -> Option<Self> {
        let (model, version) = match version.model_id.split_once('/') {
            Some((model, version)) => (model.to_owned(), Some(version.to_owned())),
            None => (version.model_id.clone(), None),
        };
        Some(KServe { model, version, ..self.clone() })
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<()> {
        if self.model.is_empty() {
            let message = "a KServe handler needs the name of a model";
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0600", message));
        }
        base_url(&self.base_url, &self.credential, self.plain_http).map(drop)
    }

    /// Parameters are the model's own: any will do that is JSON.
    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        json::of_args(args).map(drop)
    }

    fn check_example(&self, example: &E, state: &KServeState) -> Result<()> {
        for (index, port) in state.inputs.iter().enumerate() {
            let Some(tensor) = example.tensor(index, &port.name) else {
                return Err(refused(format!("the example has no tensor `{}`", port.name)));
            };
            let row = port.shape.as_deref().and_then(|dims| dims.get(1..)).unwrap_or_default();
            let fits = tensor.with_shape(|shape| {
                shape.len() == row.len() && row.iter().zip(shape).all(|(dim, size)| dim.admits(*size))
            });
            if Some(tensor.dtype()) != port.dtype || !fits {
                let wanted = tiebeam_inference::signature::Axes(Some(row));
                return Err(refused(format!(
                    "`{}` must be {}{wanted}, got {}{:?}",
                    port.name,
                    port.type_name,
                    tensor.dtype(),
                    tensor.shape()
                )));
            }
            if !is_finite(tensor) {
                return Err(refused(format!(
                    "`{}` has a number that is not finite, which JSON has not",
                    port.name
                )));
            }
        }
        match example
            .names()
            .and_then(|names| names.iter().find(|name| !state.inputs.iter().any(|port| port.name == **name)))
        {
            Some(name) => {
                Err(refused(format!("the example has a tensor `{name}`, which the model does not take")))
            }
            None => Ok(()),
        }
    }

    fn element_size(&self, example: &E) -> u64 {
        example.num_bytes() as u64
    }
}

impl<E, P> KServe<E, P> {
    fn get(&self, suffix: &str) -> Result<RemoteRequest> {
        Ok(RemoteRequest::get(self.url(suffix)).bearer(self.credential.token()?))
    }
}
