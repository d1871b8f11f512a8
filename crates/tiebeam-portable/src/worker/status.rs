//! Worker status: what the engine is told when it asks what a worker is doing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tiebeam_core::Result;
use tiebeam_model::fn_api::WorkerStatusResponse;
use tiebeam_model::fn_api::beam_fn_worker_status_client::BeamFnWorkerStatusClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::wire::{Identity, connect, runtime};

/// The bundles that a worker runs now.
#[derive(Default)]
pub(crate) struct Doing(Mutex<BTreeMap<String, Bundle>>);

struct Bundle {
    stage: String,
    since: Instant,
    thread: String,
}

/// A bundle that runs until this is dropped.
pub(crate) struct Begun<'a> {
    doing: &'a Doing,
    instruction: String,
}

impl Doing {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bundle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, instruction: &str, stage: &str) -> Begun<'_> {
        let thread = format!("{:?}", std::thread::current().id());
        let bundle = Bundle { stage: stage.to_owned(), since: Instant::now(), thread };
        self.lock().insert(instruction.to_owned(), bundle);
        Begun { doing: self, instruction: instruction.to_owned() }
    }

    /// In words, a line a bundle.
    fn describe(&self) -> String {
        let bundles = self.lock();
        let mut text = format!("tiebeam {}: {} bundles\n", env!("CARGO_PKG_VERSION"), bundles.len());
        for (instruction, bundle) in bundles.iter() {
            let seconds = bundle.since.elapsed().as_secs_f64();
            let _ = writeln!(
                text,
                "bundle {instruction} of stage {}: {seconds:.1} s on {}",
                bundle.stage, bundle.thread
            );
        }
        text
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.doing.lock().remove(&self.instruction);
    }
}

/// Answers the engine's questions as long as it asks.
pub(crate) fn serve(address: &str, identity: Identity, doing: Arc<Doing>) -> Result<()> {
    let address = address.to_owned();
    runtime()?.spawn(async move {
        // Status is a courtesy: a worker without it works.
        let Ok(channel) = connect("the runner's status service", &address).await else { return };
        let mut client = BeamFnWorkerStatusClient::with_interceptor(channel, identity);
        let (answers, outgoing) = mpsc::unbounded_channel();
        let Ok(questions) = client.worker_status(UnboundedReceiverStream::new(outgoing)).await else {
            return;
        };
        let mut questions = questions.into_inner();
        while let Ok(Some(question)) = questions.message().await {
            let status_info = doing.describe();
            let answer = WorkerStatusResponse { id: question.id, error: String::new(), status_info };
            if answers.send(answer).is_err() {
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_told_while_they_run() {
        let doing = Doing::default();
        let begun = doing.begin("i7", "stage-3");
        assert!(doing.describe().contains("bundle i7 of stage stage-3"), "{}", doing.describe());
        drop(begun);
        assert!(doing.describe().ends_with("0 bundles\n"));
    }
}
