//! [`Batching`]: how elements are gathered for a model.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};

/// Tells the length of an example, for length-aware batching.
pub type LengthFn<E> = Arc<dyn Fn(&E) -> usize + Send + Sync>;

/// Beam's bucket boundaries for length-aware batching when none are given.
pub const DEFAULT_BUCKET_BOUNDARIES: [usize; 6] = [16, 32, 64, 128, 256, 512];

/// How elements are gathered for a model. Sizes and weights are per batch.
///
/// Between the minimum and the maximum the size follows from measured times: the largest batch whose elements take no
/// longer than [`target_batch_duration`](Batching::target_batch_duration), and the smallest one whose fixed cost is no
/// more than [`target_batch_overhead`](Batching::target_batch_overhead) of the whole, whichever is smaller, growing at
/// most twofold beyond the last ones. These are the rules and the defaults of Beam's `BatchElements`.
#[derive(Clone, PartialEq)]
pub struct Batching {
    /// A batch waits for at least this many, as long as other bundles may bring more, but at a bundle's end no longer
    /// than 200 milliseconds unless [`max_batch_duration`](Batching::max_batch_duration) says otherwise. Default 1.
    pub min_batch_size: usize,
    /// A batch never holds more. Default 10,000.
    pub max_batch_size: usize,
    /// A batch waits no longer than this for more elements. Default: none; a bundle's end waits for nobody, unless
    /// fewer than the minimum are there.
    pub max_batch_duration: Option<Duration>,
    /// A batch never weighs more (by the handler's [`element_size`](crate::ModelHandler::element_size)); a single
    /// heavier element goes alone.
    pub max_batch_weight: Option<u64>,
    /// Elements that wait for a model take no more than about this many bytes together, by the handler's
    /// [`num_bytes`](crate::ModelHandler::num_bytes): whoever brings more runs what is there, though it is no full batch, but no
    /// fewer than [`min_batch_size`](Batching::min_batch_size). Default 64 MiB.
    pub max_queue_bytes: u64,
    /// The share of a batch's time that its fixed cost may take. Default 0.05.
    pub target_batch_overhead: Option<f64>,
    /// How long the elements of a batch may take, without the fixed cost. Default 10 seconds.
    pub target_batch_duration: Option<Duration>,
    /// How long a batch may take, with the fixed cost. Default: no such bound.
    pub target_batch_duration_including_fixed_cost: Option<Duration>,
    /// How far the sizes are spread around the target, so that the estimate keeps learning. Default 0.25.
    pub variance: f64,
    /// Upper ends of the length classes whose examples share batches, ascending; only with a handler that tells
    /// lengths. Default with such a handler: 16, 32, 64, 128, 256, 512.
    pub bucket_boundaries: Option<Arc<[usize]>>,
}

impl Default for Batching {
    fn default() -> Self {
        Batching {
            min_batch_size: 1,
            max_batch_size: 10_000,
            max_batch_duration: None,
            max_batch_weight: None,
            max_queue_bytes: 64 << 20,
            target_batch_overhead: Some(0.05),
            target_batch_duration: Some(Duration::from_secs(10)),
            target_batch_duration_including_fixed_cost: None,
            variance: 0.25,
            bucket_boundaries: None,
        }
    }
}

impl fmt::Debug for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batching({}..={}", self.min_batch_size, self.max_batch_size)?;
        if let Some(duration) = self.max_batch_duration {
            write!(f, ", at most {duration:?}")?;
        }
        if let Some(weight) = self.max_batch_weight {
            write!(f, ", weight {weight}")?;
        }
        f.write_str(")")
    }
}

impl Batching {
    /// Batches of exactly `size`, but for the last ones.
    pub fn fixed(size: usize) -> Self {
        Batching { min_batch_size: size, max_batch_size: size, ..Batching::default() }
    }

    /// Batches of at most `size`.
    pub fn at_most(size: usize) -> Self {
        Batching { max_batch_size: size, ..Batching::default() }
    }

    /// The settings as they are, if they make sense. `has_lengths` says whether the handler tells lengths.
    ///
    /// # Errors
    /// When the minimum is above the maximum, the maximum is nothing, a share is not one, or boundaries are not
    /// ascending or have no lengths to bound.
    pub fn validated(self, has_lengths: bool) -> Result<Self> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidArgument, "TB0320", message));
        if self.max_batch_size == 0 || self.max_batch_weight == Some(0) {
            return invalid("a batch must be allowed at least one element".to_owned());
        }
        if self.max_queue_bytes == 0 {
            return invalid("max_queue_bytes must be more than nothing".to_owned());
        }
        if self.min_batch_size > self.max_batch_size {
            return invalid(format!(
                "Minimum ({}) must not be greater than maximum ({})",
                self.min_batch_size, self.max_batch_size
            ));
        }
        if let Some(overhead) = self.target_batch_overhead
            && !(overhead > 0.0 && overhead <= 1.0)
        {
            return invalid(format!("target_batch_overhead ({overhead}) must be between 0 and 1"));
        }
        if !(0.0..=1.0).contains(&self.variance) {
            return invalid(format!("variance ({}) must be between 0 and 1", self.variance));
        }
        for (name, duration) in [
            ("target_batch_duration", self.target_batch_duration),
            ("target_batch_duration_including_fixed_cost", self.target_batch_duration_including_fixed_cost),
            ("max_batch_duration", self.max_batch_duration),
        ] {
            if duration.is_some_and(|duration| duration.is_zero()) {
                return invalid(format!("{name} must be more than nothing"));
            }
        }
        if let Some(boundaries) = &self.bucket_boundaries {
            if !has_lengths {
                return invalid("bucket_boundaries requires length_fn to be set.".to_owned());
            }
            if boundaries.is_empty() || boundaries[0] == 0 || boundaries.windows(2).any(|w| w[0] >= w[1]) {
                return invalid(format!(
                    "bucket_boundaries must be positive and ascending, got {:?}",
                    &boundaries[..]
                ));
            }
        }
        Ok(self)
    }

    /// The boundaries in force for a handler that tells lengths.
    pub(crate) fn boundaries(&self) -> Arc<[usize]> {
        self.bucket_boundaries.clone().unwrap_or_else(|| Arc::from(DEFAULT_BUCKET_BOUNDARIES))
    }
}
