//! [`Limits`]: what a file says of a model's step beside what goes in and comes out.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_inference::chain::{After, Before, PredictionOf};
use tiebeam_inference::{ModelHandler, NanPolicy, Rollout, RunInference, Tensors};

use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::plan::Maker;

/// Some time: a number of seconds, or a duration such as 500ms.
pub fn time(node: &Node) -> Option<Duration> {
    let read = match node.content {
        Content::Int(seconds) => Duration::try_from_secs_f64(seconds as f64).ok(),
        Content::Float(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        _ => crate::windowing::duration(node).ok(),
    };
    read.filter(|duration| !duration.is_zero())
}

/// What bounds a model's time, and its answers; where newer versions of it come from, and how they take over; what it counts as.
pub struct Limits {
    pub timeout: Option<Duration>,
    watch: Option<(String, Duration)>,
    nan: NanPolicy,
    rollout: Rollout,
    namespace: Option<Arc<str>>,
    identifier: Option<Arc<str>>,
}

impl Limits {
    /// Reads them; mistakes are noted.
    pub fn of(maker: &mut Maker<'_>, config: &Node) -> Option<Limits> {
        let given = |key: &str| config.get(key).filter(|node| node.content != Content::Null);
        let mut fine = true;
        let mut seconds = |maker: &mut Maker<'_>, node: &Node, key: &str| {
            let read = time(node);
            if read.is_none() {
                let message = format!("`{key}` is a number of seconds, or a duration such as 500ms");
                maker.problem(Diagnostic::new("TB0208", node.span, message));
                fine = false;
            }
            read
        };
        let timeout = given("timeout").and_then(|node| seconds(maker, node, "timeout"));
        let mut watch = None;
        if let Some(node) = given("watch_model_pattern") {
            let keys = [
                Key::required("pattern", Wants::Text, "a pattern of files, such as models/v*.onnx"),
                Key::optional("interval", Wants::Any, "how often it is looked at: seconds, or 500ms; 360"),
            ];
            if !check_keys(node.as_map()?, &keys, "`watch_model_pattern`", node.span, maker.problems) {
                return None;
            }
            let interval = match node.get("interval") {
                Some(interval) => seconds(maker, interval, "interval"),
                // Beam's.
                None => Some(Duration::from_secs(360)),
            };
            let pattern = node.get("pattern").and_then(|pattern| pattern.as_str().cloned());
            watch = pattern.zip(interval).map(|(pattern, interval)| (pattern.to_string(), interval));
        }
        let nan = match given("nan").map(|node| (node, node.as_str().map(|text| &**text))) {
            None | Some((_, Some("pass"))) => NanPolicy::Pass,
            Some((_, Some("dead_letter"))) if maker.get("error_handling").is_some() => NanPolicy::DeadLetter,
            Some((_, Some("fail"))) => NanPolicy::Fail,
            Some((node, given)) => {
                let message = match given {
                    Some("dead_letter") => "`nan: dead_letter` needs `error_handling`",
                    _ => "`nan` is pass, dead_letter or fail",
                };
                maker.problem(Diagnostic::new("TB0208", node.span, message));
                return None;
            }
        };
        let has_newer = watch.is_some() || maker.inputs.len() > 1;
        let rollout = rollout(maker, given("rollout"), has_newer)?;
        let (namespace, identifier) = (maker.text("metrics_namespace"), maker.text("model_identifier"));
        fine.then_some(Limits { timeout, watch, nan, rollout, namespace, identifier })
    }

    /// The step with all of them.
    pub fn bound<H, B, A>(self, run: RunInference<H, B, A>) -> RunInference<H, B, A>
    where
        H: ModelHandler<Inference = Tensors>,
        B: Before<H::Example>,
        A: After<PredictionOf<H>>,
    {
        let mut run = run.with_nan_policy(self.nan).with_rollout(self.rollout);
        if let Some(timeout) = self.timeout {
            run = run.with_timeout(timeout);
        }
        if let Some((pattern, interval)) = self.watch {
            run = run.watch_model_pattern(pattern, interval);
        }
        if let Some(namespace) = self.namespace {
            run = run.with_metrics_namespace(&*namespace);
        }
        if let Some(identifier) = self.identifier {
            run = run.with_model_identifier(&*identifier);
        }
        run
    }
}

/// How newer files take over. None where it is told wrongly.
fn rollout(maker: &mut Maker<'_>, given: Option<&Node>, has_newer: bool) -> Option<Rollout> {
    let Some(node) = given else { return Some(Rollout::swap()) };
    let keys = [
        Key::optional("canary", Wants::Number, "the share of the rows that a newer model computes"),
        Key::optional("shadow", Wants::Number, "the share that it computes too, only to be compared"),
        Key::optional("promote_after", Wants::Int, "it takes over after so many rows without a failure"),
    ];
    if !check_keys(node.as_map()?, &keys, "`rollout`", node.span, maker.problems) {
        return None;
    }
    let share = |key: &str| match node.get(key).map(|share| &share.content) {
        Some(Content::Float(share)) => Some(*share),
        Some(Content::Int(share)) => Some(*share as f64),
        _ => None,
    };
    let mut wrong = |message: &str| {
        maker.problem(Diagnostic::new("TB0208", node.span, message));
        None
    };
    let (rollout, share) = match (share("canary"), share("shadow")) {
        (Some(share), None) => (Rollout::canary(share), share),
        (None, Some(share)) => (Rollout::shadow(share), share),
        _ => return wrong("`rollout` is `{canary: SHARE}` or `{shadow: SHARE}`"),
    };
    if !(share > 0.0 && share <= 1.0) {
        return wrong("the share of a canary or shadow is above 0 and at most 1");
    }
    if !has_newer {
        return wrong(
            "`rollout` is about newer models, and none are looked for: `watch_model_pattern`, or an input `model_metadata`",
        );
    }
    match node.get("promote_after").map(|node| &node.content) {
        None => Some(rollout),
        Some(Content::Int(rows @ 1..)) => Some(rollout.promote_after(rows.unsigned_abs())),
        Some(_) => wrong("`promote_after` is a number from 1 up"),
    }
}
