//! The transforms of pipeline files, one group a file.

mod combine;
mod create;
mod errors;
mod fields;
mod files;
mod flow;
mod images;
pub mod inference;
mod join;
mod matched;
mod rows;
mod validate;
mod windows;

use crate::catalog::TransformType;

pub use errors::{ErrorOutput, Failing, RowStep, try_rows};

/// All types of transforms.
pub const ALL: [&[TransformType]; 12] = [
    combine::TYPES,
    create::TYPES,
    fields::TYPES,
    rows::TYPES,
    files::TYPES,
    flow::TYPES,
    images::TYPES,
    inference::TYPES,
    join::TYPES,
    matched::TYPES,
    validate::TYPES,
    windows::TYPES,
];
