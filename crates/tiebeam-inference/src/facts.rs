//! What a pipeline is known to feed a model, and whether that fits: compared before any element is read.

use std::sync::Arc;

use tiebeam_core::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_graph::{PCollection, composite};

use crate::prediction::PredictionResult;
use crate::signature::{Axes, Dim, Port};
use crate::tensor::DType;

/// So many of the elements that a program gives are tried before a run.
pub(crate) const TRIED: usize = 100;

/// The label of [`Results::inferences`].
const LABEL: &str = "Inferences";

/// Tells the tensors of an element, once that is known.
type Tell = Arc<dyn Fn() -> Option<Vec<Port>> + Send + Sync>;

/// What is known of the tensors that the elements of a PCollection bring, before there are any: a
/// [note](PCollection::with_note) of it, which a [`RunInference`](crate::RunInference) of that PCollection compares with the
/// inputs of its model before any element is read. Keys beside the tensors don't count.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # use tiebeam_inference::{DType, Dim, Feeds, Port, Tensor};
/// # let p = Pipeline::new();
/// # let tensors = p.apply(Create::of([Tensor::vector(vec![1.5f32, 2.5])]));
/// let pairs = tensors.with_note(Feeds::one(DType::F32, [Dim::Fixed(2)]));
/// ```
#[derive(Clone)]
pub struct Feeds {
    tell: Tell,
    /// Inputs that are not among them may be fed all the same.
    is_part: bool,
    /// They may have a first axis of a batch, which is no axis of an element then.
    may_be_batch: bool,
    from: Arc<str>,
}

impl Feeds {
    /// Each element brings one tensor, of that shape, without an axis for batches.
    pub fn one(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Feeds::named([("", dtype, shape.into_iter().collect::<Vec<_>>())])
    }

    /// Each element brings tensors of these names, without an axis for batches.
    pub fn named<N: Into<Arc<str>>>(tensors: impl IntoIterator<Item = (N, DType, Vec<Dim>)>) -> Self {
        let port = |(name, dtype, shape): (N, DType, Vec<Dim>)| Port {
            name: name.into(),
            type_name: dtype.name().to_owned(),
            dtype: Some(dtype),
            shape: Some(shape),
        };
        let ports: Vec<Port> = tensors.into_iter().map(port).collect();
        let tell: Tell = Arc::new(move || Some(ports.clone()));
        Feeds { tell, is_part: false, may_be_batch: false, from: "the pipeline".into() }
    }

    /// Says who feeds it, for errors. Default: the pipeline.
    #[must_use]
    pub fn from(mut self, who: impl Into<Arc<str>>) -> Self {
        self.from = who.into();
        self
    }

    /// Other inputs than these may be fed, too, of which nothing is known.
    #[must_use]
    pub fn and_others(mut self) -> Self {
        self.is_part = true;
        self
    }

    /// The outputs of a model that is loaded when this is asked; one of them goes on without its name.
    pub(crate) fn of_outputs(tell: Tell, from: Arc<str>) -> Self {
        Feeds { tell, is_part: false, may_be_batch: true, from }
    }

    /// Compares with what a model takes.
    ///
    /// # Errors
    /// The input, what is fed, what it wants.
    pub(crate) fn fit(&self, model: &str, inputs: &[Port]) -> Result<()> {
        let Some(fed) = (self.tell)() else { return Ok(()) };
        let misfit = match fed.as_slice() {
            [one] if one.name.is_empty() && !self.is_part => match inputs {
                [only] => self.misfit(one, only),
                _ => Some(format!("one tensor, {}, but the model has {} inputs", shown(one), inputs.len())),
            },
            _ => {
                let of = |port: &Port| fed.iter().find(|one| one.name == port.name);
                let unknown = |one: &&Port| !self.is_part && inputs.iter().all(|port| port.name != one.name);
                inputs
                    .iter()
                    .find_map(|port| match of(port) {
                        Some(one) => self.misfit(one, port),
                        None if self.is_part => None,
                        None => Some(format!("nothing for the input {port}")),
                    })
                    .or_else(|| {
                        let extra = fed.iter().find(unknown)?;
                        Some(format!("`{}`, which is no input of the model", extra.name))
                    })
            }
        };
        let Some(misfit) = misfit else { return Ok(()) };
        let wanted = inputs.iter().map(Port::to_string).collect::<Vec<_>>().join(", ");
        Err(unfit(format!("{} feeds {model} {misfit}; it takes {wanted}", self.from)))
    }

    /// What keeps a tensor from being an input.
    fn misfit(&self, fed: &Port, wanted: &Port) -> Option<String> {
        let told = |what: &str| {
            let name = &wanted.name;
            Some(format!("{} for the input `{name}`, which wants {what}", shown(fed)))
        };
        if let (Some(seen), Some(dtype)) = (fed.dtype, wanted.dtype)
            && !converts(seen, dtype)
        {
            return told(&wanted.type_name);
        }
        let (Some(row), Some(dims)) = (&fed.shape, &wanted.shape) else { return None };
        let as_row = match row.split_first() {
            Some((Dim::Named(_) | Dim::Free | Dim::Fixed(1), rest)) if self.may_be_batch => Some(rest),
            _ => None,
        };
        if fits(row, dims) || as_row.is_some_and(|row| fits(row, dims)) {
            return None;
        }
        match dims.split_first() {
            Some((Dim::Named(_) | Dim::Free | Dim::Fixed(1), rest)) => {
                told(&format!("the shape {} (a row: {})", Axes(Some(dims)), Axes(Some(rest))))
            }
            _ => told(&format!("the shape {}", Axes(Some(dims)))),
        }
    }
}

/// As `float32[3, 4]`.
fn shown(port: &Port) -> String {
    format!("{}{}", port.type_name, Axes(port.shape.as_deref()))
}

/// Whether a tensor of a shape, as far as it is known, may go into an input: as a row of it, or as it is.
fn fits(row: &[Dim], dims: &[Dim]) -> bool {
    let may_be = |one: &Dim, other: &Dim| match (one, other) {
        (Dim::Fixed(one), Dim::Fixed(other)) => one == other,
        _ => true,
    };
    let admits =
        |dims: &[Dim]| dims.len() == row.len() && dims.iter().zip(row).all(|(dim, size)| may_be(dim, size));
    let as_row = match dims.split_first() {
        Some((Dim::Named(_) | Dim::Free | Dim::Fixed(1), rest)) => {
            // A number is a row of size 1 on every axis.
            admits(rest) || (row.is_empty() && rest.iter().all(|dim| dim.admits(1)))
        }
        _ => false,
    };
    as_row || admits(dims)
}

/// Whether tensors of `seen` may go into an input of `wanted`, as the engines convert; of numbers as far as they fit.
pub fn converts(seen: DType, wanted: DType) -> bool {
    let float = |dtype| matches!(dtype, DType::F32 | DType::F64);
    let int = |dtype| matches!(dtype, DType::I64 | DType::I32 | DType::U8 | DType::I8);
    seen == wanted || (float(wanted) && (float(seen) || int(seen))) || (int(wanted) && int(seen))
}

/// The error of a pipeline that feeds a model what it does not take.
pub(crate) fn unfit(message: String) -> Error {
    Error::new(ErrorKind::InvalidPipeline, "TB0307", message).with_help(
        "give the model what it takes, by a step before it or a preprocess step, or take another model",
    )
}

/// What is known of the inferences in the results of a RunInference; a note of them.
pub(crate) struct Infers(pub(crate) Feeds);

/// The inferences of results, for the next model.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # use tiebeam_inference::{Results, RunInference, from_fn};
/// # let model = || from_fn("times two", |batch: &[i64]| Ok::<_, String>(batch.iter().map(|x| x * 2).collect()));
/// let p = Pipeline::new();
/// let first = p.apply(Create::of([1i64, 2])).apply(RunInference::new(model()));
/// let second = first.inferences().apply(RunInference::new(model()));
/// ```
pub trait Results {
    /// What comes out: inferences, with their keys where results have some.
    type Inferences;

    /// The inferences alone. What the model is known to give goes with them, so that the next model is refused before any
    /// element is read where it takes something else.
    #[track_caller]
    fn inferences(&self) -> Self::Inferences;
}

fn known<T: Element, P: Element>(results: &PCollection<T>, inferences: PCollection<P>) -> PCollection<P> {
    match results.noted::<Infers>() {
        Some(infers) => inferences.with_note(infers.0.clone()),
        None => inferences,
    }
}

impl<E: Element, P: Element> Results for PCollection<PredictionResult<E, P>> {
    type Inferences = PCollection<P>;

    fn inferences(&self) -> PCollection<P> {
        let take = composite(LABEL, |results: Self| results.map(|result| result.inference));
        known(self, self.apply(take))
    }
}

impl<K: Element, E: Element, P: Element> Results for PCollection<(K, PredictionResult<E, P>)> {
    type Inferences = PCollection<(K, P)>;

    fn inferences(&self) -> PCollection<(K, P)> {
        let take = composite(LABEL, |results: Self| results.map(|(key, result)| (key, result.inference)));
        known(self, self.apply(take))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dtype: DType, shape: &[Dim]) -> Port {
        Port {
            name: name.into(),
            type_name: dtype.name().to_owned(),
            dtype: Some(dtype),
            shape: Some(shape.to_vec()),
        }
    }

    fn said(feeds: &Feeds, inputs: &[Port]) -> Option<String> {
        let error = feeds.fit("m", inputs).err()?;
        assert_eq!(error.code(), "TB0307");
        Some(error.message().to_owned())
    }

    #[test]
    fn rows_fit_inputs_with_a_batch_axis_and_without() {
        use Dim::{Fixed, Free};
        let batch = [port("x", DType::F32, &[Dim::Named("n".into()), Fixed(3)])];
        assert_eq!(said(&Feeds::one(DType::F32, [Fixed(3)]), &batch), None);
        assert_eq!(said(&Feeds::one(DType::I32, [Free]), &batch), None, "what is not known may fit");
        assert_eq!(said(&Feeds::one(DType::F64, [Fixed(9), Fixed(3)]), &batch), None, "a batch of its own");
        assert_eq!(
            said(&Feeds::one(DType::F32, [Fixed(4)]), &batch).unwrap(),
            "the pipeline feeds m float32[4] for the input `x`, which wants the shape [n, 3] (a row: [3]); \
             it takes x float32[n, 3]"
        );
        assert_eq!(
            said(&Feeds::one(DType::Str, [Fixed(3)]).from("Read"), &batch).unwrap(),
            "Read feeds m str[3] for the input `x`, which wants float32; it takes x float32[n, 3]"
        );
        let column = [port("x", DType::F32, &[Free, Fixed(1)])];
        assert_eq!(said(&Feeds::one(DType::F32, []), &column), None, "a number is a row of one");
        let whole = [port("x", DType::F32, &[Fixed(5)])];
        assert_eq!(said(&Feeds::one(DType::F32, [Fixed(5)]), &whole), None);
        assert!(said(&Feeds::one(DType::F32, []), &whole).unwrap().contains("the shape [5]"));
    }

    #[test]
    fn tensors_are_found_by_their_names() {
        let inputs =
            [port("ids", DType::I64, &[Dim::Free, Dim::Free]), port("mask", DType::I64, &[Dim::Free])];
        let feeds = |names: &[&'static str]| {
            Feeds::named(names.iter().map(|name| (*name, DType::I64, vec![Dim::Free])))
        };
        assert!(said(&feeds(&["ids"]), &inputs).unwrap().contains("nothing for the input mask int64[?]"));
        assert_eq!(said(&feeds(&["ids"]).and_others(), &inputs), None);
        let one = [inputs[0].clone()];
        assert!(said(&feeds(&["ids", "odd"]), &one).unwrap().contains("`odd`, which is no input"));
        let single = Feeds::one(DType::I64, [Dim::Free]);
        assert!(said(&single, &inputs).unwrap().contains("one tensor, int64[?], but the model has 2 inputs"));
    }

    #[test]
    fn outputs_may_have_the_axis_of_a_batch() {
        let outputs = vec![port("", DType::F32, &[Dim::Named("batch".into()), Dim::Fixed(10)])];
        let feeds = Feeds::of_outputs(Arc::new(move || Some(outputs.clone())), "A".into());
        assert_eq!(said(&feeds, &[port("x", DType::F32, &[Dim::Free, Dim::Fixed(10)])]), None);
        assert!(said(&feeds, &[port("x", DType::F32, &[Dim::Free, Dim::Fixed(8)])]).is_some());
    }
}
