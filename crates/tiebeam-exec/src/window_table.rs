//! A table by window, made for how windows come: mostly the same one again, or the one after it.

use hashbrown::HashMap;
use tiebeam_core::Window;

/// Below this many windows a look at each is faster than a hash.
const FEW: usize = 8;

/// Values by window, in the order in which the windows first came.
pub struct WindowTable<V> {
    entries: Vec<(Window, V)>,
    /// Where each window is, kept once there are more than a few.
    places: HashMap<Window, usize>,
    last: usize,
}

impl<V> Default for WindowTable<V> {
    fn default() -> Self {
        WindowTable { entries: Vec::new(), places: HashMap::new(), last: 0 }
    }
}

impl<V> WindowTable<V> {
    /// The value of a window, made by `new` if there is none.
    #[inline]
    pub fn get_or_insert_with(&mut self, window: &Window, new: impl FnOnce() -> V) -> &mut V {
        let is_at = |place: usize| self.entries.get(place).is_some_and(|(w, _)| w == window);
        let place = if is_at(self.last) {
            self.last
        } else if is_at(self.last + 1) {
            self.last + 1
        } else {
            self.find(window).unwrap_or_else(|| self.insert(window, new()))
        };
        self.last = place;
        &mut self.entries[place].1
    }

    fn find(&self, window: &Window) -> Option<usize> {
        if self.entries.len() <= FEW {
            self.entries.iter().position(|(w, _)| w == window)
        } else {
            self.places.get(window).copied()
        }
    }

    fn insert(&mut self, window: &Window, value: V) -> usize {
        let place = self.entries.len();
        self.entries.push((window.clone(), value));
        if place == FEW {
            self.places.extend(self.entries.iter().enumerate().map(|(i, (w, _))| (w.clone(), i)));
        } else if place > FEW {
            self.places.insert(window.clone(), place);
        }
        place
    }

    /// Empties the table and gives what was in it.
    pub fn take(&mut self) -> Vec<(Window, V)> {
        self.places.clear();
        self.last = 0;
        std::mem::take(&mut self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiebeam_core::{IntervalWindow, Timestamp};

    #[test]
    fn every_window_keeps_its_own_value_however_they_come() {
        let window = |s: i64| {
            Window::Interval(IntervalWindow::new(Timestamp::from_secs(s), Timestamp::from_secs(s + 1)))
        };
        let mut table = WindowTable::default();
        for round in 0..3 {
            for i in 0..50i64 {
                // Forwards, backwards, and in strides.
                let s = [i, 49 - i, (i * 17) % 50][round];
                *table.get_or_insert_with(&window(s), || 0) += s;
            }
        }
        let all = table.take();
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|(w, sum)| *w == window(sum / 3)));
        assert!(table.take().is_empty());
    }
}
