//! Progress while a job runs: a table redrawn in place on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use tiebeam_core::metrics::MetricValue;
use tiebeam_runner::{Progress, StepReport};

use super::exit::to_stderr;
use super::flags::ProgressMode;

/// Shows progress until it is dropped.
pub(crate) struct Shown {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Shown {
    pub(crate) fn start(mode: ProgressMode, progress: Progress) -> Self {
        let mode = match mode {
            ProgressMode::Auto if std::io::stderr().is_terminal() => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            other => other,
        };
        let interval = match mode {
            ProgressMode::None => return Shown { stop: None, thread: None },
            ProgressMode::Tty => Duration::from_millis(250),
            ProgressMode::Json => Duration::from_secs(1),
            ProgressMode::Plain | ProgressMode::Auto => Duration::from_secs(10),
        };
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut drawn = 0;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                drawn = show(mode, &progress, drawn);
            }
            if mode == ProgressMode::Json || (mode == ProgressMode::Tty && drawn > 0) {
                show(mode, &progress, drawn);
            }
        });
        Shown { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only draws; if it panicked there is nothing to mend.
            let _ = thread.join();
        }
    }
}

/// Shows the counts once; gives the lines that a table took.
fn show(mode: ProgressMode, progress: &Progress, drawn: usize) -> usize {
    match mode {
        ProgressMode::Tty => {
            let table = table(progress);
            let mut text = String::new();
            if drawn > 0 {
                // Up to where the last table began, and clear to the end.
                let _ = write!(text, "\x1b[{drawn}A\x1b[J");
            }
            to_stderr(&format!("{text}{table}\n"));
            table.lines().count()
        }
        ProgressMode::Json => {
            let t = progress.elapsed().as_secs_f64();
            for step in progress.steps() {
                let line = serde_json::json!({
                    "t": t, "stage": &*step.step, "in": step.elements_in, "out": step.elements_out,
                    "dead": step.dead, "committed": step.elements_out, "watermark": null,
                });
                to_stderr(&format!("{line}\n"));
            }
            0
        }
        _ => {
            to_stderr(&format!("{}\n", line(progress.elapsed().as_secs_f64(), &progress.steps())));
            0
        }
    }
}

/// `12 s: Read 4,000, Infer 3,900 (2 dead)`: the steps that moved.
fn line(seconds: f64, steps: &[StepReport]) -> String {
    let mut text = format!("{seconds:.0} s:");
    let moved = |step: &&StepReport| step.elements_in + step.elements_out > 0 && !is_inner(&step.step);
    if !steps.iter().any(|step| moved(&step)) {
        // Bundles are counted when they are done, and engines count when they like: it works all the same.
        return text + " working, nothing counted yet";
    }
    for step in steps.iter().filter(moved) {
        let _ = write!(text, " {} {}", step.step, thousands(step.elements_out));
        if step.dead > 0 {
            let _ = write!(text, " ({} dead)", thousands(step.dead));
        }
        text.push(',');
    }
    text.trim_end_matches(',').to_owned()
}

/// Steps that a user did not write: what sources and sinks are made of.
fn is_inner(step: &str) -> bool {
    step.ends_with("/Impulse") || step == "Impulse" || step.ends_with("/Reshuffle")
}

/// The table of all steps, and a line for each model.
pub(crate) fn table(progress: &Progress) -> String {
    let seconds = progress.elapsed().as_secs_f64().max(1e-3);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["step", "in", "out", "rate/s", "busy", "errors"]);
    for step in progress.steps().iter().filter(|step| !is_inner(&step.step)) {
        table.add_row([
            step.step.to_string(),
            thousands(step.elements_in),
            thousands(step.elements_out),
            thousands((step.elements_out as f64 / seconds) as u64),
            format!("{:.1} s", step.busy.as_secs_f64()),
            if step.dead + step.retries == 0 {
                "-".to_owned()
            } else {
                format!("{} dead", thousands(step.dead))
            },
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.to_string();
    for line in model_lines(progress) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

fn model_lines(progress: &Progress) -> Vec<String> {
    let metrics = progress.metrics();
    let find = |step: &str, name: &str| {
        metrics.iter().find(|(key, _)| &*key.step == step && &*key.name == name).map(|(_, value)| *value)
    };
    let batches = metrics.iter().filter(|(key, _)| &*key.name == "inference_request_batch_size");
    batches
        .filter_map(|(key, value)| {
            let MetricValue::Distribution(size) = value else { return None };
            let millis = |name: &str| match find(&key.step, name) {
                Some(MetricValue::Distribution(micros)) => micros.mean().unwrap_or(0.0) / 1000.0,
                _ => 0.0,
            };
            let (latency, wait) =
                (millis("inference_batch_latency_micro_secs"), millis("queue_wait_micro_secs"));
            Some(format!(
                "  {}: {} batches, mean size {:.0}, mean latency {latency:.2} ms after {wait:.2} ms in the queue",
                key.step,
                thousands(size.count.unsigned_abs()),
                size.mean().unwrap_or(0.0)
            ))
        })
        .collect()
}

/// `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tiebeam_graph::Arity;

    use super::*;

    fn step(name: &str, out: u64, dead: u64) -> StepReport {
        StepReport {
            step: Arc::from(name),
            elements_in: 0,
            elements_out: out,
            dead,
            filtered: 0,
            dropped_late: 0,
            retries: 0,
            busy: Duration::ZERO,
            arity: Arity::Any,
        }
    }

    #[test]
    fn a_line_says_what_moved_or_that_nothing_is_counted_yet() {
        let steps =
            [step("Impulse", 1, 0), step("Read", 4000, 0), step("Infer", 3900, 2), step("Write", 0, 0)];
        assert_eq!(line(12.3, &steps), "12 s: Read 4,000, Infer 3,900 (2 dead)");
        assert_eq!(line(10.0, &[step("Read", 0, 0)]), "10 s: working, nothing counted yet");
        assert_eq!(line(20.0, &[step("A/Impulse", 1, 0)]), "20 s: working, nothing counted yet");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), text);
        }
    }
}
