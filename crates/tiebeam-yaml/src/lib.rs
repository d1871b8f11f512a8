//! Beam YAML to a graph: the parser, the expressions, the registry of transforms.
//!
//! A file goes through these rooms, each of which collects all mistakes that it finds: [`template`] (jinja),
//! [`document`] (YAML with places), [`syntax`] (what stands where), [`scope`] (who reads whom), [`plan`] (every transform
//! made, every column and type known), [`build`] (the graph). Nothing runs before all of them are content.

pub mod build;
pub mod catalog;
pub mod clock;
pub mod diagnostic;
pub mod document;
pub mod environment;
pub mod expression;
mod hints;
pub mod load;
pub mod maker;
pub mod offer;
pub mod plan;
pub mod providers;
pub mod replay;
pub mod schema;
pub mod scope;
pub mod source;
mod suggest;
pub mod syntax;
pub mod template;
pub mod testing;
pub mod transforms;
pub mod windowing;

pub use diagnostic::{Diagnostic, Report};
pub use environment::{Environment, Level};
pub use load::{Loaded, load};
pub use template::Variables;
