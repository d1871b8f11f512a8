//! A reshuffle in parts, for engines that know none: elements under keys of no meaning, grouped, and taken out again with
//! the times, windows and panes that they went in with.
//!
//! Between the parts an element is the bytes of its windowed value: no engine looks inside, and no type is made of another
//! without end.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{Coder, CoderSpec, Nesting, Reader, WindowedValueCoder};
use tiebeam_core::{DoFn, Element, ElementContext, Iterable, Output, Pane, Result, WindowInfo, Windows};

use crate::edge::{EdgeType, TypedEdge};
use crate::group::{GroupType, TypedGroup};
use crate::par_do::ParDo;
use crate::stage::Operator;

/// Keys that elements are spread over: many more than an engine has threads, few enough that groups are not tiny.
const KEYS: i64 = 4_096;

/// The parts of a reshuffle of one element type.
#[derive(Clone)]
pub struct ReshuffleParts {
    /// `T` → `(key, encoded T with what it carries)`, in the global window.
    pub spread: Arc<dyn Operator>,
    /// The edge of `(key, encoded T with what it carries)`.
    pub keyed: Arc<dyn EdgeType>,
    /// Groups that edge.
    pub group: Arc<dyn GroupType>,
    /// `(key, Iterable<encoded T with what it carries>)` → `T`.
    pub gather: Arc<dyn Operator>,
}

impl ReshuffleParts {
    /// Of elements by `coder`, in windows by `window`.
    ///
    /// # Errors
    /// When `window` is no coder of windows.
    pub fn new<T: Element>(coder: Coder<T>, window: &CoderSpec) -> Result<Self> {
        let carried = WindowedValueCoder::new(coder, window)?;
        Ok(ReshuffleParts {
            spread: Arc::new(ParDo::of(Spread { coder: carried.clone(), next: None })),
            keyed: TypedEdge::new(<(i64, Bytes)>::coder()),
            group: Arc::new(TypedGroup::new(i64::coder(), Bytes::coder())),
            gather: Arc::new(ParDo::of(Gather(carried))),
        })
    }
}

/// Gives each element the next of some keys, from a place that differs from instance to instance.
struct Spread<T> {
    coder: WindowedValueCoder<T>,
    next: Option<i64>,
}

impl<T> Clone for Spread<T> {
    fn clone(&self) -> Self {
        Spread { coder: self.coder.clone(), next: None }
    }
}

impl<T: Element> DoFn for Spread<T> {
    type In = T;
    type Out = (i64, Bytes);

    fn process(&mut self, value: T, cx: &ElementContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let anywhere = || (RandomState::new().build_hasher().finish() % KEYS as u64) as i64;
        let key = self.next.unwrap_or_else(anywhere);
        self.next = Some((key + 1) % KEYS);
        let mut carried = Vec::new();
        self.coder.encode(&value, cx.info(), &mut carried, Nesting::Outer)?;
        let timestamp = cx.timestamp();
        let info = WindowInfo { timestamp, windows: Windows::GLOBAL, pane: Pane::NO_FIRING };
        out.emit_with((key, carried.into()), &info);
        Ok(())
    }
}

/// Takes the elements of a group out again.
struct Gather<T>(WindowedValueCoder<T>);

impl<T> Clone for Gather<T> {
    fn clone(&self) -> Self {
        Gather(self.0.clone())
    }
}

impl<T: Element> DoFn for Gather<T> {
    type In = (i64, Iterable<Bytes>);
    type Out = T;

    fn process(&mut self, (_, group): Self::In, _: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        for carried in &group {
            let (value, info) = self.0.decode(&mut Reader::new(carried), Nesting::Outer)?;
            out.emit_with(value, &info);
        }
        out.check()
    }
}
