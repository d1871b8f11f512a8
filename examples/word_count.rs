//! Word count: how often each word stands in text files.
//!
//! ```text
//! $ cargo run -p tiebeam --example word_count -- --output out/word_count
//! $ sort out/word_count-* | head -n 3
//! again: 1
//! and: 1
//! down: 3
//! ```
//!
//! Other files: `--input 'books/*.txt'`.

use std::process::ExitCode;

use tiebeam::io::text;
use tiebeam::prelude::*;

/// Lines to words, words to counts, counts to lines.
pub fn build(p: &Pipeline, options: &Options) {
    let input = if options.input.is_empty() { "examples/data/words.txt" } else { &options.input };
    let output = if options.output.is_empty() { "out/word_count" } else { &options.output };
    p.step("Read")
        .apply(text::read(input))
        .step("Words")
        .flat_map(|line: String| words(&line))
        .step("Count")
        .apply(count::per_element())
        .step("Show")
        .map(|(word, times)| format!("{word}: {times}"))
        .step("Write")
        .apply(text::write(output));
}

/// The words of a line, without regard to case.
fn words(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
