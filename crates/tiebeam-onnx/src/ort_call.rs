//! A call of ONNX Runtime on a session that other threads call at the same time.
//!
//! ONNX Runtime promises that `Run` may be called by several threads on one session of its CPU provider (its issues 114,
//! 5558 and 22967), the `ort` crate promises it for no provider and asks for `&mut`: with it each thread would need a session
//! of its own, with weights and buffers of its own. So the call is made here, by `ort`'s own raw interface.
#![allow(unsafe_code)] // the only place of the house that needs it: see above; each block says why it is sound

use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};

use ort::AsPointer;
use ort::session::{Session, SessionInputValue};
use ort::value::DynValue;

/// A session of the CPU provider, and of no other: one that threads may call together.
pub(crate) struct SharedSession(Session);

impl SharedSession {
    /// Takes a session which must have been made without any provider but the CPU's.
    pub(crate) fn new(session: Session) -> Self {
        SharedSession(session)
    }

    /// Runs the model; gives the outputs of those names to `read`, and what it returns.
    ///
    /// # Errors
    /// ONNX Runtime's own.
    pub(crate) fn run<T>(
        &self,
        inputs: &[(&CStr, SessionInputValue<'_>)],
        outputs: &[&CStr],
        read: impl FnOnce(&[DynValue]) -> T,
    ) -> ort::Result<T> {
        let input_names: Vec<*const c_char> = inputs.iter().map(|(name, _)| name.as_ptr()).collect();
        let input_values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
        let output_names: Vec<*const c_char> = outputs.iter().map(|name| name.as_ptr()).collect();
        let mut found = vec![ptr::null_mut(); outputs.len()];
        // SAFETY: the session lives as long as `self`, and ONNX Runtime's CPU provider allows concurrent calls (`new`'s
        // condition). All names end with a zero and, like the input values, outlive the call through `inputs` and `outputs`;
        // the arrays are as long as the lengths say; no options are null; outputs that are null are made by the call.
        let status = unsafe {
            (ort::api().Run)(
                self.0.inner().ptr().cast_mut(),
                ptr::null(),
                input_names.as_ptr(),
                input_values.as_ptr(),
                input_values.len(),
                output_names.as_ptr(),
                output_names.len(),
                found.as_mut_ptr(),
            )
        };
        // SAFETY: the status was just given by `Run`, and is used once.
        unsafe { ort::Error::result_from_status(status) }?;
        let values: Option<Vec<DynValue>> = found
            .into_iter()
            .map(|value| {
                // SAFETY: after a call that succeeded each output is a value that we own, made by the session's allocator; `read`
                // can only borrow it, so it is gone before the session is.
                NonNull::new(value)
                    .map(|value| unsafe { DynValue::from_ptr(value, Some(self.0.allocator())) })
            })
            .collect();
        values.map(|values| read(&values)).ok_or_else(|| ort::Error::new("an output was not made"))
    }
}
