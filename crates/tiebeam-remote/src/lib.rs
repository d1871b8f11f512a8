//! Models behind HTTP in RunInference: [`RemoteModelHandler`] for any service, and on top of it OpenAI-compatible servers
//! ([`OpenAiModelHandler`]), Vertex AI ([`VertexAiModelHandler`]) and KServe v2, which Triton speaks too
//! ([`KServeModelHandler`]).
//!
//! A handler retries what passes, waits when the endpoint asks for it, holds itself back when the endpoint fails, keeps to a
//! rate, a number of requests in flight and a deadline, and gives exactly one inference or one error for each example.

mod endpoint;
mod handler;
mod json;
mod kserve;
mod model;
mod openai;
mod pool;
mod random;
mod remote;
mod request;
mod retry_after;
mod settings;
#[cfg(test)]
mod tests;
mod time;
mod value;
mod vertex;

pub use endpoint::{RemoteStats, stats};
pub use handler::{RemoteClient, RemoteModelHandler};
pub use kserve::{KServe, KServeModelHandler, KServeState};
pub use model::{Answers, RemoteModel};
pub use openai::{Chat, Completions, Embeddings, OpenAi, OpenAiModelHandler};
pub use remote::Remote;
pub use request::{RemoteRequest, RemoteResponse};
pub use tiebeam_inference::Answered;
pub use time::Time;
pub use value::{JSON_CODER, JsonValue};
pub use vertex::{VertexAi, VertexAiModelHandler, google_tokens_by};
