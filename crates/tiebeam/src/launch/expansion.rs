//! Offering transforms to pipelines of other languages: the expansion service as a program.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_portable::expansion::{ExpansionServer, LibraryRecipes, SchemaTransforms};
use tiebeam_portable::{Environment, Guard, PoolWorkers, WorkerPool};
use tiebeam_worker::WorkerOptions;

use super::exit::{Exit, print_error, to_stdout};
use super::flags::{WorkerPlace, worker_place};
use super::guard::GuardFlags;
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
    guard: &GuardFlags,
    transforms: Arc<dyn SchemaTransforms>,
) -> ExitCode {
    match guard.guard().and_then(|guard| serve(address, place, &guard, transforms)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            if error.kind() == ErrorKind::InvalidArgument { Exit::BadUsage } else { Exit::JobFailed }.into()
        }
    }
}

fn serve(
    address: SocketAddr,
    place: &WorkerPlace,
    guard: &Guard,
    transforms: Arc<dyn SchemaTransforms>,
) -> Result<()> {
    let mut pool = None;
    let environment = match place {
        WorkerPlace::Loopback if guard.is_open() && address.ip().is_unspecified() => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0736",
                format!("engines cannot find workers at {}", address.ip()),
            )
            .with_help("listen at an address of this machine, or say where the steps run: `--environment external=HOST:PORT`"));
        }
        WorkerPlace::Loopback => {
            let recipes = Arc::new(LibraryRecipes::new(transforms.clone()));
            // Engines speak to pools without TLS and token: from this machine, or by an open door.
            let (ip, own) = match guard.is_open() {
                true => (address.ip(), guard.clone()),
                false => (Ipv4Addr::LOCALHOST.into(), Guard::default()),
            };
            let workers = PoolWorkers::Recipes { recipes, options: WorkerOptions::default() };
            let started = pool.insert(WorkerPool::start_guarded(SocketAddr::new(ip, 0), workers, &own)?);
            Environment::External { address: started.address().to_string() }
        }
        elsewhere => environment_of(elsewhere)?,
    };
    let server = ExpansionServer::start(address, transforms, &environment, pool.is_none(), guard)?;
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    to_stdout(&format!("expansion service {}\n", server.address()));
    // The workers go with it.
    signals.forever().next();
    drop(server);
    drop(pool);
    Ok(())
}
