//! Pipeline, PCollection, the primitives, names, validation, explain.
