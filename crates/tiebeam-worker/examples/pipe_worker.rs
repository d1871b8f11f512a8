//! A worker on standard input and output, for Beam's own reference runner: `examples/beam_runner.py` has the other end.
//!
//! `pipe_worker proto` writes the pipeline below as Beam's message; `pipe_worker` answers instructions. The pipeline checks
//! itself: a step fails when what it reads is not what it wants.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::metrics::Counter;
use tiebeam_core::{
    Bytes, CombineFn, DoFn, Element, ElementContext, Error, ErrorKind, FixedWindows, Iterable, Output,
    Result, Sessions, SetupContext, SideMap, SideMultimap, SlidingWindows, Timestamp, View,
    WindowingStrategy,
};
use tiebeam_graph::{Create, Graph, PCollection, ParDo, Pipeline, impulse};
use tiebeam_model::fn_api::{InstructionRequest, ProcessBundleDescriptor, StateRequest, StateResponse};
use tiebeam_model::{Message, pipeline};
use tiebeam_worker::{FnApi, Worker, WorkerOptions, to_proto};

const INSTRUCTION: u8 = 1;
const DESCRIPTOR: u8 = 2;
const STATE: u8 = 3;

fn send(kind: u8, message: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    let length = u32::try_from(message.len()).map_err(Error::user)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(message)?;
    Ok(out.flush()?)
}

/// The next message; none at the end of the input.
fn receive() -> Result<Option<Vec<u8>>> {
    let mut input = io::stdin().lock();
    let mut head = [0; 5];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut message = Vec::new();
    input.by_ref().take(u64::from(length)).read_to_end(&mut message)?;
    Ok(Some(message))
}

/// Asks the runner and waits: one bundle runs at a time.
struct Pipe;

impl Pipe {
    fn ask<M: Message + Default>(kind: u8, question: &[u8]) -> Result<M> {
        send(kind, question)?;
        let answer = receive()?.ok_or_else(|| Error::new(ErrorKind::Io, "TB0547", "the runner has gone"))?;
        M::decode(answer.as_slice()).map_err(Error::user)
    }
}

impl FnApi for Pipe {
    fn descriptor(&self, id: &str) -> Result<ProcessBundleDescriptor> {
        Pipe::ask(DESCRIPTOR, id.as_bytes())
    }

    fn state(&self, request: StateRequest) -> Result<StateResponse> {
        Pipe::ask(STATE, &request.encode_to_vec())
    }
}

fn main() -> Result<()> {
    let graph = checks()?;
    if std::env::args().nth(1).as_deref() == Some("proto") {
        // The reference runner keeps its in-process worker under this name; the script puts itself there.
        let urn = "beam:env:embedded_python:v1".to_owned();
        let environment = pipeline::Environment { urn, ..Default::default() };
        return Ok(io::stdout().write_all(&to_proto(&graph, environment)?.encode_to_vec())?);
    }
    let worker = Worker::new(graph, WorkerOptions { embed_output: true, ..WorkerOptions::default() });
    let api: Arc<dyn FnApi> = Arc::new(Pipe);
    while let Some(request) = receive()? {
        let request = InstructionRequest::decode(request.as_slice()).map_err(Error::user)?;
        send(INSTRUCTION, &worker.handle(request, &api).encode_to_vec())?;
    }
    Ok(())
}

/// A sum, by way of an accumulator that is not a number alone.
struct Sum;

impl CombineFn for Sum {
    type Input = i64;
    type Accumulator = (i64, Option<i64>);
    type Output = i64;

    fn create_accumulator(&self) -> Self::Accumulator {
        (0, None)
    }

    fn add_input(&self, (count, sum): &mut Self::Accumulator, input: i64) {
        *count += 1;
        *sum = Some(sum.unwrap_or(0) + input);
    }

    fn merge(&self, (count, sum): &mut Self::Accumulator, other: Self::Accumulator) {
        *count += other.0;
        *sum = Some(sum.unwrap_or(0) + other.1.unwrap_or(0));
    }

    fn extract_output(&self, (_, sum): Self::Accumulator) -> i64 {
        sum.unwrap_or(0)
    }
}

#[derive(Clone)]
struct Join {
    words: Counter,
    list: View<Vec<i64>>,
    map: View<SideMap<String, Option<i64>>>,
    multimap: View<SideMultimap<String, i64>>,
}

impl DoFn for Join {
    type In = String;
    type Out = String;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.words = cx.counter("pipe", "words");
        Ok(())
    }

    fn process(&mut self, word: String, cx: &ElementContext<'_>, out: &mut Output<String>) -> Result<()> {
        self.words.inc();
        let list: i64 = cx.side_input(&self.list)?.iter().sum();
        let map = cx.side_input(&self.map)?.get(&word).copied();
        let multimap: i64 = cx.side_input(&self.multimap)?.get(&word)?.iter().sum();
        out.emit(format!("{word} {list} {multimap} {map:?}"));
        Ok(())
    }
}

#[derive(Clone)]
struct SizeInWindow(View<Vec<i64>>);

impl DoFn for SizeInWindow {
    type In = i64;
    type Out = i64;

    fn process(&mut self, _: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        out.emit(cx.side_input(&self.0)?.len() as i64);
        Ok(())
    }
}

/// Fails when a collection is not what was wanted.
#[derive(Clone)]
struct Expect {
    wanted: Vec<String>,
    found: View<Vec<String>>,
}

impl DoFn for Expect {
    type In = Bytes;
    type Out = bool;

    fn process(&mut self, _: Bytes, cx: &ElementContext<'_>, out: &mut Output<bool>) -> Result<()> {
        let mut found = cx.side_input(&self.found)?.as_ref().clone();
        found.sort();
        if found == self.wanted {
            out.emit(true);
            return Ok(());
        }
        Err(Error::user(format!("wanted {:?}, found {found:?}", self.wanted)))
    }
}

fn expect<T: Element + Debug>(
    label: &'static str,
    collection: &PCollection<T>,
    wanted: impl IntoIterator<Item = T>,
) {
    let mut wanted: Vec<String> = wanted.into_iter().map(|one| format!("{one:?}")).collect();
    wanted.sort();
    let found = collection.window_into(WindowingStrategy::global()).map(|one| format!("{one:?}")).as_list();
    let check = ParDo::new(Expect { wanted, found: found.view() }).with_side_input(&found);
    impulse(collection.pipeline()).step(format!("Expect{label}")).apply(check);
}

fn sums(of: &PCollection<i64>) -> PCollection<i64> {
    of.map(|n| (n % 3, n)).combine_per_key(Sum).map(|(_, sum)| sum)
}

fn checks() -> Result<Arc<Graph>> {
    let seconds = Duration::from_secs;
    let p = Pipeline::new();
    let numbers = p.step("Numbers").apply(Create::of(0..500i64));
    expect("Reshuffle", &numbers, 0..500);
    expect("Combine", &sums(&numbers), (0..3).map(|k| (0..500).filter(|n| n % 3 == k).sum()));
    let grouped = numbers.map(|n| ((), n)).group_by_key();
    expect("Group", &grouped.map(|((), all): ((), Iterable<i64>)| all.count() as i64), [500]);

    let timed = numbers.with_timestamps(|n| Timestamp::from_secs(*n));
    let fixed = timed.window_into(WindowingStrategy::of(FixedWindows::of(seconds(250))));
    let in_windows = |k: i64| [0..250i64, 250..500].map(|w| w.filter(|n| n % 3 == k).sum::<i64>());
    expect("Fixed", &sums(&fixed), (0..3).flat_map(in_windows));
    let sliding = WindowingStrategy::of(SlidingWindows::of(seconds(500), seconds(250)));
    let halves = [0..250i64, 0..500, 250..500].map(|window| window.sum::<i64>());
    let one_key = timed.window_into(sliding).reshuffle().map(|n| (true, n));
    expect("Sliding", &one_key.combine_per_key(Sum).map(|(_, sum)| sum), halves);
    let sessions =
        timed.filter(|n| n % 100 < 3).window_into(WindowingStrategy::of(Sessions::with_gap(seconds(9))));
    let sizes = sessions.map(|n| (true, n)).group_by_key();
    expect("Sessions", &sizes.map(|(_, all): (bool, Iterable<i64>)| all.count() as i64), [3; 5]);

    let text = str::to_owned;
    let pairs = [("a", 1i64), ("a", 2), ("b", 5)].map(|(word, n)| (text(word), n));
    let options = [("a", Some(1i64)), ("b", None)].map(|(word, n)| (text(word), n));
    let list = numbers.as_list();
    let map = p.step("Options").apply(Create::of(options)).as_map();
    let multimap = p.step("Pairs").apply(Create::of(pairs)).as_multimap();
    let words = p.step("Words").apply(Create::of(["a", "b", "c"].map(text)));
    let (words_read, views) = (Counter::default(), (list.view(), map.view(), multimap.view()));
    let join = ParDo::new(Join { words: words_read, list: views.0, map: views.1, multimap: views.2 })
        .with_side_input(&list)
        .with_side_input(&map)
        .with_side_input(&multimap);
    let joined = words.step("Join").apply(join);
    let wanted = ["a 124750 3 Some(Some(1))", "b 124750 5 Some(None)", "c 124750 0 None"];
    expect("SideInputs", &joined, wanted.map(text));
    let side = fixed.as_list();
    let in_window = ParDo::new(SizeInWindow(side.view())).with_side_input(&side);
    expect("SideInputInWindows", &timed.filter(|n| n % 100 == 0).apply(in_window), [0; 5]);
    let in_window = ParDo::new(SizeInWindow(side.view())).with_side_input(&side);
    expect("SideInputInSameWindows", &fixed.filter(|n| n % 100 == 0).apply(in_window), [250; 5]);

    let all = p.flatten([words.clone(), joined.map(|line| line[..1].to_owned()), words.clone()]);
    let counts = all.map(|word| (word, 1i64)).combine_per_key(Sum);
    expect("Flatten", &counts, ["a", "b", "c"].map(|word| (text(word), 3)));
    let parsed = words.try_map(|word| if word == "b" { Err("not b") } else { Ok(word) });
    expect("Results", &parsed.results, ["a", "c"].map(text));
    expect("DeadLetters", &parsed.failed.map(|failed| failed.element), [text("b")]);
    Ok(p.build()?)
}
