//! A bound for the share of elements that fail.

use tiebeam_core::{
    CombineFn, DoFn, Element, ElementContext, Error, ErrorKind, Output, Result, WindowingStrategy,
};
use tiebeam_graph::PCollection;

use crate::combine::CombineExt;

/// Ends the job with an error when more than `threshold` (0 to 1) of all elements are among those that failed: when the whole
/// of a bounded input was seen. Takes its own counts of both.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// let all = p.apply(Create::of([1i64, -2, 3]));
/// let failed = all.filter(|x| *x < 0);
/// tiebeam_transforms::bound_failures(&all, &failed, 0.5);
/// ```
#[track_caller]
pub fn bound_failures<A: Element, F: Element>(all: &PCollection<A>, failed: &PCollection<F>, threshold: f64) {
    let counted = [counted(all, "All", (0, 1)), counted(failed, "Failed", (1, 0))];
    let share = all.pipeline().flatten(counted).step("Share").combine_globally(AddUp);
    share.step("CheckThreshold").par_do(CheckShare { threshold });
}

#[track_caller]
fn counted<T: Element>(elements: &PCollection<T>, name: &str, one: (i64, i64)) -> PCollection<(i64, i64)> {
    let counted = elements.step(format!("Count{name}")).map(move |_| one);
    counted.step(format!("Global{name}")).window_into(WindowingStrategy::global())
}

/// Adds up pairs.
struct AddUp;

impl CombineFn for AddUp {
    type Input = (i64, i64);
    type Accumulator = (i64, i64);
    type Output = (i64, i64);

    fn create_accumulator(&self) -> (i64, i64) {
        (0, 0)
    }

    fn add_input(&self, accumulator: &mut (i64, i64), input: (i64, i64)) {
        self.merge(accumulator, input);
    }

    fn merge(&self, accumulator: &mut (i64, i64), other: (i64, i64)) {
        accumulator.0 = accumulator.0.saturating_add(other.0);
        accumulator.1 = accumulator.1.saturating_add(other.1);
    }

    fn extract_output(&self, accumulator: (i64, i64)) -> (i64, i64) {
        accumulator
    }
}

#[derive(Clone)]
struct CheckShare {
    threshold: f64,
}

impl DoFn for CheckShare {
    type In = (i64, i64);
    type Out = ();

    fn process(
        &mut self,
        (failed, all): (i64, i64),
        _: &ElementContext<'_>,
        _: &mut Output<()>,
    ) -> Result<()> {
        let share = failed as f64 / all.max(1) as f64;
        if share <= self.threshold {
            return Ok(());
        }
        let message =
            format!("{failed} of {all} elements failed, more than the threshold of {}", self.threshold);
        Err(Error::new(ErrorKind::UserCode, "TB0243", message)
            .with_retryable(false)
            .with_help("look at the error output, or raise the `threshold`"))
    }
}
