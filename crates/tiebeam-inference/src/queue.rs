//! What waits for a model: chunks of examples with their places, weights and lengths.

use std::collections::VecDeque;
use std::time::Duration;

use crate::latency::Arrivals;

/// The places of examples in their lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slots {
    /// As many as there are examples, from this one on.
    From(usize),
    /// One for each example.
    Each(Vec<usize>),
}

impl Slots {
    /// The places of the first `n`, which leave these ones.
    pub(crate) fn take(&mut self, n: usize) -> Slots {
        match self {
            Slots::From(first) => {
                let taken = Slots::From(*first);
                *first += n;
                taken
            }
            Slots::Each(slots) => {
                let rest = slots.split_off(n.min(slots.len()));
                Slots::Each(std::mem::replace(slots, rest))
            }
        }
    }
}

/// Examples that a lane brings at once.
pub(crate) struct Chunk<E> {
    pub(crate) slots: Slots,
    pub(crate) values: Vec<E>,
    /// One for each value, where weights count; else empty.
    pub(crate) weights: Vec<u64>,
    /// One for each value, where lengths count; else empty.
    pub(crate) lengths: Vec<usize>,
    /// What all values take together.
    pub(crate) bytes: u64,
    /// The cohort times the number of length classes, and the length class.
    pub(crate) class: usize,
}

/// A chunk that waits.
pub(crate) struct Queued<E> {
    pub(crate) lane: u64,
    pub(crate) slots: Slots,
    pub(crate) values: std::vec::IntoIter<E>,
    pub(crate) weights: std::vec::IntoIter<u64>,
    pub(crate) lengths: std::vec::IntoIter<usize>,
    /// What is left takes together, if all take alike.
    pub(crate) bytes: u64,
    /// By length.
    pub(crate) is_sorted: bool,
    /// When the oldest of them came.
    pub(crate) since: Duration,
    pub(crate) arrivals: Arrivals,
}

impl<E> Queued<E> {
    /// The bytes of the next `n` values, which leave.
    pub(crate) fn take_bytes(&mut self, n: usize) -> u64 {
        let all = self.values.len().max(1) as u128;
        let share = u128::from(self.bytes) * (n as u128).min(all) / all;
        let share = u64::try_from(share).unwrap_or(self.bytes);
        self.bytes -= share;
        share
    }
}

/// The examples of one class that wait.
pub(crate) struct Queue<E> {
    pub(crate) chunks: VecDeque<Queued<E>>,
    pub(crate) len: usize,
    /// Wide enough for the sum of any weights.
    pub(crate) weight: u128,
    /// What they take together.
    pub(crate) bytes: u64,
    /// The size of its next batch, as far as times tell.
    pub(crate) target: usize,
    /// Whether its examples came with lengths.
    pub(crate) has_lengths: bool,
    /// Enough is gathered: whole batches are run until there are none left.
    pub(crate) is_ripe: bool,
}

impl<E> Queue<E> {
    /// Puts a lane's own examples in the order of their lengths, so that each batch has about one length and little is
    /// padded. They come back by their slots.
    pub(crate) fn sort(&mut self, id: u64) {
        if self.chunks.iter().all(|chunk| chunk.lane != id || chunk.is_sorted) {
            return;
        }
        let all = std::mem::take(&mut self.chunks).into_iter();
        let (own, others): (VecDeque<_>, VecDeque<_>) = all.partition(|chunk| chunk.lane == id);
        let since = own.front().map_or(Duration::ZERO, |chunk| chunk.since);
        let bytes = own.iter().map(|chunk| chunk.bytes).sum();
        let has_weights = own.iter().any(|chunk| chunk.weights.len() > 0);
        let came_at_once = own.iter().all(|chunk| matches!(chunk.arrivals, Arrivals::At(at) if at == since));
        let mut items = Vec::with_capacity(own.iter().map(|chunk| chunk.values.len()).sum());
        for Queued { slots, values, mut weights, mut lengths, arrivals, .. } in own {
            let slot_of = |i: usize| match &slots {
                Slots::From(first) => first + i,
                Slots::Each(slots) => slots[i],
            };
            for (i, value) in values.enumerate() {
                let (length, weight) = (lengths.next().unwrap_or(0), weights.next().unwrap_or(0));
                items.push((length, slot_of(i), weight, arrivals.get(i), value));
            }
        }
        items.sort_by_key(|(length, ..)| *length);
        let n = items.len();
        let (mut slots, mut values) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut weights, mut lengths) = (Vec::new(), Vec::with_capacity(n));
        let mut arrivals = Vec::with_capacity(if came_at_once { 0 } else { n });
        for (length, slot, weight, arrived, value) in items {
            lengths.push(length);
            slots.push(slot);
            if !came_at_once {
                arrivals.push(arrived);
            }
            values.push(value);
            if has_weights {
                weights.push(weight);
            }
        }
        self.chunks = others;
        let sorted = Queued {
            lane: id,
            slots: Slots::Each(slots),
            values: values.into_iter(),
            weights: weights.into_iter(),
            lengths: lengths.into_iter(),
            bytes,
            is_sorted: true,
            since,
            arrivals: if came_at_once { Arrivals::At(since) } else { Arrivals::Each(arrivals.into_iter()) },
        };
        // The oldest stands in front: whether a batch is overdue is asked of it.
        let place = self.chunks.partition_point(|chunk| chunk.since <= since);
        self.chunks.insert(place, sorted);
    }
}
