//! From examples to rows of numbers.

use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::signature::Example;
use tiebeam_inference::{DType, Tensor, TensorData};

use crate::model::{Feature, TreesModel, UnknownCategory};

/// Which features are wanted of a row.
#[derive(Clone, Copy)]
pub(crate) enum Columns<'a> {
    All,
    These(&'a [u32]),
}

impl Columns<'_> {
    pub(crate) fn count(self, features: usize) -> usize {
        match self {
            Columns::All => features,
            Columns::These(these) => these.len(),
        }
    }
}

/// Where the features are among the names of an example: found once for all that share their names.
#[derive(Default)]
pub(crate) struct Places {
    names: Option<Vec<Arc<str>>>,
    /// By feature: the number of its tensor and 1, or 0.
    of: Vec<u32>,
}

fn wrong(code: &'static str, what: String) -> Error {
    Error::new(ErrorKind::InvalidData, code, what)
}

/// Gives the numbers of an example to `each`, feature by feature; a missing one is NaN.
///
/// # Errors
/// Of kind [`InvalidData`](ErrorKind::InvalidData), when the example is no row of this model.
pub(crate) fn gather<E: Example>(
    model: &TreesModel,
    example: &E,
    places: &mut Places,
    columns: Columns<'_>,
    mut each: impl FnMut(f64),
) -> Result<()> {
    let count = model.num_features();
    if let Some(names) = example.names() {
        if places.names.as_deref() != Some(names) {
            places.of = find(model, names)?;
            places.names = Some(names.to_vec());
        }
        let mut one = |feature: usize| {
            let number = match places.of.get(feature).copied().unwrap_or(0) {
                0 => f64::NAN,
                place => {
                    let name = &names[place as usize - 1];
                    let tensor = example.tensor(place as usize - 1, name);
                    tensor.map_or(Ok(f64::NAN), |tensor| number(model, feature, tensor))?
                }
            };
            each(number);
            Ok(())
        };
        return match columns {
            Columns::All => (0..count).try_for_each(one),
            Columns::These(these) => these.iter().try_for_each(|feature| one(*feature as usize)),
        };
    }
    let Some(tensor) = example.tensor(0, "") else {
        return Err(wrong("TB0386", "an example without a tensor".to_owned()));
    };
    // A model of one feature takes numbers, too.
    let fits = tensor.with_shape(|shape| match shape {
        [] => count == 1,
        [n] | [1, n] => *n == count,
        _ => false,
    });
    if let (false, [rows, _]) = (fits, tensor.shape().as_slice())
        && *rows > 1
    {
        // In Beam's words, which people search for; its examples are tables of pandas.
        let message = format!("Only dataframes with single rows are supported. This one has {rows}");
        return Err(wrong("TB0386", message));
    }
    if !fits {
        return Err(wrong(
            "TB0386",
            format!("the model wants a row of {count} features, got the shape {:?}", tensor.shape()),
        ));
    }
    all(tensor, columns, each)
}

/// The places of the features among names, all of which must be features.
fn find(model: &TreesModel, names: &[Arc<str>]) -> Result<Vec<u32>> {
    let mut places = vec![0; model.features().len()];
    for (place, name) in names.iter().enumerate() {
        places[known(model, name)?] = place as u32 + 1;
    }
    Ok(places)
}

/// The number of the feature of that name.
fn known(model: &TreesModel, name: &str) -> Result<usize> {
    model.feature_of(name).ok_or_else(|| {
        let features = model.features();
        let known: Vec<String> = features.iter().take(20).map(|one| format!("`{}`", one.name)).collect();
        let more = if features.len() > 20 { ", …" } else { "" };
        wrong(
            "TB0386",
            format!("the model has no feature `{name}`, its features are {}{more}", known.join(", ")),
        )
    })
}

/// Gives each number that an example brings to `each`, in any order.
///
/// # Errors
/// As [`gather`].
pub(crate) fn each_number<E: Example>(
    model: &TreesModel,
    example: &E,
    mut each: impl FnMut(f64),
) -> Result<()> {
    let Some(names) = example.names() else {
        return gather(model, example, &mut Places::default(), Columns::All, each);
    };
    for (place, name) in names.iter().enumerate() {
        let feature = known(model, name)?;
        if let Some(tensor) = example.tensor(place, name) {
            each(number(model, feature, tensor)?);
        }
    }
    Ok(())
}

/// The one number of a feature's own tensor; a text is the number of the category of that name.
fn number(model: &TreesModel, at: usize, tensor: &Tensor) -> Result<f64> {
    let feature = &model.features()[at];
    let name = &feature.name;
    if tensor.len() != 1 {
        return Err(wrong(
            "TB0386",
            format!("feature `{name}` wants one number, got the shape {:?}", tensor.shape()),
        ));
    }
    if let TensorData::Str(text) = tensor.data() {
        let text = &text.as_slice()[0];
        let Some(categories) = &feature.categories else {
            return Err(wrong("TB0387", format!("feature `{name}` wants a number, got the text `{text}`")));
        };
        return match model.category_of(at, text) {
            Some(code) => Ok(code as f64),
            None if feature.unknown == UnknownCategory::Missing => Ok(f64::NAN),
            None => Err(unknown(feature, categories, text)),
        };
    }
    let mut number = f64::NAN;
    all(tensor, Columns::All, |x| number = x)?;
    Ok(number)
}

/// XGBoost refuses categories that were not there in training; up to 3.2 it takes some for another one, which is its issue 12189.
fn unknown(feature: &Feature, categories: &[Arc<str>], text: &str) -> Error {
    const SOME: usize = 8;
    let shown = |text: &str| {
        let cut = text.char_indices().nth(60).map_or(text.len(), |(end, _)| end);
        format!("`{}{}`", &text[..cut], if cut < text.len() { "…" } else { "" })
    };
    let known: Vec<String> = categories.iter().take(SOME).map(|category| shown(category)).collect();
    let (known, count) = (known.join(", "), categories.len());
    let known = match count {
        0 => "none whose name the model's file tells".to_owned(),
        1..=SOME => known,
        _ => format!("{known}, … ({count} in all)"),
    };
    let what = format!("feature `{}` has no category {}, it has {known}", feature.name, shown(text));
    let error = wrong("TB0387", what);
    match feature.unknown {
        UnknownCategory::RefusedOrCut => error.with_help(
            "if it was there in training: XGBoost up to 3.3 keeps only some of the names of a pandas table where they are not ASCII; \
             give the category's number, or train with names that are ASCII",
        ),
        _ => error.with_help("leave out what was not there in training: it is missing then"),
    }
}

/// Gives the wanted numbers of a tensor to `each`.
fn all(tensor: &Tensor, columns: Columns<'_>, mut each: impl FnMut(f64)) -> Result<()> {
    macro_rules! give {
        ($buffer:expr, |$x:ident| $number:expr) => {{
            let numbers = $buffer.as_slice();
            match columns {
                Columns::All => numbers.iter().for_each(|$x| each($number)),
                Columns::These(these) => these.iter().for_each(|at| {
                    let $x = &numbers[*at as usize];
                    each($number)
                }),
            }
        }};
    }
    match tensor.data() {
        TensorData::F32(b) => give!(b, |x| f64::from(*x)),
        TensorData::F64(b) => give!(b, |x| *x),
        TensorData::I64(b) => give!(b, |x| *x as f64),
        TensorData::I32(b) => give!(b, |x| f64::from(*x)),
        TensorData::U8(b) => give!(b, |x| f64::from(*x)),
        TensorData::I8(b) => give!(b, |x| f64::from(*x)),
        TensorData::Bool(b) => give!(b, |x| f64::from(u8::from(*x))),
        TensorData::Str(_) => {
            let what = format!(
                "the model wants numbers, got {}: name the features to give categories as texts",
                DType::Str
            );
            return Err(wrong("TB0387", what));
        }
    }
    Ok(())
}
