//! Side inputs by transform: the views of two graphs may have the same names, and both graphs' steps may run in one stage.

use std::sync::Arc;

use tiebeam_core::{Result, RunId, Timestamp, Window};
use tiebeam_exec::harness::{Timer, UserState};
use tiebeam_exec::stage::{Build, Built};
use tiebeam_exec::{Harness, Operator, SideInputSpec, SideValues, WireCoders};

/// The name of a transform's side input within a stage.
pub(crate) fn scoped_name(transform: &str, view: &str) -> String {
    format!("{view}@{transform}")
}

/// The operator, asking its harness for the side inputs of that transform only.
pub(crate) fn scoped(transform: &str, operator: &Arc<dyn Operator>) -> Arc<dyn Operator> {
    if operator.side_inputs().is_empty() {
        return operator.clone();
    }
    Arc::new(Scoped { transform: transform.into(), operator: operator.clone() })
}

struct Scoped {
    transform: Arc<str>,
    operator: Arc<dyn Operator>,
}

impl Operator for Scoped {
    fn build(&self, cx: Build) -> Result<Built> {
        let harness = ScopedHarness { transform: self.transform.clone(), harness: cx.harness };
        self.operator.build(Build { harness: Arc::new(harness), ..cx })
    }

    fn side_inputs(&self) -> &[SideInputSpec] {
        self.operator.side_inputs()
    }

    fn output_names(&self) -> Vec<Arc<str>> {
        self.operator.output_names()
    }
}

struct ScopedHarness {
    transform: Arc<str>,
    harness: Arc<dyn Harness>,
}

impl Harness for ScopedHarness {
    fn side_input(&self, id: &str, window: &Window, key: Option<&[u8]>) -> Result<SideValues> {
        self.harness.side_input(&scoped_name(&self.transform, id), window, key)
    }

    fn wire_coders(&self, id: &str) -> Option<WireCoders> {
        self.harness.wire_coders(&scoped_name(&self.transform, id))
    }

    fn run(&self) -> RunId {
        self.harness.run()
    }

    fn is_cancelled(&self) -> bool {
        self.harness.is_cancelled()
    }

    fn has_enough(&self, step: &str) -> bool {
        self.harness.has_enough(step)
    }

    fn now(&self) -> Timestamp {
        self.harness.now()
    }

    fn state(&self, step: &str, key: &[u8], window: &Window) -> Result<Arc<dyn UserState>> {
        self.harness.state(step, key, window)
    }

    fn set_timer(&self, step: &str, timer: &Timer) -> Result<()> {
        self.harness.set_timer(step, timer)
    }
}
