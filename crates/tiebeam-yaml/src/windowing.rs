//! Windowing as files say it.

use std::time::Duration;

use tiebeam_core::{FixedWindows, Sessions, SlidingWindows, WindowingStrategy};

use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Entry, Node};

/// The most windows that one row is in.
const MOST_WINDOWS: u128 = 10_000;

const KINDS: [&str; 4] = ["fixed", "sliding", "sessions", "global"];

/// Reads `{type: fixed, size: 30s}` and the like; mistakes go to `problems`.
pub fn read(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<WindowingStrategy> {
    // Beam takes the mapping as a text of YAML or JSON too; here it is written as a mapping.
    let Some(entries) = node.as_map() else {
        let message =
            format!("windowing wants a mapping such as {{type: fixed, size: 60s}}, got {}", node.kind());
        problems.push(Diagnostic::new("TB0224", node.span, message));
        return None;
    };
    let Some(kind) = node.get("type").and_then(Node::as_str) else {
        problems.push(
            Diagnostic::new("TB0207", node.span, "windowing lacks the key `type`")
                .help(format!("one of {}", KINDS.join(", "))),
        );
        return None;
    };
    let keys = keys_of(node, kind, problems)?;
    let (firing, shape): (Vec<Entry>, Vec<Entry>) =
        entries.iter().cloned().partition(|entry| FIRING.iter().any(|key| key.name == &*entry.key));
    let fine = check_keys(&shape, keys, &format!("{kind} windows"), node.span, problems);
    if !check_firing(&firing, node, problems) || !fine {
        return None;
    }
    let mut duration = |key: &str, least: Duration| -> Option<Duration> {
        let node = node.get(key)?;
        match duration(node) {
            Ok(duration) if duration < least => {
                let message = format!("`{key}` must be longer than nothing");
                problems.push(Diagnostic::new("TB0224", node.span, message));
                None
            }
            Ok(duration) => Some(duration),
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    };
    let millisecond = Duration::from_millis(1);
    let offset = match node.get("offset") {
        None => Duration::ZERO,
        Some(_) => duration("offset", Duration::ZERO)?,
    };
    Some(match &**kind {
        "fixed" => {
            WindowingStrategy::of(FixedWindows::of(duration("size", millisecond)?).with_offset(offset))
        }
        "sliding" => {
            let (size, period) = (duration("size", millisecond)?, duration("period", millisecond)?);
            let windows = size.as_micros() / period.as_micros().max(1);
            if windows > MOST_WINDOWS {
                let message = format!("each row would be in {windows} windows, more than {MOST_WINDOWS}");
                problems.push(Diagnostic::new("TB0224", node.span, message).help("make `period` longer"));
                return None;
            }
            WindowingStrategy::of(SlidingWindows::of(size, period).with_offset(offset))
        }
        "sessions" => WindowingStrategy::of(Sessions::with_gap(duration("gap", millisecond)?)),
        _ => WindowingStrategy::global(),
    })
}

/// The keys that say when windows fire.
const FIRING: [Key; 3] = [
    Key::optional("trigger", Wants::Any, "default or after_watermark: once, when a window is complete"),
    Key::optional(
        "accumulation_mode",
        Wants::Text,
        "discarding or accumulating; the same where windows fire once",
    ),
    Key::optional("allowed_lateness", Wants::Any, "how long late rows are taken; in a batch none are late"),
];

/// Whether windows fire once, when they are complete: what a batch does. Anything else is told.
fn check_firing(entries: &[Entry], node: &Node, problems: &mut Vec<Diagnostic>) -> bool {
    if !check_keys(entries, &FIRING, "windowing", node.span, problems) {
        return false;
    }
    let before = problems.len();
    for entry in entries.iter().filter(|entry| entry.value.content != Content::Null) {
        match &*entry.key {
            "trigger" => problems.extend(check_trigger(entry)),
            "accumulation_mode" => {
                const MODES: [&str; 2] = ["discarding", "accumulating"];
                let mode = entry.value.as_str().map_or("", |mode| mode);
                if !MODES.contains(&mode.to_ascii_lowercase().as_str()) {
                    let problem = Diagnostic::new(
                        "TB0224",
                        entry.value.span,
                        format!("unknown accumulation mode `{mode}`"),
                    );
                    problems
                        .push(problem.did_you_mean(mode, MODES).note(format!("modes: {}", MODES.join(", "))));
                }
            }
            _ => problems.extend(duration(&entry.value).err()),
        }
    }
    problems.len() == before
}

/// What is wrong with a trigger, if it is another than the one that a batch has.
fn check_trigger(entry: &Entry) -> Option<Diagnostic> {
    let (name, more) = match entry.value.as_map() {
        Some(keys) => {
            let name = entry.value.get("type").and_then(Node::as_str).cloned();
            (name, keys.iter().find(|key| &*key.key != "type" && key.value.content != Content::Null))
        }
        None => (entry.value.as_str().cloned(), None),
    };
    let Some(name) = name else {
        let message = "a trigger is a name, or `{type: NAME}`";
        return Some(Diagnostic::new("TB0224", entry.value.span, message));
    };
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if let ("default" | "defaulttrigger" | "afterwatermark", None) = (plain.as_str(), more) {
        return None;
    }
    let (span, what) = match more {
        Some(key) => (key.key_span, format!("`{}` of a trigger", key.key)),
        None => (entry.value.span, format!("the trigger `{name}`")),
    };
    let problem =
        Diagnostic::new("TB0219", span, format!("{what} is not available: a batch fires each window once"));
    Some(problem.help("leave it out, or write `trigger: default`: a window fires when it is complete"))
}

/// The keys of a type of windows; an unknown type is told.
fn keys_of(node: &Node, kind: &str, problems: &mut Vec<Diagnostic>) -> Option<&'static [Key]> {
    const TYPE: Key = Key::required("type", Wants::Text, "fixed, sliding, sessions or global");
    const SIZE: Key = Key::required("size", Wants::Any, "how long a window is, such as 60s or 5m");
    const PERIOD: Key = Key::required("period", Wants::Any, "how often a window begins");
    const GAP: Key = Key::required("gap", Wants::Any, "how long a silence ends a session");
    const OFFSET: Key = Key::optional("offset", Wants::Any, "where the first window begins");
    Some(match kind {
        "global" => &[TYPE],
        "fixed" => &[TYPE, SIZE, OFFSET],
        "sliding" => &[TYPE, SIZE, PERIOD, OFFSET],
        "sessions" => &[TYPE, GAP],
        other => {
            let span = node.get("type").map_or(node.span, |kind| kind.span);
            problems.push(
                Diagnostic::new("TB0224", span, format!("unknown window type `{other}`"))
                    .did_you_mean(other, KINDS)
                    .note(format!("types: {}", KINDS.join(", "))),
            );
            return None;
        }
    })
}

/// A duration: a number with `ms`, `s`, `m`, `h` or `d`; seconds without. A day has 24 hours.
///
/// # Errors
/// What is wrong with it, at its place.
pub fn duration(node: &Node) -> Result<Duration, Diagnostic> {
    let bad = |seen: &str| {
        Diagnostic::new("TB0224", node.span, format!("`{seen}` is no duration"))
            .help("write a number and its unit: 500ms, 30s, 5m, 1h, 1d")
    };
    let text = match &node.content {
        Content::Int(seconds) => seconds.to_string(),
        Content::Float(seconds) => seconds.to_string(),
        Content::String(text) => text.trim().to_owned(),
        _ => return Err(bad(node.kind())),
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let unit = match text[digits.len()..].trim() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(bad(&text)),
    };
    let number: f64 = digits.trim().parse().map_err(|_| bad(&text))?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| bad(&text))
}
