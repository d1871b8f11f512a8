//! Hot key: one key with many values, read one after another.
//!
//! ```text
//! $ cargo run -p tiebeam --example hot_key -- --output out/hot_key
//! $ cat out/hot_key-*
//! hot: 20000 values, 20000000 bytes, check 199990000
//! ```
//!
//! More of them: `--set values=2000000`; larger ones: `--set bytes=10000`. With `--set as=side` they are not grouped but are a
//! side input by key. What an engine keeps behind its state a worker reads page by page, so that its memory does not grow:
//! side inputs on every engine, groups on those that have state-backed iterables.

use std::process::ExitCode;

use tiebeam::core::{SideMultimap, View};
use tiebeam::io::text;
use tiebeam::prelude::*;

/// How many bundles may make values at once.
const PARTS: u64 = 16;

/// Makes values, groups them under one key, and walks through the group once.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/hot_key" } else { &options.output };
    let number = |name: &str, or: u64| options.get(name).and_then(|n| n.parse().ok()).unwrap_or(or);
    let (values, bytes) = (number("values", 20_000), number("bytes", 1_000) as usize);
    let made = p.step("Parts").apply(Create::of(0..PARTS as i64)).reshuffle().step("Values").flat_map(
        move |part: i64| {
            let own = (part as u64..values).step_by(PARTS as usize);
            own.map(move |n| ("hot".to_owned(), value(n, bytes)))
        },
    );
    let read = if options.get("as") == Some("side") {
        let side = made.as_multimap();
        let view = side.view();
        let keys = p.step("Keys").apply(Create::of(["hot".to_owned()]));
        keys.step("Read").apply(ParDo::new(Lookup { view }).with_side_input(&side))
    } else {
        made.step("Group").group_by_key().step("Read").map(|(key, values)| walk(&key, &values))
    };
    read.step("Write").apply(text::write(output));
}

/// Walks once through the values of a key.
fn walk(key: &str, values: &Iterable<Bytes>) -> String {
    let (mut count, mut bytes, mut check) = (0u64, 0u64, 0u64);
    for value in values.iter() {
        count += 1;
        bytes += value.len() as u64;
        check += number_of(&value);
    }
    format!("{key}: {count} values, {bytes} bytes, check {check}")
}

/// Looks keys up in a side input.
#[derive(Clone)]
struct Lookup {
    view: View<SideMultimap<String, Bytes>>,
}

impl DoFn for Lookup {
    type In = String;
    type Out = String;

    fn process(&mut self, key: String, cx: &ElementContext<'_>, out: &mut Output<String>) -> Result<()> {
        let values = cx.side_input(&self.view)?.get(&key)?;
        out.emit(walk(&key, &values));
        Ok(())
    }
}

/// So many bytes that begin with a number.
fn value(n: u64, bytes: usize) -> Bytes {
    let mut value = n.to_be_bytes().to_vec();
    value.resize(bytes.max(8), b'.');
    value.into()
}

fn number_of(value: &Bytes) -> u64 {
    value.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
