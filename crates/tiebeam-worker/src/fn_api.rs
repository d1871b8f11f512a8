//! [`FnApi`]: what a worker asks its runner for. The wire is somebody else's: gRPC, or plain calls in tests.

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::fn_api::{Elements, ProcessBundleDescriptor, StateRequest, StateResponse};

/// The runner's side of the Fn API as a worker calls it. Called from many threads at a time.
pub trait FnApi: Send + Sync {
    /// The stage of that id. Asked once; the worker keeps what it is told.
    ///
    /// # Errors
    /// When the runner has none, or can't be reached.
    fn descriptor(&self, id: &str) -> Result<ProcessBundleDescriptor>;

    /// Asks for state and waits for the answer.
    ///
    /// # Errors
    /// When the runner can't be reached. What the runner itself refuses comes back in the answer.
    fn state(&self, request: StateRequest) -> Result<StateResponse> {
        Err(unavailable("state", &request.instruction_id))
    }

    /// The next piece of a bundle's input from the data stream at `url`; waits for it.
    ///
    /// # Errors
    /// When the stream has ended or broken.
    fn receive(&self, instruction_id: &str, url: &str) -> Result<Elements> {
        let _ = url;
        Err(unavailable("data stream", instruction_id))
    }

    /// Sends a piece of a bundle's output on the data stream at `url`.
    ///
    /// # Errors
    /// When the stream is broken.
    fn send(&self, url: &str, elements: Elements) -> Result<()> {
        let _ = (url, elements);
        Err(unavailable("data stream", ""))
    }

    /// Whether the runner has given up the bundle.
    fn is_cancelled(&self, instruction_id: &str) -> bool {
        let _ = instruction_id;
        false
    }
}

fn unavailable(what: &str, instruction_id: &str) -> Error {
    let of = if instruction_id.is_empty() {
        String::new()
    } else {
        format!(" for instruction `{instruction_id}`")
    };
    Error::new(ErrorKind::Unsupported, "TB0547", format!("this runner has no {what}{of}"))
}
