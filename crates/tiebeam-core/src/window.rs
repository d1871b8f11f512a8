//! Windows, panes, and what each element carries of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::coder::CoderSpec;
use crate::time::{Timestamp, duration_micros};

/// A half-open span of event time, `[start, end)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntervalWindow {
    /// The first instant inside.
    pub start: Timestamp,
    /// The first instant after.
    pub end: Timestamp,
}

impl IntervalWindow {
    /// The window `[start, end)`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        IntervalWindow { start, end }
    }

    /// The last instant inside, at Beam's resolution of one millisecond.
    pub const fn max_timestamp(self) -> Timestamp {
        self.end.plus_micros(-1_000)
    }

    /// Whether the two share an instant.
    pub fn intersects(self, other: IntervalWindow) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The smallest window that covers both.
    #[must_use]
    pub fn span(self, other: IntervalWindow) -> Self {
        IntervalWindow { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Debug for IntervalWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}, {:?})", self.start, self.end)
    }
}

/// A window of a kind that only its own [`WindowFn`] understands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomWindow {
    /// Its last instant.
    pub max_timestamp: Timestamp,
    /// Its encoding by the window function's coder; equality of windows is equality of these bytes.
    pub encoded: Bytes,
}

/// One window.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The one window that holds everything.
    Global,
    /// A span of event time.
    Interval(IntervalWindow),
    /// A window of a user's kind.
    Custom(Arc<CustomWindow>),
}

impl Window {
    /// The last instant that belongs to the window.
    pub fn max_timestamp(&self) -> Timestamp {
        match self {
            Window::Global => Timestamp::END_OF_GLOBAL_WINDOW,
            Window::Interval(window) => window.max_timestamp(),
            Window::Custom(window) => window.max_timestamp,
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Global => f.write_str("Global"),
            Window::Interval(window) => window.fmt(f),
            Window::Custom(window) => window.fmt(f),
        }
    }
}

/// The windows of one element. One window costs no allocation; many share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Windows {
    /// Exactly one.
    One(Window),
    /// Any number but one, in the window function's order.
    Many(Arc<[Window]>),
}

impl Windows {
    /// The global window alone.
    pub const GLOBAL: Windows = Windows::One(Window::Global);

    /// As a slice.
    pub fn as_slice(&self) -> &[Window] {
        match self {
            Windows::One(window) => std::slice::from_ref(window),
            Windows::Many(windows) => windows,
        }
    }
}

impl FromIterator<Window> for Windows {
    fn from_iter<I: IntoIterator<Item = Window>>(iter: I) -> Self {
        let mut iter = iter.into_iter();
        match (iter.next(), iter.next()) {
            (Some(one), None) => Windows::One(one),
            (None, _) => Windows::Many(Arc::from([])),
            (Some(one), Some(two)) => Windows::Many([one, two].into_iter().chain(iter).collect()),
        }
    }
}

/// When a pane fired, seen from the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaneTiming {
    /// Before the watermark passed the window's end.
    Early,
    /// When it did.
    OnTime,
    /// After it did.
    Late,
    /// The element has not been through a grouping.
    Unknown,
}

/// Which firing of its window an element came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pane {
    /// The first pane of its key and window.
    pub is_first: bool,
    /// The last one.
    pub is_last: bool,
    /// Its place relative to the watermark.
    pub timing: PaneTiming,
    /// The number of panes before it.
    pub index: i64,
    /// The number of on-time and late panes before it, or -1 for an early one.
    pub on_time_index: i64,
}

impl Pane {
    /// An element that no trigger has fired: Beam's `NO_FIRING`.
    pub const NO_FIRING: Pane =
        Pane { is_first: true, is_last: true, timing: PaneTiming::Unknown, index: 0, on_time_index: 0 };
    /// The only pane of a window that fires once, at its end.
    pub const ON_TIME_AND_ONLY: Pane =
        Pane { is_first: true, is_last: true, timing: PaneTiming::OnTime, index: 0, on_time_index: 0 };
}

/// What travels with every element: its event time, its windows, its pane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowInfo {
    /// Event time.
    pub timestamp: Timestamp,
    /// All windows that the element is in.
    pub windows: Windows,
    /// The firing it came with.
    pub pane: Pane,
}

impl WindowInfo {
    /// No time of its own, in the global window: how elements begin.
    pub const GLOBAL: WindowInfo =
        WindowInfo { timestamp: Timestamp::MIN, windows: Windows::GLOBAL, pane: Pane::NO_FIRING };

    /// The same windows and pane at another time.
    #[must_use]
    pub fn at(&self, timestamp: Timestamp) -> Self {
        WindowInfo { timestamp, ..self.clone() }
    }
}

/// How elements are given to windows. Pure: the same element is always given the same windows.
///
/// Merging itself is the runner's work; [`merge`](WindowFn::merge) only says what merges.
pub trait WindowFn: Send + Sync + fmt::Debug + 'static {
    /// The windows of an element at `timestamp` that was in `windows` before.
    fn assign(&self, timestamp: Timestamp, windows: &Windows) -> Windows;

    /// Whether windows of one key may merge after assignment.
    fn is_merging(&self) -> bool {
        false
    }

    /// Groups of at least one of the given windows with the window that replaces each group. Windows are sorted and
    /// distinct. Only called when [`is_merging`](WindowFn::is_merging).
    fn merge(&self, windows: &[Window]) -> Vec<(Vec<Window>, Window)> {
        windows.iter().map(|w| (vec![w.clone()], w.clone())).collect()
    }

    /// The window of this function that a main input's window reads as a side input.
    fn side_input_window(&self, main: &Window) -> Window {
        match self.assign(main.max_timestamp(), &Windows::GLOBAL).as_slice() {
            [.., last] => last.clone(),
            [] => Window::Global,
        }
    }

    /// How the function travels: Beam's URN and payload.
    fn to_wire(&self) -> (String, Vec<u8>);

    /// The coder of its windows.
    fn window_coder(&self) -> CoderSpec;
}

/// Everything in the global window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalWindows;

/// Windows of one size that touch and do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindows {
    size: i64,
    offset: i64,
}

/// Windows of one size, a new one every period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindows {
    size: i64,
    period: i64,
    offset: i64,
}

/// Windows that end when a key has been silent for a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    gap: i64,
}

impl FixedWindows {
    /// Windows of `size`, which is at least a millisecond (shorter ones are taken as one).
    pub fn of(size: Duration) -> Self {
        FixedWindows { size: duration_micros(size).max(1_000), offset: 0 }
    }

    /// The windows start at `offset` past each multiple of the size.
    #[must_use]
    pub fn with_offset(self, offset: Duration) -> Self {
        FixedWindows { offset: duration_micros(offset) % self.size, ..self }
    }
}

impl SlidingWindows {
    /// Windows of `size`, one starting every `period`; both at least a millisecond.
    pub fn of(size: Duration, period: Duration) -> Self {
        SlidingWindows {
            size: duration_micros(size).max(1_000),
            period: duration_micros(period).max(1_000),
            offset: 0,
        }
    }

    /// The windows start at `offset` past each multiple of the period.
    #[must_use]
    pub fn with_offset(self, offset: Duration) -> Self {
        SlidingWindows { offset: duration_micros(offset) % self.period, ..self }
    }
}

impl Sessions {
    /// Sessions that end after a silence of `gap`, at least a millisecond.
    pub fn with_gap(gap: Duration) -> Self {
        Sessions { gap: duration_micros(gap).max(1_000) }
    }
}

fn floor_to(timestamp: Timestamp, period: i64, offset: i64) -> i64 {
    let micros = timestamp.micros();
    match micros.checked_sub(offset).and_then(|from| micros.checked_sub(from.rem_euclid(period))) {
        Some(start) => start,
        // At the ends of time, where elements without a time of their own are, a window begins before its first instant.
        None => {
            let (micros, offset, period) = (i128::from(micros), i128::from(offset), i128::from(period));
            let start = micros - (micros - offset).rem_euclid(period);
            i64::try_from(start).unwrap_or(i64::MIN)
        }
    }
}

impl WindowFn for GlobalWindows {
    fn assign(&self, _: Timestamp, _: &Windows) -> Windows {
        Windows::GLOBAL
    }

    fn side_input_window(&self, _: &Window) -> Window {
        Window::Global
    }

    fn to_wire(&self) -> (String, Vec<u8>) {
        ("beam:window_fn:global_windows:v1".to_owned(), Vec::new())
    }

    fn window_coder(&self) -> CoderSpec {
        CoderSpec::leaf("beam:coder:global_window:v1")
    }
}

impl WindowFn for FixedWindows {
    fn assign(&self, timestamp: Timestamp, _: &Windows) -> Windows {
        let start = floor_to(timestamp, self.size, self.offset);
        Windows::One(interval(start, self.size))
    }

    fn to_wire(&self) -> (String, Vec<u8>) {
        let mut payload = Vec::new();
        crate::coder::wire::message(&mut payload, 1, &crate::coder::wire::duration(self.size));
        crate::coder::wire::message(&mut payload, 2, &crate::coder::wire::duration(self.offset));
        ("beam:window_fn:fixed_windows:v1".to_owned(), payload)
    }

    fn window_coder(&self) -> CoderSpec {
        CoderSpec::leaf("beam:coder:interval_window:v1")
    }
}

impl WindowFn for SlidingWindows {
    fn assign(&self, timestamp: Timestamp, _: &Windows) -> Windows {
        // Wide, since at the ends of time windows begin before the first instant that there is.
        let (at, size, period) =
            (i128::from(timestamp.micros()), i128::from(self.size), i128::from(self.period));
        let mut start = at - (at - i128::from(self.offset)).rem_euclid(period);
        let mut windows = Vec::with_capacity(usize::try_from(self.size / self.period).unwrap_or(0) + 1);
        while start > at - size {
            let instant = |micros: i128| {
                let most = if micros < 0 { i64::MIN } else { i64::MAX };
                Timestamp::from_micros(i64::try_from(micros).unwrap_or(most))
            };
            windows.push(Window::Interval(IntervalWindow::new(instant(start), instant(start + size))));
            start -= period;
        }
        windows.into_iter().collect()
    }

    fn to_wire(&self) -> (String, Vec<u8>) {
        let mut payload = Vec::new();
        crate::coder::wire::message(&mut payload, 1, &crate::coder::wire::duration(self.size));
        crate::coder::wire::message(&mut payload, 2, &crate::coder::wire::duration(self.offset));
        crate::coder::wire::message(&mut payload, 3, &crate::coder::wire::duration(self.period));
        ("beam:window_fn:sliding_windows:v1".to_owned(), payload)
    }

    fn window_coder(&self) -> CoderSpec {
        CoderSpec::leaf("beam:coder:interval_window:v1")
    }
}

impl WindowFn for Sessions {
    fn assign(&self, timestamp: Timestamp, _: &Windows) -> Windows {
        Windows::One(interval(timestamp.micros(), self.gap))
    }

    fn is_merging(&self) -> bool {
        true
    }

    fn merge(&self, windows: &[Window]) -> Vec<(Vec<Window>, Window)> {
        let mut spans: Vec<IntervalWindow> = windows
            .iter()
            .filter_map(|w| match w {
                Window::Interval(span) => Some(*span),
                _ => None,
            })
            .collect();
        spans.sort();
        let mut merged: Vec<(Vec<Window>, IntervalWindow)> = Vec::new();
        for span in spans {
            match merged.last_mut() {
                Some((group, whole)) if span.intersects(*whole) => {
                    group.push(Window::Interval(span));
                    *whole = whole.span(span);
                }
                _ => merged.push((vec![Window::Interval(span)], span)),
            }
        }
        merged.into_iter().map(|(group, whole)| (group, Window::Interval(whole))).collect()
    }

    fn to_wire(&self) -> (String, Vec<u8>) {
        let mut payload = Vec::new();
        crate::coder::wire::message(&mut payload, 1, &crate::coder::wire::duration(self.gap));
        ("beam:window_fn:session_windows:v1".to_owned(), payload)
    }

    fn window_coder(&self) -> CoderSpec {
        CoderSpec::leaf("beam:coder:interval_window:v1")
    }
}

fn interval(start: i64, size: i64) -> Window {
    let end = Timestamp::from_micros(start.saturating_add(size));
    Window::Interval(IntervalWindow { start: Timestamp::from_micros(start), end })
}

/// The time that a grouped element is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampCombiner {
    /// The window's last instant.
    #[default]
    EndOfWindow,
    /// The earliest time of the elements in the group.
    Earliest,
    /// The latest.
    Latest,
}

impl TimestampCombiner {
    /// The time of a group in `window`, given the earliest and latest time in it.
    pub fn combine(self, window: &Window, earliest: Timestamp, latest: Timestamp) -> Timestamp {
        match self {
            TimestampCombiner::EndOfWindow => window.max_timestamp(),
            TimestampCombiner::Earliest => earliest,
            TimestampCombiner::Latest => latest,
        }
    }
}

/// How a PCollection is windowed and when its groups fire. Triggers join it with the streaming runner.
#[derive(Debug, Clone)]
pub struct WindowingStrategy {
    /// How elements are given to windows.
    pub window_fn: Arc<dyn WindowFn>,
    /// The time of grouped elements.
    pub timestamp_combiner: TimestampCombiner,
    /// How long after its window's end an element still counts.
    pub allowed_lateness: Duration,
}

impl WindowingStrategy {
    /// The default: the global window, end-of-window times, no lateness.
    pub fn global() -> Self {
        WindowingStrategy::of(GlobalWindows)
    }

    /// `window_fn` with the other settings at their defaults.
    pub fn of(window_fn: impl WindowFn) -> Self {
        WindowingStrategy {
            window_fn: Arc::new(window_fn),
            timestamp_combiner: TimestampCombiner::default(),
            allowed_lateness: Duration::ZERO,
        }
    }

    /// The time that grouped elements get.
    #[must_use]
    pub fn with_timestamp_combiner(mut self, combiner: TimestampCombiner) -> Self {
        self.timestamp_combiner = combiner;
        self
    }

    /// How long after its window's end an element still counts.
    #[must_use]
    pub fn with_allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness = lateness;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_without_a_time_have_windows_too() {
        let minute = Duration::from_secs(60);
        let fixed = [
            FixedWindows::of(minute),
            FixedWindows::of(minute).with_offset(Duration::from_secs(59)),
            FixedWindows::of(Duration::from_secs(u64::MAX)),
        ];
        for window_fn in fixed {
            for timestamp in [Timestamp::MIN, Timestamp::from_micros(0), Timestamp::MAX] {
                let Windows::One(Window::Interval(window)) = window_fn.assign(timestamp, &Windows::GLOBAL)
                else {
                    panic!("{window_fn:?} gives one interval");
                };
                assert!(window.start <= timestamp && timestamp <= window.end, "{window:?} of {timestamp:?}");
            }
        }
        let sliding = SlidingWindows::of(minute, Duration::from_secs(20));
        assert_eq!(sliding.assign(Timestamp::from_secs(30), &Windows::GLOBAL).as_slice().len(), 3);
        assert!(!sliding.assign(Timestamp::MIN, &Windows::GLOBAL).as_slice().is_empty());
    }
}
