//! Running a graph as the flags say, and the verdict.

use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::Graph;
use tiebeam_runner::{
    CancelToken, EmbeddedRunner, JobReport, JobStatus, Limit, Progress, RunnerOptions, Samples, StateOptions,
    WatchedExecutor,
};

use super::exit::{Exit, print_error, to_stderr};
use super::flags::{ProgressMode, RunFlags, RunnerKind};
use super::progress::{Shown, thousands};
use super::report::{RunModels, report_json};
use super::signals::Listening;
use super::ui::{self, Ui};

/// What is run.
pub struct Job {
    /// Its name in reports.
    pub name: String,
    /// The pipeline.
    pub graph: Arc<Graph>,
    /// What it reads, where that is known.
    pub inputs: Vec<String>,
    /// Where its output is, for the verdict.
    pub outputs: Vec<String>,
    /// What a worker on another engine is told to build the pipeline again.
    pub options: super::JobOptions,
    /// The options that decide what is computed: a worker that was built with others is refused.
    pub decisive: std::collections::BTreeMap<String, String>,
}

/// Runs a job to its end: signals, progress, report, verdict. Everything it says goes to stderr.
pub fn run(job: &Job, flags: &RunFlags) -> Exit {
    if flags.look.dry_run {
        return super::dry_run::dry_run(job);
    }
    #[cfg(all(feature = "inference", feature = "portable"))]
    super::rebuild_models_by(&job.options);
    let models = RunModels::start();
    let progress = Progress::new(job.graph.clone());
    let cancel = CancelToken::default();
    let listening = Listening::start(cancel.clone(), flags.drain_timeout);
    let samples =
        (flags.look.ui.is_some() && flags.runner == RunnerKind::Embedded).then(|| Samples::new(&job.graph));
    let ui = match page(job, flags, &progress, &samples, &models) {
        Ok(ui) => ui,
        Err(error) => {
            print_error(&error);
            return Exit::BadUsage;
        }
    };
    let shown = Shown::start(flags.progress, progress.clone());
    let result = match (flags.runner, flags.look.limit) {
        (RunnerKind::Embedded, _) => embedded(job, flags, &progress, cancel, samples),
        (runner, Some(_)) => Err(limit_elsewhere(runner)),
        (runner, _) if flags.state_dir.is_some() => Err(state_elsewhere(runner)),
        _ => elsewhere(job, flags, &progress, &cancel),
    };
    drop((shown, ui));
    if flags.detach && result.is_ok() {
        return Exit::Ok;
    }
    let written = write_report(job, flags, &progress, &result, &models);
    let exit = verdict(job, flags, &result, listening.last());
    for note in progress.notes() {
        to_stderr(&format!("note: {note}\n"));
    }
    match written {
        Ok(()) => exit,
        Err(error) => {
            print_error(&error);
            if exit == Exit::Ok { Exit::OutputUnusable } else { exit }
        }
    }
}

/// The page about the job, where it is wanted.
fn page(
    job: &Job,
    flags: &RunFlags,
    progress: &Progress,
    samples: &Option<Samples>,
    models: &RunModels,
) -> Result<Option<Ui>> {
    let Some(address) = flags.look.ui else { return Ok(None) };
    let shown = ui::Shown {
        job: job.name.clone(),
        runner: flags.runner.name(),
        graph: job.graph.clone(),
        progress: progress.clone(),
        samples: samples.clone(),
        models: models.clone(),
    };
    Ui::start(address, shown).map(Some)
}

fn limit_elsewhere(runner: RunnerKind) -> Error {
    let message = format!("`--limit` bounds sources of the embedded runner, not those of {}", runner.name());
    Error::new(ErrorKind::InvalidArgument, "TB0597", message)
        .with_help("try the pipeline without `--runner` first")
}

fn state_elsewhere(runner: RunnerKind) -> Error {
    let message = format!("`--state-dir` is of the embedded runner, not of `{}`", runner.name());
    Error::new(ErrorKind::InvalidArgument, "TB0574", message)
        .with_help("engines keep their own state: leave `--state-dir` and `--resume` out")
}

fn embedded(
    job: &Job,
    flags: &RunFlags,
    progress: &Progress,
    cancel: CancelToken,
    samples: Option<Samples>,
) -> Result<JobReport> {
    let mut options = RunnerOptions::default().with_cancel(cancel);
    if let Some(threads) = flags.threads {
        options = options.with_threads(threads.get());
    }
    if flags.look.limit.is_some() || samples.is_some() {
        let mut executor = WatchedExecutor::new();
        if let Some(n) = flags.look.limit {
            executor = executor.with_limit(Limit::new(&job.graph, n));
        }
        if let Some(samples) = samples {
            executor = executor.with_samples(samples);
        }
        options.executor = Arc::new(executor);
    }
    options.memory_limit = flags.memory_limit;
    options.state = flags.state_dir.as_ref().map(|dir| StateOptions {
        dir: dir.clone(),
        resume: flags.resume,
        options: job.decisive.clone(),
    });
    EmbeddedRunner::new(options).run_with_progress(&job.graph, progress)
}

#[cfg(feature = "portable")]
fn elsewhere(job: &Job, flags: &RunFlags, progress: &Progress, cancel: &CancelToken) -> Result<JobReport> {
    super::portable::run(job, flags, progress, cancel)
}

#[cfg(not(feature = "portable"))]
fn elsewhere(_: &Job, flags: &RunFlags, _: &Progress, _: &CancelToken) -> Result<JobReport> {
    Err(Error::new(
        ErrorKind::Unsupported,
        "TB0522",
        format!("this build has no runner `{}`", flags.runner.name()),
    )
    .with_help("build tiebeam with its feature `portable`"))
}

fn write_report(
    job: &Job,
    flags: &RunFlags,
    progress: &Progress,
    result: &Result<JobReport>,
    models: &RunModels,
) -> Result<()> {
    let Some(path) = &flags.report else { return Ok(()) };
    let outcome = result.as_ref().map(|report| report.status);
    let text =
        format!("{:#}\n", report_json(&job.name, flags.runner.name(), progress, outcome, models.json()));
    std::fs::write(path, text).map_err(|error| {
        Error::new(ErrorKind::Output, "TB0520", format!("the report {} cannot be written", path.display()))
            .with_source(error)
    })
}

/// `1 record`, `2,000 records`.
fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(n), if n == 1 { "" } else { "s" })
}

fn verdict(job: &Job, flags: &RunFlags, result: &Result<JobReport>, signal: u8) -> Exit {
    let report = match result {
        Ok(report) => report,
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            to_stderr("cancelled: no output was committed\n");
            return if signal == 0 { Exit::JobFailed } else { Exit::Signal(signal) };
        }
        Err(error) => {
            print_error(error);
            return Exit::of(error);
        }
    };
    let dead = report.dead_letters();
    if flags.progress != ProgressMode::None {
        let word = if report.status == JobStatus::Drained { "drained" } else { "done" };
        let mut text = format!("{word} in {:.2} s", report.elapsed.as_secs_f64());
        let records = report.counter("sink", "records");
        if records > 0 {
            text += &format!(", {} written", counted(records.unsigned_abs(), "record"));
        }
        if dead > 0 {
            text += &format!(", {}", counted(dead, "dead letter"));
        }
        if !job.outputs.is_empty() {
            text += &format!(" to {}", job.outputs.join(", "));
        }
        text.push('\n');
        for step in report.steps.iter().filter(|step| step.arity != tiebeam_graph::Arity::Any) {
            let accounted = step.elements_out + step.dead + step.filtered + step.dropped_late;
            if accounted != step.elements_in {
                text += &format!(
                    "warning: {} took {} elements and accounts for {accounted}\n",
                    step.step, step.elements_in
                );
            }
        }
        to_stderr(&text);
    }
    match flags.max_dead_letters {
        Some(most) if dead > most => {
            let verb = if dead == 1 { "is" } else { "are" };
            let message = format!("{} {verb} more than the {most} allowed", counted(dead, "dead letter"));
            print_error(&Error::new(ErrorKind::InvalidData, "TB0521", message));
            Exit::TooManyDeadLetters
        }
        _ => Exit::Ok,
    }
}
