//! [`Scatter`]: puts examples in order again that came back from batches in another one, without an allocation each.

use std::collections::VecDeque;
use tiebeam_core::error::Result;

use crate::batcher::{ModelId, Piece, Slots};
use crate::call::{Refusal, Verdict};
use crate::handler::Answered;
use crate::latency::Waits;

/// An example that came back by itself, what became of it, and the model that was asked.
type Scattered<E, P> = (E, Result<Answered<P>, Refusal>, ModelId);

/// What came back of a lane, from the first slot on that was not passed on yet.
pub(crate) struct Scatter<E, P> {
    first: usize,
    back: VecDeque<Option<Scattered<E, P>>>,
}

impl<E, P> Default for Scatter<E, P> {
    fn default() -> Self {
        Scatter { first: 0, back: VecDeque::new() }
    }
}

impl<E, P> Scatter<E, P> {
    /// A new bundle: its slots begin at 0.
    pub(crate) fn clear(&mut self) {
        self.first = 0;
        self.back.clear();
    }

    /// Takes examples with their slots, in any order.
    pub(crate) fn put(&mut self, slots: Vec<usize>, examples: Vec<E>, verdict: Verdict<P>, model: &ModelId) {
        let Some(last) = slots.iter().max() else { return };
        let needed = (last + 1).saturating_sub(self.first);
        if self.back.len() < needed {
            self.back.resize_with(needed, || None);
        }
        let mut put = |slot: usize, example, verdict| {
            let place = slot.checked_sub(self.first);
            if let Some(place) = place.and_then(|place| self.back.get_mut(place)) {
                *place = Some((example, verdict, model.clone()));
            }
        };
        let pairs = slots.into_iter().zip(examples);
        match verdict {
            Verdict::All(all) => pairs.zip(all).for_each(|((slot, e), one)| put(slot, e, Ok(one.into()))),
            Verdict::Each(each) => pairs.zip(each).for_each(|((slot, e), one)| put(slot, e, one)),
            Verdict::Failed(_) => {}
        }
    }

    /// The longest run of one model from the first slot on, if that one is back.
    pub(crate) fn next(&mut self) -> Option<Piece<E, P>> {
        let (_, _, model) = self.back.front()?.as_ref()?;
        let model = model.clone();
        let is_next = |next: &&Option<Scattered<E, P>>| matches!(next, Some((_, _, id)) if *id == model);
        let n = self.back.iter().take_while(is_next).count();
        let (mut examples, mut each) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for (example, verdict, _) in self.back.drain(..n).flatten() {
            examples.push(example);
            each.push(verdict);
        }
        let slots = Slots::From(self.first);
        self.first += n;
        let is_plain = |one: &Result<Answered<P>, Refusal>| matches!(one, Ok(one) if one.model_id.is_none());
        let verdict = match each.iter().all(is_plain) {
            true => Verdict::All(each.into_iter().flatten().map(|one| one.inference).collect()),
            false => Verdict::Each(each),
        };
        // Told when it came back.
        Some(Piece { slots, examples, verdict, model, waits: Waits::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batcher::ModelTag;

    fn of(id: &str) -> ModelId {
        ModelId::new(ModelTag { id: id.into(), prefix: None })
    }

    fn next(scatter: &mut Scatter<i64, i64>) -> Option<(Slots, Vec<i64>, ModelId)> {
        scatter.next().map(|piece| (piece.slots, piece.examples, piece.model))
    }

    #[test]
    fn what_comes_back_in_any_order_goes_on_in_its_own() {
        let (mut scatter, a, b) = (Scatter::default(), of("a"), of("b"));
        scatter.put(vec![4, 1, 3], vec![40, 10, 30], Verdict::All(vec![4, 1, 3]), &a);
        assert_eq!(next(&mut scatter), None, "the first one is still out");
        scatter.put(vec![0], vec![0], Verdict::All(vec![0]), &a);
        assert_eq!(next(&mut scatter), Some((Slots::From(0), vec![0, 10], a.clone())));
        assert_eq!(next(&mut scatter), None);
        scatter.put(vec![2, 5], vec![20, 50], Verdict::All(vec![2, 5]), &b);
        assert_eq!(next(&mut scatter), Some((Slots::From(2), vec![20], b.clone())), "each model apart");
        assert_eq!(next(&mut scatter), Some((Slots::From(3), vec![30, 40], a)));
        assert_eq!(next(&mut scatter), Some((Slots::From(5), vec![50], b)));
        assert_eq!(next(&mut scatter), None);
    }
}
