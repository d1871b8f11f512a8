//! Large groups: more data than memory is grouped by key, one key alone has more than that, and every value is looked at.
//!
//! ```text
//! $ cargo run -p tiebeam --example large_groups -- --output out/large_groups --memory-limit 64KiB
//! $ cat out/large_groups-*
//! exact: 101 groups, 2000 values, 2000000 bytes, the largest group has 400
//! ```
//!
//! Here that spills and is exact nevertheless. More of it: `--set bytes=4000000000 --memory-limit 512MiB`; other values: `--set
//! value=100`. What the process took at most is told on stderr, where the system knows it.

use std::process::ExitCode;
use std::sync::Arc;

use tiebeam::io::text;
use tiebeam::prelude::*;

/// How many bundles make values.
const PARTS: u64 = 64;

/// One value in five has the same key.
const HOT: u64 = 5;

/// A key that is not the hot one has about so many values.
const USUAL: u64 = 20;

/// Makes values of many keys, groups them and looks at each; fails if one is missing, twice there or in the wrong group.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/large_groups" } else { &options.output };
    let number = |name: &str, or: u64| options.get(name).and_then(|n| n.parse().ok()).unwrap_or(or);
    let size = number("value", 1_000).max(8) as usize;
    let count = number("bytes", 2_000_000) / size as u64;
    let keys = (count / USUAL).max(1);
    let made = p.step("Parts").apply(Create::of(0..PARTS as i64)).reshuffle().step("Values").flat_map(
        move |part: i64| {
            (part as u64..count).step_by(PARTS as usize).map(move |n| (key(n, keys), value(n, size)))
        },
    );
    let groups = made.step("Group").group_by_key();
    let look = Fallible::new(move |(key, values): (i64, Iterable<Bytes>)| look(key, &values, keys, size));
    let looked = groups.step("Look").apply(ParDo::new(look));
    let whole = looked.map(|group| (0i64, group)).step("All").group_by_key();
    let check = Fallible::new(move |(_, groups): (i64, Iterable<Group>)| check(&groups, count, keys, size));
    whole.step("Check").apply(ParDo::new(check)).apply(text::write(output));
}

/// Ends the job where a function fails.
struct Fallible<I, O>(Arc<dyn Fn(I) -> Result<O> + Send + Sync>);

impl<I, O> Fallible<I, O> {
    fn new(f: impl Fn(I) -> Result<O> + Send + Sync + 'static) -> Self {
        Fallible(Arc::new(f))
    }
}

impl<I, O> Clone for Fallible<I, O> {
    fn clone(&self) -> Self {
        Fallible(self.0.clone())
    }
}

impl<I: Element, O: Element> DoFn for Fallible<I, O> {
    type In = I;
    type Out = O;
    fn process(&mut self, element: I, _: &ElementContext<'_>, out: &mut Output<O>) -> Result<()> {
        out.emit((self.0)(element)?);
        Ok(())
    }
}

/// A number that has nothing to do with its neighbours'.
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

/// The key of a value: -1 is the hot one.
fn key(n: u64, keys: u64) -> i64 {
    if n.is_multiple_of(HOT) { -1 } else { (mixed(n) % keys) as i64 }
}

/// The value of a number, which can be told from it.
fn value(n: u64, size: usize) -> Bytes {
    let mut bytes = vec![mixed(n) as u8; size];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes.into()
}

/// A group's key, the number of its values, the sum of their numbers, and the sum of the squares.
type Group = (i64, (i64, (i64, i64)));

/// Looks at the values of a group.
fn look(key_seen: i64, values: &Iterable<Bytes>, keys: u64, size: usize) -> Result<Group> {
    let (mut count, mut sum, mut squares) = (0, 0i64, 0i64);
    for seen in values.iter() {
        let n = seen.get(..8).and_then(|n| n.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes);
        if key(n, keys) != key_seen || seen != value(n, size) {
            return Err(Error::user(format!("key {key_seen} has a value that is not its own: {n}")));
        }
        count += 1;
        sum = sum.wrapping_add(n as i64);
        squares = squares.wrapping_add((n as i64).wrapping_mul(n as i64));
    }
    Ok((key_seen, (count, (sum, squares))))
}

/// Whether the groups are those of all numbers, each in one place.
fn check(groups: &Iterable<Group>, count: u64, keys: u64, size: usize) -> Result<String> {
    let mut wanted = vec![(0i64, 0i64, 0i64); keys as usize + 1];
    for n in 0..count {
        let group = &mut wanted[(key(n, keys) + 1) as usize];
        let n = n as i64;
        *group = (group.0 + 1, group.1.wrapping_add(n), group.2.wrapping_add(n.wrapping_mul(n)));
    }
    let (mut seen, mut largest) = (0, 0);
    for (key, (n, (sum, squares))) in groups.iter() {
        let wanted = usize::try_from(key + 1).ok().and_then(|place| wanted.get_mut(place));
        // Taken, so that a key that comes twice is not taken for right.
        if wanted.map(std::mem::take) != Some((n, sum, squares)) {
            return Err(Error::user(format!("the group of key {key} is wrong or comes twice: {n} values")));
        }
        seen += 1;
        largest = largest.max(n);
    }
    if let Some(place) = wanted.iter().position(|group| group.0 > 0) {
        return Err(Error::user(format!("key {} has no group", place as i64 - 1)));
    }
    let bytes = count * size as u64;
    Ok(format!("exact: {seen} groups, {count} values, {bytes} bytes, the largest group has {largest}"))
}

#[allow(clippy::print_stderr)] // What the process took is for whoever runs it.
fn main() -> ExitCode {
    let code = tiebeam::main(build);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        eprintln!("peak memory: {}", peak.trim());
    }
    code
}
