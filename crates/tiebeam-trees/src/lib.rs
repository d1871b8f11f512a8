//! XGBoost and LightGBM models in pipelines: own readers of their files, own prediction. Nothing of theirs is linked.

mod categories;
mod document;
pub mod file;
mod forest;
pub mod handler;
mod json;
mod lightgbm;
mod link;
pub mod model;
mod rows;
mod ubjson;
mod xgboost;

pub use file::Format;
pub use handler::TreesModelHandler;
pub use model::{Feature, FeatureKind, LoadOptions, TreesModel};
