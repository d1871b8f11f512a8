//! `tiebeam errors`: dead letters by their causes, and those that were refused once more.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tiebeam::launch::{Exit, Job, RunFlags, RunnerKind, print_error};
use tiebeam::{Error, ErrorKind, Result};
use tiebeam_yaml::clock::timed;
use tiebeam_yaml::replay::{Letters, Replay, replay};

use crate::run::{Settings, exit_of, read};
use crate::{output, worker};

/// The command line of `tiebeam errors`.
#[derive(Debug, Args)]
pub struct ErrorsArgs {
    /// The dead letters, JSON lines: a file, a pattern, or the path as the pipeline file's sink has it.
    file: String,
    /// Reruns them: through the step of this pipeline file that refused them, and what follows it. Their results are
    /// written beside the earlier ones.
    #[arg(long, value_name = "PIPELINE")]
    replay: Option<PathBuf>,
    /// The step that refused them, where the pipeline file's sinks do not tell.
    #[arg(long, value_name = "NAME", requires = "replay")]
    step: Option<String>,
    /// As one JSON object.
    #[arg(long, conflicts_with = "replay")]
    json: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    flags: RunFlags,
}

/// Groups dead letters, or reruns them.
pub fn errors(args: &ErrorsArgs) -> Exit {
    let (pattern, groups) =
        match files(&args.file).and_then(|(pattern, files)| Ok((pattern, grouped(&files)?))) {
            Ok(found) => found,
            Err(error) => {
                print_error(&error);
                return Exit::BadUsage;
            }
        };
    match &args.replay {
        Some(_) if args.flags.runner != RunnerKind::Embedded => {
            print_error(&refused(
                "dead letters are rerun in this process: `--replay` goes without `--runner`".to_owned(),
            ));
            Exit::BadUsage
        }
        None => {
            let text = if args.json { format!("{:#}\n", groups.json()) } else { groups.text() };
            output::stdout(text.as_bytes());
            Exit::Ok
        }
        Some(pipeline) => rerun(args, pipeline, &pattern, &groups),
    }
}

/// One cause, and the letters that it made.
struct Cause {
    /// What the letters of a cause have in common: the code or exception, the step, the message without its numbers.
    key: (String, Option<String>, String),
    count: usize,
    /// The first of them.
    first: Letter,
}

/// What a dead letter says, in whichever of the forms it is written.
struct Letter {
    /// `TB0340`, or the exception's name.
    code: String,
    step: Option<String>,
    message: String,
    element: Value,
    /// Where the element stood in the source that the job read.
    place: Option<String>,
    /// The file and line of the letter itself.
    at: String,
}

struct Groups {
    letters: usize,
    causes: Vec<Cause>,
    files: usize,
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0595", message)
}

/// The files that are meant, and the pattern that finds them.
fn files(name: &str) -> Result<(String, Vec<String>)> {
    let paths = |pattern: &str| -> Result<Vec<String>> {
        Ok(tiebeam::io::fs::list(pattern, true)?.into_iter().map(|file| file.path).collect())
    };
    for pattern in [name.to_owned(), format!("{name}-?????-of-?????*")] {
        let found = paths(&pattern)?;
        if !found.is_empty() {
            return Ok((pattern, found));
        }
    }
    Err(refused(format!("there are no dead letters at {name}"))
        .with_help("name what the sink of the error output writes, such as `out/bad-*`"))
}

fn grouped(files: &[String]) -> Result<Groups> {
    let mut groups = Groups { letters: 0, causes: Vec::new(), files: files.len() };
    for file in files {
        let unreadable = |error: std::io::Error| refused(format!("{file} cannot be read: {error}"));
        let lines = BufReader::new(std::fs::File::open(file).map_err(unreadable)?).lines();
        for (number, line) in lines.enumerate() {
            let line = line.map_err(unreadable)?;
            if line.trim().is_empty() {
                continue;
            }
            let at = format!("{file}:{}", number + 1);
            let value: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            let letter = Letter::of(&value, at).ok_or_else(|| {
                let message = format!(
                    "{file}:{} is no dead letter: no JSON object with `element` and `msg`",
                    number + 1
                );
                refused(message)
                    .with_help("dead letters are what an error output writes: `{element, msg, stack}`")
            })?;
            groups.add(letter);
        }
    }
    groups.causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    Ok(groups)
}

impl Letter {
    fn of(value: &Value, at: String) -> Option<Letter> {
        let element = value.get("element")?.clone();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if let Some(error) = value.get("error") {
            // The whole record.
            let place = value.get("source").and_then(|source| {
                let file = source.get("file")?.as_str()?;
                Some(match source.get("line").and_then(Value::as_u64) {
                    Some(line) => format!("{file}:{line}"),
                    None => file.to_owned(),
                })
            });
            return Some(Letter {
                code: error.get("code").and_then(text).unwrap_or_default(),
                step: value.get("stage").and_then(text),
                message: error.get("message").and_then(text)?,
                element,
                place,
                at,
            });
        }
        let message = value.get("msg").and_then(text)?;
        let stack = value.get("stack").and_then(text).unwrap_or_default();
        let mut lines = stack.lines();
        let first = lines.next().unwrap_or_default();
        let place = lines.find_map(|line| line.trim().strip_prefix("at ")).map(str::to_owned);
        let (code, step) = match first.strip_prefix("error[").and_then(|rest| rest.split_once("]: ")) {
            // `error[TB0340]: step: message`
            Some((code, rest)) => {
                let step = rest.strip_suffix(&message).and_then(|step| step.strip_suffix(": "));
                (code.to_owned(), step.map(str::to_owned))
            }
            // `ZeroDivisionError: message`, as Python has it.
            None => {
                let name = first.split_once(": ").map_or("", |(name, _)| name);
                let is_name =
                    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "._".contains(c));
                (if is_name { name.to_owned() } else { String::new() }, None)
            }
        };
        Some(Letter { code, step, message, element, place, at })
    }
}

/// A message without what differs from letter to letter: numbers and quoted texts.
fn pattern_of(message: &str) -> String {
    let mut pattern = String::with_capacity(message.len());
    let mut chars = message.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '0'..='9' => {
                while chars.next_if(|c| c.is_ascii_digit() || *c == '.').is_some() {}
                pattern.push('#');
            }
            '`' | '\'' | '"' if pattern.chars().last().is_none_or(|before| !before.is_alphanumeric()) => {
                let rest: String = chars.clone().collect();
                match rest.find(c) {
                    Some(end) => {
                        let skipped = rest[..=end].chars().count();
                        for _ in 0..skipped {
                            chars.next();
                        }
                        pattern.push('…');
                    }
                    None => pattern.push(c),
                }
            }
            c => pattern.push(c),
        }
    }
    pattern
}

impl Groups {
    fn add(&mut self, letter: Letter) {
        self.letters += 1;
        let key = (letter.code.clone(), letter.step.clone(), pattern_of(&letter.message));
        match self.causes.iter_mut().find(|cause| cause.key == key) {
            Some(cause) => cause.count += 1,
            None => self.causes.push(Cause { key, count: 1, first: letter }),
        }
    }

    fn headline(&self) -> String {
        let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        format!(
            "{} in {}, {}",
            plural(self.letters, "dead letter", "dead letters"),
            plural(self.files, "file", "files"),
            plural(self.causes.len(), "cause", "causes")
        )
    }

    fn text(&self) -> String {
        let mut text = self.headline() + "\n";
        for Cause { count, first, .. } in &self.causes {
            let what = match first.code.as_str() {
                "" => first.message.clone(),
                code if code.starts_with("TB") => format!("error[{code}]: {}", first.message),
                name => format!("{name}: {}", first.message),
            };
            let _ = writeln!(text, "\n{count} × {what}");
            if let Some(step) = &first.step {
                let _ = writeln!(text, "  step     {step}");
            }
            let _ = writeln!(text, "  element  {}", shortened(&first.element));
            if let Some(place) = &first.place {
                let _ = writeln!(text, "  from     {place}");
            }
            let _ = writeln!(text, "  letter   {}", first.at);
            if let Some(code) = crate::codes::codes().find(|code| code.code == first.code) {
                let _ = writeln!(text, "  help     {}", code.cure);
            }
        }
        text
    }

    fn json(&self) -> Value {
        let cause = |cause: &Cause| {
            json!({
                "count": cause.count, "code": cause.first.code, "step": cause.first.step, "message": cause.first.message,
                "element": cause.first.element, "from": cause.first.place, "letter": cause.first.at,
            })
        };
        let causes: Vec<Value> = self.causes.iter().map(cause).collect();
        json!({ "letters": self.letters, "files": self.files, "causes": causes })
    }
}

/// An element on one line.
fn shortened(element: &Value) -> String {
    const LONGEST: usize = 200;
    let text = element.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Runs the pipeline's part over the letters.
fn rerun(args: &ErrorsArgs, pipeline: &Path, pattern: &str, groups: &Groups) -> Exit {
    let text = match read(pipeline) {
        Ok(text) => text,
        Err(error) => {
            print_error(&error);
            return Exit::PipelineInvalid;
        }
    };
    let name = pipeline.display().to_string();
    let variables = timed(&text, args.settings.variables());
    let of_suffix = |suffix: &str| {
        let letters = Letters { path: pattern, step: args.step.as_deref(), suffix };
        replay(&name, &text, &variables, &output::environment(), letters)
    };
    // A place of its own for what each rerun writes.
    let mut n = 1;
    let replayed = loop {
        match of_suffix(&format!("-replay{n}")) {
            Ok(replayed) if n < 1000 && is_taken(&replayed) => n += 1,
            other => break other,
        }
    };
    let Replay { loaded, step, partial } = match replayed {
        Ok(replayed) => replayed,
        Err(report) => {
            output::report(&report);
            return exit_of(&report);
        }
    };
    output::stderr(&format!("{} go through `{step}` again\n", groups.headline()));
    for step in &partial {
        output::stderr(&format!(
            "note: `{step}` brings together the rerun elements alone, not those of the earlier run\n"
        ));
    }
    let stem = pipeline.file_stem().map_or(name.clone(), |stem| stem.to_string_lossy().into_owned());
    let job = Job {
        name: format!("{stem}-replay{n}"),
        graph: loaded.graph,
        inputs: loaded.inputs,
        outputs: loaded.outputs,
        options: worker::options(&name, &text, &variables),
        decisive: worker::decisive(&text, &variables),
    };
    tiebeam::launch::run(&job, &args.flags)
}

/// Whether an earlier rerun has written there.
fn is_taken(replay: &Replay) -> bool {
    let any = |output: &String| tiebeam::io::fs::list(output, true).is_ok_and(|files| !files.is_empty());
    replay.loaded.outputs.iter().any(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_alike_but_for_their_numbers_and_texts() {
        for (message, pattern) in [
            ("input x wants the shape [n, 3], got [2]", "input x wants the shape [n, #], got [#]"),
            ("could not convert string to float: 'many'", "could not convert string to float: …"),
            ("no column `a`, here: `b`", "no column …, here: …"),
            ("it's 12.5 % of 3", "it's # % of #"),
            ("an open ` quote", "an open ` quote"),
        ] {
            assert_eq!(pattern_of(message), pattern);
        }
    }

    #[test]
    fn letters_of_both_forms_are_read() {
        let of = |value: Value| {
            let letter = Letter::of(&value, "f:1".to_owned())?;
            Some((letter.code, letter.step, letter.message, letter.place))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            of(
                json!({"element": 1, "msg": "no", "stack": "error[TB0340]: A/B: no\n  at d.csv:3\n  caused by: x"})
            ),
            Some(("TB0340".to_owned(), some("A/B"), "no".to_owned(), some("d.csv:3")))
        );
        assert_eq!(
            of(
                json!({"element": {}, "msg": "by zero", "stack": "ZeroDivisionError: by zero\n  in `1 // n`"})
            ),
            Some(("ZeroDivisionError".to_owned(), None, "by zero".to_owned(), None))
        );
        assert_eq!(
            of(
                json!({"element": null, "stage": "S", "error": {"code": "TB0001", "message": "m"}, "source": {"file": "f", "line": 7}})
            ),
            Some(("TB0001".to_owned(), some("S"), "m".to_owned(), some("f:7")))
        );
        assert_eq!(of(json!({"msg": "no element"})), None);
        assert_eq!(of(json!([1])), None);
    }
}
