//! [`SideInput`]: a PCollection prepared to be read beside a step's elements.

use tiebeam_core::View;
use tiebeam_exec::{EdgeId, SideInputSpec};

/// A PCollection as a side input. Give it to [`ParDo::with_side_input`](crate::ParDo::with_side_input) and keep its
/// [`view`](SideInput::view) in the DoFn.
pub struct SideInput<V> {
    view: View<V>,
    edge: EdgeId,
    spec: SideInputSpec,
}

impl<V> Clone for SideInput<V> {
    fn clone(&self) -> Self {
        SideInput { view: self.view.clone(), edge: self.edge, spec: self.spec.clone() }
    }
}

impl<V> SideInput<V> {
    pub(crate) fn new(view: View<V>, edge: EdgeId, spec: SideInputSpec) -> Self {
        SideInput { view, edge, spec }
    }

    /// The handle by which a DoFn reads it.
    pub fn view(&self) -> View<V> {
        self.view.clone()
    }

    /// The PCollection.
    pub fn edge(&self) -> EdgeId {
        self.edge
    }

    /// What the operator needs of it.
    pub fn spec(&self) -> &SideInputSpec {
        &self.spec
    }

    /// Without the type of what is read: enough to give it to a step whose DoFn has the [`view`](SideInput::view).
    pub fn any(&self) -> AnySideInput {
        AnySideInput { edge: self.edge, spec: self.spec.clone() }
    }
}

/// A side input whose type is known elsewhere.
#[derive(Clone)]
pub struct AnySideInput {
    pub(crate) edge: EdgeId,
    pub(crate) spec: SideInputSpec,
}
