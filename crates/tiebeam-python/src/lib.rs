//! Python functions of pipeline files that are more than the typed part of Python, run by Monty: an interpreter written in
//! Rust that sees neither files nor network.
//!
//! A program is compiled once and run for each row, with what it reads given by name. It has a second for a row.

mod values;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use monty::MontyRun;
use monty_types::{
    CompileOptions, MontyException, MontyObject, PrintWriter, ResourceLimits, ResourceTracker,
};
use tiebeam_core::row::{Row, Value};

/// The modules that a program may import.
pub const MODULES: [&str; 11] = [
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "functools",
    "itertools",
    "json",
    "math",
    "re",
    "typing",
];

/// How long a program may take for one row.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest text, in bytes.
const LONGEST: usize = 64 << 10;

/// The stack for reading a text of that length, however deep it goes.
const STACK: usize = 256 << 20;

/// The largest single value that a program may make, in bytes.
const LARGEST: usize = 256 << 20;

/// The name by which a function's program knows the row.
const ROW: &str = "__row__";

/// An exception that a program raised, or that it is no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Its type, such as `ValueError`.
    pub kind: String,
    /// Its message.
    pub message: String,
    /// Line and column in the text, both from 1, where they are known.
    pub place: Option<(u32, u32)>,
}

/// A program that gives a value for a row.
#[derive(Debug, Clone)]
pub struct Program {
    runs: Arc<Runs>,
    reads: Reads,
}

/// A compiled program, one for each thread that runs it at once: Monty's are for one thread at a time.
#[derive(Debug)]
struct Runs {
    code: String,
    inputs: Vec<String>,
    idle: Mutex<Vec<MontyRun>>,
}

impl Runs {
    /// Compiles a program; `skipped` are the lines in front of its text.
    fn compile(code: String, inputs: Vec<String>, skipped: u32) -> Result<Arc<Self>, Exception> {
        if code.len() > LONGEST {
            let message = format!("a text of {} bytes, more than {LONGEST}", code.len());
            return Err(Exception { kind: "SyntaxError".to_owned(), message, place: None });
        }
        let run = compile(&code, &inputs).map_err(|raised| exception(&raised, skipped))?;
        Ok(Arc::new(Runs { code, inputs, idle: Mutex::new(vec![run]) }))
    }

    fn run(&self, values: Vec<MontyObject>, tracker: ResourceTracker) -> Result<MontyObject, MontyException> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let run = match taken {
            Some(run) => run,
            None => compile(&self.code, &self.inputs)?,
        };
        let given = run.run(values, tracker, PrintWriter::Disabled);
        idle().push(run);
        given
    }
}

/// Compiles on a stack of its own: what is read and freed part by part may be as deep as the text is long.
fn compile(code: &str, inputs: &[String]) -> Result<MontyRun, MontyException> {
    let (code, inputs) = (code.to_owned(), inputs.to_vec());
    let made = std::thread::Builder::new()
        .name("compile".to_owned())
        .stack_size(STACK)
        .spawn(move || MontyRun::new(code, "callable", inputs, CompileOptions::default()))
        .map(|thread| thread.join());
    match made {
        Ok(Ok(made)) => made,
        Ok(Err(_)) => Err(MontyException::runtime_error("the interpreter gave up on this text")),
        Err(error) => Err(MontyException::runtime_error(error)),
    }
}

#[derive(Debug, Clone)]
enum Reads {
    /// The row as such.
    Row,
    /// These columns, by place.
    Columns(Arc<[usize]>),
}

impl Program {
    /// An expression over columns, `(name, place)` each.
    ///
    /// # Errors
    /// When it is no expression of Python.
    pub fn expression(text: &str, columns: &[(String, usize)]) -> Result<Self, Exception> {
        let names = columns.iter().map(|(name, _)| name.clone()).collect();
        // Lines within an expression mean nothing.
        let runs = Runs::compile(format!("(\n{}\n)", text.trim()), names, 1)?;
        Ok(Program { runs, reads: Reads::Columns(columns.iter().map(|(_, place)| *place).collect()) })
    }

    /// A function of the row: `lambda row: …`, or text that defines functions, of which the one that is named is called, or
    /// the last one.
    ///
    /// # Errors
    /// When it is no Python, or defines no such function.
    pub fn function(text: &str, name: Option<&str>) -> Result<Self, Exception> {
        let text = dedented(text);
        let trimmed = text.trim();
        let code = if name.is_none() && trimmed.starts_with("lambda") {
            format!("(\n{trimmed}\n)({ROW})")
        } else {
            let defined = || functions(&text).last().copied();
            let found = match name {
                Some(name) => functions(&text).into_iter().find(|one| *one == name),
                None => defined(),
            };
            let Some(found) = found else {
                let message = match name {
                    Some(name) => format!("no function `{name}` is defined"),
                    None => "no function is defined: write `lambda row: …` or `def f(row): …`".to_owned(),
                };
                return Err(Exception { kind: "NameError".to_owned(), message, place: None });
            };
            format!("{text}\n{found}({ROW})")
        };
        let skipped = u32::from(code.starts_with("(\n"));
        Ok(Program { runs: Runs::compile(code, vec![ROW.to_owned()], skipped)?, reads: Reads::Row })
    }

    /// The value for a row.
    ///
    /// # Errors
    /// The exception that the program raised.
    pub fn call(&self, row: &Row) -> Result<Value, Exception> {
        let inputs = match &self.reads {
            Reads::Row => vec![values::row_to_python(row)],
            Reads::Columns(places) => places
                .iter()
                .map(|place| row.values.get(*place).map_or(MontyObject::None, values::to_python))
                .collect(),
        };
        let limits = ResourceLimits {
            max_duration: Some(PATIENCE),
            max_memory: Some(LARGEST),
            ..ResourceLimits::default()
        };
        let given = self.runs.run(inputs, ResourceTracker::new(limits));
        given.map_err(|raised| exception(&raised, 0)).and_then(values::from_python)
    }
}

fn exception(raised: &MontyException, skipped: u32) -> Exception {
    let place = raised.traceback().last().map(|frame| (frame.start.line, frame.start.column));
    Exception {
        kind: raised.exc_type().to_string(),
        message: raised.message().unwrap_or_default().to_owned(),
        place: place.map(|(line, column)| (line.saturating_sub(skipped).max(1), column)),
    }
}

/// The text without the blanks that all its lines begin with.
fn dedented(text: &str) -> String {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let least = lines().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        out.push_str(line.get(least..).unwrap_or(""));
        out.push('\n');
    }
    out
}

/// The names of the functions that a text defines at its outermost level.
pub fn functions(text: &str) -> Vec<&str> {
    let name = |line| -> Option<&str> {
        let rest = str::strip_prefix(line, "def ")?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        Some(&rest[..end])
    };
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use tiebeam_core::row::{FieldType, Schema, TypeKind};

    use super::*;

    fn row() -> Row {
        let string = FieldType::required(TypeKind::String);
        let int = FieldType::required(TypeKind::Int64);
        let schema = Schema::of([("col1", string), ("col2", int)]);
        Row::new(Arc::new(schema), vec![Value::String("12ab".into()), Value::Int64(3)])
    }

    #[test]
    fn functions_see_the_row() {
        let text = "    import re\n    def helper(x):\n        return x + 1\n    def f(row):\n        if re.match('[0-9]+', row.col1) and row.col2 > 0:\n            return [helper(row.col2), row.col1.upper()]\n        return []\n";
        let program = Program::function(text, None).unwrap();
        let wanted = Value::Array([Value::Int64(4), Value::String("12AB".into())].into());
        assert_eq!(program.call(&row()), Ok(wanted));
        let helper =
            Program::function("def a(row):\n  return row.col2\ndef b(row):\n  return 0\n", Some("a"))
                .unwrap();
        assert_eq!(helper.call(&row()), Ok(Value::Int64(3)));
        let lambda = Program::function("lambda row: {'n': row.col2 / 2}", None).unwrap();
        let wanted = Value::Map([(Value::String("n".into()), Value::Double(1.5))].into());
        assert_eq!(lambda.call(&row()), Ok(wanted));
    }

    #[test]
    fn expressions_see_columns() {
        let columns = [("col2".to_owned(), 1), ("col1".to_owned(), 0)];
        let program =
            Program::expression("sum(len(part)\n  for part in col1.partition('a')) + col2", &columns)
                .unwrap();
        assert_eq!(program.call(&row()), Ok(Value::Int64(7)));
    }

    #[test]
    fn hostile_texts_end() {
        let part = |text: &str| text.repeat((LONGEST - 100) / text.len());
        for deep in [
            "(", "[", "{", "-", "not ", "1 + ", "2 ** ", "lambda: ", "f'{", "x.", "1 if ", "x[", "*", "x(",
            "await ",
        ] {
            for text in [part(deep), format!("{}1", part(deep)), format!("1{}", part(" if x else 1"))] {
                if let Ok(program) = Program::expression(&text, &[]) {
                    let _ = program.call(&row());
                }
            }
        }
        let blocks: String = (0..340).map(|i| format!("{}if row:\n", " ".repeat(i))).collect();
        assert!(Program::function(&format!("def f(row):\n{blocks}"), None).is_err());
        assert!(Program::expression(&"1".repeat(LONGEST + 1), &[]).is_err());
        for large in
            ["9 ** 9 ** 9", "'x' * (1 << 40)", "[0] * (1 << 40)", "list(range(1 << 40))", "1 << (1 << 40)"]
        {
            assert!(
                Program::expression(large, &[]).and_then(|program| program.call(&row())).is_err(),
                "{large}"
            );
        }
    }

    #[test]
    fn what_goes_wrong_is_an_exception() {
        let raised =
            Program::function("def f(row):\n  return 1 / (row.col2 - 3)\n", None).unwrap().call(&row());
        assert_eq!(raised.unwrap_err().kind, "ZeroDivisionError");
        let raised = Program::function("def f(row):\n  while True: pass\n", None).unwrap().call(&row());
        assert_eq!(raised.unwrap_err().kind, "TimeoutError");
        let raised = Program::function("def f(row):\n  return f(row)\n", None).unwrap().call(&row());
        assert_eq!(raised.unwrap_err().kind, "RecursionError");
        let raised = Program::expression("2 ** 64", &[]).unwrap().call(&row()).unwrap_err();
        assert_eq!(raised.kind, "OverflowError");
        let raised = Program::function("def f(row):\n  return open('/etc/passwd').read()\n", None)
            .unwrap()
            .call(&row());
        assert!(raised.is_err());
        let bad = Program::function("def f(row):\n  return ((\n", None).unwrap_err();
        assert_eq!(bad.kind, "SyntaxError");
        assert_eq!(Program::function("x = 1", None).unwrap_err().kind, "NameError");
    }
}
