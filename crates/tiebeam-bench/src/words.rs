//! W4: pipelines without a model: what the engine itself costs.

use tiebeam::io::text;
use tiebeam::prelude::*;

/// How many ranges the numbers are made in.
const RANGES: i64 = 64;

/// Numbers `n` to `3n + 1`, the even ones of them counted by their last three digits.
pub fn count_numbers(p: &Pipeline, elements: usize, out: &str) {
    let elements = elements as i64;
    p.step("Ranges")
        .apply(Create::of(0..RANGES))
        .step("Numbers")
        .flat_map(move |range: i64| elements * range / RANGES..elements * (range + 1) / RANGES)
        .step("Map")
        .map(|x| x * 3 + 1)
        .step("Even")
        .filter(|x| x % 2 == 0)
        .step("Key")
        .map(|x| x % 1000)
        .step("Count")
        .apply(count::per_element())
        .step("Show")
        .map(|(key, n)| format!("{key},{n}"))
        .step("Write")
        .apply(text::write(out));
}

/// How often each word stands in a file.
pub fn count_words(p: &Pipeline, input: &str, out: &str) {
    p.step("Read")
        .apply(text::read(input))
        .step("Words")
        .flat_map(|line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .step("Count")
        .apply(count::per_element())
        .step("Show")
        .map(|(word, n)| format!("{word},{n}"))
        .step("Write")
        .apply(text::write(out));
}
