//! The Fn API worker without a network: a bundle descriptor and encoded bytes onto exec.
//!
//! [`Worker`] answers plain messages; whoever has a wire (gRPC, or a test) supplies [`FnApi`]. A descriptor is lowered to
//! the same `StageSpec` that the embedded runner's plan is made of, so no operator exists twice. [`to_proto`] writes a whole
//! graph as Beam's Pipeline, [`describe`] one planned stage as a descriptor.

pub mod coders;
pub mod monitoring;
pub mod payload;
pub mod windowing;

mod bundle;
mod cache;
mod descriptor;
mod fn_api;
mod gate;
mod harness;
mod lower;
mod map_windows;
mod messages;
mod options;
mod outbox;
mod recipe;
mod running;
mod sampling;
mod scoped;
mod short_ids;
mod to_proto;
mod worker;

pub use descriptor::{StagePorts, behind_lengths, describe, port_coders, sink_id, source_id};
pub use fn_api::FnApi;
pub use messages::{ENVIRONMENT, is_own_environment};
pub use payload::Steps;
pub use recipe::{Recipe, RecipeInput, Recipes, coder_of_tree, coder_to_tree};
pub use to_proto::{capabilities, default_environment, to_proto, to_proto_with};
pub use worker::{Worker, WorkerOptions};
