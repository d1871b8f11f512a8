//! A Python that knows its own transforms and runs them: started for a job, gone with it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use tiebeam_core::{Error, ErrorKind, Result};

/// Names the Python to use.
const VARIABLE: &str = "TIEBEAM_PYTHON";

/// Beam's own `expansion_service_main` listens on all interfaces and cannot choose a free port; this is the same service at
/// 127.0.0.1. It ends with its standard input, so that it cannot outlive us.
const PROGRAM: &str = r#"
import logging, os, sys, threading
import grpc
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.portability.api import beam_artifact_api_pb2_grpc as artifacts
from apache_beam.portability.api import beam_expansion_api_pb2_grpc as expansion
from apache_beam.portability.api import beam_fn_api_pb2_grpc as workers
from apache_beam.runners.portability import artifact_service, expansion_service
from apache_beam.runners.worker import worker_pool_main
from apache_beam.transforms.fully_qualified_named_transform import FullyQualifiedNamedTransform
from apache_beam.utils import thread_pool_executor

logging.getLogger().setLevel(logging.WARNING)
unlimited = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)]
server = grpc.server(thread_pool_executor.shared_unbounded_instance(), options=unlimited)
address = '127.0.0.1:%d' % server.add_insecure_port('127.0.0.1:0')
# Its steps run here: engines that are given a choice (`loopback_address`) may choose a container.
options = PipelineOptions([
    '--experiments=beam_fn_api', '--sdk_location=container',
    '--environment_type=EXTERNAL', '--environment_config=' + address])
pickler.set_library(options.view_as(SetupOptions).pickle_library)
with FullyQualifiedNamedTransform.with_filter('*'):
    workers.add_BeamFnExternalWorkerPoolServicer_to_server(
        worker_pool_main.BeamFnExternalWorkerPoolServicer(), server)
    expansion.add_ExpansionServiceServicer_to_server(
        expansion_service.ExpansionServiceServicer(options), server)
    files = artifact_service.BeamFilesystemHandler(None).file_reader
    artifacts.add_ArtifactRetrievalServiceServicer_to_server(
        artifact_service.ArtifactRetrievalService(files), server)
    server.start()
    print('expansion service', address, flush=True)
    sys.stdin.read()
os._exit(0)
"#;

/// A Python process that expands and runs Python transforms. Ends when it is dropped.
pub(super) struct PythonService {
    process: Child,
    /// Its end is the process's.
    input: Option<ChildStdin>,
    address: String,
}

impl PythonService {
    /// Starts one: the Python of the variable TIEBEAM_PYTHON, else `python3`.
    pub(super) fn start() -> Result<PythonService> {
        let python = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let failed = |what: &str| {
            Error::new(
                ErrorKind::Unsupported,
                "TB0740",
                format!("no Python with Apache Beam: {} {what}", python.display()),
            )
            .with_help(format!(
                "`pip install apache-beam` there, or name another Python: {VARIABLE}=/path/to/python"
            ))
        };
        let mut process = Command::new(&python)
            .args(["-u", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed("cannot be started").with_source(error))?;
        let input = process.stdin.take();
        let output = process.stdout.take();
        let mut service = PythonService { process, input, address: String::new() };
        // What it prints before is some library's.
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
            let line = line.map_err(|error| failed("cannot be read").with_source(error))?;
            if let Some(address) = line.strip_prefix("expansion service ") {
                address.clone_into(&mut service.address);
                return Ok(service);
            }
        }
        Err(failed("ended before it was ready"))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for PythonService {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have gone by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
