//! Where a job's steps run: the environment that goes out with a pipeline.

use std::collections::BTreeMap;

use tiebeam_core::Result;
use tiebeam_model::pipeline::{
    self, ApiServiceDescriptor, ArtifactInformation, DockerPayload, ExternalPayload, ProcessPayload,
};
use tiebeam_model::{Message, urns};
use tiebeam_worker::{Steps, to_proto_with};

/// Where workers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Environment {
    /// A worker pool at `host:port`: this process's own (loopback), or one that was started beside the engine.
    External {
        /// The pool's address, as the engine reaches it.
        address: String,
    },
    /// A program that the engine starts, with Beam's flags.
    Process {
        /// The program, as it is found on the engine's machines.
        command: String,
        /// Variables that it is given.
        variables: BTreeMap<String, String>,
    },
    /// A container image whose entry point is such a program.
    Docker {
        /// The image.
        image: String,
    },
}

impl Environment {
    /// As Beam's message, with the files that workers are to have.
    pub fn to_message(&self, dependencies: Vec<ArtifactInformation>) -> pipeline::Environment {
        let (urn, payload) = match self {
            Environment::External { address } => {
                let endpoint = ApiServiceDescriptor { url: address.clone(), ..Default::default() };
                let payload = ExternalPayload { endpoint: Some(endpoint), ..Default::default() };
                (urns::environment::EXTERNAL, payload.encode_to_vec())
            }
            Environment::Process { command, variables } => {
                let payload =
                    ProcessPayload { command: command.clone(), env: variables.clone(), ..Default::default() };
                (urns::environment::PROCESS, payload.encode_to_vec())
            }
            Environment::Docker { image } => {
                let payload = DockerPayload { container_image: image.clone() };
                (urns::environment::DOCKER, payload.encode_to_vec())
            }
        };
        pipeline::Environment {
            urn: urn.to_owned(),
            payload: payload.into(),
            dependencies,
            ..pipeline::Environment::default()
        }
    }
}

/// The message of a pipeline whose steps run there.
///
/// # Errors
/// Internal ones, when the graph contradicts itself.
pub fn pipeline_message(
    steps: &Steps,
    environment: &Environment,
    dependencies: Vec<ArtifactInformation>,
) -> Result<pipeline::Pipeline> {
    to_proto_with(steps, environment.to_message(dependencies))
}
