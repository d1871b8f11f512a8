//! `tiebeam-peer WORKLOAD SIZE --cores C --out DIR`: the workloads of the peer benchmarks, each written as a user would write it.
//!
//! Reads `$PEER_DATA`. What each workload is, and its sizes, are those of the other engines' scripts, so that all do the same work:
//!
//! - W1: lines of ten numbers through a linear model, a line each;
//! - W2: texts to tokens to embeddings of a sentence transformer;
//! - W3: photos decoded, resized and classified;
//! - W4a: numbers mapped, filtered and counted per key, without any file to read;
//! - W4b: word count;
//! - `batching`: not a peer's: what batches that are chosen automatically cost beside the best ones by hand (SIZE texts).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tiebeam::prelude::*;

mod batching;
mod images;
mod numbers;
mod texts;
mod words;

/// What is asked for.
struct Workload {
    name: String,
    size: String,
    data: PathBuf,
    out: String,
}

impl Workload {
    /// A file of the data.
    fn file(&self, name: &str) -> String {
        self.data.join(name).display().to_string()
    }

    /// How many elements there are: `250`, `62k`, `2.5m`.
    fn elements(&self) -> Option<usize> {
        let (number, unit) = match self.size.strip_suffix('k') {
            Some(number) => (number, 1e3),
            None => self.size.strip_suffix('m').map_or((&*self.size, 1.0), |number| (number, 1e6)),
        };
        // The names of some sizes are rounded.
        match self.size.as_str() {
            "62k" => Some(62_500),
            "156k" => Some(156_250),
            _ => number.parse::<f64>().ok().map(|number| (number * unit) as usize),
        }
    }

    fn build(&self, p: &Pipeline) -> Result<()> {
        let elements = || {
            let help = "such as 250, 62k or 2.5m";
            self.elements().ok_or_else(|| invalid(format!("`{}` is no size", self.size)).with_help(help))
        };
        match self.name.as_str() {
            "W1" => numbers::build(
                p,
                &self.file(&format!("nums_{}.csv", self.size)),
                &self.file("linear5.onnx"),
                &self.out,
            ),
            "W2" => texts::build(p, self, elements()?)?,
            "W3" => images::build(p, self, elements()?)?,
            "W4a" => words::count_numbers(p, elements()?, &self.out),
            "W4b" => words::count_words(p, &self.file(&format!("words_{}.txt", self.size)), &self.out),
            other => {
                return Err(invalid(format!(
                    "there is no workload `{other}`, only W1, W2, W3, W4a, W4b and batching"
                )));
            }
        }
        Ok(())
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0950", message)
}

fn run(arguments: &[String]) -> Result<()> {
    let usage = || invalid("usage: tiebeam-peer WORKLOAD SIZE --cores C --out DIR".to_owned());
    let [name, size, flags @ ..] = arguments else { return Err(usage()) };
    let (mut cores, mut out) = (1, None);
    for pair in flags.chunks(2) {
        match pair {
            [flag, value] if flag == "--cores" => cores = value.parse().map_err(|_| usage())?,
            [flag, value] if flag == "--out" => {
                out = Some(Path::new(value).join("out").display().to_string())
            }
            _ => return Err(usage()),
        }
    }
    let data = std::env::var_os("PEER_DATA").map_or_else(|| "data".into(), PathBuf::from);
    let workload = Workload { name: name.clone(), size: size.clone(), data, out: out.ok_or_else(usage)? };
    if workload.name == "batching" {
        let texts = workload.elements().ok_or_else(usage)?;
        return batching::run(&workload, texts);
    }
    let p = Pipeline::new();
    workload.build(&p)?;
    let graph = p.build().map_err(|errors| invalid(errors.to_string()))?;
    EmbeddedRunner::new(RunnerOptions { threads: cores, ..RunnerOptions::default() }).run(&graph)?;
    Ok(())
}

fn main() -> ExitCode {
    // As users' programs do.
    tiebeam::launch::bound_arenas();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tiebeam::launch::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
