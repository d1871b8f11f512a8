//! Beam YAML to a graph: the parser, the expressions, the registry of transforms.

pub mod diagnostic;
pub mod document;
pub mod expression;
pub mod source;
mod suggest;
pub mod template;
