//! The URNs of Beam's model coders, byte for byte, and of our private ones.

/// Bytes.
pub const BYTES: &str = "beam:coder:bytes:v1";
/// UTF-8 text.
pub const STRING_UTF8: &str = "beam:coder:string_utf8:v1";
/// A 64-bit integer.
pub const VARINT: &str = "beam:coder:varint:v1";
/// True or false.
pub const BOOL: &str = "beam:coder:bool:v1";
/// Double precision.
pub const DOUBLE: &str = "beam:coder:double:v1";
/// A key and a value.
pub const KV: &str = "beam:coder:kv:v1";
/// Many values.
pub const ITERABLE: &str = "beam:coder:iterable:v1";
/// Many values, some of which the runner may keep.
pub const STATE_BACKED_ITERABLE: &str = "beam:coder:state_backed_iterable:v1";
/// A value or none.
pub const NULLABLE: &str = "beam:coder:nullable:v1";
/// A row; the payload is Beam's Schema message.
pub const ROW: &str = "beam:coder:row:v1";
/// A length, then another coder's bytes.
pub const LENGTH_PREFIX: &str = "beam:coder:length_prefix:v1";
/// The window that holds everything.
pub const GLOBAL_WINDOW: &str = "beam:coder:global_window:v1";
/// A span of event time.
pub const INTERVAL_WINDOW: &str = "beam:coder:interval_window:v1";
/// A window with its last instant in front.
pub const CUSTOM_WINDOW: &str = "beam:coder:custom_window:v1";
/// A value with its time, windows and pane.
pub const WINDOWED_VALUE: &str = "beam:coder:windowed_value:v1";
/// A value whose time, windows and pane stand in the payload.
pub const PARAM_WINDOWED_VALUE: &str = "beam:coder:param_windowed_value:v1";
/// A timer.
pub const TIMER: &str = "beam:coder:timer:v1";
/// A key with the shard that it is cut into.
pub const SHARDED_KEY: &str = "beam:coder:sharded_key:v1";

/// Ours: no value at all.
pub const UNIT: &str = "tiebeam:coder:unit:v1";
/// Ours: a row behind its schema.
pub const DYNAMIC_ROW: &str = "tiebeam:coder:dynamic_row:v1";

/// Every model coder that this crate implements: what a worker declares as capabilities.
pub const MODEL_CODERS: [&str; 18] = [
    BYTES,
    STRING_UTF8,
    VARINT,
    BOOL,
    DOUBLE,
    KV,
    ITERABLE,
    STATE_BACKED_ITERABLE,
    NULLABLE,
    ROW,
    LENGTH_PREFIX,
    GLOBAL_WINDOW,
    INTERVAL_WINDOW,
    CUSTOM_WINDOW,
    WINDOWED_VALUE,
    PARAM_WINDOWED_VALUE,
    TIMER,
    SHARDED_KEY,
];
