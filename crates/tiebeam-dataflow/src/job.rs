//! Jobs on Dataflow: made, followed, stopped.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::pipeline::{MonitoringInfo, Pipeline, is_bounded};
use tiebeam_portable::{JobEvent, JobOptions, JobState, Severity};

use crate::auth::Source;
use crate::clock::{Clock, SystemClock, since_epoch, until};
use crate::http::{Call, escaped};
use crate::metrics::monitoring_infos;
use crate::options::{DataflowOptions, check_job_name};
use crate::request::{Parts, body};
use crate::service::Service;
use crate::stage::{equip, images, stage};

/// How often the one who waits is called.
const TICK: Duration = Duration::from_millis(500);
/// The longest time between two looks at a job; the first ones are closer together.
const LONGEST_LOOK: u32 = 10;
/// Looks in a row that may fail before waiting is given up; each is made of several tries.
const FAILURES: u32 = 5;
/// How long the reason of a failure is waited for: it comes up to half a minute after the state.
const LAST_WORDS: Duration = Duration::from_secs(50);
/// How long metrics stay: the service itself renews them more slowly.
const METRICS: Duration = Duration::from_secs(10);

/// The client of Dataflow for one project and region.
pub struct Dataflow {
    service: Arc<Service>,
}

impl Dataflow {
    /// A client with the credentials that this process's environment names; see [`Source::of_environment`].
    pub fn new(options: DataflowOptions) -> Dataflow {
        let sources = Source::of_environment(options.token.as_ref(), |name| std::env::var(name).ok());
        Dataflow::with(options, sources, Arc::new(SystemClock))
    }

    /// A client with these sources of credentials and this clock.
    pub fn with(options: DataflowOptions, sources: Vec<Source>, clock: Arc<dyn Clock>) -> Dataflow {
        Dataflow { service: Arc::new(Service::new(options, sources, clock)) }
    }

    /// Stages a pipeline and its files, and makes a job of it. `options` are for the workers, which build the pipeline
    /// again; those that are private to this client are left out. `hear` is told what is staged.
    ///
    /// # Errors
    /// When steps are to run elsewhere than in containers, a file can't be read, or Google refuses.
    pub fn submit(
        &self,
        name: &str,
        mut pipeline: Pipeline,
        options: &JobOptions,
        hear: &dyn Fn(&str),
    ) -> Result<DataflowJob> {
        check_job_name(name)?;
        let own = &self.service.options;
        equip(&mut pipeline, own.worker_binary.as_deref(), &own.hints)?;
        let images = images(&pipeline)?;
        let replaces = if own.update { Some(self.running(name)?) } else { None };
        let names = names(&pipeline);
        let streaming = own.streaming || reads_without_end(&pipeline);
        let staged = stage(&self.service, &mut pipeline, hear)?;
        hear(&format!("staged the pipeline at {} ({} new files)", staged.pipeline, staged.uploaded));
        let time = since_epoch(self.service.clock());
        let request_id = format!("{}-{}", time.as_nanos(), &staged.pipeline_sha256[..8]);
        let told = DataflowOptions::public(options);
        let body = body(&Parts {
            name,
            request_id: &request_id,
            options: own,
            told: &told,
            images: &images,
            staged: &staged,
            streaming,
            replaces: replaces.as_deref(),
        });
        let id = self.create(name, &request_id, &body)?;
        Ok(DataflowJob { service: self.service.clone(), id, names, metrics: Mutex::default() })
    }

    fn create(&self, name: &str, request_id: &str, body: &Value) -> Result<String> {
        let what = format!("the job `{name}`");
        let answer = self.service.ask(&what, &Call::new("POST", self.service.jobs("")).json(body))?;
        if answer.status == 409 {
            return Err(is_running(name, &answer.words()));
        }
        if !answer.is_success() {
            return Err(answer.refusal(&what));
        }
        let job = answer.json(&what)?;
        let id = job["id"].as_str().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| {
            Error::new(ErrorKind::Io, "TB0769", format!("{what} was taken but not given an id"))
        })?;
        // The service gives back the job that is there when it takes the new one for it.
        match job["clientRequestId"].as_str() {
            Some(other) if !other.is_empty() && other != request_id => {
                Err(is_running(name, &format!("its id is {id}")))
            }
            _ => Ok(id.to_owned()),
        }
    }

    /// The id of the running job of that name.
    fn running(&self, name: &str) -> Result<String> {
        let mut page = String::new();
        loop {
            let query = format!("?filter=ACTIVE&name={}{page}", escaped(name));
            let what = format!("looking for the running job `{name}`");
            let answer =
                self.service.need(&what, &Call::new("GET", self.service.jobs(&query)))?.json(&what)?;
            let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(id) = jobs.iter().find(|job| job["name"] == name).and_then(|job| job["id"].as_str()) {
                return Ok(id.to_owned());
            }
            match answer["nextPageToken"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => page = format!("&pageToken={}", escaped(token)),
                None => break,
            }
        }
        Err(Error::new(
            ErrorKind::NotFound,
            "TB0772",
            format!("there is no running job `{name}` to update in {}", self.service.options.region),
        )
        .with_help("`--job-name` has to be the running job's name; without `update=true` a new job begins"))
    }

    /// A job that was made earlier, by its id.
    pub fn job(&self, id: &str) -> DataflowJob {
        DataflowJob {
            service: self.service.clone(),
            id: id.to_owned(),
            names: BTreeMap::new(),
            metrics: Mutex::default(),
        }
    }
}

fn is_running(name: &str, words: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0766", format!("a job `{name}` is running already: {words}"))
        .with_help(
            "give another `--job-name`, cancel the running job, or replace it by `--option update=true`",
        )
}

/// The steps' paths by the transforms' ids.
fn names(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let transforms = pipeline.components.iter().flat_map(|components| &components.transforms);
    transforms.map(|(id, transform)| (id.clone(), transform.unique_name.clone())).collect()
}

fn reads_without_end(pipeline: &Pipeline) -> bool {
    let collections = pipeline.components.iter().flat_map(|components| components.pcollections.values());
    collections.into_iter().any(|one| one.is_bounded == is_bounded::Enum::Unbounded as i32)
}

#[derive(Default)]
struct Metrics {
    /// Until when these are good.
    until: Option<SystemTime>,
    infos: Vec<MonitoringInfo>,
}

/// A job on Dataflow. Dropping this leaves it running.
pub struct DataflowJob {
    service: Arc<Service>,
    id: String,
    names: BTreeMap<String, String>,
    metrics: Mutex<Metrics>,
}

/// What was heard of a job so far.
#[derive(Default)]
struct Heard {
    state: Option<JobState>,
    /// The newest message's time, as the service wrote it, and the messages of that time.
    newest: String,
    ids: HashSet<String>,
    failures: u32,
    has_error: bool,
}

impl DataflowJob {
    /// Its id, by which the service knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where a person looks at it.
    pub fn page(&self) -> String {
        let DataflowOptions { project, region, .. } = &self.service.options;
        format!("https://console.cloud.google.com/dataflow/jobs/{region}/{}?project={project}", self.id)
    }

    /// Waits for its end. `hear` is called with all that the service tells, and twice a second with nothing.
    ///
    /// # Errors
    /// When the service can't be reached any more, or does not let us look.
    pub fn wait(&self, mut hear: impl FnMut(&DataflowJob, Option<JobEvent>)) -> Result<JobState> {
        let mut heard = Heard::default();
        let mut pause = 2;
        loop {
            let state = self.look(&mut heard, &mut hear)?;
            if let Some(state) = state.filter(|state| state.is_terminal()) {
                self.last_words(state, &mut heard, &mut hear);
                self.metrics.lock().unwrap_or_else(PoisonError::into_inner).until = None;
                return Ok(state);
            }
            for _ in 0..pause {
                self.service.clock().sleep(TICK);
                hear(self, None);
            }
            pause = (pause + 2).min(LONGEST_LOOK);
        }
    }

    /// One look at the state and the messages; none where it failed in a way that may pass.
    fn look(
        &self,
        heard: &mut Heard,
        hear: &mut impl FnMut(&DataflowJob, Option<JobEvent>),
    ) -> Result<Option<JobState>> {
        let looked = self.state().and_then(|state| self.messages(heard, hear).map(|()| state));
        match looked {
            Ok(state) => {
                heard.failures = 0;
                if heard.state.replace(state) != Some(state) {
                    hear(self, Some(JobEvent::State(state)));
                }
                Ok(Some(state))
            }
            Err(error) => {
                heard.failures += 1;
                // A job that was just made may not be known everywhere yet.
                let passes = error.is_retryable() || (error.code() == "TB0765" && heard.state.is_none());
                if passes && heard.failures < FAILURES { Ok(None) } else { Err(error) }
            }
        }
    }

    /// What comes after the end: the reason of a failure is told later than the failure.
    fn last_words(
        &self,
        state: JobState,
        heard: &mut Heard,
        hear: &mut impl FnMut(&DataflowJob, Option<JobEvent>),
    ) {
        let end = self.service.clock().now() + LAST_WORDS;
        while state == JobState::Failed && !heard.has_error && !until(self.service.clock(), end).is_zero() {
            self.service.clock().sleep(TICK * 2);
            hear(self, None);
            // That they can't be read changes nothing about the end.
            if self.messages(heard, hear).is_err() {
                return;
            }
        }
    }

    /// Passes on the messages that are new.
    fn messages(
        &self,
        heard: &mut Heard,
        hear: &mut impl FnMut(&DataflowJob, Option<JobEvent>),
    ) -> Result<()> {
        let since = heard.newest.clone();
        let mut page = String::new();
        loop {
            let mut query = "?minimumImportance=JOB_MESSAGE_BASIC".to_owned();
            if !since.is_empty() {
                query += &format!("&startTime={}", escaped(&since));
            }
            let what = "asking for the job's messages";
            let url = self.service.job(&self.id, &format!("/messages{query}{page}"));
            let answer = self.service.need(what, &Call::new("GET", url))?.json(what)?;
            for message in answer["jobMessages"].as_array().map(Vec::as_slice).unwrap_or_default() {
                if let Some((severity, text)) = heard.take(message) {
                    hear(self, Some(JobEvent::Message(severity, text)));
                }
            }
            match answer["nextPageToken"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => page = format!("&pageToken={}", escaped(token)),
                None => return Ok(()),
            }
        }
    }

    /// What it is doing.
    ///
    /// # Errors
    /// When the service can't be reached or does not know it.
    pub fn state(&self) -> Result<JobState> {
        let what = "asking for the job's state";
        let answer = self
            .service
            .need(what, &Call::new("GET", self.service.job(&self.id, "?view=JOB_VIEW_SUMMARY")))?;
        Ok(state_of(answer.json(what)?["currentState"].as_str().unwrap_or_default()))
    }

    /// Its metrics: users' own, and the counts of elements that our workers report.
    ///
    /// # Errors
    /// When the service can't be reached.
    pub fn metrics(&self) -> Result<Vec<MonitoringInfo>> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.service.clock().now();
        if metrics.until.is_none_or(|until| now >= until) {
            let what = "asking for the job's metrics";
            let answer = self
                .service
                .need(what, &Call::new("GET", self.service.job(&self.id, "/metrics")))?
                .json(what)?;
            let all = answer["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
            metrics.infos = monitoring_infos(all, &self.names, since_epoch(self.service.clock()));
            metrics.until = Some(now + METRICS);
        }
        Ok(metrics.infos.clone())
    }

    /// Asks for its end without finishing its work.
    ///
    /// # Errors
    /// When the service can't be reached, or refuses.
    pub fn cancel(&self) -> Result<JobState> {
        self.request("cancelling the job", "JOB_STATE_CANCELLED")
    }

    /// Asks it to stop reading and to finish what is in. Only jobs that read without end can.
    ///
    /// # Errors
    /// When the service can't be reached, or refuses.
    pub fn drain(&self) -> Result<JobState> {
        self.request("draining the job", "JOB_STATE_DRAINING")
    }

    fn request(&self, what: &str, state: &str) -> Result<JobState> {
        let call = Call::new("PUT", self.service.job(&self.id, "")).json(&json!({"requestedState": state}));
        let answer = self.service.need(what, &call)?.json(what)?;
        Ok(state_of(answer["currentState"].as_str().unwrap_or_default()))
    }
}

impl Heard {
    /// The message, if it was not heard before.
    fn take(&mut self, message: &Value) -> Option<(Severity, String)> {
        let text = |name: &str| message[name].as_str().unwrap_or_default();
        let severity = severity_of(text("messageImportance"));
        let time = text("time");
        if moment(time) > moment(&self.newest) {
            time.clone_into(&mut self.newest);
            self.ids.clear();
        }
        let id = if text("id").is_empty() {
            format!("{time} {}", text("messageText"))
        } else {
            text("id").to_owned()
        };
        if !self.ids.insert(id) || text("messageText").is_empty() {
            return None;
        }
        self.has_error |= severity >= Severity::Error;
        Some((severity, text("messageText").to_owned()))
    }
}

/// A time in RFC 3339 and UTC as a text that sorts as times do: fractions have as many digits as they need.
fn moment(time: &str) -> String {
    let (whole, fraction) =
        time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{whole}.{fraction:0<9}")
}

fn state_of(name: &str) -> JobState {
    match name.strip_prefix("JOB_STATE_").unwrap_or_default() {
        "STOPPED" => JobState::Stopped,
        "PENDING" | "QUEUED" => JobState::Starting,
        // Cleaning up comes before the last state; a paused job goes on when it is told to.
        "RUNNING" | "RESOURCE_CLEANING_UP" | "PAUSING" | "PAUSED" => JobState::Running,
        "DONE" => JobState::Done,
        "FAILED" => JobState::Failed,
        "CANCELLING" => JobState::Cancelling,
        "CANCELLED" => JobState::Cancelled,
        "UPDATED" => JobState::Updated,
        "DRAINING" => JobState::Draining,
        "DRAINED" => JobState::Drained,
        _ => JobState::Unknown,
    }
}

fn severity_of(name: &str) -> Severity {
    match name.strip_prefix("JOB_MESSAGE_").unwrap_or_default() {
        "DEBUG" => Severity::Debug,
        "DETAILED" => Severity::Detailed,
        "WARNING" => Severity::Warning,
        "ERROR" => Severity::Error,
        _ => Severity::Basic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_length_sort_as_times() {
        let mut times = [
            "2026-11-22T10:00:00.5Z",
            "2026-11-22T10:00:00Z",
            "",
            "2026-11-22T10:00:00.123456789Z",
            "2026-11-22T10:00:01Z",
        ];
        times.sort_by_key(|time| moment(time));
        assert_eq!(
            times,
            [
                "",
                "2026-11-22T10:00:00Z",
                "2026-11-22T10:00:00.123456789Z",
                "2026-11-22T10:00:00.5Z",
                "2026-11-22T10:00:01Z"
            ]
        );
    }

    #[test]
    fn every_state_of_the_service_has_a_meaning() {
        for (name, state) in [
            ("JOB_STATE_UNKNOWN", JobState::Unknown),
            ("JOB_STATE_STOPPED", JobState::Stopped),
            ("JOB_STATE_RUNNING", JobState::Running),
            ("JOB_STATE_DONE", JobState::Done),
            ("JOB_STATE_FAILED", JobState::Failed),
            ("JOB_STATE_CANCELLED", JobState::Cancelled),
            ("JOB_STATE_UPDATED", JobState::Updated),
            ("JOB_STATE_DRAINING", JobState::Draining),
            ("JOB_STATE_DRAINED", JobState::Drained),
            ("JOB_STATE_PENDING", JobState::Starting),
            ("JOB_STATE_CANCELLING", JobState::Cancelling),
            ("JOB_STATE_QUEUED", JobState::Starting),
            ("JOB_STATE_RESOURCE_CLEANING_UP", JobState::Running),
            ("JOB_STATE_PAUSING", JobState::Running),
            ("JOB_STATE_PAUSED", JobState::Running),
            ("JOB_STATE_OF_TOMORROW", JobState::Unknown),
            ("", JobState::Unknown),
        ] {
            assert_eq!(state_of(name), state, "{name}");
        }
    }
}
