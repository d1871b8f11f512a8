//! The client of a job service: hands over a pipeline and its files, follows the job, stops it.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::job::job_message::MessageImportance;
use tiebeam_model::job::job_messages_response::Response;
use tiebeam_model::job::job_service_client::JobServiceClient;
use tiebeam_model::job::job_state::Enum as StateMessage;
use tiebeam_model::job::{
    CancelJobRequest, DrainJobRequest, GetJobMetricsRequest, GetJobStateRequest, JobMessagesRequest,
    PrepareJobRequest, RunJobRequest,
};
use tiebeam_model::pipeline::{self, ArtifactInformation, MonitoringInfo};

use crate::artifacts;
use crate::options::{JobOptions, to_struct};
use crate::wire::{Wire, connect_client, refused, runtime};

/// How often a job's state is asked for, beside what the engine tells by itself.
const POLL: Duration = Duration::from_millis(500);

/// What a job is doing, as its engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Not started yet.
    Stopped,
    /// About to start.
    Starting,
    /// At work.
    Running,
    /// Done: all output is committed.
    Done,
    /// Failed.
    Failed,
    /// Being cancelled.
    Cancelling,
    /// Cancelled.
    Cancelled,
    /// Replaced by a newer job.
    Updated,
    /// Reading has stopped; what was read is finished.
    Draining,
    /// Drained.
    Drained,
    /// A state that this version does not know.
    Unknown,
}

impl JobState {
    /// Whether nothing comes after it.
    pub fn is_terminal(self) -> bool {
        use JobState::{Cancelled, Done, Drained, Failed, Updated};
        matches!(self, Done | Failed | Cancelled | Updated | Drained)
    }

    fn of(number: i32) -> JobState {
        match StateMessage::try_from(number) {
            Ok(StateMessage::Stopped) => JobState::Stopped,
            Ok(StateMessage::Starting) => JobState::Starting,
            Ok(StateMessage::Running) => JobState::Running,
            Ok(StateMessage::Done) => JobState::Done,
            Ok(StateMessage::Failed) => JobState::Failed,
            Ok(StateMessage::Cancelling) => JobState::Cancelling,
            Ok(StateMessage::Cancelled) => JobState::Cancelled,
            Ok(StateMessage::Updated | StateMessage::Updating) => JobState::Updated,
            Ok(StateMessage::Draining) => JobState::Draining,
            Ok(StateMessage::Drained) => JobState::Drained,
            Ok(StateMessage::Unspecified) | Err(_) => JobState::Unknown,
        }
    }
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For people who look for a fault in the engine.
    Debug,
    /// Details of the job's course.
    Detailed,
    /// The job's course.
    Basic,
    /// Something may be wrong.
    Warning,
    /// Something is.
    Error,
}

impl Severity {
    fn of(number: i32) -> Severity {
        match MessageImportance::try_from(number) {
            Ok(MessageImportance::JobMessageDebug) => Severity::Debug,
            Ok(MessageImportance::JobMessageDetailed) => Severity::Detailed,
            Ok(MessageImportance::JobMessageWarning) => Severity::Warning,
            Ok(MessageImportance::JobMessageError) => Severity::Error,
            _ => Severity::Basic,
        }
    }
}

/// Something that an engine tells of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// It says something.
    Message(Severity, String),
    /// The job has a new state.
    State(JobState),
}

/// What is handed to an engine.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The job service, `host:port`.
    pub endpoint: String,
    /// The job's name.
    pub name: String,
    /// The pipeline.
    pub pipeline: pipeline::Pipeline,
    /// Its options, for the engine and for the workers.
    pub options: JobOptions,
}

/// A job that was started. Dropping this leaves it running.
pub struct Job {
    id: String,
    client: JobServiceClient<Wire>,
    events: Mutex<Receiver<JobEvent>>,
}

/// Hands a pipeline and the files that its environments name to an engine, and starts it.
///
/// # Errors
/// When the engine can't be reached, refuses the pipeline, or a file can't be read.
pub fn submit(submission: Submission) -> Result<Job> {
    let runtime = runtime()?;
    let Submission { endpoint, name, pipeline, options } = submission;
    let mut files: Vec<ArtifactInformation> = Vec::new();
    for environment in pipeline.components.iter().flat_map(|components| components.environments.values()) {
        for file in &environment.dependencies {
            // The same file may stand in several environments.
            if !files.contains(file) {
                files.push(file.clone());
            }
        }
    }
    let (mut client, id) = runtime.block_on(async {
        let channel = connect_client("the job service", &endpoint).await?;
        let mut client = JobServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let request = PrepareJobRequest {
            pipeline: Some(pipeline),
            pipeline_options: Some(to_struct(&options)),
            job_name: name,
        };
        let prepared = client.prepare(request).await.map_err(not_taken)?.into_inner();
        if let Some(staging) = prepared.artifact_staging_endpoint.filter(|staging| !staging.url.is_empty()) {
            artifacts::stage(&staging.url, &prepared.staging_session_token, &files).await?;
        }
        let request =
            RunJobRequest { preparation_id: prepared.preparation_id, retrieval_token: String::new() };
        let started = client.run(request).await.map_err(not_taken)?.into_inner();
        Ok::<_, Error>((client, started.job_id))
    })?;
    let (sender, events) = channel();
    runtime.spawn(listen(client.clone(), id.clone(), sender));
    // Some engines only begin when they are asked.
    let _ = runtime.block_on(client.get_state(GetJobStateRequest { job_id: id.clone() }));
    Ok(Job { id, client, events: Mutex::new(events) })
}

fn not_taken(status: tonic::Status) -> Error {
    let error = refused("handing the pipeline to the engine")(status);
    Error::new(ErrorKind::InvalidPipeline, "TB0717", error.message().to_owned())
        .with_help("the engine's own words follow `failed:`; an engine refuses what it cannot run")
}

/// Passes on what the engine tells, until it ends.
async fn listen(mut client: JobServiceClient<Wire>, job_id: String, events: Sender<JobEvent>) {
    let Ok(stream) = client.get_message_stream(JobMessagesRequest { job_id }).await else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(message)) = stream.message().await {
        let event = match message.response {
            Some(Response::MessageResponse(message)) => {
                JobEvent::Message(Severity::of(message.importance), message.message_text)
            }
            Some(Response::StateResponse(event)) => JobEvent::State(JobState::of(event.state)),
            None => continue,
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

impl Job {
    /// Its id, by which the engine knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for its end. `hear` is called with all that the engine tells, and at least twice a second with nothing.
    ///
    /// # Errors
    /// When the engine can't be reached any more.
    pub fn wait(&self, mut hear: impl FnMut(&Job, Option<JobEvent>)) -> Result<JobState> {
        let events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut failures = 0;
        let mut listening = true;
        loop {
            let event = if listening {
                events.recv_timeout(POLL)
            } else {
                std::thread::sleep(POLL);
                Err(RecvTimeoutError::Timeout)
            };
            match event {
                Ok(JobEvent::State(state)) => {
                    hear(self, Some(JobEvent::State(state)));
                    if state.is_terminal() {
                        self.rest(&events, &mut hear);
                        return Ok(state);
                    }
                    continue;
                }
                Ok(event) => {
                    hear(self, Some(event));
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => hear(self, None),
                // The engine tells no more by itself: its state is still to be had.
                Err(RecvTimeoutError::Disconnected) => listening = false,
            }
            match self.state() {
                Ok(state) if state.is_terminal() => {
                    self.rest(&events, &mut hear);
                    return Ok(state);
                }
                Ok(_) => failures = 0,
                // An engine may be busy for a moment.
                Err(error) => {
                    failures += 1;
                    if failures >= 10 {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What was told until now and not heard yet; an engine's last words come just after its last state.
    fn rest(&self, events: &Receiver<JobEvent>, hear: &mut impl FnMut(&Job, Option<JobEvent>)) {
        while let Ok(event) = events.recv_timeout(POLL) {
            hear(self, Some(event));
        }
    }

    /// What it is doing.
    ///
    /// # Errors
    /// When the engine can't be reached.
    pub fn state(&self) -> Result<JobState> {
        let mut client = self.client.clone();
        let request = GetJobStateRequest { job_id: self.id.clone() };
        let answer = runtime()?.block_on(client.get_state(request));
        Ok(JobState::of(answer.map_err(refused("asking for the job's state"))?.into_inner().state))
    }

    /// Its metrics: those of committed bundles, or where the engine has none, of attempted ones.
    ///
    /// # Errors
    /// When the engine can't be reached, or has no metrics.
    pub fn metrics(&self) -> Result<Vec<MonitoringInfo>> {
        let mut client = self.client.clone();
        let request = GetJobMetricsRequest { job_id: self.id.clone() };
        let answer = runtime()?.block_on(client.get_job_metrics(request));
        let metrics = answer.map_err(refused("asking for the job's metrics"))?.into_inner().metrics;
        let metrics = metrics.unwrap_or_default();
        Ok(if metrics.committed.is_empty() { metrics.attempted } else { metrics.committed })
    }

    /// Asks for its end without finishing its work.
    ///
    /// # Errors
    /// When the engine can't be reached, or refuses.
    pub fn cancel(&self) -> Result<JobState> {
        let mut client = self.client.clone();
        let request = CancelJobRequest { job_id: self.id.clone() };
        let answer = runtime()?.block_on(client.cancel(request));
        Ok(JobState::of(answer.map_err(refused("cancelling the job"))?.into_inner().state))
    }

    /// Asks it to stop reading and to finish what is in.
    ///
    /// # Errors
    /// When the engine can't be reached, or knows no draining.
    pub fn drain(&self) -> Result<JobState> {
        let mut client = self.client.clone();
        let request = DrainJobRequest { job_id: self.id.clone() };
        let answer = runtime()?.block_on(client.drain(request));
        Ok(JobState::of(answer.map_err(refused("draining the job"))?.into_inner().state))
    }
}
