//! The worker and the pool on real sockets of this machine, with a runner that only gives instructions.

#![allow(clippy::unwrap_used)] // Tests stop at the first surprise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tiebeam_core::{Error, ErrorKind};
use tiebeam_graph::Graph;
use tiebeam_model::fn_api::beam_fn_control_server::{BeamFnControl, BeamFnControlServer};
use tiebeam_model::fn_api::beam_fn_data_server::{BeamFnData, BeamFnDataServer};
use tiebeam_model::fn_api::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;
use tiebeam_model::fn_api::provision_service_server::{ProvisionService, ProvisionServiceServer};
use tiebeam_model::fn_api::{
    Elements, GetProcessBundleDescriptorRequest, GetProvisionInfoRequest, GetProvisionInfoResponse,
    InstructionRequest, InstructionResponse, ProcessBundleDescriptor, ProcessBundleRequest, ProvisionInfo,
    RemoteGrpcPort, StartWorkerRequest, StopWorkerRequest, instruction_request,
};
use tiebeam_model::pipeline::{ApiServiceDescriptor, FunctionSpec, PTransform};
use tiebeam_model::{Message, urns};
use tiebeam_portable::{JobOptions, PoolWorkers, WorkerPool, to_struct};
use tiebeam_worker::{Steps, WorkerOptions};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Gives each worker that connects the same instructions, and keeps the answers.
struct Runner {
    instructions: Vec<InstructionRequest>,
    options: JobOptions,
    answers: mpsc::UnboundedSender<(String, InstructionResponse)>,
    /// Open control streams: dropping one lets its worker go.
    open: Arc<Mutex<Vec<mpsc::Sender<Result<InstructionRequest, Status>>>>>,
}

fn worker_id<T>(request: &Request<T>) -> Result<String, Status> {
    let id = request.metadata().get("worker_id").ok_or_else(|| Status::unauthenticated("no worker_id"))?;
    Ok(id.to_str().unwrap().to_owned())
}

#[tonic::async_trait]
impl BeamFnControl for Runner {
    type ControlStream = Pin<Box<dyn Stream<Item = Result<InstructionRequest, Status>> + Send>>;

    async fn control(
        &self,
        request: Request<Streaming<InstructionResponse>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let worker = worker_id(&request)?;
        let (sender, receiver) = mpsc::channel(8);
        for instruction in &self.instructions {
            sender.send(Ok(instruction.clone())).await.unwrap();
        }
        self.open.lock().unwrap().push(sender);
        let (mut responses, answers) = (request.into_inner(), self.answers.clone());
        tokio::spawn(async move {
            while let Some(Ok(response)) = responses.next().await {
                let _ = answers.send((worker.clone(), response));
            }
            // The end of the stream, as an answer without an id.
            let _ = answers.send((worker, InstructionResponse::default()));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_process_bundle_descriptor(
        &self,
        request: Request<GetProcessBundleDescriptorRequest>,
    ) -> Result<Response<ProcessBundleDescriptor>, Status> {
        worker_id(&request)?;
        let url = match request.get_ref().process_bundle_descriptor_id.as_str() {
            "with-elements" => request.local_addr().unwrap().to_string(),
            _ => return Err(Status::not_found("there is no such stage")),
        };
        let endpoint = ApiServiceDescriptor { url, ..Default::default() };
        let port = RemoteGrpcPort { api_service_descriptor: Some(endpoint), ..Default::default() };
        let urn = urns::transform::DATA_SOURCE.to_owned();
        let spec = Some(FunctionSpec { urn, payload: port.encode_to_vec().into() });
        let source = PTransform { spec, ..Default::default() };
        let transforms = BTreeMap::from([("source".to_owned(), source)]);
        Ok(Response::new(ProcessBundleDescriptor { transforms, ..Default::default() }))
    }
}

/// Tells who opens a stream for elements, and gives none.
struct Data(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl BeamFnData for Data {
    type DataStream = Pin<Box<dyn Stream<Item = Result<Elements, Status>> + Send>>;

    async fn data(
        &self,
        request: Request<Streaming<Elements>>,
    ) -> Result<Response<Self::DataStream>, Status> {
        let _ = self.0.send(worker_id(&request)?);
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

struct Provision(JobOptions);

#[tonic::async_trait]
impl ProvisionService for Provision {
    async fn get_provision_info(
        &self,
        request: Request<GetProvisionInfoRequest>,
    ) -> Result<Response<GetProvisionInfoResponse>, Status> {
        worker_id(&request)?;
        let info = ProvisionInfo { pipeline_options: Some(to_struct(&self.0)), ..Default::default() };
        Ok(Response::new(GetProvisionInfoResponse { info: Some(info) }))
    }
}

/// A runner on a port of this machine, with a pool of workers in this process that builds what `build` says.
struct Bench {
    runtime: Runtime,
    endpoint: ApiServiceDescriptor,
    answers: mpsc::UnboundedReceiver<(String, InstructionResponse)>,
    /// Who has opened a stream for elements.
    streams: mpsc::UnboundedReceiver<String>,
    open: Arc<Mutex<Vec<mpsc::Sender<Result<InstructionRequest, Status>>>>>,
    pool: WorkerPool,
}

impl Bench {
    fn new(
        instructions: Vec<InstructionRequest>,
        options: JobOptions,
        build: impl Fn(&JobOptions) -> tiebeam_core::Result<Steps> + Send + Sync + 'static,
    ) -> Bench {
        let runtime = Runtime::new().unwrap();
        let (sender, answers) = mpsc::unbounded_channel();
        let open: Arc<Mutex<Vec<_>>> = Arc::default();
        let runner = Runner { instructions, options, answers: sender, open: open.clone() };
        let provision = Provision(runner.options.clone());
        let (opened, streams) = mpsc::unbounded_channel();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = listener.local_addr().unwrap().to_string();
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(BeamFnControlServer::new(runner))
                .add_service(ProvisionServiceServer::new(provision))
                .add_service(BeamFnDataServer::new(Data(opened)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let workers = PoolWorkers::Threads { build: Arc::new(build), options: WorkerOptions::default() };
        let pool = WorkerPool::start(SocketAddr::from(([127, 0, 0, 1], 0)), workers).unwrap();
        let endpoint = ApiServiceDescriptor { url, ..Default::default() };
        Bench { runtime, endpoint, answers, streams, open, pool }
    }

    /// Asks the pool for a worker; gives what it has against it.
    fn start(&self, worker: &str) -> String {
        self.start_for(&self.endpoint, worker)
    }

    fn start_for(&self, control: &ApiServiceDescriptor, worker: &str) -> String {
        let request = StartWorkerRequest {
            worker_id: worker.to_owned(),
            control_endpoint: Some(control.clone()),
            provision_endpoint: Some(self.endpoint.clone()),
            ..Default::default()
        };
        let address = format!("http://{}", self.pool.address());
        self.runtime.block_on(async {
            let mut client = BeamFnExternalWorkerPoolClient::connect(address).await.unwrap();
            client.start_worker(request).await.unwrap().into_inner().error
        })
    }

    fn stop(&self, worker: &str) {
        let address = format!("http://{}", self.pool.address());
        self.runtime.block_on(async {
            let mut client = BeamFnExternalWorkerPoolClient::connect(address).await.unwrap();
            client.stop_worker(StopWorkerRequest { worker_id: worker.to_owned() }).await.unwrap();
        });
    }

    fn answer(&mut self) -> (String, InstructionResponse) {
        self.answers.blocking_recv().unwrap()
    }
}

fn bundle(id: &str) -> InstructionRequest {
    bundle_of(id, "s1")
}

fn bundle_of(id: &str, stage: &str) -> InstructionRequest {
    let request =
        ProcessBundleRequest { process_bundle_descriptor_id: stage.to_owned(), ..Default::default() };
    InstructionRequest {
        instruction_id: id.to_owned(),
        request: Some(instruction_request::Request::ProcessBundle(request)),
    }
}

fn empty() -> Steps {
    Steps::new(Arc::new(Graph::empty()))
}

#[test]
fn every_instruction_is_answered_and_the_worker_goes_when_its_stream_ends() {
    let unknown = InstructionRequest { instruction_id: "i2".to_owned(), request: None };
    let mut bench = Bench::new(vec![bundle("i1"), unknown], JobOptions::new(), |_| Ok(empty()));
    assert_eq!(bench.start("w1"), "");
    let mut answers = [bench.answer(), bench.answer()];
    answers.sort_by(|a, b| a.1.instruction_id.cmp(&b.1.instruction_id));
    let [(worker, first), (_, second)] = answers;
    assert_eq!((worker.as_str(), first.instruction_id.as_str()), ("w1", "i1"));
    assert!(first.error.contains("the runner did not tell what stage `s1` is"), "{}", first.error);
    assert!(
        first.error.contains("there is no such stage"),
        "the runner's words are passed on: {}",
        first.error
    );
    assert!(second.error.starts_with("error[TB0545]"), "{}", second.error);
    bench.open.lock().unwrap().clear();
    assert_eq!(bench.answer().1.instruction_id, "", "the worker closes its side too");
}

#[test]
fn a_pipeline_that_cannot_be_built_is_told_to_the_job_and_not_only_to_the_log() {
    let mut options = JobOptions::new();
    options.insert("factor".to_owned(), 4.into());
    let build = |options: &JobOptions| {
        let what = format!("factor {} is too much", options["factor"]);
        Err(Error::new(ErrorKind::InvalidPipeline, "TB0000", what))
    };
    let mut bench = Bench::new(vec![bundle("i1")], options.clone(), build);
    bench.start("w1");
    assert_eq!(bench.answer().1.error, "error[TB0000]: factor 4 is too much");
    let mut bench = Bench::new(vec![bundle("i1")], options, |_| panic!("no such table"));
    bench.start("w1");
    let error = bench.answer().1.error;
    assert!(error.contains("panicked while it built the pipeline in a worker: no such table"), "{error}");
}

/// Java's engines hear of no failure before the streams of the bundle's elements are there.
#[test]
fn a_bundle_that_fails_before_it_begins_has_its_streams_open() {
    let refused = || Error::new(ErrorKind::InvalidPipeline, "TB0000", "no such pipeline");
    for (build, want) in [(false, "error[TB0000]: no such pipeline"), (true, "error[TB05")] {
        let bundles = vec![bundle_of("i1", "with-elements")];
        let mut bench =
            Bench::new(bundles, JobOptions::new(), move |_| if build { Ok(empty()) } else { Err(refused()) });
        bench.start("w1");
        let error = bench.answer().1.error;
        assert!(error.starts_with(want), "{error}");
        assert_eq!(bench.streams.blocking_recv().unwrap(), "w1");
    }
}

#[test]
fn a_pool_starts_and_stops_workers_by_their_ids() {
    let mut bench = Bench::new(vec![bundle("i1")], JobOptions::new(), |_| Ok(empty()));
    assert_eq!((bench.start("w1"), bench.start("w2")), (String::new(), String::new()));
    let mut workers = [bench.answer().0, bench.answer().0];
    workers.sort();
    assert_eq!(workers, ["w1", "w2"]);
    assert_eq!(
        bench.start("w1"),
        "worker `w1` of URL is running already".replace("URL", &bench.endpoint.url)
    );
    bench.stop("w1");
    assert_eq!(bench.answer(), ("w1".to_owned(), InstructionResponse::default()));
    assert_eq!(bench.start("w1"), "", "an id is free again when its worker has gone");
    assert_eq!(bench.answer().1.instruction_id, "i1");
}

#[test]
fn machines_that_share_a_pool_name_their_workers_alike() {
    let mut bench = Bench::new(vec![bundle("i1")], JobOptions::new(), |_| Ok(empty()));
    // The same server by another name.
    let other = bench.endpoint.url.replace("127.0.0.1", "localhost");
    let other = ApiServiceDescriptor { url: other, ..Default::default() };
    let mine = bench.endpoint.clone();
    assert_eq!(
        (bench.start_for(&mine, "1-1"), bench.start_for(&other, "1-1")),
        (String::new(), String::new())
    );
    assert_eq!([bench.answer().0, bench.answer().0], ["1-1", "1-1"]);
    // Nobody can tell which one is meant.
    bench.stop("1-1");
    for endpoint in [&mine, &other] {
        assert_eq!(
            bench.start_for(endpoint, "1-1"),
            format!("worker `1-1` of {} is running already", endpoint.url)
        );
    }
    bench.open.lock().unwrap().clear();
    let ends = [bench.answer().1, bench.answer().1];
    assert_eq!(
        ends,
        [InstructionResponse::default(), InstructionResponse::default()],
        "each goes with its stream"
    );
}
