//! [`assert_that`]: what a PCollection must hold, checked by the pipeline itself.

use std::fmt::Debug;
use std::fmt::Write as _;
use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::{
    DoFn, Element, ElementContext, Error, ErrorKind, Iterable, Output, Result, View, Window,
    WindowingStrategy,
};
use tiebeam_graph::{PCollection, ParDo, impulse};

/// An assertion about a PCollection's elements, all windows and panes together.
///
/// It becomes a step of the pipeline, `AssertThat`, and fails the run with what was wanted and what was there. An empty
/// PCollection is checked too.
#[must_use = "say what it must hold"]
pub struct Assertion<T> {
    collection: PCollection<T>,
    place: &'static Location<'static>,
}

/// Begins an assertion.
#[track_caller]
pub fn assert_that<T: Element>(collection: &PCollection<T>) -> Assertion<T> {
    Assertion { collection: collection.clone(), place: Location::caller() }
}

/// Elements shown on each side of a difference.
const SHOWN: usize = 20;

impl<T: Element> Assertion<T> {
    /// Whatever `check` says of the elements, which come in no particular order: `Err` says what is wrong with them. It may
    /// also panic, as `assert_eq!` does.
    pub fn satisfies(self, check: impl Fn(&[T]) -> Result<(), String> + Send + Sync + 'static) {
        let Assertion { collection, place } = self;
        let pipeline = collection.pipeline().clone();
        pipeline.in_scope(None, "AssertThat", || {
            let all = collection.window_into(WindowingStrategy::global()).as_iterable();
            let dofn = Check { all: all.view(), check: Arc::new(check), place };
            impulse(&pipeline).step("Check").apply(ParDo::new(dofn).with_side_input(&all));
        });
    }

    /// Nothing.
    pub fn is_empty(self)
    where
        T: Debug,
    {
        self.satisfies(|found| {
            if found.is_empty() { Ok(()) } else { Err(format!("wanted nothing, found {}", listed(found))) }
        });
    }

    /// As many elements.
    pub fn has_count(self, wanted: usize) {
        self.satisfies(move |found| {
            let n = found.len();
            if n == wanted { Ok(()) } else { Err(format!("wanted {wanted} elements, found {n}")) }
        });
    }
}

impl<T: Element + PartialEq + Debug> Assertion<T> {
    /// Exactly these elements, each as often as it stands here, in any order.
    pub fn contains_in_any_order(self, wanted: impl IntoIterator<Item = T>) {
        let wanted: Vec<T> = wanted.into_iter().collect();
        self.satisfies(move |found| difference(&wanted, found));
    }

    /// Exactly one element, equal to `wanted`.
    pub fn equals(self, wanted: T) {
        self.contains_in_any_order([wanted]);
    }

    /// These elements with their windows, in any order. An element of several windows stands once for each.
    pub fn contains_in_windows(self, wanted: impl IntoIterator<Item = (T, Window)>) {
        let Assertion { collection, place } = self;
        let wanted: Vec<(T, String)> =
            wanted.into_iter().map(|(value, window)| (value, format!("{window:?}"))).collect();
        let coder = tiebeam_core::coder::kv_coder(collection.coder(), String::coder());
        let reify = ParDo::new(ReifyWindows(std::marker::PhantomData)).with_coder(coder);
        let collection = collection.apply(reify);
        Assertion { collection, place }.contains_in_any_order(wanted);
    }
}

/// Takes a wanted element away for each found one; what is left on both sides is the difference. Elements need not be
/// ordered or hashed for it, and it is quick where both sides are in nearly the same order.
fn difference<T: PartialEq + Debug>(wanted: &[T], found: &[T]) -> Result<(), String> {
    let mut missing: Vec<&T> = wanted.iter().rev().collect();
    let mut surplus: Vec<&T> = Vec::new();
    for one in found {
        match missing.iter().rposition(|wanted| *wanted == one) {
            Some(at) => drop(missing.remove(at)),
            None => surplus.push(one),
        }
    }
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    missing.reverse();
    let mut text = format!("wanted {} elements in any order, found {}", wanted.len(), found.len());
    for (sign, what, elements) in [('-', "missing", &missing), ('+', "not wanted", &surplus)] {
        if elements.is_empty() {
            continue;
        }
        let _ = write!(text, "\n  {what} ({}):", elements.len());
        for element in elements.iter().take(SHOWN) {
            let _ = write!(text, "\n    {sign} {element:?}");
        }
        if elements.len() > SHOWN {
            let _ = write!(text, "\n    … and {} more", elements.len() - SHOWN);
        }
    }
    Err(text)
}

fn listed<T: Debug>(elements: &[T]) -> String {
    let mut text = format!("{}:", elements.len());
    for element in elements.iter().take(SHOWN) {
        let _ = write!(text, "\n    + {element:?}");
    }
    if elements.len() > SHOWN {
        let _ = write!(text, "\n    … and {} more", elements.len() - SHOWN);
    }
    text
}

type CheckFn<T> = dyn Fn(&[T]) -> Result<(), String> + Send + Sync;

struct Check<T> {
    all: View<Iterable<T>>,
    check: Arc<CheckFn<T>>,
    place: &'static Location<'static>,
}

impl<T> Clone for Check<T> {
    fn clone(&self) -> Self {
        Check { all: self.all.clone(), check: self.check.clone(), place: self.place }
    }
}

impl<T: Element> DoFn for Check<T> {
    type In = Bytes;
    type Out = bool;

    fn process(&mut self, _: Bytes, cx: &ElementContext<'_>, _: &mut Output<bool>) -> Result<()> {
        let all = cx.side_input(&self.all)?.to_vec();
        (self.check)(&all).map_err(|difference| {
            let (file, line) = (self.place.file(), self.place.line());
            Error::new(
                ErrorKind::UserCode,
                "TB0560",
                format!("assertion failed at {file}:{line}: {difference}"),
            )
            // The same elements would be there the next time.
            .with_retryable(false)
        })
    }
}

struct ReifyWindows<T>(std::marker::PhantomData<fn(T)>);

impl<T> Clone for ReifyWindows<T> {
    fn clone(&self) -> Self {
        ReifyWindows(std::marker::PhantomData)
    }
}

impl<T: Element> DoFn for ReifyWindows<T> {
    type In = T;
    type Out = (T, String);

    fn process(&mut self, value: T, cx: &ElementContext<'_>, out: &mut Output<(T, String)>) -> Result<()> {
        for window in cx.windows() {
            let info = tiebeam_core::WindowInfo {
                windows: tiebeam_core::Windows::One(window.clone()),
                ..cx.info().clone()
            };
            out.emit_with((value.clone(), format!("{window:?}")), &info);
        }
        Ok(())
    }
}
