//! [`Gate`]: no more calls of a model at once than it is good for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets some in at a time; the others wait before it.
pub(crate) struct Gate {
    most: usize,
    inside: Mutex<usize>,
    changed: Condvar,
}

/// Someone who is in: out when dropped.
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    /// At most `most` at once; one at least.
    pub(crate) fn new(most: usize) -> Self {
        Gate { most: most.max(1), inside: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes in at once, if there is room.
    pub(crate) fn try_enter(&self) -> Option<Inside<'_>> {
        let mut inside = self.lock();
        if *inside >= self.most {
            return None;
        }
        *inside += 1;
        Some(Inside(self))
    }

    /// Goes in as soon as there is room.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let inside = self.lock();
        let is_full = |inside: &mut usize| *inside >= self.most;
        let mut inside = self.changed.wait_while(inside, is_full).unwrap_or_else(PoisonError::into_inner);
        *inside += 1;
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn as_many_are_in_as_there_is_room_for_and_the_others_wait() {
        let gate = Gate::new(2);
        let (one, two) = (gate.try_enter(), gate.try_enter());
        assert!(one.is_some() && two.is_some() && gate.try_enter().is_none());
        drop(one);
        assert!(gate.try_enter().is_some());
        drop(two);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _inside = gate.enter();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(*gate.lock(), 0);
    }

    #[test]
    fn a_gate_for_none_lets_one_in() {
        assert!(Gate::new(0).try_enter().is_some());
    }

    #[test]
    fn who_unwinds_is_out() {
        let gate = Gate::new(1);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _inside = gate.enter();
            panic!("inside");
        }));
        assert!(unwound.is_err() && gate.try_enter().is_some());
    }
}
