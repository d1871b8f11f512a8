//! Derived transforms, each made of the primitives through their public API only.

pub mod co_group;
pub mod combine;
pub mod count;
pub mod distinct;
pub mod extrema;
pub mod keyed;
pub mod lists;
pub mod partition;
pub mod sample;
pub mod sums;
pub mod threshold;

pub use co_group::{co_group_by_key, co_group_by_key3};
pub use combine::CombineExt;
pub use distinct::distinct;
pub use keyed::KeyedExt;
pub use partition::partition;
pub use threshold::bound_failures;
