//! Assigning windows: changes what elements carry and nothing else, so a whole batch keeps its values untouched.

use std::marker::PhantomData;
use std::sync::Arc;

use tiebeam_core::{
    Batch, BundleContext, DoFn, Element, ElementContext, Meta, Output, Result, WindowFn, WindowInfo,
};

/// Gives each element the windows that `window_fn` says.
pub struct AssignWindows<T> {
    window_fn: Arc<dyn WindowFn>,
    element: PhantomData<fn(T)>,
}

impl<T> AssignWindows<T> {
    /// By that function.
    pub fn new(window_fn: Arc<dyn WindowFn>) -> Self {
        AssignWindows { window_fn, element: PhantomData }
    }

    fn assigned(&self, info: &WindowInfo) -> WindowInfo {
        WindowInfo { windows: self.window_fn.assign(info.timestamp, &info.windows), ..info.clone() }
    }
}

impl<T> Clone for AssignWindows<T> {
    fn clone(&self) -> Self {
        AssignWindows::new(self.window_fn.clone())
    }
}

impl<T: Element> DoFn for AssignWindows<T> {
    type In = T;
    type Out = T;

    fn process(&mut self, element: T, cx: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        out.emit_with(element, &self.assigned(cx.info()));
        Ok(())
    }

    fn process_batch(&mut self, batch: Batch<T>, _: &BundleContext<'_>, out: &mut Output<T>) -> Result<()> {
        let meta = match batch.meta {
            Meta::Uniform(info) => Meta::Uniform(self.assigned(&info)),
            Meta::Each(infos) => Meta::Each(infos.iter().map(|info| self.assigned(info)).collect()),
        };
        out.forward(Batch { values: batch.values, meta });
        Ok(())
    }
}
