//! The transforms of pipeline files, one group a file.

mod create;
mod errors;
mod fields;
mod files;
mod flow;
mod images;
pub mod inference;
mod rows;

use crate::catalog::TransformType;

pub use errors::{ErrorOutput, Failing, RowStep, try_rows};

/// All types of transforms.
pub const ALL: [&[TransformType]; 7] =
    [create::TYPES, fields::TYPES, rows::TYPES, files::TYPES, flow::TYPES, images::TYPES, inference::TYPES];
