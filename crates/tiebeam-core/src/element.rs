//! [`Element`]: what may travel through a pipeline.

use crate::coder::{Coder, CoderSpec, LENGTH_PREFIX, length_prefixed, mismatch};
pub use crate::coder::{kv_coder, vec_coder};
use crate::error::Result;

/// A value that can travel through a pipeline: cloneable, sendable, and with a coder.
///
/// Derive it for your structs (`#[derive(Element)]` makes them Beam rows). There is no implementation for `u8`: bytes
/// travel as [`Bytes`](crate::Bytes).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel through a pipeline",
    note = "add `#[derive(Clone, Element)]` to `{Self}`; bytes travel as `Bytes`, not `Vec<u8>`"
)]
pub trait Element: Clone + Send + Sync + 'static {
    /// The coder of this type when nothing else is said.
    fn coder() -> Coder<Self>;

    /// The coder that a runner's tree asks for; it may have `length_prefix` anywhere.
    ///
    /// # Errors
    /// When values of this type can't be told by that tree.
    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        let own = Self::coder();
        if own.spec() == *spec {
            return Ok(own);
        }
        if spec.urn == LENGTH_PREFIX {
            return Ok(length_prefixed(Self::coder_of(spec.only_component()?)?));
        }
        // What we declare as `length_prefix<private>` comes back as the inner coder when a runner unwrapped it.
        match own.unprefixed() {
            Some(inner) if inner.spec() == *spec => Ok(inner),
            _ => Err(mismatch(std::any::type_name::<Self>(), spec)),
        }
    }
}
