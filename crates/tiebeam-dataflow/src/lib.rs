//! Google Cloud Dataflow: stages a pipeline, makes a job of it, follows and stops it.
//!
//! Dataflow has no job service of Beam's kind: jobs are made by its REST API (v1b3). A pipeline's message, the files that it
//! names and, where wanted, the worker's program are uploaded to Cloud Storage under names made of their SHA-256; `jobs.create`
//! names them. [`DataflowJob`] has the shape of [`tiebeam_portable::Job`]. Workers are containers whose entry point is a program
//! of ours, or of an image whose boot program fetches ours.
//!
//! It was never run against the service itself: it is held to the API's published description and to what Beam's own clients
//! send, by a fake (`tests/`).

mod auth;
mod clock;
mod gs;
mod http;
mod job;
mod metrics;
mod options;
mod request;
mod service;
mod stage;
mod storage;

pub use auth::{Secret, Source};
pub use clock::{Clock, SystemClock};
pub use gs::GsPath;
pub use job::{Dataflow, DataflowJob};
pub use options::{Autoscaling, DataflowOptions, Machines, job_name_of};
pub use stage::Package;
