//! [`ReadGate`]: how far a bundle reads one of its sources, agreed between the thread that reads and the runner that wants
//! the rest back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tiebeam_core::Result;
use tiebeam_exec::{AnyBatch, Tap};
use tiebeam_model::fn_api::process_bundle_split_request::DesiredSplit;

/// Stands between a source's decoder and its stage. Elements move in batches: a whole batch is claimed before it goes on,
/// and from then on no split can have it back.
#[derive(Debug, Default)]
pub(crate) struct ReadGate(Mutex<Reading>);

#[derive(Debug)]
struct Reading {
    /// Elements claimed: the next one's index.
    read: i64,
    /// The index of the first element that is not for this bundle.
    stop: i64,
    /// Whether more may come.
    open: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Reading { read: 0, stop: i64::MAX, open: false }
    }
}

impl ReadGate {
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bundle begins.
    pub(crate) fn open(&self) {
        *self.lock() = Reading { open: true, ..Reading::default() };
    }

    /// The source has ended.
    pub(crate) fn close(&self) {
        self.lock().open = false;
    }

    /// Whether nothing goes on any more, whatever comes.
    pub(crate) fn has_stopped(&self) -> bool {
        let reading = self.lock();
        reading.read >= reading.stop
    }

    /// The index of the element that was read last; 0 before the first.
    pub(crate) fn index(&self) -> u64 {
        u64::try_from(self.lock().read - 1).unwrap_or_default()
    }

    /// Gives back what lies behind the wanted part of the remainder, by Beam's rules; the index of the first element that
    /// the bundle leaves, or none when there is nothing to give.
    pub(crate) fn split(&self, wanted: &DesiredSplit) -> Option<i64> {
        let mut reading = self.lock();
        if !reading.open || wanted.fraction_of_remainder.is_nan() {
            return None;
        }
        let stop = stop_index(&reading, wanted);
        let index = reading.read - 1;
        if index < stop && stop < reading.stop {
            reading.stop = stop;
            return Some(stop);
        }
        None
    }
}

/// Where Beam's rules want the bundle to stop; may be no valid place.
fn stop_index(reading: &Reading, wanted: &DesiredSplit) -> i64 {
    // The element under way counts as half done; before the first one, the one before it is done.
    let index = reading.read - 1;
    let progress = if index < 0 { 1.0 } else { 0.5 };
    let total = wanted.estimated_input_elements.min(reading.stop).max(reading.read);
    let remainder = (total - index) as f64 - progress;
    let keep = remainder * wanted.fraction_of_remainder.clamp(0.0, 1.0);
    let stop = index.saturating_add(((progress + keep).round() as i64).max(1));
    let mut allowed = wanted.allowed_split_points.clone();
    allowed.sort_unstable();
    let after = allowed.partition_point(|point| *point < stop);
    match (after.checked_sub(1).map(|before| allowed[before]), allowed.get(after).copied()) {
        (None, None) => stop,
        (None, Some(next)) => next,
        (Some(before), None) => before,
        // The nearer one, if the bundle has not passed it.
        (Some(before), Some(next)) if index < before && stop - before < next - stop => before,
        (_, Some(next)) => next,
    }
}

impl Tap for ReadGate {
    fn pass(&self, batch: &dyn AnyBatch) -> Result<usize> {
        let mut reading = self.lock();
        let left = usize::try_from(reading.stop - reading.read).unwrap_or(usize::MAX);
        let passing = batch.len().min(left);
        reading.read += i64::try_from(passing).unwrap_or(i64::MAX);
        Ok(passing)
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_core::{Batch, WindowInfo};

    use super::*;

    fn wanted(fraction: f64, estimated: i64, allowed: &[i64]) -> DesiredSplit {
        DesiredSplit {
            fraction_of_remainder: fraction,
            estimated_input_elements: estimated,
            allowed_split_points: allowed.to_vec(),
        }
    }

    /// A gate that has read that many elements.
    fn read(n: usize) -> ReadGate {
        let gate = ReadGate::default();
        gate.open();
        assert_eq!(pass(&gate, n), n);
        gate
    }

    fn pass(gate: &ReadGate, n: usize) -> usize {
        gate.pass(&Batch::uniform(vec![0i64; n], WindowInfo::GLOBAL)).unwrap()
    }

    #[test]
    fn splits_follow_beams_rules() {
        // Read so far, fraction, estimated elements, allowed points: the first that is left.
        let cases: &[(usize, f64, i64, &[i64], Option<i64>)] = &[
            // Nothing was read: all can be given back.
            (0, 0.0, 16, &[], Some(0)),
            (0, 0.25, 16, &[], Some(4)),
            (0, 0.5, 16, &[], Some(8)),
            (0, 1.0, 16, &[], Some(16)),
            // The first is under way: half of it is kept, and a fraction of 15.5.
            (1, 0.0, 16, &[], Some(1)),
            (1, 0.25, 16, &[], Some(4)),
            (1, 0.5, 16, &[], Some(8)),
            (1, 0.75, 16, &[], Some(12)),
            (1, 1.0, 16, &[], Some(16)),
            (11, 0.0, 16, &[], Some(11)),
            (11, 0.5, 16, &[], Some(13)),
            (16, 0.5, 16, &[], Some(16)),
            // More was read than the runner knew of.
            (20, 0.5, 16, &[], Some(20)),
            (20, 0.0, 0, &[], Some(20)),
            (5, 0.5, -9, &[], Some(5)),
            // Only some places will do: the nearest.
            (0, 0.25, 16, &[0, 4, 8], Some(4)),
            (0, 0.25, 16, &[2, 3, 7, 8], Some(3)),
            (0, 0.4, 16, &[2, 3, 7, 8], Some(7)),
            (0, 0.25, 16, &[8, 3], Some(3)),
            (0, 0.25, 16, &[12], Some(12)),
            (0, 0.75, 16, &[3], Some(3)),
            (6, 0.5, 16, &[7, 5, 13], Some(13)),
            (6, 0.0, 16, &[5, 9], Some(9)),
            (6, 0.0, 16, &[1, 2, 5], None),
            (6, 0.0, 16, &[6], Some(6)),
            // Numbers that nobody should send.
            (3, -1.0, 16, &[], Some(3)),
            (3, 2.0, 16, &[], Some(16)),
            (3, f64::NAN, 16, &[], None),
            (3, f64::INFINITY, 16, &[], Some(16)),
            (3, 0.5, i64::MAX, &[], Some((1 << 62) + 2)),
            (3, 1.0, i64::MAX, &[], None),
            (3, 0.5, i64::MIN, &[], Some(3)),
            (3, 0.5, 16, &[i64::MIN, i64::MAX], None),
        ];
        for (n, fraction, estimated, allowed, first_left) in cases {
            let gate = read(*n);
            let split = gate.split(&wanted(*fraction, *estimated, allowed));
            assert_eq!(split, *first_left, "{n} read, {fraction} of {estimated}, allowed {allowed:?}");
            if let Some(first_left) = split {
                assert!(first_left >= *n as i64);
                let more = usize::try_from(first_left).unwrap() - n;
                assert_eq!(pass(&gate, more.min(50)), more.min(50));
            }
        }
    }

    #[test]
    fn what_was_claimed_stays_and_what_was_given_back_goes_nowhere() {
        let gate = read(10);
        assert_eq!(gate.split(&wanted(0.5, 30, &[])), Some(20));
        // Again, of what is left; and never more than before.
        assert_eq!(gate.split(&wanted(0.5, 30, &[])), Some(15));
        assert_eq!(gate.split(&wanted(1.0, 30, &[])), None);
        assert_eq!(gate.split(&wanted(0.5, 30, &[20])), None);
        assert_eq!(pass(&gate, 3), 3);
        assert_eq!(gate.index(), 12);
        assert_eq!(gate.split(&wanted(0.0, 30, &[])), Some(13));
        assert!(gate.has_stopped());
        assert_eq!(pass(&gate, 256), 0);
        assert_eq!(gate.split(&wanted(0.0, 30, &[])), None);
        // The next bundle begins anew.
        gate.open();
        assert_eq!((gate.index(), pass(&gate, 100)), (0, 100));
        gate.close();
        assert_eq!(gate.split(&wanted(0.0, 200, &[])), None, "its source has ended");
    }
}
