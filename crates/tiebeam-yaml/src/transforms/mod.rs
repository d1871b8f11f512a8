//! The transforms of pipeline files, one group a file.

mod create;
mod errors;
mod fields;
mod files;
mod flow;
pub mod inference;

use crate::catalog::TransformType;

pub use errors::{ErrorOutput, Failing, RowStep, try_rows};

/// All types of transforms.
pub const ALL: [&[TransformType]; 5] =
    [create::TYPES, fields::TYPES, files::TYPES, flow::TYPES, inference::TYPES];
