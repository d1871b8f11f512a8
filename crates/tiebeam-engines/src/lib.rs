//! Beam engines on this machine: where they are installed, starting them on loopback, and their end.
//!
//! All lies below [`cache`], with the versions of `engines/versions.toml` in the names:
//!
//! | path | what |
//! |---|---|
//! | `engines/python-2.77.0/bin/python` | a Python with Beam in it: `-m apache_beam.runners.portability.local_job_service_main` |
//! | `engines/prism-2.77.0/prism` | Prism |
//! | `engines/flink-2.62.0/lib/*.jar` | class path of `org.apache.beam.runners.flink.FlinkJobServerDriver`, and of Flink's own processes |
//! | `engines/flink-2.62.0/gradle/wrapper/*.jar` | the same jars again (hard links): the class path of a job server that stages none of them, see `flink.rs` |
//! | `engines/spark-2.62.0/lib/*.jar` | class path of `org.apache.beam.runners.spark.SparkJobServerDriver` |
//! | `engines/*/.installed` | says that an installation is whole, and of which versions |
//! | `engines/run/NAME-PID-N/` | configuration and temporary files of an engine that runs; gone when it stops |
//! | `engines/logs/NAME-PID-N/` | what its processes said |
//!
//! The version in a name is Beam's. `cargo xtask engines install` fills these places; this crate only reads them.
//!
//! An [`Engine`] is a group of processes that end when it is dropped, and also when this process is killed.

mod engine;
mod error;
mod flink;
mod group;
mod layout;
mod locate;
mod versions;

pub use engine::{Engine, Kind, Settings};
pub use error::{Error, Result};
pub use group::Group;
pub use layout::{Layout, cache};
pub use locate::{State, find, install_commands, installed, mark_installed, on_path};
pub use versions::Versions;
