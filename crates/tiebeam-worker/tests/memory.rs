//! More than anyone wants in memory: the values of one key that lie with the runner, and bundles of large elements.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod runner;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use runner::{GLOBAL, combine_stage, connected, data, decoded, edge_of, encoded, global, input_of};
use tiebeam_core::coder::{urn, write_varint};
use tiebeam_core::{CoderSpec, CombineFn, Element, Iterable, Nesting, Result};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Create, Pipeline};
use tiebeam_model::fn_api::{
    Elements, ProcessBundleDescriptor, ProcessBundleRequest, StateGetResponse, StateRequest, StateResponse,
    state_key, state_request, state_response,
};
use tiebeam_model::urns;
use tiebeam_worker::{FnApi, Worker, WorkerOptions, sink_id, source_id};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test at a time: each looks at all that the process has in memory.
static ALONE: Mutex<()> = Mutex::new(());

const PAGE: usize = 1 << 20;
const TOTAL: usize = 200 << 20;
/// A page, the joint of two, and what a bundle takes beside them.
const ENOUGH: usize = 8 << 20;

/// Serves the same values over and over, 200 MiB of them, a mebibyte at a time. They are never all there.
struct HotKey {
    descriptor: ProcessBundleDescriptor,
    /// Encoded values, an odd number of bytes: pages end anywhere in them.
    block: Vec<u8>,
    blocks: usize,
    pages: AtomicUsize,
}

fn values() -> Vec<Bytes> {
    (0..997usize).map(|i| Bytes::from(vec![(i % 251) as u8; 100 + i * 2])).collect()
}

impl HotKey {
    fn new(descriptor: ProcessBundleDescriptor) -> Arc<Self> {
        let mut block = Vec::new();
        values().iter().for_each(|value| Bytes::coder().encode(value, &mut block, Nesting::Nested).unwrap());
        let blocks = TOTAL.div_ceil(block.len());
        Arc::new(HotKey { descriptor, block, blocks, pages: AtomicUsize::new(0) })
    }

    fn count(&self) -> usize {
        values().len() * self.blocks
    }

    fn len(&self) -> usize {
        values().iter().map(Bytes::len).sum::<usize>() * self.blocks
    }
}

impl FnApi for HotKey {
    fn descriptor(&self, _: &str) -> Result<ProcessBundleDescriptor> {
        Ok(self.descriptor.clone())
    }

    fn state(&self, request: StateRequest) -> Result<StateResponse> {
        let Some(state_key::Type::Runner(runner)) = request.state_key.unwrap().r#type else {
            panic!("not asked for an iterable")
        };
        assert_eq!(&runner.key[..], b"hot");
        let Some(state_request::Request::Get(get)) = request.request else { panic!("not a get") };
        self.pages.fetch_add(1, Ordering::Relaxed);
        let token: Option<[u8; 8]> = get.continuation_token[..].try_into().ok();
        let (whole, at) = (self.block.len() * self.blocks, token.map_or(0, usize::from_be_bytes));
        let end = whole.min(at + PAGE);
        let mut page = Vec::with_capacity(end - at);
        while page.len() < end - at {
            let from = (at + page.len()) % self.block.len();
            let n = (self.block.len() - from).min(end - at - page.len());
            page.extend_from_slice(&self.block[from..from + n]);
        }
        let continuation_token =
            if end < whole { Bytes::copy_from_slice(&end.to_be_bytes()) } else { Bytes::new() };
        let get = StateGetResponse { continuation_token, data: page.into() };
        let response = Some(state_response::Response::Get(get));
        Ok(StateResponse { id: request.id, error: String::new(), response })
    }
}

/// The key 7, whose values all lie with the runner.
fn hot_element() -> Bytes {
    let mut element = encoded(i64::coder(), GLOBAL, &global(&[7i64])).to_vec();
    element.extend([255; 4]);
    write_varint(-1, &mut element);
    element.extend(b"\x03hot");
    element.into()
}

/// Runs the bundle of the hot key, and gives what came out with the most bytes that were in memory beside those before.
fn run_hot(worker: &Worker, api: &Arc<HotKey>, source: EdgeId, sink: EdgeId) -> (Vec<u8>, usize) {
    let request = ProcessBundleRequest {
        process_bundle_descriptor_id: "stage".to_owned(),
        elements: Some(data("b1", &source_id(source), hot_element())),
        ..ProcessBundleRequest::default()
    };
    let api: Arc<dyn FnApi> = api.clone();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let done = worker.process_bundle("b1", request, &api).unwrap();
    let peak = MEMORY.peak_usage().saturating_sub(before);
    (runner::Answer::of(done).data(&sink_id(sink)), peak)
}

/// Makes a descriptor's source read `(varint, state-backed iterable of bytes)`.
fn state_backed(descriptor: &mut ProcessBundleDescriptor, source: EdgeId) {
    let values = CoderSpec::of(urn::STATE_BACKED_ITERABLE, [CoderSpec::leaf(urn::BYTES)]);
    let spec = CoderSpec::of(urn::KV, [CoderSpec::leaf(urn::VARINT), values]);
    runner::set_port_coder(descriptor, &source_id(source), &spec, GLOBAL);
}

#[test]
fn a_grouping_reads_its_values_in_little_memory_as_often_as_it_wants() {
    let _alone = ALONE.lock().unwrap();
    let p = Pipeline::new();
    p.apply(Create::of([(1i64, Bytes::new())])).group_by_key().step("Read").map(
        |(_, values): (i64, Iterable<Bytes>)| {
            let lengths = values.iter().map(|value| {
                assert!(value.iter().all(|byte| *byte == value[0]));
                value.len() as i64
            });
            (lengths.sum::<i64>(), values.count() as i64)
        },
    );
    let graph = p.build().unwrap();
    let (source, out) = (input_of(&graph, "Read"), edge_of(&graph, "Read"));
    let (worker, _, mut descriptor) = connected(&graph, &["Read"], &[out]);
    state_backed(&mut descriptor, source);
    let api = HotKey::new(descriptor);
    let (output, peak) = run_hot(&worker, &api, source, out);
    let wanted = (api.len() as i64, api.count() as i64);
    assert_eq!(decoded(<(i64, i64)>::coder(), GLOBAL, output), global(&[wanted]));
    assert!(peak < ENOUGH, "{peak} bytes");
    let pages = (api.block.len() * api.blocks).div_ceil(PAGE);
    assert_eq!(api.pages.load(Ordering::Relaxed), 2 * pages, "each iteration reads from the first page");
}

/// The greatest value.
struct Greatest;

impl CombineFn for Greatest {
    type Input = Bytes;
    type Accumulator = Bytes;
    type Output = Bytes;

    fn create_accumulator(&self) -> Bytes {
        Bytes::new()
    }

    fn add_input(&self, greatest: &mut Bytes, input: Bytes) {
        self.merge(greatest, input);
    }

    fn merge(&self, greatest: &mut Bytes, other: Bytes) {
        if other > *greatest {
            *greatest = other;
        }
    }

    fn extract_output(&self, greatest: Bytes) -> Bytes {
        greatest
    }
}

/// A runner that makes a bundle's input piece by piece and throws its output away.
struct Stream {
    descriptor: ProcessBundleDescriptor,
    source: String,
    pieces: AtomicUsize,
    sent: AtomicUsize,
    largest: AtomicUsize,
}

/// Elements of 64 KiB, 16 to a piece.
const ELEMENT: usize = 64 << 10;

impl FnApi for Stream {
    fn descriptor(&self, _: &str) -> Result<ProcessBundleDescriptor> {
        Ok(self.descriptor.clone())
    }

    fn receive(&self, instruction: &str, _: &str) -> Result<Elements> {
        let n = self.pieces.fetch_add(1, Ordering::Relaxed);
        let bytes = encoded(Bytes::coder(), GLOBAL, &global(&vec![Bytes::from(vec![n as u8; ELEMENT]); 16]));
        let mut elements = data(instruction, &self.source, bytes);
        if n < TOTAL / ELEMENT / 16 {
            elements.data.truncate(1);
        }
        Ok(elements)
    }

    fn send(&self, _: &str, elements: Elements) -> Result<()> {
        let bytes = elements.data.iter().map(|data| data.data.len()).sum();
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.largest.fetch_max(bytes, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn large_elements_go_through_in_little_memory() {
    let _alone = ALONE.lock().unwrap();
    let p = Pipeline::new();
    p.apply(Create::of([Bytes::new()]))
        .step("Twice")
        .map(|bytes: Bytes| Bytes::from([bytes.clone(), bytes].concat()));
    let graph = p.build().unwrap();
    let (source, out) = (input_of(&graph, "Twice"), edge_of(&graph, "Twice"));
    for embed_output in [true, false] {
        let worker = Worker::new(graph.clone(), WorkerOptions { embed_output, ..WorkerOptions::default() });
        let (_, _, descriptor) = connected(&graph, &["Twice"], &[out]);
        let api = Arc::new(Stream {
            descriptor,
            source: source_id(source),
            pieces: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
        });
        let request = ProcessBundleRequest {
            process_bundle_descriptor_id: "stage".to_owned(),
            ..ProcessBundleRequest::default()
        };
        let as_api: Arc<dyn FnApi> = api.clone();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let done = worker.process_bundle("b1", request, &as_api).unwrap();
        let peak = MEMORY.peak_usage().saturating_sub(before);
        assert_eq!(done.elements, None, "too much for an answer");
        assert!(api.sent.load(Ordering::Relaxed) > 2 * TOTAL);
        assert!(api.largest.load(Ordering::Relaxed) < 4 << 20);
        assert!(peak < 2 * ENOUGH, "{peak} bytes");
    }
}

#[test]
fn combines_of_a_hot_key_read_it_in_little_memory() {
    let _alone = ALONE.lock().unwrap();
    for urn in [urns::transform::COMBINE_GROUPED_VALUES, urns::transform::COMBINE_MERGE_ACCUMULATORS] {
        let p = Pipeline::new();
        p.apply(Create::of([(1i64, Bytes::new())])).step("Greatest").combine_per_key(Greatest);
        let graph = p.build().unwrap();
        let (worker, mut descriptor) = combine_stage(&graph, "Greatest", urn);
        state_backed(&mut descriptor, EdgeId(100));
        let api = HotKey::new(descriptor);
        let (output, peak) = run_hot(&worker, &api, EdgeId(100), EdgeId(101));
        let greatest = values().into_iter().max().unwrap();
        assert_eq!(decoded(<(i64, Bytes)>::coder(), GLOBAL, output), global(&[(7i64, greatest)]), "{urn}");
        assert!(peak < ENOUGH, "{urn}: {peak} bytes");
    }
}
