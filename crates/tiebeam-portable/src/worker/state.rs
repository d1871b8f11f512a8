//! State streams: requests and answers matched by their ids, many threads on one stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::fn_api::beam_fn_state_client::BeamFnStateClient;
use tiebeam_model::fn_api::{StateRequest, StateResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::wire::{EndsWith, Identity, connect, first_lines, forward, runtime};

/// Requests that wait for the network before their bundles do.
const LEAVING: usize = 64;

/// All state streams of a worker.
pub(crate) struct StateStreams {
    identity: Identity,
    streams: Mutex<HashMap<String, Stream>>,
    ends_with: EndsWith,
}

#[derive(Clone)]
struct Stream {
    sender: mpsc::Sender<StateRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    answers: HashMap<String, oneshot::Sender<StateResponse>>,
    broken: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStreams {
    pub(crate) fn new(identity: Identity) -> Self {
        StateStreams { identity, streams: Mutex::default(), ends_with: EndsWith::default() }
    }

    fn stream(&self, url: &str) -> Result<Stream> {
        let mut streams = lock(&self.streams);
        if let Some(stream) = streams.get(url) {
            return Ok(stream.clone());
        }
        let (sender, outgoing) = mpsc::channel(LEAVING);
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let stream = Stream { sender, waiting: waiting.clone() };
        let (identity, address) = (self.identity.clone(), url.to_owned());
        let task = runtime()?.spawn(async move {
            let why = match exchange(&waiting, identity, &address, outgoing).await {
                Ok(()) => "the runner closed it".to_owned(),
                Err(why) => why,
            };
            let mut waiting = lock(&waiting);
            waiting.broken = Some(why);
            // Whoever waits is told by the end of its channel.
            waiting.answers.clear();
        });
        self.ends_with.add(&task);
        streams.insert(url.to_owned(), stream.clone());
        Ok(stream)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&self, url: &str, request: StateRequest) -> Result<StateResponse> {
        let stream = self.stream(url)?;
        let (answer, answered) = oneshot::channel();
        let broken = |waiting: &Waiting| {
            let why = waiting.broken.clone().unwrap_or_default();
            Error::new(ErrorKind::Io, "TB0707", format!("the state stream at `{url}` has ended: {why}"))
                .with_retryable(true)
        };
        {
            let mut waiting = lock(&stream.waiting);
            if waiting.broken.is_some() {
                return Err(broken(&waiting));
            }
            waiting.answers.insert(request.id.clone(), answer);
        }
        // Where the stream has just ended, the answer's channel has too.
        let _ = stream.sender.blocking_send(request);
        answered.blocking_recv().map_err(|_| broken(&lock(&stream.waiting)))
    }
}

async fn exchange(
    waiting: &Mutex<Waiting>,
    identity: Identity,
    url: &str,
    outgoing: mpsc::Receiver<StateRequest>,
) -> std::result::Result<(), String> {
    let channel = connect("the runner's state service", url).await.map_err(|error| error.to_string())?;
    let mut client = BeamFnStateClient::with_interceptor(channel, identity)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let said = |status: tonic::Status| first_lines(status.message(), 4);
    let (body, messages) = mpsc::channel(1);
    let hand_out = async {
        let mut incoming = client.state(ReceiverStream::new(messages)).await.map_err(said)?.into_inner();
        while let Some(response) = incoming.message().await.map_err(said)? {
            let answer = lock(waiting).answers.remove(&response.id);
            if let Some(answer) = answer {
                // Nobody waits any more when the bundle's thread has gone.
                let _ = answer.send(response);
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = hand_out => ended,
        () = forward(outgoing, body) => Ok(()),
    }
}
