//! Offering transforms to pipelines of other languages: the expansion service as a program.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_portable::expansion::{ExpansionServer, LibraryRecipes, SchemaTransforms};
use tiebeam_portable::{Environment, PoolWorkers, WorkerPool};
use tiebeam_worker::WorkerOptions;

use super::exit::{Exit, print_error, to_stdout};
use super::flags::{WorkerPlace, worker_place};
use super::portable::environment_of;

impl FromStr for WorkerPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        worker_place(text)
    }
}

/// Is an expansion service at that address until a signal comes; prints the address. The steps that it gives run in `place`;
/// loopback is this process.
pub fn run_expansion_service(
    address: SocketAddr,
    place: &WorkerPlace,
    transforms: Arc<dyn SchemaTransforms>,
) -> ExitCode {
    match serve(address, place, transforms) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            if error.kind() == ErrorKind::InvalidArgument { Exit::BadUsage } else { Exit::JobFailed }.into()
        }
    }
}

fn serve(address: SocketAddr, place: &WorkerPlace, transforms: Arc<dyn SchemaTransforms>) -> Result<()> {
    let mut pool = None;
    let environment = match place {
        WorkerPlace::Loopback if address.ip().is_unspecified() => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0736",
                format!("engines cannot find workers at {}", address.ip()),
            )
            .with_help("listen at an address of this machine, or say where the steps run: `--environment external=HOST:PORT`"));
        }
        WorkerPlace::Loopback => {
            let recipes = Arc::new(LibraryRecipes::new(transforms.clone()));
            let workers = PoolWorkers::Recipes { recipes, options: WorkerOptions::default() };
            let started = pool.insert(WorkerPool::start(SocketAddr::new(address.ip(), 0), workers)?);
            Environment::External { address: started.address().to_string() }
        }
        elsewhere => environment_of(elsewhere)?,
    };
    let server = ExpansionServer::start(address, transforms, &environment, pool.is_none())?;
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    to_stdout(&format!("expansion service {}\n", server.address()));
    // The workers go with it.
    signals.forever().next();
    drop(server);
    drop(pool);
    Ok(())
}
