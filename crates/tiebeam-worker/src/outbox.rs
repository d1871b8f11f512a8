//! [`Outbox`]: what leaves a bundle, gathered into pieces.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_core::{Error, Result};
use tiebeam_exec::EncodedSink;
use tiebeam_model::fn_api::{Elements, elements};

use crate::harness::BundleChannel;
use crate::lower::Port;

/// The output of all sinks of a bundle. Little of it is in memory: what has come to a piece is sent.
pub(crate) struct Outbox {
    channel: Option<BundleChannel>,
    /// Whether output goes into the answer as long as it is less than a piece.
    embed: bool,
    /// Whether some of it has left: the answer holds all of a bundle's output or none.
    has_sent: bool,
    /// Bytes at which a piece is sent.
    piece: usize,
    /// Bytes that wait in all ports.
    waiting: usize,
    ports: Vec<OutPort>,
}

struct OutPort {
    transform: String,
    url: String,
    buffer: Vec<u8>,
}

impl Outbox {
    pub(crate) fn new(sinks: &[Port], embed: bool, piece: usize) -> Self {
        let port = |sink: &Port| OutPort {
            transform: sink.transform.clone(),
            url: sink.url.clone(),
            buffer: Vec::new(),
        };
        let ports = sinks.iter().map(port).collect();
        Outbox { channel: None, embed, has_sent: false, piece, waiting: 0, ports }
    }

    /// A bundle begins.
    pub(crate) fn begin(&mut self, channel: BundleChannel) {
        self.channel = Some(channel);
        self.has_sent = false;
        self.waiting = 0;
        self.ports.iter_mut().for_each(|port| port.buffer.clear());
    }

    fn add(&mut self, port: usize, encoded: &[u8]) -> Result<()> {
        self.ports[port].buffer.extend_from_slice(encoded);
        self.waiting += encoded.len();
        // Java's client of workers takes no answer with elements from a stage that makes none.
        if self.embed && !self.has_sent && !self.ports.is_empty() {
            // Too much for the answer: all of it leaves on the data stream, here and from now on.
            return if self.waiting < self.piece {
                Ok(())
            } else {
                (0..self.ports.len()).try_for_each(|port| self.send(port, false))
            };
        }
        if self.ports[port].buffer.len() >= self.piece { self.send(port, false) } else { Ok(()) }
    }

    /// What waits at a port, and its end if this is all.
    fn take(&mut self, port: usize, is_last: bool) -> Vec<elements::Data> {
        let instruction = self.channel.as_ref().map(|c| c.instruction.to_string()).unwrap_or_default();
        let port = &mut self.ports[port];
        let buffer = mem::take(&mut port.buffer);
        self.waiting -= buffer.len();
        let data = |data: Vec<u8>, is_last| elements::Data {
            instruction_id: instruction.clone(),
            transform_id: port.transform.clone(),
            data: data.into(),
            is_last,
        };
        let mut pieces = Vec::with_capacity(2);
        if !buffer.is_empty() {
            pieces.push(data(buffer, false));
        }
        if is_last {
            pieces.push(data(Vec::new(), true));
        }
        pieces
    }

    fn send(&mut self, port: usize, is_last: bool) -> Result<()> {
        self.has_sent = true;
        let data = self.take(port, is_last);
        if data.is_empty() {
            return Ok(());
        }
        let channel = self.channel.as_ref().ok_or_else(|| Error::internal("output outside a bundle"))?;
        channel.api.send(&self.ports[port].url, Elements { data, timers: Vec::new() })
    }

    /// Sends what is left of every sink and closes it, or gives it for the answer.
    pub(crate) fn finish(&mut self) -> Result<Option<Elements>> {
        let ports = 0..self.ports.len();
        // Java's client of workers takes no answer with elements from a stage that makes none.
        if self.embed && !self.has_sent && !self.ports.is_empty() {
            let data = ports.flat_map(|port| self.take(port, true)).collect();
            return Ok(Some(Elements { data, timers: Vec::new() }));
        }
        for port in ports {
            self.send(port, true)?;
        }
        Ok(None)
    }
}

/// The end of a stage at one sink.
pub(crate) struct PortSink {
    pub(crate) outbox: Arc<Mutex<Outbox>>,
    pub(crate) port: usize,
}

impl EncodedSink for PortSink {
    fn accept(&mut self, encoded: &[u8], _: usize) -> Result<()> {
        lock(&self.outbox).add(self.port, encoded)
    }
}

pub(crate) fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}
