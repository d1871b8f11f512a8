//! A job of another version of Tiebeam, for workers of this one: each step's payload says that version 0.0.1 has made it, as
//! a program that was built with that would. The workers refuse it, and say why.
//!
//! ```text
//! $ cargo run -p tiebeam --example other_version -- --job-endpoint 127.0.0.1:8099
//! error[TB0542]: Create/Elements: this worker has built another pipeline than the job: fingerprint …; tiebeam is of version 0.1.0 here and 0.0.1 in the job
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tiebeam::portable::{
    Environment, Job, JobEvent, JobOptions, JobState, PoolWorkers, Severity, Submission, WorkerPool,
    pipeline_message, submit,
};
use tiebeam::prelude::*;
use tiebeam_model::pipeline::{ParDoPayload, Pipeline as Message};
use tiebeam_model::tiebeam::StepPayload;
use tiebeam_model::{Message as _, urns};
use tiebeam_worker::{Steps, WorkerOptions};

/// Makes every step one of version 0.0.1, whose fingerprints are others, too.
fn age(pipeline: &mut Message) -> Result<()> {
    let transforms = pipeline.components.iter_mut().flat_map(|all| all.transforms.values_mut());
    for function in transforms.filter_map(|transform| transform.spec.as_mut()) {
        if function.urn != urns::transform::PAR_DO {
            continue;
        }
        let mut par_do = ParDoPayload::decode(function.payload.as_ref()).map_err(Error::user)?;
        if let Some(step) = &mut par_do.do_fn {
            let mut payload = StepPayload::decode(step.payload.as_ref()).map_err(Error::user)?;
            payload.fingerprint ^= 1;
            if let Some(evidence) = &mut payload.evidence {
                evidence.version = "0.0.1".to_owned();
            }
            step.payload = payload.encode_to_vec().into();
        }
        function.payload = par_do.encode_to_vec().into();
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program tells its user")]
fn run(endpoint: String) -> Result<JobState> {
    let p = Pipeline::new();
    p.apply(Create::of([1i64, 2, 3])).step("Double").map(|n| n * 2);
    let graph = p.build().map_err(Error::user)?;
    let steps = graph.clone();
    let build = Arc::new(move |_: &JobOptions| Ok(Steps::new(steps.clone())));
    let workers = PoolWorkers::Threads { build, options: WorkerOptions::default() };
    let pool = WorkerPool::start(SocketAddr::from(([127, 0, 0, 1], 0)), workers)?;
    let environment = Environment::External { address: pool.address().to_string() };
    let mut pipeline = pipeline_message(&Steps::new(graph), &environment, Vec::new())?;
    age(&mut pipeline)?;
    let name = "other-version".to_owned();
    let job = submit(Submission { endpoint, name, pipeline, options: JobOptions::new() })?;
    job.wait(&mut |_: &Job, event| {
        if let Some(JobEvent::Message(Severity::Error, text)) = event {
            eprintln!("{text}");
        }
    })
}

/// The program.
#[expect(clippy::print_stderr, reason = "a program tells its user")]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--job-endpoint").skip(1);
    let Some(endpoint) = arguments.next() else {
        eprintln!("error: other_version wants `--job-endpoint HOST:PORT`");
        return ExitCode::from(2);
    };
    match run(endpoint) {
        Ok(JobState::Done) => ExitCode::SUCCESS,
        Ok(state) => {
            eprintln!("the job ended {state:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
