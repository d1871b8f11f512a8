//! `tiebeam expansion-service`: the library's transforms for pipelines in other languages.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tiebeam::core::coder::schema_proto::decode_schema;
use tiebeam::core::row::{Row, Schema};
use tiebeam::graph::{PCollection, Pipeline};
use tiebeam::launch::{GuardFlags, WorkerPlace, run_expansion_service};
use tiebeam::portable::expansion::{LibraryRecipes, NamedRows, SchemaTransform, SchemaTransforms};
use tiebeam::{Error, ErrorKind, Result};
use tiebeam_yaml::offer;

use crate::output;

/// The command line of `tiebeam expansion-service`.
#[derive(Debug, Args)]
pub struct ExpansionArgs {
    /// The port; 0 takes a free one. The address is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The IP address that it listens at: this machine's only, unless told.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Where the steps run: `loopback` (in this process, one copy of each model), `external=HOST:PORT` (a pool:
    /// `tiebeam worker --pool`), `process=COMMAND` (this command, as engines find it), `docker=IMAGE`.
    #[arg(long, default_value = "loopback")]
    environment: WorkerPlace,
    #[command(flatten)]
    guard: GuardFlags,
}

/// Serves until a signal comes.
pub fn expansion_service(args: &ExpansionArgs) -> ExitCode {
    let address = SocketAddr::new(args.address, args.port);
    run_expansion_service(address, &args.environment, &args.guard, transforms())
}

fn transforms() -> Arc<dyn SchemaTransforms> {
    Arc::new(Offered)
}

/// How workers make the steps that an expansion service gave.
pub fn recipes() -> Arc<LibraryRecipes> {
    Arc::new(LibraryRecipes::new(transforms()))
}

/// What pipeline files have, for pipelines of other languages.
struct Offered;

impl SchemaTransforms for Offered {
    fn offered(&self) -> Vec<SchemaTransform> {
        let offers = offer::offers().into_iter();
        offers
            .map(|offer| SchemaTransform {
                identifier: offer.identifier.to_owned(),
                about: offer.about.to_owned(),
                config: offer.config,
                fields: offer.fields,
                inputs: vec!["input".to_owned()],
                outputs: vec!["output".to_owned()],
            })
            .collect()
    }

    fn apply(
        &self,
        identifier: &str,
        config: &Row,
        pipeline: &Pipeline,
        inputs: NamedRows,
    ) -> Result<NamedRows> {
        let (input, schema) = only_input(identifier, inputs)?;
        let made = offer::make(identifier, config, &schema, &output::environment())?;
        let names: Vec<String> = made.outputs.iter().map(|(name, _)| name.to_string()).collect();
        let rows = (made.build)(pipeline, vec![input]);
        Ok(names.into_iter().zip(rows).collect())
    }
}

fn only_input(identifier: &str, inputs: NamedRows) -> Result<(PCollection<Row>, Arc<Schema>)> {
    let inputs: HashMap<String, PCollection<Row>> = inputs.into_iter().collect();
    let n = inputs.len();
    match inputs.into_values().next().filter(|_| n == 1) {
        Some(input) => {
            let schema = Arc::new(decode_schema(input.coder().spec().payload)?);
            Ok((input, schema))
        }
        None => Err(Error::new(
            ErrorKind::InvalidPipeline,
            "TB0238",
            format!("`{identifier}` reads one PCollection of rows, and is applied to {n}"),
        )),
    }
}
