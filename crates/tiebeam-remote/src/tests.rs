//! Tests with a transport and a clock of their own: nothing is sent and nobody sleeps.

mod faults;
mod kserve;
mod openai;
mod vertex;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_core::error::{Error, Result};
use tiebeam_http::Fault;
use tiebeam_http::ureq::http::{HeaderMap, HeaderName, HeaderValue};
use tiebeam_inference::{Answered, InferenceArgs, ModelHandler};

use crate::handler::{RemoteClient, RemoteModelHandler};
use crate::model::{Answers, RemoteModel};
use crate::remote::Remote;
use crate::request::{RemoteRequest, RemoteResponse, Transport, Unanswered};
use crate::time::Time;
use crate::time::fake::FakeTime;

type Reply = Result<RemoteResponse, Fault>;
type Script = Box<dyn Fn(usize, &RemoteRequest) -> Reply + Send + Sync>;

/// A transport that answers by a script and remembers what it was asked, and when.
struct Scripted {
    time: Arc<FakeTime>,
    script: Script,
    asked: Mutex<Vec<(Duration, RemoteRequest)>>,
}

impl Transport for Scripted {
    fn send(&self, request: &RemoteRequest, timeout: Duration, _: u64) -> Result<RemoteResponse, Unanswered> {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push((self.time.now(), request.clone()));
            asked.len() - 1
        };
        (self.script)(number, request).map_err(|fault| {
            if fault == Fault::TimedOut {
                self.time.advance(timeout);
            }
            Unanswered { fault, said: format!("{fault:?}") }
        })
    }
}

fn reply(status: u16, body: impl AsRef<[u8]>) -> Reply {
    Ok(RemoteResponse { status, headers: HeaderMap::new(), body: body.as_ref().to_vec() })
}

fn with_header(reply: Reply, name: &'static str, value: &str) -> Reply {
    reply.map(|mut response| {
        response.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        response
    })
}

/// A handler with a script in the place of the network.
struct Bench<T: RemoteModel> {
    handler: RemoteModelHandler<T>,
    transport: Arc<Scripted>,
    time: Arc<FakeTime>,
}

impl<T: RemoteModel> Bench<T> {
    fn new(
        handler: RemoteModelHandler<T>,
        script: impl Fn(usize, &RemoteRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Bench::at(Arc::default(), handler, script)
    }

    fn at(
        time: Arc<FakeTime>,
        handler: RemoteModelHandler<T>,
        script: impl Fn(usize, &RemoteRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let transport =
            Arc::new(Scripted { time: time.clone(), script: Box::new(script), asked: Mutex::default() });
        let handler = handler.with_time(time.clone()).with_transport(transport.clone()).with_seed(1);
        Bench { handler, transport, time }
    }

    fn load(&self) -> Result<RemoteClient<T>> {
        self.handler.load_model()
    }

    fn ask(&self, batch: &[T::Example]) -> Vec<Result<Answered<T::Inference>>> {
        self.ask_with(batch, &InferenceArgs::none())
    }

    fn ask_with(&self, batch: &[T::Example], args: &InferenceArgs) -> Vec<Result<Answered<T::Inference>>> {
        self.handler.ask(batch, &self.load().unwrap(), args)
    }

    /// The only error of a batch that fails as one.
    fn error(&self, batch: &[T::Example]) -> Error {
        let mut errors = self.ask(batch).into_iter().map(|answer| answer.err().unwrap());
        let first = errors.next().unwrap();
        assert!(errors.all(|error| error.to_string() == first.to_string()));
        first
    }

    fn requests(&self) -> usize {
        self.transport.asked.lock().unwrap().len()
    }

    fn times(&self) -> Vec<Duration> {
        self.transport.asked.lock().unwrap().iter().map(|(time, _)| *time).collect()
    }

    fn bodies(&self) -> Vec<serde_json::Value> {
        let asked = self.transport.asked.lock().unwrap();
        asked.iter().map(|(_, request)| serde_json::from_slice(request.body()).unwrap()).collect()
    }

    fn urls(&self) -> Vec<String> {
        self.transport.asked.lock().unwrap().iter().map(|(_, request)| request.url().to_owned()).collect()
    }
}

fn inferences<P>(answers: Vec<Result<Answered<P>>>) -> Vec<P> {
    answers.into_iter().map(|answer| answer.unwrap().inference).collect()
}

/// Asks about `[1, 5]` and is told `[2, 6]`.
#[derive(Clone)]
struct PlusOne(String);

/// An endpoint that no other test has: endpoints are shared within the process.
fn plus_one() -> RemoteModelHandler<PlusOne> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    RemoteModelHandler::of(PlusOne(format!("http://models.example/{number}")))
}

impl RemoteModel for PlusOne {
    type Example = i64;
    type Inference = i64;
    type State = ();

    fn endpoint(&self) -> String {
        self.0.clone()
    }

    fn load(&self, _: &Remote) -> Result<()> {
        Ok(())
    }

    fn request(&self, examples: &[i64], _: &(), _: &InferenceArgs) -> Result<RemoteRequest> {
        assert!(!examples.contains(&-13), "thirteen");
        let request = RemoteRequest::post_json(&self.0, format!("{examples:?}").into_bytes());
        Ok(request.bearer(Some("sk-very-secret".to_owned())))
    }

    fn response(&self, _: &[i64], response: &RemoteResponse, _: &()) -> Result<Answers<i64>> {
        Ok(response.json::<Vec<i64>>()?.into())
    }
}

/// What the service says if nothing goes wrong.
fn plus_one_of(request: &RemoteRequest) -> Reply {
    let numbers: Vec<i64> = serde_json::from_slice(request.body()).unwrap();
    reply(200, format!("{:?}", numbers.iter().map(|n| n + 1).collect::<Vec<_>>()))
}
