//! [`Architecture`]: how modules make a model, found by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;
use tiebeam_onnx::proto::ModelProto;

use crate::graph::GraphBuilder;
use crate::params::{Param, Params, nearest};
use crate::state_dict::StateDict;
use crate::zoo;

type Build = dyn Fn(&Params, &mut GraphBuilder<'_>) -> Result<()> + Send + Sync;

/// A model's plan: a name, the parameters that it takes, and a function that puts modules together. Beam's `model_class`.
///
/// ```
/// use tiebeam_torch::modules::{Linear, ReLU};
/// use tiebeam_torch::{Architecture, Dim, ElementType, Param, ParamKind};
///
/// // The torch class has the attributes `hidden` and `out`.
/// let plan = Architecture::new("Regressor", |params, g| {
///     let (inputs, width) = (params.size("inputs")?, params.size("width")?);
///     let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(inputs)]);
///     let h = g.apply("hidden", &Linear::new(inputs, width), &x)?;
///     let h = g.relu(&h);
///     let y = g.apply("out", &Linear::new(width, 1), &h)?;
///     g.output("y", &y);
///     Ok(())
/// })
/// .with_param(Param::required("inputs", ParamKind::Size))
/// .with_param(Param::optional("width", ParamKind::Size, tiebeam_core::row::Value::Int64(64)));
///
/// tiebeam_torch::register(plan)?; // now pipeline files can say `model_class: Regressor`
/// # Ok::<(), tiebeam_core::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Architecture {
    name: Arc<str>,
    params: Vec<Param>,
    build: Arc<Build>,
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Architecture")
            .field("name", &self.name)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl Architecture {
    /// A plan of that name. `build` declares the inputs and outputs and runs modules in between; it is called once for
    /// each model that is loaded.
    pub fn new(
        name: impl Into<Arc<str>>,
        build: impl Fn(&Params, &mut GraphBuilder<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Architecture { name: name.into(), params: Vec::new(), build: Arc::new(build) }
    }

    /// Declares one more parameter.
    #[must_use]
    pub fn with_param(mut self, param: Param) -> Self {
        self.params.push(param);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters that it takes.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Holds `params` to what the architecture takes, without any weights.
    ///
    /// # Errors
    /// All that is wrong with them, in one message.
    pub fn check_params(&self, params: &BTreeMap<String, Value>) -> Result<()> {
        Params::check(&self.name, &self.params, params).map(drop)
    }

    /// The names and shapes of the weights that a state dict must have for the model, in the order of their use.
    ///
    /// # Errors
    /// When the parameters are not those that it takes.
    pub fn weights(&self, params: &BTreeMap<String, Value>) -> Result<Vec<(String, Vec<usize>)>> {
        let params = Params::check(&self.name, &self.params, params)?;
        let none = StateDict::none();
        let mut g = GraphBuilder::new(&none);
        (self.build)(&params, &mut g)?;
        Ok(g.into_wanted())
    }

    /// The model as an ONNX graph, with these weights in it.
    ///
    /// # Errors
    /// When the parameters are not those that it takes, or the weights do not fit: every missing and unexpected name and
    /// every other shape in one message, as torch's `load_state_dict` does.
    pub fn to_onnx(&self, weights: &StateDict, params: &BTreeMap<String, Value>) -> Result<ModelProto> {
        let params = Params::check(&self.name, &self.params, params)?;
        let mut g = GraphBuilder::new(weights);
        (self.build)(&params, &mut g)?;
        g.finish(&self.name)
    }
}

static REGISTRY: LazyLock<RwLock<BTreeMap<Arc<str>, Architecture>>> = LazyLock::new(|| {
    RwLock::new(zoo::architectures().into_iter().map(|one| (one.name.clone(), one)).collect())
});

/// Makes an architecture known by its name, to pipeline files too.
///
/// # Errors
/// When there is one of that name already.
pub fn register(architecture: Architecture) -> Result<()> {
    // A panic elsewhere can't leave a map of whole entries in pieces.
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    if registry.contains_key(&architecture.name) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0371",
            format!("there is an architecture `{}` already", architecture.name),
        ));
    }
    registry.insert(architecture.name.clone(), architecture);
    Ok(())
}

/// The architecture of that name.
///
/// # Errors
/// When there is none: with the name that was probably meant, or all of them.
pub fn architecture(name: &str) -> Result<Architecture> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = registry.get(name) {
        return Ok(found.clone());
    }
    let error =
        Error::new(ErrorKind::InvalidArgument, "TB0371", format!("there is no architecture `{name}`"));
    let names = registry.keys().map(|name| &**name);
    let last = name.rsplit('.').next().unwrap_or(name);
    let same = names.clone().find(|known| known.rsplit('.').next() == Some(last));
    Err(match same.or_else(|| nearest(name, names.clone())) {
        Some(meant) => error.with_help(format!("did you mean `{meant}`?")),
        None => error.with_help(format!("there are {}", names.collect::<Vec<_>>().join(", "))),
    })
}

/// The names of all architectures, in order.
pub fn architectures() -> Vec<String> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner).keys().map(|name| name.to_string()).collect()
}
