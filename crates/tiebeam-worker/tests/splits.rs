//! Bundles under way: how far they are, and parts of them taken back. Whatever is split off at whatever moment, no element is
//! lost and none comes twice.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod runner;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use runner::{Answer, GLOBAL, connected, decoded, edge_of, encoded, global, input_of};
use tiebeam_core::{BATCH_SIZE, Element, Error, ErrorKind, Reader, Result};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Create, Graph, Pipeline};
use tiebeam_model::fn_api::instruction_request::Request;
use tiebeam_model::fn_api::instruction_response::Response;
use tiebeam_model::fn_api::process_bundle_split_request::DesiredSplit;
use tiebeam_model::fn_api::process_bundle_split_response::ChannelSplit;
use tiebeam_model::fn_api::{
    Elements, InstructionRequest, ProcessBundleDescriptor, ProcessBundleProgressRequest,
    ProcessBundleProgressResponse, ProcessBundleRequest, ProcessBundleSplitRequest,
    ProcessBundleSplitResponse, elements,
};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_model::urns;
use tiebeam_worker::{FnApi, Worker, monitoring, sink_id, source_id};

/// Called with each element while it is processed.
type Hook = Arc<Mutex<Option<Box<dyn FnMut(i64) + Send>>>>;

/// "Look" calls the hook and passes the number on.
fn looking(hook: &Hook) -> (Arc<Graph>, EdgeId) {
    let p = Pipeline::new();
    let hook = hook.clone();
    p.apply(Create::of([0i64])).step("Look").map(move |n| {
        if let Some(hook) = &mut *hook.lock().unwrap() {
            hook(n);
        }
        n
    });
    let graph = p.build().unwrap();
    let out = edge_of(&graph, "Look");
    (graph, out)
}

/// A runner that gives a bundle's input in pieces, and may do something before each.
struct Pieces {
    descriptor: ProcessBundleDescriptor,
    inbox: Mutex<VecDeque<Elements>>,
    before: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl FnApi for Pieces {
    fn descriptor(&self, _: &str) -> Result<ProcessBundleDescriptor> {
        Ok(self.descriptor.clone())
    }

    fn receive(&self, _: &str, _: &str) -> Result<Elements> {
        if let Some(before) = &mut *self.before.lock().unwrap() {
            before();
        }
        let next = self.inbox.lock().unwrap().pop_front();
        next.ok_or_else(|| Error::new(ErrorKind::Io, "TB0900", "the stream ended"))
    }
}

/// A worker with the "Look" stage, and its runner.
struct Setting {
    worker: Arc<Worker>,
    api: Arc<Pieces>,
    source: String,
    sink: String,
    hook: Hook,
}

impl Setting {
    fn new() -> Self {
        let hook = Hook::default();
        let (graph, out) = looking(&hook);
        let (worker, _, descriptor) = connected(&graph, &["Look"], &[out]);
        let api = Pieces { descriptor, inbox: Mutex::default(), before: Mutex::default() };
        let source = source_id(input_of(&graph, "Look"));
        Setting { worker: Arc::new(worker), api: Arc::new(api), source, sink: sink_id(out), hook }
    }

    fn fn_api(&self) -> Arc<dyn FnApi> {
        self.api.clone()
    }

    fn ask(&self) -> Asks {
        Asks { worker: self.worker.clone(), api: self.fn_api(), source: self.source.clone() }
    }

    /// Runs a bundle of those elements in those pieces; what it puts out and its metrics.
    fn run(&self, id: &str, pieces: &[Vec<i64>]) -> (Vec<i64>, Answer) {
        let data = |data: Bytes, is_last| elements::Data {
            instruction_id: id.to_owned(),
            transform_id: self.source.clone(),
            data,
            is_last,
        };
        let mut inbox = VecDeque::new();
        for piece in pieces {
            let bytes = encoded(i64::coder(), GLOBAL, &global(piece));
            inbox.push_back(Elements { data: vec![data(bytes, false)], timers: Vec::new() });
        }
        inbox.push_back(Elements { data: vec![data(Bytes::new(), true)], timers: Vec::new() });
        *self.api.inbox.lock().unwrap() = inbox;
        let request = ProcessBundleRequest {
            process_bundle_descriptor_id: "stage".to_owned(),
            ..ProcessBundleRequest::default()
        };
        let done = self.worker.process_bundle(id, request, &self.fn_api()).unwrap();
        assert!(
            self.api.inbox.lock().unwrap().is_empty(),
            "the whole stream is read, whatever was split off"
        );
        let answer = Answer::of(done);
        let output = decoded(i64::coder(), GLOBAL, answer.data(&self.sink));
        (output.into_iter().map(|(n, _)| n).collect(), answer)
    }
}

/// Asks a worker about its bundles.
#[derive(Clone)]
struct Asks {
    worker: Arc<Worker>,
    api: Arc<dyn FnApi>,
    source: String,
}

impl Asks {
    fn answer(&self, request: Request) -> Response {
        let request = InstructionRequest { instruction_id: "q".to_owned(), request: Some(request) };
        let response = self.worker.handle(request, &self.api);
        assert_eq!(response.error, "");
        response.response.unwrap()
    }

    fn split(&self, bundle: &str, fraction: f64, estimated: i64, allowed: &[i64]) -> Option<ChannelSplit> {
        let wanted = DesiredSplit {
            fraction_of_remainder: fraction,
            estimated_input_elements: estimated,
            allowed_split_points: allowed.to_vec(),
        };
        let request = ProcessBundleSplitRequest {
            instruction_id: bundle.to_owned(),
            desired_splits: BTreeMap::from([(self.source.clone(), wanted)]),
        };
        let Response::ProcessBundleSplit(answer) = self.answer(Request::ProcessBundleSplit(request)) else {
            panic!("another answer")
        };
        assert!(answer.primary_roots.is_empty() && answer.residual_roots.is_empty());
        assert!(answer.channel_splits.len() <= 1);
        let split = answer.channel_splits.into_iter().next()?;
        assert_eq!(split.transform_id, self.source);
        assert_eq!(split.last_primary_element + 1, split.first_residual_element);
        Some(split)
    }

    fn progress(&self, bundle: &str) -> ProcessBundleProgressResponse {
        let request = ProcessBundleProgressRequest { instruction_id: bundle.to_owned() };
        let Response::ProcessBundleProgress(answer) = self.answer(Request::ProcessBundleProgress(request))
        else {
            panic!("another answer")
        };
        answer
    }
}

fn value(infos: &[MonitoringInfo], urn: &str, of: &str) -> Option<i64> {
    let mut found = infos.iter().filter(|info| {
        info.urn == urn
            && info.labels.values().any(|label| label == of)
            && info.labels.get("NAMESPACE").is_none_or(|namespace| namespace != monitoring::STEPS)
    });
    let value = found.next().map(|info| Reader::new(info.payload.clone()).varint().unwrap());
    assert!(found.next().is_none());
    value
}

#[test]
fn a_split_bundle_does_its_part_and_the_rest_can_be_done_by_another() {
    let setting = Setting::new();
    let all: Vec<i64> = (0..1_000).collect();
    let asks = setting.ask();
    let split = Arc::new(Mutex::new(None));
    let answer = split.clone();
    *setting.hook.lock().unwrap() = Some(Box::new(move |n| {
        if n == 300 {
            *answer.lock().unwrap() = asks.split("b1", 0.5, 1_000, &[]);
        }
    }));
    let (done, answer) = setting.run("b1", &[all[..400].to_vec(), all[400..].to_vec()]);
    *setting.hook.lock().unwrap() = None;
    // Elements 256 to 399 are one batch, which is claimed as a whole: half of what is left behind it.
    let first_left = split.lock().unwrap().clone().unwrap().first_residual_element;
    assert_eq!(first_left, 400 + 300);
    assert_eq!(done, all[..700]);
    assert_eq!(answer.payload(urns::metric::DATA_CHANNEL_READ_INDEX, &setting.source), [0xbc, 0x05], "700");
    let (rest, _) = setting.run("b2", &[all[700..].to_vec()]);
    assert_eq!(rest, all[700..]);
}

#[test]
fn all_can_be_taken_back_before_the_first_element() {
    let setting = Setting::new();
    let asks = setting.ask();
    let mut asked = 0;
    *setting.api.before.lock().unwrap() = Some(Box::new(move || {
        asked += 1;
        if asked == 1 {
            let split = asks.split("b1", 0.0, 10, &[]).unwrap();
            assert_eq!((split.last_primary_element, split.first_residual_element), (-1, 0));
        }
    }));
    let (done, _) = setting.run("b1", &[vec![1, 2, 3], vec![4]]);
    assert_eq!(done, Vec::<i64>::new());
}

#[test]
fn bundles_that_are_not_under_way_have_no_progress_and_cannot_be_split() {
    let setting = Setting::new();
    let asks = setting.ask();
    let nothing = ProcessBundleProgressResponse {
        consuming_received_data: Some(false),
        ..ProcessBundleProgressResponse::default()
    };
    assert_eq!(asks.progress("b1"), nothing);
    assert_eq!(asks.split("b1", 0.5, 10, &[]), None);
    setting.run("b1", &[vec![1, 2]]);
    assert_eq!(asks.progress("b1"), nothing);
    assert_eq!(asks.split("b1", 0.5, 10, &[]), None);
    // One that has failed.
    *setting.hook.lock().unwrap() = Some(Box::new(|_| panic!("boom")));
    let request = ProcessBundleRequest {
        process_bundle_descriptor_id: "stage".to_owned(),
        elements: Some(runner::data("b2", &setting.source, encoded(i64::coder(), GLOBAL, &global(&[1i64])))),
        ..ProcessBundleRequest::default()
    };
    assert!(setting.worker.process_bundle("b2", request, &setting.fn_api()).is_err());
    assert_eq!(asks.progress("b2"), nothing);
    // A split of a source that the stage does not have.
    let request = ProcessBundleSplitRequest {
        instruction_id: "b1".to_owned(),
        desired_splits: BTreeMap::from([("elsewhere".to_owned(), DesiredSplit::default())]),
    };
    let answer = asks.answer(Request::ProcessBundleSplit(request));
    assert_eq!(answer, Response::ProcessBundleSplit(ProcessBundleSplitResponse::default()));
}

#[test]
fn progress_tells_what_was_counted_while_the_bundle_goes_on() {
    let p = Pipeline::new();
    let hook = Hook::default();
    let look = hook.clone();
    let counted = p.apply(Create::of([0i64])).step("Look").par_do(Counting { seen: None });
    counted.step("Tell").map(move |n| {
        if let Some(hook) = &mut *look.lock().unwrap() {
            hook(n);
        }
        n
    });
    let graph = p.build().unwrap();
    let (between, out) = (edge_of(&graph, "Look"), edge_of(&graph, "Tell"));
    let (worker, _, descriptor) = connected(&graph, &["Look", "Tell"], &[out]);
    let source = input_of(&graph, "Look");
    let step = descriptor.transforms.iter().find(|(_, t)| t.unique_name == "Look").unwrap().0.clone();
    let api = Pieces { descriptor, inbox: Mutex::default(), before: Mutex::default() };
    let setting = Setting {
        worker: Arc::new(worker),
        api: Arc::new(api),
        source: source_id(source),
        sink: sink_id(out),
        hook,
    };
    let asks = setting.ask();
    let told = Arc::new(Mutex::new(Vec::new()));
    let at = told.clone();
    *setting.hook.lock().unwrap() = Some(Box::new(move |n| {
        if [0, 255, 256, 299].contains(&n) {
            let progress = asks.progress("b1");
            assert_eq!(progress.consuming_received_data, Some(true));
            assert_eq!(progress.monitoring_data.len(), progress.monitoring_infos.len());
            let count = |edge: EdgeId| {
                value(&progress.monitoring_infos, urns::metric::ELEMENT_COUNT, &format!("p{}", edge.0))
                    .unwrap()
            };
            let read = value(&progress.monitoring_infos, urns::metric::DATA_CHANNEL_READ_INDEX, &asks.source);
            let seen = value(&progress.monitoring_infos, urns::metric::USER_SUM_INT64, &step);
            at.lock().unwrap().push((count(source), count(between), count(out), read, seen));
        }
    }));
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let (asks, at) = (setting.ask(), waiting.clone());
    *setting.api.before.lock().unwrap() = Some(Box::new(move || {
        let progress = asks.progress("b1");
        assert_eq!(progress.consuming_received_data, Some(false));
        at.lock().unwrap().push(value(
            &progress.monitoring_infos,
            urns::metric::DATA_CHANNEL_READ_INDEX,
            &asks.source,
        ));
    }));
    let (_, answer) = setting.run("b1", &[(0..300).collect()]);
    // Batches of 256 and 44: all of one is counted before the next step sees its first.
    let told = told.lock().unwrap().clone();
    let batch = BATCH_SIZE as i64;
    assert_eq!(told[0], (batch, batch, 0, Some(batch - 1), Some(batch)));
    assert_eq!(told[1], told[0]);
    assert_eq!(told[2], (300, 300, batch, Some(299), Some(300)));
    assert_eq!(told[3], told[2]);
    assert_eq!(*waiting.lock().unwrap(), [Some(0), Some(299)]);
    // Looking takes nothing away.
    assert_eq!(answer.payload(urns::metric::USER_SUM_INT64, &step_id(&setting)), [0xac, 2], "300");
    *setting.hook.lock().unwrap() = None;
    let (_, answer) = setting.run("b2", &[vec![1]]);
    assert_eq!(answer.payload(urns::metric::USER_SUM_INT64, &step_id(&setting)), [1]);
}

fn step_id(setting: &Setting) -> String {
    let transforms = &setting.api.descriptor.transforms;
    transforms.iter().find(|(_, t)| t.unique_name == "Look").unwrap().0.clone()
}

#[derive(Clone)]
struct Counting {
    seen: Option<tiebeam_core::metrics::Counter>,
}

impl tiebeam_core::DoFn for Counting {
    type In = i64;
    type Out = i64;

    fn setup(&mut self, cx: &tiebeam_core::SetupContext) -> Result<()> {
        self.seen = Some(cx.counter("test", "seen"));
        Ok(())
    }

    fn process(
        &mut self,
        n: i64,
        _: &tiebeam_core::ElementContext<'_>,
        out: &mut tiebeam_core::Output<i64>,
    ) -> Result<()> {
        self.seen.as_ref().unwrap().inc();
        out.emit(n);
        Ok(())
    }
}

#[test]
fn a_bundle_can_be_split_and_watched_from_other_threads() {
    let setting = Setting::new();
    let all: Vec<i64> = (0..20_000).collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (asks, stop) = (setting.ask(), stop.clone());
            std::thread::spawn(move || {
                let mut smallest = i64::MAX;
                let mut last_read = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Some(split) = asks.split("b1", 0.9, 20_000, &[]) {
                        assert!(split.first_residual_element < smallest, "each split is before the last");
                        smallest = split.first_residual_element;
                    }
                    let infos = asks.progress("b1").monitoring_infos;
                    if let Some(read) = value(&infos, urns::metric::DATA_CHANNEL_READ_INDEX, &asks.source) {
                        assert!(read >= last_read);
                        last_read = read;
                    }
                }
                smallest
            })
        })
        .collect();
    let pieces: Vec<Vec<i64>> = all.chunks(700).map(<[i64]>::to_vec).collect();
    let (done, _) = setting.run("b1", &pieces);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let smallest = threads.into_iter().map(|thread| thread.join().unwrap()).min().unwrap();
    let wanted = usize::try_from(smallest).unwrap_or(usize::MAX).min(all.len());
    assert_eq!(done, all[..wanted]);
}

/// A split that is asked for when the bundle processes that element (or waits for the piece before it).
#[derive(Debug, Clone)]
struct Wish {
    at: usize,
    while_waiting: bool,
    fraction: f64,
    estimated: i64,
    allowed: Vec<i64>,
}

fn wish() -> impl Strategy<Value = Wish> {
    let allowed = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(-5i64..1_500, 1..6)];
    (0usize..1_500, any::<bool>(), -0.2f64..1.2, -10i64..1_600, allowed).prop_map(
        |(at, while_waiting, fraction, estimated, allowed)| Wish {
            at,
            while_waiting,
            fraction,
            estimated,
            allowed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The runner does what runners do: what a bundle leaves goes into the next one, until nothing is left.
    #[test]
    fn no_element_is_lost_or_repeated(
        count in 0usize..1_400,
        piece in 1usize..600,
        wishes in prop::collection::vec(wish(), 0..12),
    ) {
        let setting = Setting::new();
        let all: Vec<i64> = (0..count as i64).collect();
        let mut done = Vec::new();
        let mut left = all.clone();
        let mut wishes = VecDeque::from(wishes);
        let mut bundle = 0;
        while !left.is_empty() {
            bundle += 1;
            let id = format!("b{bundle}");
            // A few wishes for each bundle while there are any.
            let for_this: Vec<Wish> = (0..3).filter_map(|_| wishes.pop_front()).collect();
            let first_left = Arc::new(Mutex::new(left.len() as i64));
            let base = left[0];
            let split = {
                let (asks, id, first_left) = (setting.ask(), id.clone(), first_left.clone());
                move |wish: &Wish| {
                    if let Some(split) = asks.split(&id, wish.fraction, wish.estimated, &wish.allowed) {
                        let mut first_left = first_left.lock().unwrap();
                        *first_left = (*first_left).min(split.first_residual_element);
                    }
                }
            };
            let (by_element, by_piece): (Vec<Wish>, Vec<Wish>) =
                for_this.into_iter().partition(|wish| !wish.while_waiting);
            let on_element = split.clone();
            *setting.hook.lock().unwrap() = Some(Box::new(move |n| {
                let at = usize::try_from(n - base).unwrap();
                by_element.iter().filter(|wish| wish.at == at).for_each(&on_element);
            }));
            let mut pieces = 0;
            *setting.api.before.lock().unwrap() = Some(Box::new(move || {
                by_piece.iter().filter(|wish| wish.at / 200 == pieces).for_each(&split);
                pieces += 1;
            }));
            let pieces: Vec<Vec<i64>> = left.chunks(piece).map(<[i64]>::to_vec).collect();
            let (output, answer) = setting.run(&id, &pieces);
            let first_left = usize::try_from(*first_left.lock().unwrap()).unwrap();
            prop_assert_eq!(&output, &left[..first_left], "{} of {}", id, left.len());
            let read = answer.payload(urns::metric::DATA_CHANNEL_READ_INDEX, &setting.source);
            prop_assert_eq!(Reader::new(read).varint().unwrap(), first_left as i64);
            done.extend(output);
            left.drain(..first_left);
        }
        prop_assert_eq!(done, all);
    }
}

#[test]
fn a_split_does_not_outlive_its_bundle() {
    let setting = Setting::new();
    let asks = setting.ask();
    *setting.hook.lock().unwrap() = Some(Box::new(move |n| {
        if n == 0 {
            asks.split("b1", 0.0, 3, &[]).unwrap();
        }
    }));
    assert_eq!(setting.run("b1", &[vec![0], vec![1, 2]]).0, [0]);
    assert_eq!(setting.run("b2", &[vec![3], vec![4, 5]]).0, [3, 4, 5]);
}
