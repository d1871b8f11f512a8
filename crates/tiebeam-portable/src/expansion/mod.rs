//! How one language uses another's transforms.
//!
//! The *service* ([`ExpansionServer`]) offers transforms of the library to pipelines of other languages: they name one by
//! its identifier and configure it by a row. The transform that they get back holds a recipe in each of its payloads, by
//! which our workers make the step when they meet it ([`LibraryRecipes`]); so no program of a user's is needed.
//!
//! The *client* ([`external`], [`expand_externals`]) puts transforms of Python and Java into pipelines of ours.

mod answer;
mod client;
pub mod external;
mod python;
mod recipes;
mod schema;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tiebeam_core::Result;
use tiebeam_core::row::{Row, Schema};
use tiebeam_graph::{PCollection, Pipeline};

pub use answer::{OfferedFiles, discover, expand};
pub use client::{Services, expand_externals};
pub use recipes::LibraryRecipes;
pub use server::ExpansionServer;

/// A transform that pipelines of other languages can use: rows in, rows out, configured by a row.
#[derive(Debug, Clone)]
pub struct SchemaTransform {
    /// By what it is asked for; unique among all that are offered.
    pub identifier: String,
    /// What it does.
    pub about: String,
    /// The fields of its configuration. Those that need not be given are nullable.
    pub config: Arc<Schema>,
    /// What each field is for, by its path, such as `model_handler.type`.
    pub fields: BTreeMap<String, String>,
    /// The names of what it reads.
    pub inputs: Vec<String>,
    /// The names of what it makes, as far as they do not depend on its configuration.
    pub outputs: Vec<String>,
}

/// The rows that a transform reads or makes, by name.
pub type NamedRows = Vec<(String, PCollection<Row>)>;

/// The transforms that an expansion service offers.
pub trait SchemaTransforms: Send + Sync {
    /// All of them.
    fn offered(&self) -> Vec<SchemaTransform>;

    /// Applies one to its inputs, each of which has the coder of its rows' schema. The configuration has the fields that
    /// the caller gave, by names and types of the caller's: not all of the offered ones, and perhaps others.
    ///
    /// The same identifier, configuration and inputs must always make the same steps.
    ///
    /// # Errors
    /// When there is no such transform, or its configuration or inputs are wrong.
    fn apply(
        &self,
        identifier: &str,
        config: &Row,
        pipeline: &Pipeline,
        inputs: NamedRows,
    ) -> Result<NamedRows>;
}
