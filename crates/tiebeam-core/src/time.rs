//! Event time: one integer of microseconds.

use std::fmt;
use std::time::Duration;

/// An instant of event time, in microseconds since 1970-01-01T00:00:00Z.
///
/// Beam's wire carries milliseconds; both bounds are Beam's own, so every timestamp that Beam knows fits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every element: `-9223372036854775` milliseconds.
    pub const MIN: Timestamp = Timestamp(-9_223_372_036_854_775_000);
    /// After every element: `9223372036854775` milliseconds.
    pub const MAX: Timestamp = Timestamp(9_223_372_036_854_775_000);
    /// The last instant of the global window: one day before [`MAX`](Timestamp::MAX).
    pub const END_OF_GLOBAL_WINDOW: Timestamp = Timestamp(Timestamp::MAX.0 - 86_400_000_000);

    /// From microseconds, held within [`MIN`](Timestamp::MIN) and [`MAX`](Timestamp::MAX).
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Timestamp::MIN.0 {
            Timestamp::MIN
        } else if micros > Timestamp::MAX.0 {
            Timestamp::MAX
        } else {
            Timestamp(micros)
        }
    }

    /// From milliseconds, held within the bounds.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp::from_micros(millis.saturating_mul(1_000))
    }

    /// From seconds, held within the bounds.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down: what Beam's wire carries.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This instant moved by a signed number of microseconds, held within the bounds.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Timestamp::from_micros(self.0.saturating_add(micros))
    }

    /// This instant moved forward, held within the bounds.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        self.plus_micros(duration_micros(duration))
    }
}

/// A duration in whole microseconds, saturating.
pub fn duration_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::MIN => f.write_str("Timestamp(min)"),
            Timestamp::MAX => f.write_str("Timestamp(max)"),
            Timestamp(micros) => {
                let sign = if micros < 0 { "-" } else { "" };
                let (secs, rest) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
                if rest == 0 {
                    write!(f, "Timestamp({sign}{secs})")
                } else {
                    write!(f, "Timestamp({sign}{secs}.{rest:06})")
                }
            }
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
