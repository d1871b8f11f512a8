//! Data streams: elements in and out of bundles, one stream for each address that descriptors name.
//!
//! Elements may come before the instruction that wants them: they are kept by instruction. A bundle that computes slower
//! than its runner sends fills its queue; then the stream is not read on, which is how gRPC tells the runner to wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::fn_api::Elements;
use tiebeam_model::fn_api::beam_fn_data_client::BeamFnDataClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::wire::{EndsWith, Identity, connect, first_lines, forward, runtime};

/// Messages that wait for a bundle before its runner has to wait: engines send messages of about a megabyte.
const WAITING: usize = 8;
/// Messages that wait for the network before a bundle has to wait.
const LEAVING: usize = 8;
/// Instructions that are remembered as ended, so that what still comes for them is thrown away.
const REMEMBERED: usize = 4096;

/// All data streams of a worker.
pub(crate) struct DataStreams {
    identity: Identity,
    streams: Mutex<HashMap<String, mpsc::Sender<Elements>>>,
    inbox: Arc<Inbox>,
    ends_with: EndsWith,
}

/// By instruction and address.
type Key = (String, String);

#[derive(Default)]
struct Inbox(Mutex<Queues>);

#[derive(Default)]
struct Queues {
    queues: HashMap<Key, Queue>,
    /// Why a stream broke, by address.
    broken: HashMap<String, String>,
    ended: HashSet<String>,
    ended_in_order: VecDeque<String>,
}

struct Queue {
    sender: mpsc::Sender<Elements>,
    receiver: Option<mpsc::Receiver<Elements>>,
}

impl Queue {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Queue { sender, receiver: Some(receiver) }
    }
}

/// The input of one bundle from one address; gives the queue back when it is dropped.
struct Borrowed<'a> {
    inbox: &'a Inbox,
    key: Key,
    receiver: Option<mpsc::Receiver<Elements>>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.inbox.lock().queues.get_mut(&self.key) {
            queue.receiver = self.receiver.take();
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn borrow(&self, instruction: &str, url: &str) -> Result<Borrowed<'_>> {
        let key = (instruction.to_owned(), url.to_owned());
        let mut queues = self.lock();
        let queue = queues.queues.entry(key.clone()).or_insert_with(Queue::new);
        let receiver = queue.receiver.take();
        if receiver.is_none() {
            return Err(Error::internal("two threads read the same bundle's input"));
        }
        Ok(Borrowed { inbox: self, key, receiver })
    }

    /// Where elements for an instruction go; none when it has ended.
    fn sender(&self, instruction: &str, url: &str) -> Option<mpsc::Sender<Elements>> {
        let mut queues = self.lock();
        if queues.ended.contains(instruction) {
            return None;
        }
        let key = (instruction.to_owned(), url.to_owned());
        Some(queues.queues.entry(key).or_insert_with(Queue::new).sender.clone())
    }

    fn forget(&self, instruction: &str) {
        let mut queues = self.lock();
        queues.queues.retain(|(of, _), _| of != instruction);
        if queues.ended.insert(instruction.to_owned()) {
            queues.ended_in_order.push_back(instruction.to_owned());
        }
        if queues.ended_in_order.len() > REMEMBERED
            && let Some(oldest) = queues.ended_in_order.pop_front()
        {
            queues.ended.remove(&oldest);
        }
    }

    /// Every bundle that reads from there is told.
    fn broke(&self, url: &str, why: String) {
        let mut queues = self.lock();
        queues.broken.insert(url.to_owned(), why);
        // A queue without a sender ends once what is in it was read; nobody makes one for this address again.
        for ((_, of), queue) in &mut queues.queues {
            if of == url {
                let (closed, _) = mpsc::channel(1);
                queue.sender = closed;
            }
        }
    }

    fn why_broken(&self, url: &str) -> Option<String> {
        self.lock().broken.get(url).cloned()
    }
}

impl DataStreams {
    pub(crate) fn new(identity: Identity) -> Self {
        DataStreams {
            identity,
            streams: Mutex::default(),
            inbox: Arc::default(),
            ends_with: EndsWith::default(),
        }
    }

    /// The stream to an address, opened at the first use.
    fn stream(&self, url: &str) -> Result<mpsc::Sender<Elements>> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = streams.get(url) {
            return Ok(sender.clone());
        }
        let (sender, outgoing) = mpsc::channel(LEAVING);
        let (inbox, identity, url) = (self.inbox.clone(), self.identity.clone(), url.to_owned());
        let address = url.clone();
        let task = runtime()?.spawn(async move {
            let why = match exchange(&inbox, identity, &address, outgoing).await {
                Ok(()) => "the runner closed it".to_owned(),
                Err(why) => why,
            };
            inbox.broke(&address, why);
        });
        self.ends_with.add(&task);
        streams.insert(url, sender.clone());
        Ok(sender)
    }

    /// Opens the stream to an address, unless it is open.
    pub(crate) fn open(&self, url: &str) -> Result<()> {
        self.stream(url).map(drop)
    }

    /// The next message for a bundle; waits for it.
    pub(crate) fn receive(&self, instruction: &str, url: &str) -> Result<Elements> {
        self.stream(url)?;
        if let Some(why) = self.inbox.why_broken(url) {
            return Err(broken(url, &why));
        }
        let mut queue = self.inbox.borrow(instruction, url)?;
        let next = queue.receiver.as_mut().and_then(mpsc::Receiver::blocking_recv);
        next.ok_or_else(|| broken(url, &self.inbox.why_broken(url).unwrap_or_default()))
    }

    /// Sends a message; waits while the network is busy.
    pub(crate) fn send(&self, url: &str, elements: Elements) -> Result<()> {
        let sent = self.stream(url)?.blocking_send(elements);
        sent.map_err(|_| broken(url, &self.inbox.why_broken(url).unwrap_or_default()))
    }

    /// Throws away what is left for an instruction, and what still comes.
    pub(crate) fn forget(&self, instruction: &str) {
        self.inbox.forget(instruction);
    }
}

fn broken(url: &str, why: &str) -> Error {
    Error::new(ErrorKind::Io, "TB0706", format!("the data stream at `{url}` has ended: {why}"))
        .with_retryable(true)
}

/// Runs a stream until it ends: what is to leave leaves, what comes is handed out by instruction.
async fn exchange(
    inbox: &Inbox,
    identity: Identity,
    url: &str,
    outgoing: mpsc::Receiver<Elements>,
) -> std::result::Result<(), String> {
    let channel = connect("the runner's data service", url).await.map_err(|error| error.to_string())?;
    let mut client = BeamFnDataClient::with_interceptor(channel, identity)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let said = |status: tonic::Status| first_lines(status.message(), 4);
    let (body, messages) = mpsc::channel(1);
    let hand_out = async {
        let mut incoming = client.data(ReceiverStream::new(messages)).await.map_err(said)?.into_inner();
        while let Some(message) = incoming.message().await.map_err(said)? {
            for (instruction, part) in by_instruction(message) {
                if let Some(sender) = inbox.sender(&instruction, url) {
                    // An error means that the bundle has ended in the meantime.
                    let _ = sender.send(part).await;
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = hand_out => ended,
        () = forward(outgoing, body) => Ok(()),
    }
}

/// A message's parts, in their order; nearly always it is for one instruction only.
fn by_instruction(message: Elements) -> Vec<(String, Elements)> {
    let mut parts: Vec<(String, Elements)> = Vec::new();
    fn part<'a>(parts: &'a mut Vec<(String, Elements)>, instruction: &str) -> &'a mut Elements {
        let at = parts.iter().position(|(of, _)| of == instruction).unwrap_or_else(|| {
            parts.push((instruction.to_owned(), Elements::default()));
            parts.len() - 1
        });
        &mut parts[at].1
    }
    for data in message.data {
        part(&mut parts, &data.instruction_id.clone()).data.push(data);
    }
    for timers in message.timers {
        part(&mut parts, &timers.instruction_id.clone()).timers.push(timers);
    }
    parts
}

#[cfg(test)]
mod tests {
    use tiebeam_model::fn_api::elements::Data;

    use super::*;

    fn data(instruction: &str, byte: u8) -> Data {
        Data { instruction_id: instruction.to_owned(), data: vec![byte].into(), ..Data::default() }
    }

    #[test]
    fn a_message_is_parted_by_instruction_in_its_order() {
        let message = Elements { data: vec![data("a", 1), data("b", 2), data("a", 3)], timers: Vec::new() };
        let parts = by_instruction(message);
        let bytes = |part: &Elements| part.data.iter().map(|data| data.data[0]).collect::<Vec<_>>();
        let parts: Vec<_> = parts.iter().map(|(of, part)| (of.as_str(), bytes(part))).collect();
        assert_eq!(parts, [("a", vec![1, 3]), ("b", vec![2])]);
    }

    #[test]
    fn what_comes_for_an_ended_instruction_is_thrown_away() {
        let inbox = Inbox::default();
        assert!(inbox.sender("a", "url").is_some(), "it may come before its instruction");
        inbox.forget("a");
        assert!(inbox.sender("a", "url").is_none());
        for n in 0..REMEMBERED + 1 {
            inbox.forget(&n.to_string());
        }
        assert_eq!(inbox.lock().ended.len(), REMEMBERED, "it does not grow for ever");
        assert!(inbox.lock().queues.is_empty());
    }

    #[test]
    fn a_broken_stream_ends_the_queues_of_its_address_only() {
        let inbox = Inbox::default();
        let mut waiting = inbox.borrow("a", "url").unwrap();
        let other = inbox.sender("a", "other").unwrap();
        inbox.broke("url", "it broke".to_owned());
        assert!(waiting.receiver.as_mut().unwrap().blocking_recv().is_none());
        assert!(!other.is_closed());
        assert_eq!(inbox.why_broken("url").as_deref(), Some("it broke"));
    }
}
