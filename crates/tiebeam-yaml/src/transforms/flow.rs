//! Transforms that change no row: Flatten, Reshuffle, WindowInto, LogForTesting, WriteToStdout, AssertEqual.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{Row, Value};
use tiebeam_core::{BundleContext, DoFn, ElementContext, Error, ErrorKind, Iterable, Output, Result};
use tiebeam_graph::{Arity, ParDo};
use tiebeam_io::json::JsonFormat;
use tiebeam_io::sink::RecordFormat;

use crate::build::{expand, flatten};
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::environment::{Environment, Level};
use crate::expression::python_str;
use crate::plan::{Made, Maker};

pub const TYPES: &[TransformType] = &[
    TransformType {
        name: "Flatten",
        about: "the rows of several inputs; fields that one lacks are null",
        inputs: Inputs::Any,
        keeps_rows: false,
        keys: &[],
        make: flatten_all,
    },
    TransformType {
        name: "Reshuffle",
        about: "the same rows, spread anew over all threads",
        inputs: Inputs::One,
        keeps_rows: true,
        keys: &[Key::optional("num_buckets", Wants::Int, "taken for Beam's sake; the runner decides")],
        make: reshuffle,
    },
    TransformType {
        name: "WindowInto",
        about: "gives rows windows",
        inputs: Inputs::One,
        keeps_rows: true,
        keys: &[Key::optional(
            "windowing",
            Wants::Map,
            "`{type: fixed, size: 60s}`, sliding, sessions or global",
        )],
        make: window_into,
    },
    TransformType {
        name: "LogForTesting",
        about: "logs each row and passes it on",
        inputs: Inputs::One,
        keeps_rows: true,
        keys: &[
            Key::optional("level", Wants::Text, "ERROR, INFO or DEBUG"),
            Key::optional("prefix", Wants::Text, "what each line begins with"),
        ],
        make: log_for_testing,
    },
    TransformType {
        name: "WriteToStdout",
        about: "writes each row on a line of standard output (ours)",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[Key::optional(
            "format",
            Wants::Text,
            "json, or text for rows of one field; text where there is one",
        )],
        make: write_to_stdout,
    },
    TransformType {
        name: "AssertEqual",
        about: "fails the job unless the rows are exactly these, in any order",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[Key::required("elements", Wants::List, "the rows that are wanted")],
        make: assert_equal,
    },
];

fn flatten_all(maker: &mut Maker<'_>) -> Option<Made> {
    let span = maker.step.title_span();
    let schema = crate::schema::unify(&maker.inputs, span, maker.problems)?;
    Some(Made::one(schema.clone(), move |pipeline, inputs| flatten(pipeline, inputs, &schema)))
}

fn reshuffle(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    Some(Made {
        outputs: vec![(crate::plan::MAIN.into(), input.schema)],
        build: Box::new(|_, inputs| inputs.iter().map(|input| input.reshuffle()).collect()),
    })
}

fn window_into(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let Some(windowing) = maker.get("windowing").cloned() else {
        // Beside the configuration, as any transform may have it, it is applied to what is read.
        if maker.step.windowing.is_some() {
            return Some(Made {
                outputs: vec![(crate::plan::MAIN.into(), input.schema)],
                build: Box::new(|_, inputs| inputs),
            });
        }
        let problem =
            Diagnostic::new("TB0207", maker.step.kind.span, "`WindowInto` lacks the key `windowing`");
        maker.problem(problem.help("windowing: `{type: fixed, size: 60s}`, sliding, sessions or global"));
        return None;
    };
    let windowing = crate::windowing::read(&windowing, maker.problems)?;
    Some(Made {
        outputs: vec![(crate::plan::MAIN.into(), input.schema)],
        build: Box::new(move |_, inputs| {
            inputs.iter().map(|input| input.window_into(windowing.clone())).collect()
        }),
    })
}

fn log_for_testing(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let level = match maker.text("level").as_deref() {
        None | Some("INFO") => Level::Info,
        Some("DEBUG") => Level::Debug,
        Some("ERROR") => Level::Error,
        Some(other) => {
            let problem =
                Diagnostic::new("TB0208", maker.span("level"), format!("unknown log level `{other}`"));
            maker.problem(problem.did_you_mean(other, ["ERROR", "INFO", "DEBUG"]));
            return None;
        }
    };
    let prefix = maker.text("prefix").unwrap_or_default();
    let dofn = LogRows { environment: maker.environment.clone(), level, prefix };
    let schema = input.schema;
    Some(Made {
        outputs: vec![(crate::plan::MAIN.into(), schema.clone())],
        build: Box::new(move |_, inputs| {
            let par_do = ParDo::new(dofn).with_coder(row_coder(schema)).with_arity(Arity::OneToOne);
            inputs.into_iter().next().map(|input| expand(par_do, input)).into_iter().collect()
        }),
    })
}

#[derive(Clone)]
struct LogRows {
    environment: Environment,
    level: Level,
    prefix: Arc<str>,
}

impl DoFn for LogRows {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        let mut line = self.prefix.as_bytes().to_vec();
        json_line(&row, &mut line)?;
        let line = String::from_utf8_lossy(&line);
        self.environment.log(self.level, line.trim_end());
        out.emit(row);
        Ok(())
    }
}

/// A row as a line of JSON.
pub fn json_line(row: &Row, out: &mut Vec<u8>) -> Result<()> {
    JsonFormat.write(&mut <JsonFormat as RecordFormat<Row>>::File::default(), row, out)
}

fn write_to_stdout(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let alone = input.schema.fields.len() == 1;
    let as_text = match maker.text("format").as_deref() {
        None => alone,
        Some("json") => false,
        Some("text") if alone => true,
        Some("text") => {
            let problem =
                Diagnostic::new("TB0205", maker.span("format"), "text wants rows of exactly one field");
            let columns = crate::expression::columns(&input.schema);
            maker.problem(
                problem.note(format!("columns here: {columns}")).help("choose one with MapToFields"),
            );
            return None;
        }
        Some(other) => {
            let problem =
                Diagnostic::new("TB0208", maker.span("format"), format!("unknown format `{other}`"));
            maker.problem(problem.did_you_mean(other, ["json", "text"]));
            return None;
        }
    };
    let dofn = PrintRows {
        environment: maker.environment.clone(),
        as_text,
        lines: Vec::new(),
        keys: Default::default(),
    };
    Some(Made::sink(move |_, inputs| {
        for input in inputs {
            let dofn = dofn.clone();
            expand(ParDo::new(dofn), input);
        }
    }))
}

/// Prints the rows of a bundle when it is done, so that a bundle that fails and is tried again prints once.
struct PrintRows {
    environment: Environment,
    as_text: bool,
    lines: Vec<u8>,
    keys: <JsonFormat as RecordFormat<Row>>::File,
}

impl Clone for PrintRows {
    fn clone(&self) -> Self {
        let (lines, keys) = (Vec::new(), Default::default());
        PrintRows { environment: self.environment.clone(), as_text: self.as_text, lines, keys }
    }
}

impl DoFn for PrintRows {
    type In = Row;
    type Out = ();

    fn start_bundle(&mut self, _: &BundleContext<'_>, _: &mut Output<()>) -> Result<()> {
        self.lines.clear();
        Ok(())
    }

    fn process(&mut self, row: Row, _: &ElementContext<'_>, _: &mut Output<()>) -> Result<()> {
        match row.values.first() {
            Some(value) if self.as_text => {
                self.lines.extend_from_slice(python_str(value).as_bytes());
                self.lines.push(b'\n');
                Ok(())
            }
            _ => JsonFormat.write(&mut self.keys, &row, &mut self.lines),
        }
    }

    fn finish_bundle(&mut self, _: &BundleContext<'_>, _: &mut Output<()>) -> Result<()> {
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() { Ok(()) } else { self.environment.print(&lines) }
    }
}

fn assert_equal(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let elements = maker.get("elements")?.as_list()?.to_vec();
    let wanted = match super::create::rows(&elements) {
        Ok((_, rows)) => sorted(rows.iter().map(fields)),
        Err(problem) => {
            maker.problem(problem);
            return None;
        }
    };
    let _ = input;
    let check = Compare { wanted: wanted.into() };
    Some(Made::sink(move |pipeline, inputs| {
        for input in inputs {
            // The wanted rows stand for themselves even where no row comes at all.
            let begin = tiebeam_graph::impulse(pipeline).map(|_| ((), None::<String>));
            let rows = input.step("Tell").map(|row| ((), Some(fields(&row))));
            let rows = rows.step("Global").window_into(tiebeam_core::WindowingStrategy::global());
            pipeline
                .flatten([begin, rows])
                .step("Gather")
                .group_by_key()
                .step("Compare")
                .par_do(check.clone());
        }
    }))
}

/// A row's fields that are not null, by name.
fn fields(row: &Row) -> String {
    let mut fields: Vec<String> = row
        .schema
        .fields
        .iter()
        .zip(row.values.iter())
        .filter(|(_, value)| **value != Value::Null)
        .map(|(field, value)| {
            // A whole number is equal to the same one with a point, as in Python.
            let text = crate::expression::python_repr(value);
            format!("{}: {}", field.name, text.strip_suffix(".0").unwrap_or(&text))
        })
        .collect();
    fields.sort_unstable();
    format!("{{{}}}", fields.join(", "))
}

fn sorted(rows: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().collect();
    rows.sort_unstable();
    rows
}

#[derive(Clone)]
struct Compare {
    wanted: Arc<[String]>,
}

impl DoFn for Compare {
    type In = ((), Iterable<Option<String>>);
    type Out = ();

    fn process(&mut self, all: Self::In, _: &ElementContext<'_>, _: &mut Output<()>) -> Result<()> {
        let seen = sorted(all.1.iter().flatten());
        if *seen == *self.wanted {
            return Ok(());
        }
        let missing = difference(&self.wanted, &seen);
        let extra = difference(&seen, &self.wanted);
        let mut message = "the rows are not those wanted".to_owned();
        if !missing.is_empty() {
            message += &format!("; missing: {}", missing.join(", "));
        }
        if !extra.is_empty() {
            message += &format!("; not wanted: {}", extra.join(", "));
        }
        Err(Error::new(ErrorKind::InvalidData, "TB0228", message))
    }
}

/// What of `a` is not in `b`, counting repetitions; both sorted.
fn difference(a: &[String], b: &[String]) -> Vec<String> {
    let mut rest = b.to_vec();
    let mut missing = Vec::new();
    for one in a {
        match rest.iter().position(|other| other == one) {
            Some(at) => {
                rest.swap_remove(at);
            }
            None => missing.push(one.clone()),
        }
    }
    missing
}
