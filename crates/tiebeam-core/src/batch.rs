//! What moves along an edge: values with their times and windows.

use crate::window::WindowInfo;

/// The number of elements at which an output passes its batch on.
pub const BATCH_SIZE: usize = 256;

/// The most elements that one batch holds.
pub const MAX_BATCH_SIZE: usize = 1024;

/// The times, windows and panes of a batch: one for all, or one each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meta {
    /// The same for every element.
    Uniform(WindowInfo),
    /// One for each element, in order.
    Each(Vec<WindowInfo>),
}

impl Meta {
    /// What the element at `index` carries. An index past the end gives the last one's.
    pub fn get(&self, index: usize) -> &WindowInfo {
        match self {
            Meta::Uniform(info) => info,
            Meta::Each(infos) => &infos[index.min(infos.len() - 1)],
        }
    }
}

/// Elements of one type with what they carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// The elements.
    pub values: Vec<T>,
    /// Their times, windows and panes. `Each` has exactly as many as there are values.
    pub meta: Meta,
}

impl<T> Batch<T> {
    /// Values that share one time and window.
    pub fn uniform(values: Vec<T>, info: WindowInfo) -> Self {
        Batch { values, meta: Meta::Uniform(info) }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each element with what it carries.
    pub fn iter(&self) -> impl Iterator<Item = (&T, &WindowInfo)> {
        self.values.iter().enumerate().map(|(i, value)| (value, self.meta.get(i)))
    }
}

/// A batch under construction: stays uniform as long as its elements agree.
#[derive(Debug)]
pub struct BatchBuilder<T> {
    values: Vec<T>,
    uniform: WindowInfo,
    each: Vec<WindowInfo>,
}

impl<T> Default for BatchBuilder<T> {
    fn default() -> Self {
        BatchBuilder { values: Vec::new(), uniform: WindowInfo::GLOBAL, each: Vec::new() }
    }
}

impl<T> BatchBuilder<T> {
    /// The number of elements so far.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds one element.
    #[inline]
    pub fn push(&mut self, value: T, info: &WindowInfo) {
        if self.each.is_empty() {
            if self.values.is_empty() {
                if self.uniform != *info {
                    self.uniform = info.clone();
                }
            } else if self.uniform != *info {
                self.each = vec![self.uniform.clone(); self.values.len()];
                self.each.push(info.clone());
            }
        } else {
            self.each.push(info.clone());
        }
        self.values.push(value);
    }

    /// Adds many elements that share `info`; as cheap as extending a vector.
    #[inline]
    pub fn extend(&mut self, values: impl IntoIterator<Item = T>, info: &WindowInfo) {
        let before = self.values.len();
        self.values.extend(values);
        let added = self.values.len() - before;
        if added == 0 {
            return;
        }
        if self.each.is_empty() {
            if before == 0 {
                if self.uniform != *info {
                    self.uniform = info.clone();
                }
                return;
            }
            if self.uniform == *info {
                return;
            }
            self.each = vec![self.uniform.clone(); before];
        }
        self.each.extend(std::iter::repeat_n(info, added).cloned());
    }

    /// The batch so far; the builder starts anew.
    pub fn take(&mut self) -> Batch<T> {
        // The next batch will be as long: one allocation for it, not one each time it doubles.
        let next = Vec::with_capacity(self.values.len());
        let values = std::mem::replace(&mut self.values, next);
        let meta = if self.each.is_empty() {
            Meta::Uniform(self.uniform.clone())
        } else {
            Meta::Each(std::mem::take(&mut self.each))
        };
        Batch { values, meta }
    }
}
