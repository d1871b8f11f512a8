//! Windowing strategies and window functions as messages.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::{
    Error, ErrorKind, FixedWindows, GlobalWindows, Result, Sessions, SlidingWindows, TimestampCombiner,
    WindowFn, WindowingStrategy,
};
use tiebeam_model::pipeline::{
    FixedWindowsPayload, FunctionSpec, SessionWindowsPayload, SlidingWindowsPayload, Trigger,
    accumulation_mode, closing_behavior, merge_status, on_time_behavior, output_time, trigger,
};
use tiebeam_model::prost_types;
use tiebeam_model::{Message, pipeline, urns};

use crate::coders::CoderTable;

/// The message of a windowing strategy; `environment` is where a custom window function runs.
pub fn strategy_to_proto(
    strategy: &WindowingStrategy,
    coders: &mut CoderTable,
    environment: &str,
) -> pipeline::WindowingStrategy {
    let merge_status = match strategy.window_fn.is_merging() {
        true => merge_status::Enum::NeedsMerge,
        false => merge_status::Enum::NonMerging,
    };
    let output_time = match strategy.timestamp_combiner {
        TimestampCombiner::EndOfWindow => output_time::Enum::EndOfWindow,
        TimestampCombiner::Earliest => output_time::Enum::EarliestInPane,
        TimestampCombiner::Latest => output_time::Enum::LatestInPane,
    };
    let function = window_fn_to_proto(&*strategy.window_fn);
    pipeline::WindowingStrategy {
        merge_status: merge_status.into(),
        window_coder_id: coders.id(&strategy.window_fn.window_coder()),
        trigger: Some(Trigger { trigger: Some(trigger::Trigger::Default(trigger::Default {})) }),
        accumulation_mode: accumulation_mode::Enum::Discarding.into(),
        output_time: output_time.into(),
        closing_behavior: closing_behavior::Enum::EmitIfNonempty.into(),
        allowed_lateness: i64::try_from(strategy.allowed_lateness.as_millis()).unwrap_or(i64::MAX),
        on_time_behavior: on_time_behavior::Enum::FireAlways.into(),
        assigns_to_one_window: function.urn != urns::window_fn::SLIDING,
        environment_id: environment.to_owned(),
        window_fn: Some(function),
    }
}

/// The message of a window function.
pub fn window_fn_to_proto(window_fn: &dyn WindowFn) -> FunctionSpec {
    let (urn, payload) = window_fn.to_wire();
    FunctionSpec { urn, payload: payload.into() }
}

/// The window function that a message tells, if it is one that every SDK knows.
///
/// # Errors
/// When the URN is another, or the payload is damaged.
pub fn window_fn_of(function: &FunctionSpec) -> Result<Arc<dyn WindowFn>> {
    let payload = function.payload.as_ref();
    let damaged = |error| {
        Error::new(ErrorKind::InvalidData, "TB0549", format!("the payload of {} is damaged", function.urn))
            .with_source(Box::<dyn std::error::Error + Send + Sync>::from(error))
    };
    Ok(match function.urn.as_str() {
        urns::window_fn::GLOBAL => Arc::new(GlobalWindows),
        urns::window_fn::FIXED => {
            let fixed = FixedWindowsPayload::decode(payload).map_err(damaged)?;
            Arc::new(FixedWindows::of(duration(fixed.size)?).with_offset(offset(fixed.offset)?))
        }
        urns::window_fn::SLIDING => {
            let sliding = SlidingWindowsPayload::decode(payload).map_err(damaged)?;
            let windows = SlidingWindows::of(duration(sliding.size)?, duration(sliding.period)?);
            Arc::new(windows.with_offset(offset(sliding.offset)?))
        }
        urns::window_fn::SESSIONS => {
            let sessions = SessionWindowsPayload::decode(payload).map_err(damaged)?;
            Arc::new(Sessions::with_gap(duration(sessions.gap_size)?))
        }
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "TB0549",
                format!(
                    "window function {other} is not one of the standard ones, and no step here is known by it"
                ),
            ));
        }
    })
}

fn duration(message: Option<prost_types::Duration>) -> Result<Duration> {
    let message = message.unwrap_or_default();
    from_parts(message.seconds, message.nanos)
}

fn offset(message: Option<prost_types::Timestamp>) -> Result<Duration> {
    let message = message.unwrap_or_default();
    from_parts(message.seconds, message.nanos)
}

fn from_parts(seconds: i64, nanos: i32) -> Result<Duration> {
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos @ 0..=999_999_999)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Error::new(
            ErrorKind::InvalidData,
            "TB0549",
            format!(
                "a window function has a time of {seconds} seconds and {nanos} nanoseconds, wanted 0 or more"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(window_fn: impl WindowFn) -> String {
        format!("{:?}", window_fn_of(&window_fn_to_proto(&window_fn)).unwrap())
    }

    #[test]
    fn standard_window_functions_go_out_and_come_back() {
        let seconds = Duration::from_secs;
        let fixed = FixedWindows::of(Duration::from_millis(1_500)).with_offset(Duration::from_millis(200));
        let sliding = SlidingWindows::of(seconds(60), seconds(10)).with_offset(seconds(3));
        let sessions = Sessions::with_gap(Duration::from_millis(10));
        assert_eq!(there_and_back(GlobalWindows), format!("{GlobalWindows:?}"));
        assert_eq!(there_and_back(fixed), format!("{fixed:?}"));
        assert_eq!(there_and_back(sliding), format!("{sliding:?}"));
        assert_eq!(there_and_back(sessions), format!("{sessions:?}"));
    }

    #[test]
    fn foreign_and_damaged_ones_are_errors() {
        let of = |urn: &str, payload: &'static [u8]| {
            window_fn_of(&FunctionSpec { urn: urn.to_owned(), payload: payload.into() })
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            of("my:fn", b""),
            "window function my:fn is not one of the standard ones, and no step here is known by it"
        );
        assert_eq!(
            of(urns::window_fn::FIXED, &[0x0a, 9]),
            format!("the payload of {} is damaged", urns::window_fn::FIXED)
        );
        // size { seconds: -1 }
        assert_eq!(
            of(urns::window_fn::SESSIONS, &[0x0a, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            "a window function has a time of -1 seconds and 0 nanoseconds, wanted 0 or more"
        );
    }

    #[test]
    fn a_strategy_says_all() {
        let mut coders = CoderTable::default();
        let strategy = WindowingStrategy::of(Sessions::with_gap(Duration::from_secs(1)))
            .with_timestamp_combiner(TimestampCombiner::Latest)
            .with_allowed_lateness(Duration::from_secs(2));
        let message = strategy_to_proto(&strategy, &mut coders, "env");
        assert_eq!(message.merge_status(), merge_status::Enum::NeedsMerge);
        assert_eq!(message.output_time(), output_time::Enum::LatestInPane);
        assert_eq!(message.allowed_lateness, 2_000);
        assert_eq!(message.environment_id, "env");
        let coder = &coders.into_coders()[&message.window_coder_id];
        assert_eq!(coder.spec.as_ref().unwrap().urn, urns::coder::INTERVAL_WINDOW);
    }
}
