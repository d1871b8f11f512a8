//! The service on its wire.

use std::net::SocketAddr;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::expansion::expansion_service_server::{ExpansionService, ExpansionServiceServer};
use tiebeam_model::expansion::{
    DiscoverSchemaTransformRequest, DiscoverSchemaTransformResponse, ExpansionRequest, ExpansionResponse,
};
use tiebeam_model::job::artifact_retrieval_service_server::{
    ArtifactRetrievalService, ArtifactRetrievalServiceServer,
};
use tiebeam_model::job::{
    GetArtifactRequest, GetArtifactResponse, ResolveArtifactsRequest, ResolveArtifactsResponse,
};
use tiebeam_model::pipeline;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::{OfferedFiles, SchemaTransforms, discover, expand};
use crate::artifacts;
use crate::environment::Environment;
use crate::guard::Guard;
use crate::wire::runtime;

/// An expansion service that listens until it is dropped.
pub struct ExpansionServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl ExpansionServer {
    /// Listens at `address` (`127.0.0.1:0` for any free port of this machine only) and offers these transforms, whose
    /// steps run in `environment`. Where that is not this process (`elsewhere`), the files that the steps read travel with
    /// the job.
    ///
    /// # Errors
    /// When the address can't be listened at, or others can reach it and the guard does not keep them out.
    pub fn start(
        address: SocketAddr,
        transforms: Arc<dyn SchemaTransforms>,
        environment: &Environment,
        elsewhere: bool,
        guard: &Guard,
    ) -> Result<ExpansionServer> {
        guard.check(address)?;
        let runtime = runtime()?;
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Io, "TB0735", format!("the expansion service cannot listen at {address}"))
                .with_source(error)
        };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let files = Arc::new(OfferedFiles::default());
        let service = Service {
            transforms,
            environment: environment.to_message(Vec::new()),
            files: elsewhere.then(|| files.clone()),
        };
        let expansion = ExpansionServiceServer::new(service)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let (mut server, door) = (guard.server()?, guard.door());
        runtime.spawn(async move {
            let stopped = async {
                // Dropping the sender says the same.
                let _ = stopped.await;
            };
            // A server that fails is seen by those who ask it.
            let _ = server
                .add_service(InterceptedService::new(expansion, door.clone()))
                .add_service(InterceptedService::new(ArtifactRetrievalServiceServer::new(Files(files)), door))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                .await;
        });
        Ok(ExpansionServer { address, stop: Some(stop) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ExpansionServer {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

struct Service {
    transforms: Arc<dyn SchemaTransforms>,
    environment: pipeline::Environment,
    /// Those that travel, where any do.
    files: Option<Arc<OfferedFiles>>,
}

#[tonic::async_trait]
impl ExpansionService for Service {
    async fn expand(
        &self,
        request: Request<ExpansionRequest>,
    ) -> std::result::Result<Response<ExpansionResponse>, Status> {
        let (transforms, environment) = (self.transforms.clone(), self.environment.clone());
        let (files, request) = (self.files.clone(), request.into_inner());
        // Loads models: not on the threads of the network.
        let work = move || expand(&*transforms, &environment, files.as_deref(), request);
        let answer = tokio::task::spawn_blocking(work).await;
        let answer = answer.unwrap_or_else(|panic| ExpansionResponse {
            error: format!("the expansion service panicked: {panic}; please report it"),
            ..ExpansionResponse::default()
        });
        Ok(Response::new(answer))
    }

    async fn discover_schema_transform(
        &self,
        _: Request<DiscoverSchemaTransformRequest>,
    ) -> std::result::Result<Response<DiscoverSchemaTransformResponse>, Status> {
        Ok(Response::new(discover(&*self.transforms)))
    }
}

/// The files that this service has named in what it gave. Beam's clients fetch them when they expand, and stage them with
/// their job.
struct Files(Arc<OfferedFiles>);

#[tonic::async_trait]
impl ArtifactRetrievalService for Files {
    async fn resolve_artifacts(
        &self,
        request: Request<ResolveArtifactsRequest>,
    ) -> std::result::Result<Response<ResolveArtifactsResponse>, Status> {
        Ok(Response::new(ResolveArtifactsResponse { replacements: request.into_inner().artifacts }))
    }

    type GetArtifactStream = ReceiverStream<std::result::Result<GetArtifactResponse, Status>>;

    async fn get_artifact(
        &self,
        request: Request<GetArtifactRequest>,
    ) -> std::result::Result<Response<Self::GetArtifactStream>, Status> {
        let wanted = request.into_inner().artifact.unwrap_or_default();
        let path = self.0.path(&wanted).ok_or_else(|| {
            Status::not_found("this expansion service has given no transform with that file")
        })?;
        let mut file = artifacts::open(&path).map_err(lost)?;
        let (pieces, stream) = mpsc::channel(artifacts::WAITING);
        tokio::task::spawn_blocking(move || {
            loop {
                let piece = match artifacts::next_piece(&mut file, &path) {
                    Ok(None) => return,
                    Ok(Some(data)) => Ok(GetArtifactResponse { data }),
                    Err(error) => Err(lost(error)),
                };
                // Nobody reads on, or nobody should.
                let is_last = piece.is_err();
                if pieces.blocking_send(piece).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn lost(error: Error) -> Status {
    Status::data_loss(format!("{error:?}"))
}
