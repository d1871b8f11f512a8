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
mod sql;
#[cfg(feature = "tables")]
mod tables;
mod validate;
mod windows;

use crate::catalog::TransformType;

pub use errors::{ErrorOutput, Failing, RowStep, each_row, try_rows};

/// All types of transforms.
pub const ALL: &[&[TransformType]] = &[
    combine::TYPES,
    create::TYPES,
    fields::TYPES,
    rows::TYPES,
    sql::TYPES,
    #[cfg(feature = "tables")]
    tables::TYPES,
    files::TYPES,
    flow::TYPES,
    images::TYPES,
    inference::TYPES,
    join::TYPES,
    matched::TYPES,
    validate::TYPES,
    windows::TYPES,
];
